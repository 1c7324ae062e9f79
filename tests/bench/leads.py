"""How long it takes to merge, export and forget a lead of 10,000 contacts beside a history, and revision 0009 of that.

`python -m tests.bench.leads [--history 1000000] [--postgres]`; each takes the write lock for about as long as its call.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from alembic import command

from crm.db import open_database
from crm.db.base import migrations
from tests.bench.history import add_history, add_team
from tests.postgres import Server, sql
from tests.service import threaded

CONTACTS = 10_000
NOTE = "lead_phone ''+79990000000'' belongs to lead "  # of every twentieth contact


@contextmanager
def timed(label: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    print(f"{label:<60} {time.perf_counter() - begin:>8.2f} s", flush=True)


def migrate(url: str, step: Callable[..., Any], revision: str) -> None:
    database, config = open_database(url, 60), migrations()
    with database.alone() as config.attributes["connection"]:
        step(config, revision)
    asyncio.run(database.stop())


def measure(url: str, history: int) -> None:
    with threaded(url) as service:
        add_team(service.call)
    migrate(url, command.downgrade, "0008")
    add_history(url, history)
    sql(url, f"UPDATE contact SET lead_id = 1 WHERE id BETWEEN 2 AND {CONTACTS}")
    sql(url, f"UPDATE contact SET identity_note = '{NOTE}' || (id - 1) WHERE id / 20 * 20 = id AND id > {CONTACTS}")
    for step, revision in ((command.upgrade, "0009"), (command.downgrade, "0008"), (command.upgrade, "head")):
        with timed(f"{step.__name__} to {revision}, {history:,} contacts, of which {history // 20:,} have a note"):
            migrate(url, step, revision)
    with threaded(url) as service:
        into = history // 4
        for label, method, path in (
            ("the list of duplicates", "GET", "/leads/duplicates"),
            (f"merge of {CONTACTS:,} contacts", "POST", "/leads/1/merge"),
            ("unmerge", "POST", "/leads/1/unmerge"),
            ("merge once more", "POST", "/leads/1/merge"),
            ("the lead", "GET", f"/leads/{into}"),
            ("export", "GET", f"/leads/{into}/export"),
            ("forget", "POST", f"/leads/{into}/forget"),
        ):
            with timed(label):
                service.call(method, path, {"into": into} if path.endswith("/merge") else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=int, default=1_000_000, help="contacts of history (default 1,000,000)")
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL instead of SQLite")
    options = parser.parse_args()
    if options.postgres:
        server = Server(durable=True, shared_buffers="512MB", max_wal_size="4GB")
        try:
            measure(server.create_database(over_socket=True), options.history)
        finally:
            server.remove()
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(f"sqlite:///{folder}/crm.db", options.history)


if __name__ == "__main__":
    main()
