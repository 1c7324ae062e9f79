"""`python -m crm copy`, and how the commands are told."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from crm.main import create_app
from tests.conftest import Api, local, settings_of
from tests.postgres import server, sql
from tests.service import run


def test_the_commands_are_told_by_help() -> None:
    command = [sys.executable, "-m", "crm", "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"copy .*SQLite", printed)
    assert "migrate" in printed


@pytest.fixture
def empty_postgresql() -> Iterator[str]:
    url = server().create_database()
    yield url
    server().drop_database(url)


CALLS = ("/contacts/", "/contacts/1", "/leads/", "/sources/", "/operators/", "/operators/2/shifts", "/keys/")
CALLS += ("/leads/1/export", "/leads/duplicates")


def test_copy_carries_a_sqlite_database_over_to_postgresql_where_it_goes_on(path: Path, empty_postgresql: str) -> None:
    old, new = f"sqlite:///{path}", empty_postgresql
    with local(create_app(settings_of(old))) as client:
        api = Api(client)
        source_id = api.source(weights={api.operator("Анна", max_load=2): 0.5, api.operator("Boris", max_load=0): 1})
        for number in range(5):
            api.contact(source_id, f"tg:{number}", lead_phone="+7 999 123-45-67", event_id=number, message="😀 'x'")
        api.close(1)
        api.put("/operators/2/shifts", {"hours": [{"weekday": 0, "begin": "09:00", "end": "18:00"}]})
        api.post("/keys/", {"name": "A bot", "role": "source", "source_id": source_id})
        api.delete(f"/operators/{api.operator('Clara')}")
        for number in (7, 8):
            api.contact(source_id, f"tg:{number}", lead_email=f"{number}@example.com")
        api.post("/leads/1/merge", {"into": 2}, expect=200)
        api.contact(source_id, "tg:7", lead_email="8@example.com")
        before = {call: api.get(call) for call in CALLS}
    assert "contact: 8" in run("copy", old, new)
    with local(create_app(settings_of(new))) as client:
        api = Api(client)
        assert {call: api.get(call) for call in before} == before
        assert api.contact(source_id, "tg:0", event_id=0, expect=200)["id"] == 1
        assert api.contact(source_id, "tg:9")["id"] == 9
        assert api.operator("Dina") == 4
        after = api.get("/contacts/")
        assert "not empty" in run("copy", old, new, expect=1)
        assert api.get("/contacts/") == after


def test_a_copy_that_fails_half_way_leaves_nothing(path: Path, empty_postgresql: str) -> None:
    old = f"sqlite:///{path}"
    with local(create_app(settings_of(old))) as client:
        Api(client).contact(Api(client).source())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        connection.execute("UPDATE assignment SET reason = 'lost'")
        connection.commit()
    assert "ck_assignment_reason" in run("copy", old, empty_postgresql, expect=1)
    assert sql(empty_postgresql, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []


def test_a_copy_that_cannot_be_done_says_why_in_one_line(path: Path, empty_postgresql: str) -> None:
    old = f"sqlite:///{path}"
    assert "no file" in run("copy", old, empty_postgresql, expect=1)
    assert not path.exists()
    assert "not a database URL" in run("copy", "nonsense", empty_postgresql, expect=1)
    run("migrate", DATABASE_URL=old)
    assert "sqlite:///FILE to postgresql" in run("copy", empty_postgresql, old, expect=1)
    assert "refused" in run("copy", old, "postgresql://me@127.0.0.1:1/crm", expect=1)
    sql(old, "UPDATE alembic_version SET version_num = '0000'")
    assert "python -m crm migrate" in run("copy", old, empty_postgresql, expect=1)
