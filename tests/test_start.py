"""Starting: settings, and a database that can't be used is refused in one clear line."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError

from crm.db import open_database
from crm.errors import StartupError
from crm.main import create_app
from tests.conftest import Api, local, settings_of
from tests.postgres import connected, sql
from tests.service import start


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
    result = start(f"sqlite:///{path}")
    errors = [line for line in result.stderr.splitlines() if "ERROR" in line]
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert str(path) in errors[0]
    assert reason in errors[0]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite://", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "memory"),
        ("sqlite:////no/such/folder/crm.db", "unable to open database file"),
        ("postgresql://me:secret@127.0.0.1:1/crm", "refused"),
        ("postgresql://me@127.0.0.1:1/crm?password=secret", "refused"),
        ("mysql://me:secret@localhost/crm", "only sqlite"),
        ("nonsense", "not a database URL"),
        ("sqlite+aiosqlite:///x.db", "only sqlite"),
        ("sqlite:///x.db?timeout=soon", "soon"),
        ("sqlite://me:secret@host/x.db", "x.db"),
        ("postgresql://me:secret@127.0.0.1:port/crm", "not a database URL"),
        ("postgresql://me:secret@127.0.0.1:1/crm?nonsense=1", "nonsense"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_in_one_line_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(StartupError, match=reason) as raised:
        open_database(url, 1).start(lambda _: None)
    assert "secret" not in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "value"), [("CRM_DEFAULT_REGION", "Russia"), ("CRM_BUSY_TIMEOUT", "soon"), ("CRM_BUSY_TIMEOUT", "0")]
)
def test_a_setting_that_cannot_be_used_stops_the_start_and_is_named(path: Path, variable: str, value: str) -> None:
    result = start(f"sqlite:///{path}", **{variable: value})
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert variable in result.stderr
    assert not path.exists()


def test_the_default_database_is_crm_db_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with local(create_app()) as client:
        assert client.get("/health").json() == {"status": "ok"}
    assert (tmp_path / "crm.db").exists()


def test_a_restart_keeps_everything_and_ids_go_on(path: Path) -> None:
    with local(create_app(settings_of(f"sqlite:///{path}"))) as client:
        Api(client).operator("Anna")
        Api(client).delete(f"/operators/{Api(client).operator('Boris')}")
    with local(create_app(settings_of(f"sqlite:///{path}"))) as client:
        assert [operator["name"] for operator in Api(client).get("/operators/")] == ["Anna"]
        assert Api(client).operator("Clara") == 3


def test_the_database_has_all_tables_with_named_constraints(api: Api, database: str) -> None:
    api.operator()
    with connected(database) as connection:
        tables = set(inspect(connection).get_table_names())
    data = {"operator", "source", "source_operator", "lead", "lead_identifier", "contact", "assignment", "api_key"}
    assert tables == data | {"alembic_version"}
    for statement in (
        "INSERT INTO operator (name, is_active, max_load, created_at) VALUES ('', true, 1, '2026-01-01')",
        "UPDATE operator SET max_load = -1",
        "INSERT INTO lead_identifier (kind, value, lead_id) VALUES ('fax', '1', 1)",
        "INSERT INTO contact (lead_id, source_id, status, priority, created_at) VALUES (1, 1, 'lost', 0, '2026-01-01')",
    ):
        with pytest.raises(IntegrityError, match="ck_"):
            sql(database, statement)


@pytest.mark.usefixtures("client")
def test_the_file_is_in_wal_mode(path: Path, database: str) -> None:
    if database.startswith("sqlite"):
        assert sql(f"sqlite:///{path}", "PRAGMA journal_mode") == [("wal",)]
