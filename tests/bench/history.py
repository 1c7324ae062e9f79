"""A team and a long history, for measurements and query plans: written past the service, by the database itself."""

import json
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import click
import psycopg
from sqlalchemy import make_url

SOURCES, OPERATORS, OPERATORS_PER_SOURCE, MAX_LOAD = 30, 100, 10, 60
CHUNK = 100_000  # contacts of one transaction
DRAWS = 10_007  # a prime: they come again in the same order, but not for the same contact of a lead
FIRST = ("Anna", "Boris", "Clara", "Ivan", "John", "Olga", "Анна", "Борис", "Елена", "Иван", "Мария", "Пётр")
LAST = ("Smith", "Ivanova", "Petrov", "Müller", "Jones", "Orlova", "Иванов", "Петрова", "Смирнов", "Соколов")
YEAR, LATEST = 365 * 86_400, 2 * 3_600  # seconds: how long the history is, and how long ago it ended
TABLES = ("lead", "lead_identifier", "contact", "assignment")

# What differs between the engines: a moment from seconds since 1970, and the indexes that no constraint needs.
AT = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', {0}, 'unixepoch')",
    "postgresql": "to_timestamp(CAST({0} AS double precision))",
}
INDEXES = {
    "sqlite": "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN ({0})",
    "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename IN ({0})"
    " AND indexname NOT IN (SELECT conname FROM pg_constraint)",
}
# Contact number n has the draw n % DRAWS. Every second one is of a new lead, the others of any that is known by then.
# Of ten one has waited, of twenty one came to who had the lead before, and of five one has a topic.
CAME = """
    WITH RECURSIVE number (n) AS (
        SELECT CAST({first} AS bigint) UNION ALL SELECT n + 1 FROM number WHERE n < {last}
    ), timed AS (
        SELECT n, n / 2 AS nth, {begin} + n * {step} AS at,
            CASE n % 10 WHEN 0 THEN n % 600 + 1 ELSE 0 END AS waited FROM number
    ), came AS (
        SELECT n, nth, waited, {at} AS at, {assigned_at} AS assigned_at, {closed_at} AS closed_at,
            CASE n % 2 WHEN 0 THEN nth ELSE n * 2654435761 % 4294967296 % (nth + 1) END AS lead
        FROM timed
    )
"""
ROWS = {
    "lead (id, created_at, name)": """
        SELECT {lead} + nth, at, name || ' ' || nth FROM came JOIN draw ON draw.id = n % {draws} WHERE n % 2 = 0
    """,
    "lead_identifier (kind, value, lead_id)": """
        SELECT 'external_id', 'tg:' || (nth * 2654435761 % 1073741824) || '-h-' || nth, {lead} + nth FROM came
        WHERE n % 2 = 0
        UNION ALL
        SELECT 'phone', '+7495' || substr(CAST(10000000 + nth AS text), 2), {lead} + nth FROM came WHERE n % 2 = 0
    """,
    "contact (id, created_at, message, priority, event_id, lead_id, source_id, operator_id, status, topic, is_sticky,"
    " assigned_at, closed_at)": """
        SELECT {contact} + n, at, 'Where is my order?', 0, 'h-' || n, {lead} + lead, source_id, operator_id, 'closed',
            CASE n % 5 WHEN 1 THEN 'returns' ELSE '' END, n % 20 = 3, assigned_at, closed_at
        FROM came JOIN draw ON draw.id = n % {draws}
    """,
    "assignment (id, contact_id, created_at, operator_id, reason, candidates)": """
        SELECT {assignment} + 3 * n + (n + 9) / 10 + line.id - CASE n % 10 WHEN 0 THEN 0 ELSE 1 END, {contact} + n,
            CASE line.id WHEN 0 THEN at WHEN 1 THEN assigned_at ELSE closed_at END,
            CASE line.id WHEN 0 THEN NULL ELSE operator_id END,
            CASE line.id WHEN 0 THEN 'queued' WHEN 2 THEN 'started' WHEN 3 THEN 'closed' ELSE
                CASE WHEN n % 10 = 0 THEN 'from_queue' WHEN n % 20 = 3 THEN 'sticky' ELSE 'distributed' END END,
            CASE line.id WHEN 0 THEN waits WHEN 1 THEN seen ELSE '[]' END
        FROM came JOIN draw ON draw.id = n % {draws} CROSS JOIN line WHERE line.id > 0 OR n % 10 = 0
    """,
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


def add_history(url: str, contacts: int) -> None:
    """Closed contacts of half as many leads, a year long, by the weights of the sources, each with its own history."""
    engine = "postgresql" if url.startswith("postgresql") else "sqlite"
    with _connected(url) as run:
        first = {
            table: run(f"SELECT coalesce(max(id), 0) + 1 FROM {table}")[0][0]
            for table in ("lead", "contact", "assignment")
        }
        _add_draws(run, engine)
        times = {
            name: AT[engine].format(f"(at + {after})")
            for name, after in (("at", 0), ("assigned_at", "waited"), ("closed_at", "waited + 60 + n % 1800"))
        }
        begin = time.time() - LATEST - YEAR
        with _without_indexes(run, engine), click.progressbar(length=contacts, label="history") as bar:
            for done in range(0, contacts, CHUNK):
                last = min(done + CHUNK, contacts) - 1
                numbers = {"first": done, "last": last, "begin": begin, "step": YEAR / contacts, "draws": DRAWS}
                run("BEGIN")
                for columns, rows in ROWS.items():
                    run(f"INSERT INTO {columns} {CAME}{rows}".format(**first, **times, **numbers))
                run("COMMIT")
                bar.update(last - done + 1)
        if engine == "postgresql":
            for table in first:
                run(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))")
            run("VACUUM ANALYZE")
            run("CHECKPOINT")
    os.sync()  # else the system writes all this to the disk during a measurement


