"""Requests that share a commit: each is done as a whole or not at all, whatever the others do."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError, TimeoutError

from crm.db import open_database
from crm.db.base import is_alone
from crm.db.batches import Batches, Job
from crm.errors import Conflict, NotAlone
from tests.postgres import sql

ADD = text("INSERT INTO lead (name, created_at) VALUES (:name, '2026-01-01T00:00:00')")
ADD_WITHOUT_TIME = text("INSERT INTO lead (name) VALUES ('without a time')")


def add(name: str, then: Callable[[Connection], object] = lambda _: None) -> Callable[[Connection], str]:
    """The work of adding a lead, and what comes then; on PostgreSQL too in a batch, for it has to be alone."""

    def work(connection: Connection) -> str:
        if not is_alone(connection):
            raise NotAlone
        connection.execute(ADD, {"name": name})
        then(connection)
        return name

    return work


def refuse(_: Connection) -> None:
    raise Conflict("no")


def violate(connection: Connection) -> None:
    connection.execute(ADD_WITHOUT_TIME)


def run_at_once(database: str, *works: Callable[[Connection], Any]) -> list[Any]:
    async def run() -> list[Any]:
        opened = open_database(database, 5)
        opened.start(lambda _: None, migrate=False)
        try:
            return await asyncio.gather(*map(opened.execute, works), return_exceptions=True)
        finally:
            await opened.stop()

    return asyncio.run(run())


def test_each_gets_its_own_result_or_error_and_what_failed_leaves_nothing(database: str) -> None:
    thens = [(refuse, Conflict), (violate, IntegrityError), (lambda _: None, None)]
    works = [(str(n), *thens[n % 3]) for n in range(40)]
    results = run_at_once(database, *(add(name, then) for name, then, _ in works))
    for result, (name, _, error) in zip(results, works, strict=True):
        assert result == name if error is None else isinstance(result, error)
    added = [name for (name,) in sql(database, "SELECT name FROM lead")]
    assert sorted(added) == sorted(name for name, _, error in works if error is None)


def test_what_the_database_refuses_at_the_end_of_one_is_no_fault_of_the_next(database: str) -> None:
    """In a pipeline the answer to the last statement of one comes while the next is under way."""
    results = run_at_once(database, add("first"), add("second", violate), add("third"))
    assert [type(result) for result in results] == [str, IntegrityError, str]
    assert sorted(sql(database, "SELECT name FROM lead")) == [("first",), ("third",)]


def test_who_is_run_again_by_itself_is_told_of_that(database: str) -> None:
    """The first is refused for what the second does; but that is undone, for the database refuses the third."""

    def refuse_beside_others(connection: Connection) -> None:
        if connection.execute(text("SELECT count(*) FROM lead WHERE name = 'other'")).scalar_one():
            raise Conflict("there is another")

    results = run_at_once(database, add("other", violate), add("first", refuse_beside_others), add("third", violate))
    assert [type(result) for result in results] == [IntegrityError, str, IntegrityError]
    assert sql(database, "SELECT name FROM lead") == [("first",)]


def test_of_hundreds_at_once_each_is_done_once(database: str) -> None:
    """More than stand in line to share the lock: the others are done together, between them."""

    def add_shared(connection: Connection) -> bool:
        connection.execute(ADD, {"name": "one of many"})
        return is_alone(connection)

    were_alone = run_at_once(database, *[add_shared] * 300)
    assert set(were_alone) == ({True} if database.startswith("sqlite") else {True, False})
    assert len(sql(database, "SELECT name FROM lead")) == 300


def test_who_waits_for_too_long_is_told_so_and_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = list[list[Job]]()
    monkeypatch.setattr("crm.db.batches.time", SimpleNamespace(monotonic=lambda: 3 * len(ran)))  # 3 seconds for each

    async def commit(batch: list[Job]) -> None:
        ran.append(batch)
        if len(ran) == 2:
            raise OperationalError(None, None, ValueError("the disk is full"))
        for job in batch:
            job.result = "done"

    async def run() -> None:
        batches = Batches(commit, size=2, patience=5)
        results = await asyncio.gather(*(batches.do(lambda _: None) for _ in range(6)), return_exceptions=True)
        assert [type(result) for result in results] == [str] * 2 + [OperationalError] * 2 + [TimeoutError] * 2
        assert [len(batch) for batch in ran] == [2, 2]
        assert await batches.do(lambda _: None) == "done"
        await batches.stop()

    asyncio.run(run())
