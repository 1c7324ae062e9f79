"""A statement that is given to the driver says, takes and raises what `Connection.execute` does."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings, strategies
from sqlalchemy import Connection, bindparam, create_engine, insert
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import col

from crm.db.base import to_text
from crm.db.direct import run
from crm.models import Assignment, Contact, Operator
from tests.conftest import Api

ALL = sqlalchemy.select(Contact.__table__)  # type: ignore[attr-defined]
ENTRIES = sqlalchemy.select(col(Assignment.id), col(Assignment.candidates)).order_by(col(Assignment.id))
OPERATORS = sqlalchemy.select(
    *(col(Operator.name), col(Operator.is_active), sqlalchemy.cast(Operator.max_load, sqlalchemy.Float).label("limit"))
).where(col(Operator.max_load) > bindparam("above"))
ADD = insert(Contact).inline()


@pytest.fixture
def connection(api: Api, database: str) -> Iterator[Connection]:
    api.operator("Anna")
    source = api.source("Shop", {1: 1})
    for number in range(3):
        api.contact(source, f"tg:{number}")
    engine = create_engine(database, isolation_level="AUTOCOMMIT", json_serializer=to_text)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        yield connection
        connection.exec_driver_sql("ROLLBACK")
    engine.dispose()


def test_its_rows_are_those_of_execute(connection: Connection) -> None:
    for statement, parameters in ((ALL, {}), (ENTRIES, {}), (OPERATORS, {"above": 0}), (OPERATORS, {"above": 10_000})):
        expected = [row._asdict() for row in connection.execute(statement, parameters)]
        assert [row._asdict() for row in run(connection, statement, parameters)] == expected


TIMES = strategies.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=strategies.just(UTC))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    text=strategies.text(strategies.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    at=TIMES,
    later=strategies.none() | TIMES,
    is_sticky=strategies.booleans(),
)
def test_what_it_writes_is_read_as_it_was_given(
    connection: Connection, text: str, at: datetime, later: datetime | None, is_sticky: bool
) -> None:
    row = {
        "id": 1_000_000,
        "message": text,
        "topic": text,
        "priority": 9,
        "event_id": None,
        "created_at": at,
        "lead_id": 1,
        "source_id": 1,
        "operator_id": 1,
        "status": "new",
        "identity_note": None,
        "assigned_at": at,
        "closed_at": None,
        "waits_since": later,
        "due_at": at + timedelta(days=1),
        "is_sticky": is_sticky,
    }
    connection.exec_driver_sql("SAVEPOINT before")
    assert run(connection, ADD, row) == []
    [written] = connection.execute(ALL.where(col(Contact.id) == 1_000_000)).all()
    connection.exec_driver_sql("ROLLBACK TO before")
    assert written._asdict() == row


def test_its_errors_are_those_of_execute(connection: Connection) -> None:
    [first] = connection.execute(ALL.limit(1)).all()
    connection.exec_driver_sql("SAVEPOINT before")
    with pytest.raises(IntegrityError):
        run(connection, ADD, first._asdict())
    connection.exec_driver_sql("ROLLBACK TO before")
    assert len(run(connection, ALL, {})) == 3  # the transaction goes on


def test_it_begins_a_transaction_that_can_be_committed(database: str) -> None:
    """Else what follows would be a rollback, after which psycopg prepares its statements again."""
    engine = create_engine(database)
    with engine.connect() as connection:
        run(connection, ALL, {})
        assert connection.in_transaction()
    engine.dispose()


def test_what_fails_before_it_is_sent_is_an_error_of_the_database_too(database: str) -> None:
    engine = create_engine(database)
    with engine.connect() as connection:
        connection.begin()
        connection.connection.driver_connection.close()  # type: ignore[union-attr]
        with pytest.raises(DBAPIError):
            run(connection, ALL, {})
    engine.dispose()


def test_a_value_that_was_forgotten_is_not_taken_for_null(connection: Connection) -> None:
    with pytest.raises(KeyError, match="above"):
        run(connection, OPERATORS, {})
