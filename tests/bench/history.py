"""A team and a long history, for measurements and query plans: written past the service, it takes seconds."""

import json
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy import make_url

from tests.postgres import sql

SOURCES, OPERATORS, OPERATORS_PER_SOURCE, MAX_LOAD = 30, 100, 10, 60
COLUMNS = {
    "lead": "id, created_at, name",
    "lead_identifier": "kind, value, lead_id",
    "contact": "id, created_at, message, priority, event_id, lead_id, source_id, operator_id, status, assigned_at,"
    " closed_at",
    "assignment": "id, contact_id, created_at, operator_id, reason, candidates",
}


def add_team(call: Callable[[str, str, Any], Any]) -> None:
    """call: sends a request, given its method, path and body."""
    rng = random.Random(1)
    for number in range(1, OPERATORS + 1):
        call("POST", "/operators/", {"name": f"Operator {number}", "max_load": MAX_LOAD})
    for number in range(1, SOURCES + 1):
        call("POST", "/sources/", {"name": f"Source {number}", "bot_id": f"bot-{number}"})
        chosen = sorted(rng.sample(range(1, OPERATORS + 1), OPERATORS_PER_SOURCE))
        entries = [{"operator_id": operator_id, "weight": rng.randint(1, 100)} for operator_id in chosen]
        call("PUT", f"/sources/{number}/operators", entries)


def _rows(url: str, contacts: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Table and row: closed contacts of as many leads, a year long, by the weights of the sources."""
    rng = random.Random(2)
    entries = sql(url, "SELECT source_id, operator_id, weight FROM source_operator ORDER BY 1, 2")
    by_source = {source: [entry for entry in entries if entry[0] == source] for source in range(1, SOURCES + 1)}
    (first,) = sql(url, "SELECT coalesce(max(id), 0) + 1 FROM lead")[0]
    (first_contact,) = sql(url, "SELECT coalesce(max(id), 0) + 1 FROM contact")[0]
    (first_assignment,) = sql(url, "SELECT coalesce(max(id), 0) + 1 FROM assignment")[0]
    begin = datetime.now(UTC) - timedelta(days=365)
    for number in range(contacts):
        lead_id, source = first + number, rng.randint(1, SOURCES)
        at = (begin + timedelta(days=364) * number / contacts).strftime("%Y-%m-%d %H:%M:%S.%f")
        at += "+00" if url.startswith("postgresql") else ""
        [chosen] = rng.choices(by_source[source], weights=[entry[2] for entry in by_source[source]])
        seen = [
            {"operator_id": operator, "weight": weight, "outcome": "not_drawn"}
            | ({"outcome": "chosen", "load": 20, "max_load": MAX_LOAD} if operator == chosen[1] else {})
            for _, operator, weight in by_source[source]
        ]
        contact_id, message = first_contact + number, "Where is my order?"
        yield "lead", (lead_id, at, f"Lead {number}")
        yield "lead_identifier", ("external_id", f"tg:{rng.randint(0, 2**30)}-h-{number}", lead_id)
        yield "lead_identifier", ("phone", f"+7495{number:07}", lead_id)
        ids = (f"h-{number}", lead_id, source, chosen[1])
        yield "contact", (contact_id, at, message, 0, *ids, "closed", at, at)
        history = (first_assignment + number, contact_id, at, chosen[1], "distributed", json.dumps(seen))
        yield "assignment", history


def add_history(url: str, contacts: int) -> None:
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in COLUMNS}
    for table, row in _rows(url, contacts):
        rows[table].append(row)
    if url.startswith("postgresql"):
        _copy(url, rows)
    else:
        _insert(str(make_url(url).database), rows)
    os.sync()  # else the system writes all this to the disk during a measurement


def _insert(path: str, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size=-1000000")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN IMMEDIATE")
        for table, columns in COLUMNS.items():
            marks = ", ".join("?" for _ in columns.split(","))
            connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows[table])
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _copy(url: str, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for table, columns in COLUMNS.items():
            with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN".encode()) as copy:
                for row in rows[table]:
                    copy.write_row(row)
            if table != "lead_identifier":
                last = f"setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
                connection.execute(f"SELECT {last}".encode())
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
