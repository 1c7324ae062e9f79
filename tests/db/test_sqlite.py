"""What happens to a file: it is no database, is locked, finds no room on the disk, or is taken away."""

import asyncio
import resource
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from crm.db import open_database
from crm.db.base import Database
from crm.main import create_app
from tests.conftest import empty_file, local, settings_of
from tests.postgres import sql
from tests.service import serving, start
from tests.test_concurrency import add_source, at_once, check, retry_after


def no_database(path: Path) -> None:
    path.write_bytes(b"This is no database. " * 100)


def newer_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
        connection.commit()


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        pytest.param(Path.mkdir, "unable to open database file", id="a folder"),
        pytest.param(no_database, "file is not a database", id="another kind of file"),
        pytest.param(newer_database, "not one of this version", id="made by a newer version"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start_with_one_line(path: Path, prepare: Any, reason: str) -> None:
    prepare(path)
    code, said = start(f"sqlite:///{path}")
    errors = [line for line in said.splitlines() if "ERROR" in line]
    assert code > 0
    assert "Traceback" not in said
    assert str(path) in errors[0]
    assert reason in errors[0]


def test_the_file_is_in_wal_mode(path: Path) -> None:
    with local(create_app(settings_of(f"sqlite:///{path}"))):
        assert sql(f"sqlite:///{path}", "PRAGMA journal_mode") == [("wal",)]


def test_a_lock_that_another_process_keeps_gives_503_and_changes_nothing(path: Path) -> None:
    with serving(f"sqlite:///{path}", CRM_BUSY_TIMEOUT="0.3") as service:
        source_id = add_source(service, operators=1, max_load=10)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for method, call, body in (
                ("POST", "/contacts/", {"source_id": source_id, "lead_external_id": "tg:1"}),
                ("POST", "/operators/", {"name": "Anna"}),
                ("PATCH", "/operators/1", {"is_active": False}),
            ):
                assert retry_after(service, method, call, body) == (503, "1")
            assert service.call("GET", "/stats/")["contacts"] == 0  # readers go on meanwhile
            assert service.call("GET", "/health") == {"status": "ok"}
            other.execute("ROLLBACK")
        assert service.call("GET", "/operators/1")["is_active"] is True
        assert service.call("GET", "/stats/")["operators"] == 1
        assert at_once(service, [{"source_id": source_id, "lead_external_id": "tg:1"}])[0][0] == 201


@pytest.mark.seconds(8)
def test_who_comes_while_others_wait_for_the_lock_waits_for_its_own_time_only(path: Path) -> None:
    async def write(database: Database) -> float:
        begin = time.monotonic()
        with pytest.raises(OperationalError, match="locked"):
            await database.execute(lambda connection: connection.exec_driver_sql("DELETE FROM lead"))
        return time.monotonic() - begin

    async def run() -> None:
        database = open_database(empty_file(path), 5)
        database.start(lambda _: None)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            first = asyncio.create_task(write(database))
            await asyncio.sleep(2.5)
            second = asyncio.create_task(write(database))
            assert 4.5 < await first < 7
            assert 4.5 < await second < 7  # and not 2.5 more
        await database.stop()

    asyncio.run(run())


def test_a_full_disk_gives_503_and_changes_nothing_and_the_service_recovers(path: Path) -> None:
    with serving(f"sqlite:///{path}") as service:
        source_id = add_source(service, operators=1, max_load=10_000)
        size = Path(f"{path}-wal").stat().st_size
        unlimited = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size + 100_000, unlimited[1]))
        statuses = Counter[int]()
        for number in range(50):
            body = {"source_id": source_id, "lead_external_id": f"tg:{number}", "message": "x" * 10_000}
            statuses[retry_after(service, "POST", "/contacts/", body)[0]] += 1
        assert set(statuses) == {201, 503}
        assert service.call("GET", "/stats/")["contacts"] == statuses[201]
        assert service.call("GET", "/stats/")["leads"] == statuses[201]
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, unlimited)
        assert at_once(service, [{"source_id": source_id, "lead_external_id": "tg:last"}])[0][0] == 201
        assert service.call("GET", "/stats/")["contacts"] == statuses[201] + 1
    check(f"sqlite:///{path}")


def test_a_file_that_is_taken_away_gives_503_until_the_restart(path: Path) -> None:
    """The open file would still take contacts, and nobody would ever see them again."""
    with serving(f"sqlite:///{path}") as service:
        body = {"source_id": add_source(service, operators=1, max_load=10), "lead_external_id": "tg:1"}
        path.rename(path.with_name("moved.db"))
        assert retry_after(service, "POST", "/contacts/", body) == (503, "1")
        path.write_bytes(b"")
        assert retry_after(service, "POST", "/contacts/", body) == (503, "1")
        path.with_name("moved.db").rename(path)
        assert retry_after(service, "POST", "/contacts/", body) == (201, None)
