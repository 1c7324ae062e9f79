"""What SQL says in two ways: functions and inserts that each engine gets in its own words."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import CTE, BigInteger, Connection, Float, Integer, Select, bindparam, insert, inspect, select, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import SQLModel, col
from sqlmodel.sql.sqltypes import UTCDateTime

from crm.db.direct import run
from crm.fields import IS_PENDING
from crm.models import Contact


class seconds_between(FunctionElement[float]):
    """The time from the second moment back to the first, as an expression in seconds, exact to the microsecond."""

    type, inherit_cache = Float(), True


@compiles(seconds_between)
def _(element: Any, compiler: Any, **options: Any) -> str:
    later, earlier = (compiler.process(clause, **options) for clause in element.clauses)
    return f"CAST(extract(epoch FROM {later} - {earlier}) AS double precision)"


@compiles(seconds_between, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    # Its functions know milliseconds at best: the whole seconds, and then the digits after them, of the stored text.
    later, earlier = (compiler.process(clause, **options) for clause in element.clauses)
    whole, digits = "strftime('%s', substr({0}, 1, 19))", "substr({0}, 20)"
    return "(" + " + ".join(f"({part.format(later)} - {part.format(earlier)})" for part in (whole, digits)) + ")"


class now_seconds(FunctionElement[float]):
    """Seconds since 1970 by the database's own clock, the same for all who ask; also in the middle of a transaction."""

    type, inherit_cache = Float(), True


@compiles(now_seconds)
def _(*_: Any, **__: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


@compiles(now_seconds, "sqlite")
def _(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


class next_id(FunctionElement[int]):
    """The id of the next row of a table, taken for it beforehand: so that other rows can name it in the same step."""

    type, inherit_cache = BigInteger(), True


@compiles(next_id)
def _(element: Any, compiler: Any, **options: Any) -> str:
    table = compiler.process(element.clauses, **options)
    return f"(SELECT nextval('{table}_id_seq'))"  # in a SELECT of its own it is evaluated once, not for each row


@compiles(next_id, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    table = compiler.process(element.clauses, **options)
    return f"(SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = '{table}')"  # noqa: S608


SPANS = {
    "sqlite": "SELECT key AS nth, json_extract(value, '$[0]') AS since, json_extract(value, '$[1]') AS until"
    " FROM json_each(:spans)",
    "postgresql": "SELECT nth - 1 AS nth, CAST(value ->> 0 AS timestamptz) AS since, CAST(value ->> 1 AS timestamptz)"
    " AS until FROM jsonb_array_elements(CAST(:spans AS jsonb)) WITH ORDINALITY AS span (value, nth)",
}


def span_table(connection: Connection, spans: Sequence[tuple[datetime, datetime]]) -> CTE:
    """These spans of time as a table (nth, since, until) for joins and subqueries.

    To look up each in an index by time is far faster than to compute for each row where it belongs, and exact.
    """
    zone = "" if connection.dialect.name == "sqlite" else "+00"
    texts = [[moment.replace(tzinfo=None).isoformat(" ", "microseconds") + zone for moment in span] for span in spans]
    statement = text(SPANS[connection.dialect.name]).bindparams(spans=json.dumps(texts))
    return statement.columns(nth=Integer, since=UTCDateTime, until=UTCDateTime).cte("spans")


def add_rows(connection: Connection, *rows: tuple[type[SQLModel], dict[str, Any]]) -> None:
    """Inserts rows of several tables; on PostgreSQL in one statement, for what a statement costs is mostly its way."""
    if connection.dialect.name == "sqlite":
        for table, values in rows:
            run(connection, _insert(table), values)
    else:
        statement = _inserts(*((table, *values) for table, values in rows))
        parameters = {f"{name}_{n}": value for n, (_, values) in enumerate(rows) for name, value in values.items()}
        run(connection, statement, parameters)


@lru_cache
def _insert(table: Any) -> Any:
    return insert(table).inline()


@lru_cache
def _inserts(*shapes: tuple[Any, ...]) -> Any:
    """shapes: of each row the table and the names of its columns.

    The last is the main one, which PostgreSQL begins with, and has nothing unique: so that of the others, in whatever
    order it takes them, none comes before another here and after it there. Else two could wait for each other.
    """
    *others, last = (
        insert(table).inline().values({name: bindparam(f"{name}_{n}", type_=columns[name].type) for name in names})
        for n, (table, *names) in enumerate(shapes)
        for columns in [inspect(table).columns]
    )
    return last.add_cte(*(other.cte(f"insert_{n}") for n, other in enumerate(others)))


def topics_of_queue(sources: Select[Any]) -> CTE:
    """Of each source (source_id) of a select the topics of what waits there, as a table (source_id, topic), which ends
    with null for each source.

    From one topic to the next in the index of the queue, so that thousands which wait for one topic are not read.
    """

    def next_topic(source_id: Any, *above: Any) -> Any:
        here = select(col(Contact.topic)).where(col(Contact.source_id) == source_id, IS_PENDING, *above)
        return here.order_by(col(Contact.topic)).limit(1).scalar_subquery().label("topic")

    of = sources.subquery("of")
    found = select(of.c.source_id, next_topic(of.c.source_id)).cte("queues", recursive=True)
    above = next_topic(found.c.source_id, col(Contact.topic) > found.c.topic)
    return found.union_all(select(found.c.source_id, above).where(found.c.topic.is_not(None)))