def _add_draws(run: Callable[[str], list[Any]], engine: str) -> None:
    """To temporary tables: who got a contact, what was seen of all as the service writes it, and a name."""
    rng, rows = random.Random(2), []
    by_source: dict[int, list[tuple[int, float]]] = {}
    for source, operator, weight in run("SELECT source_id, operator_id, weight FROM source_operator ORDER BY 1, 2"):
        by_source.setdefault(source, []).append((operator, weight))
    for number in range(DRAWS):
        source = rng.randint(1, SOURCES)
        [chosen] = rng.choices(by_source[source], weights=[weight for _, weight in by_source[source]])
        seen: list[dict[str, Any]] = [
            {"operator_id": operator, "weight": weight, "outcome": "not_drawn"}
            for operator, weight in by_source[source]
        ]
        full = {"outcome": "full", "load": MAX_LOAD, "max_load": MAX_LOAD}
        waits = json.dumps([entry | full for entry in seen])
        load = {"outcome": "chosen", "load": rng.randrange(MAX_LOAD), "max_load": MAX_LOAD}
        text = json.dumps([entry | load if entry["operator_id"] == chosen[0] else entry for entry in seen])
        name = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
        rows.append(f"({number}, {source}, {chosen[0]}, '{text}', '{waits}', '{name}')")
    kind = "text" if engine == "sqlite" else "json"
    run("CREATE TEMPORARY TABLE line (id integer PRIMARY KEY)")
    run("INSERT INTO line VALUES (0), (1), (2), (3)")
    columns = f"id integer PRIMARY KEY, source_id integer, operator_id integer, seen {kind}, waits {kind}, name text"
    run(f"CREATE TEMPORARY TABLE draw ({columns})")
    run(f"INSERT INTO draw VALUES {', '.join(rows)}")


@contextmanager
def _without_indexes(run: Callable[[str], list[Any]], engine: str) -> Iterator[None]:
    """Drops those of the tables, and makes them again afterwards: far faster than to add to each row by row."""
    indexes = run(INDEXES[engine].format(", ".join(f"'{table}'" for table in TABLES)))
    if engine == "sqlite":  # with an index it forgets what `0001` told it of that
        run("CREATE TEMPORARY TABLE figures AS SELECT * FROM sqlite_stat1")
    for name, _ in indexes:
        run(f"DROP INDEX {name}")
    yield
    with click.progressbar(indexes, label="indexes") as bar:
        for _, statement in bar:
            run(statement)
    if engine == "sqlite":
        run("DELETE FROM sqlite_stat1")
        run("INSERT INTO sqlite_stat1 SELECT * FROM figures")


@contextmanager
def _connected(url: str) -> Iterator[Callable[[str], list[Any]]]:
    """Gives what runs a statement past SQLAlchemy, to which % would mean something, and returns its rows."""
    if url.startswith("postgresql"):
        with psycopg.connect(url, autocommit=True) as connection:
            for setting in ("session_replication_role = replica", "maintenance_work_mem = '1GB'"):  # the first: no
                connection.execute(f"SET {setting}".encode())  # references are checked

            def run(statement: str) -> list[Any]:
                cursor = connection.execute(statement.encode())
                return cursor.fetchall() if cursor.description else []

            yield run
    else:
        with closing(sqlite3.connect(str(make_url(url).database), isolation_level=None)) as lite:
            for setting in (
                "cache_size = -1000000",
                "synchronous = OFF",
                "journal_mode = OFF",
                "ignore_check_constraints = ON",
            ):
                lite.execute(f"PRAGMA {setting}")
            yield lambda statement: lite.execute(statement).fetchall()
            lite.execute("PRAGMA journal_mode = WAL")
