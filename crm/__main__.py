"""What is done beside the running service: `python -m crm --help`."""

import random
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Connection, Table, func, insert, make_url, select, text
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlmodel import SQLModel

import crm.models  # noqa: F401  (fills the metadata)
from crm.db import open_database
from crm.db.base import check_schema
from crm.demo import Demo
from crm.errors import StartupError
from crm.settings import load_settings

BATCH = 1_000  # rows
TIMEOUT = 60  # seconds that a lock of a running service is waited for


@click.group()
def main() -> None:
    """Mini-CRM. The service itself is started with: uvicorn crm.main:app"""


def command(function: Callable[..., None]) -> Callable[..., None]:
    """One that says in one line why it can't go on."""

    @wraps(function)
    def run(**arguments: Any) -> None:
        try:
            function(**arguments)
        except (StartupError, DBAPIError) as error:
            raise click.ClickException(" ".join(str(getattr(error, "orig", error)).split())) from error

    return main.command()(run)


@command
def migrate() -> None:
    """Bring the tables of DATABASE_URL (without it, of crm.db in this folder) up to date."""
    database = open_database(load_settings().database_url, TIMEOUT)
    database.start(lambda _: None)
    click.echo(f"{database.name} is up to date")


@command
@click.argument("source")
@click.argument("target")
def copy(source: str, target: str) -> None:
    """Copy a SQLite database to an empty PostgreSQL one: copy sqlite:///crm.db postgresql://user@host/crm

    All or nothing. Stop the service first: what is written to SOURCE meanwhile is not copied.
    """
    old, new = open_database(source, TIMEOUT), open_database(target, TIMEOUT)
    file = make_url(source).database or ""
    if not source.startswith("sqlite") or not target.startswith("postgresql"):
        raise StartupError("copy goes from sqlite:///FILE to postgresql://...")
    if not Path(file).exists():
        raise StartupError(f"there is no file {file}")
    try:
        with old.snapshot() as rows:
            check_schema(rows)
            new.start(lambda connection: copy_rows(rows, connection))
    except DatabaseError as error:
        raise StartupError(f"{source} can't be read: {error.orig}") from error


@command
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Of the running service.")
@click.option("--key", envvar="CRM_ADMIN_KEY", help="An admin's, if it asks for keys; by default CRM_ADMIN_KEY.")
@click.option("--contacts", type=click.IntRange(1), help="Stop after so many; by default at Ctrl-C.")
@click.option(
    "--rate", type=click.FloatRange(0, 1000, min_open=True), default=2, show_default=True, help="Contacts a second."
)
@click.option("--add", is_flag=True, help="Also to a service that has data.")
def demo(url: str, key: str | None, contacts: int | None, rate: float, add: bool) -> None:
    """Fill a running service with a made-up team, and let bots write to it."""
    show = Demo(url, key, random.Random())
    show.fill(add)
    click.echo(f"open {url}/ and see; Ctrl-C stops")
    stream = show.stream(contacts, rate)
    with (
        suppress(KeyboardInterrupt),
        click.progressbar(stream, contacts, "contacts", show_pos=True, item_show_func=lambda said: said or "") as bar,
    ):
        for _ in bar:
            pass
    click.echo("stopped; what was sent stays")


def copy_rows(old: Connection, new: Connection) -> None:
    """Raises StartupError, with nothing to keep, if a table has rows already or does not get all."""
    tables = SQLModel.metadata.sorted_tables
    for table in tables:
        if count(new, table):
            raise StartupError(f"the target is not empty: it has rows in table {table.name}")
    with click.progressbar(length=sum(count(old, table) for table in tables), label="rows") as bar:
        for table in tables:
            for batch in old.execute(select(table).execution_options(yield_per=BATCH)).mappings().partitions():
                new.execute(insert(table), [dict(row) for row in batch])
                bar.update(len(batch))
            if count(new, table) != count(old, table):
                raise StartupError(f"table {table.name} did not get all rows")
            used = old.execute(
                text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": table.name}
            ).scalar()
            if used:  # the highest id so far, though its row may be gone: ids are never reused
                new.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), used)))
    for table in tables:
        click.echo(f"{table.name}: {count(new, table)}")


def count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


if __name__ == "__main__":
    main()
