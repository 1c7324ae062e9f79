"""From a SQLite file into an empty PostgreSQL database: all rows, and where the ids go on."""

import asyncio
from pathlib import Path

import click
from sqlalchemy import Connection, Table, func, insert, inspect, make_url, select, text
from sqlalchemy.exc import DatabaseError
from sqlmodel import SQLModel

import crm.day.shifts
import crm.db.counts
import crm.leads.tables
import crm.outbox.tables
import crm.web.tables  # noqa: F401  (with those of crm.models they fill the metadata)
from crm.db import open_database
from crm.db.base import check_schema
from crm.errors import StartupError

BATCH = 1_000  # rows
BUSY_TIMEOUT = 60  # seconds that a lock of a running service is waited for


@click.command()
@click.argument("source")
@click.argument("target")
def copy(source: str, target: str) -> None:
    """Copy a SQLite database to an empty PostgreSQL one: copy sqlite:///crm.db postgresql://user@host/crm

    All or nothing. Stop the service first: what is written to SOURCE meanwhile is not copied.
    """
    old, new = open_database(source, BUSY_TIMEOUT), open_database(target, BUSY_TIMEOUT)
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
    finally:
        asyncio.run(old.stop())


def copy_rows(old: Connection, new: Connection) -> None:
    """Raises StartupError, with nothing to keep, if a table has rows already or does not get all."""
    tables = SQLModel.metadata.sorted_tables
    missed = {*inspect(old).get_table_names()} - {table.name for table in tables} - {"alembic_version"}
    missed = {name for name in missed if not name.startswith("lead_search")}  # PostgreSQL has an index of its own
    if missed:
        raise StartupError(f"copy does not know these tables: {', '.join(sorted(missed))}")
    for table in tables:
        if count(new, table):
            raise StartupError(f"the target is not empty: it has rows in table {table.name}")
    with click.progressbar(length=sum(count(old, table) for table in tables), label="rows") as bar:
        for table in tables:
            # Last what refers to rows of its own table.
            inner = [key.parent.is_not(None) for key in table.foreign_keys if key.column.table is table]
            rows = select(table).order_by(*inner).execution_options(yield_per=BATCH)
            for batch in old.execute(rows).mappings().partitions():
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
