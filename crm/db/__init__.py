"""How rows are kept: one database, opened by its URL."""

import re

from sqlalchemy import exc, make_url

from crm.db.base import Database
from crm.db.sqlite import SQLite
from crm.errors import StartupError


def open_database(url: str, busy_timeout: float) -> Database:
    """Raises StartupError when the URL is none of a SQLite file or a PostgreSQL database, or its driver is missing."""
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        masked = re.sub(r"(?<=:)[^:@/]+(?=@)", "***", url)
        raise StartupError(f"{masked!r} is not a database URL such as sqlite:///crm.db") from None
    has_password = parsed.password is not None or "password" in parsed.query
    name = parsed.difference_update_query(["password"]).render_as_string() if has_password else url
    try:
        match parsed.drivername:
            case "sqlite":
                return SQLite(parsed, name, busy_timeout)
            case "postgresql" | "postgresql+psycopg":
                from crm.db.postgres import PostgreSQL  # its driver is an extra

                return PostgreSQL(parsed, name, busy_timeout)
    except ModuleNotFoundError:
        raise StartupError(f"database {name} needs a driver: pip install -e '.[postgres]'") from None
    except (exc.ArgumentError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise StartupError(f"database {name} can't be opened: {reason}") from error
    raise StartupError(f"database {name}: only sqlite:///FILE and postgresql://... are supported")
