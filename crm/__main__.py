"""What is done beside the running service: `python -m crm --help`."""

import random
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import click
from sqlalchemy.exc import DBAPIError

import crm.models  # noqa: F401  (fills the metadata)
from crm.db import open_database
from crm.errors import StartupError
from crm.settings import load_settings
from crm.tools.copy import copy_database
from crm.tools.demo import Demo


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
    database = open_database(load_settings().database_url, busy_timeout=60)
    database.start(lambda _: None)
    click.echo(f"{database.name} is up to date")


@command
@click.argument("source")
@click.argument("target")
def copy(source: str, target: str) -> None:
    """Copy a SQLite database to an empty PostgreSQL one: copy sqlite:///crm.db postgresql://user@host/crm

    All or nothing. Stop the service first: what is written to SOURCE meanwhile is not copied.
    """
    copy_database(source, target)


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


if __name__ == "__main__":
    main()
