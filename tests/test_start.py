"""Starting: settings, and a database that can't be used is refused in one clear line."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from fastapi.testclient import TestClient
from sqlalchemy import create_engine
from sqlalchemy.schema import CreateIndex
from sqlmodel import SQLModel

from crm.main import create_app
from tests.conftest import Api, settings_of


def start(url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the service until it gives up."""
    return subprocess.run(
        [sys.executable, "-m", "uvicorn", "crm.main:app", "--port", "0"],
        env={**os.environ, "DATABASE_URL": url, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


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
        ("postgresql://me:secret@localhost/crm", "only sqlite"),
        ("nonsense", "not a database URL"),
    ],
)
def test_a_url_that_cannot_be_used_stops_the_start_with_one_line(url: str, reason: str) -> None:
    result = start(url)
    errors = [line for line in result.stderr.splitlines() if "ERROR" in line]
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert "secret" not in result.stderr
    assert reason in errors[0]


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
    with TestClient(create_app()) as client:
        assert client.get("/health").json() == {"status": "ok"}
    assert (tmp_path / "crm.db").exists()


def test_a_restart_keeps_everything_and_ids_go_on(path: Path) -> None:
    with TestClient(create_app(settings_of(path))) as client:
        Api(client).operator("Anna")
        Api(client).delete(f"/operators/{Api(client).operator('Boris')}")
    with TestClient(create_app(settings_of(path))) as client:
        assert [operator["name"] for operator in Api(client).get("/operators/")] == ["Anna"]
        assert Api(client).operator("Clara") == 3


def test_the_file_is_in_wal_mode_with_constraints_and_all_tables(api: Api, path: Path) -> None:
    api.operator()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        for statement in (
            "INSERT INTO operator (name, is_active, max_load, created_at) VALUES ('', 1, 1, '')",
            "UPDATE operator SET max_load = -1",
            "INSERT INTO lead_identifier (kind, value, lead_id) VALUES ('fax', '1', 1)",
            "INSERT INTO contact (lead_id, source_id, status, priority, created_at) VALUES (1, 1, 'lost', 0, '')",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint failed: ck_"):
                connection.execute(statement)
    data = {"operator", "source", "source_operator", "lead", "lead_identifier", "contact", "assignment"}
    assert data | {"alembic_version"} <= tables


@pytest.mark.usefixtures("client")
def test_the_migrated_schema_is_that_of_the_models(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
        statement = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
        migrated = dict(connection.exec_driver_sql(statement).all())
    modelled = {
        str(index.name): str(CreateIndex(index).compile(engine))
        for table in SQLModel.metadata.tables.values()
        for index in table.indexes
    }
    engine.dispose()
    expressions = {"ix_contact_queue", "ix_contact_queue_source"}  # Alembic takes DESC for another index
    assert [difference for difference in differences if getattr(difference[1], "name", "") not in expressions] == []
    assert migrated == modelled  # and can't see predicates
