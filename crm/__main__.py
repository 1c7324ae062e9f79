"""What is done beside the running service: `python -m crm --help`."""

from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

import crm.models  # noqa: F401  (fills the metadata)
from crm.db import open_database
from crm.errors import StartupError, Unavailable
from crm.settings import load_settings
from crm.tools.copy import copy
from crm.tools.demo import demo
from crm.tools.import_leads import leads


class Commands(click.Group):
    """Each says in one line why it can't go on."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (StartupError, SQLAlchemyError, Unavailable, OSError) as error:
            raise click.ClickException(" ".join(str(getattr(error, "orig", error)).split())) from error


@click.group(cls=Commands)
def main() -> None:
    """Mini-CRM. The service itself is started with: uvicorn crm.main:app"""


@main.command()
def migrate() -> None:
    """Bring the tables of DATABASE_URL (without it, of crm.db in this folder) up to date."""
    database = open_database(load_settings().database_url, busy_timeout=60)
    database.start(lambda _: None)
    click.echo(f"{database.name} is up to date")


@main.group("import")
def bring_in() -> None:
    """Bring in what another system has."""


main.add_command(copy)
main.add_command(demo)
bring_in.add_command(leads)

if __name__ == "__main__":
    main()
