"""Starting: settings, and a database that can't be used is refused in one clear line."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

from crm.__main__ import main as cli
from crm.db import open_database
from crm.db.base import migrations
from crm.errors import StartupError
from crm.main import create_app
from tests.conftest import Api, local, settings_of
from tests.postgres import server, sql
from tests.service import serving


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
    tables = set(inspect(create_engine(database)).get_table_names())
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


# --- migrations ------------------------------------------------------------------------------------------------------

EXPRESSIONS = {"ix_contact_queue", "ix_contact_queue_source"}  # Alembic can't compare their DESC


@pytest.fixture(params=["sqlite", "postgresql"])
def new_databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two databases without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'a.db'}", f"sqlite:///{tmp_path / 'b.db'}"
    else:
        urls = server().create_database(), server().create_database()
        yield urls
        for url in urls:
            server().drop_database(url)


def migrate(url: str, *steps: Callable[[Config], object]) -> None:
    """Runs these Alembic commands as the service does; none: all that its start does."""
    database, config = open_database(url, 5), migrations()
    if not steps:
        database.start(lambda _: None)
    for step in steps:
        with database.alone() as config.attributes["connection"]:
            step(config)
    asyncio.run(database.stop())


def details(connection: Connection) -> dict[str, set[Any]]:
    """Each index to the letter, with its predicate, and each check."""
    statement = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    if connection.dialect.name == "postgresql":
        statement = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
    found = {"indexes": {text for (text,) in connection.exec_driver_sql(statement) if "alembic" not in text}}
    for table in SQLModel.metadata.tables:
        checks = inspect(connection).get_check_constraints(table)
        found[table] = {(check["name"], check["sqltext"]) for check in checks}
    return found


def assert_is_schema_of_models(migrated: str, empty: str) -> None:
    engine, other = create_engine(migrated), create_engine(empty)
    SQLModel.metadata.create_all(other)
    with engine.connect() as connection, other.connect() as made_of_models:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, SQLModel.metadata)
        assert [each for each in differences if getattr(each[1], "name", "") not in EXPRESSIONS] == []
        assert details(connection) == details(made_of_models)
    engine.dispose()
    other.dispose()


@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_the_migrated_schema_is_that_of_the_models(new_databases: tuple[str, str]) -> None:
    migrate(new_databases[0])
    assert_is_schema_of_models(*new_databases)


@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_each_revision_goes_down_and_up_again_with_data_in_it(new_databases: tuple[str, str]) -> None:
    url, other = new_databases
    with local(create_app(settings_of(url))) as client:
        api = Api(client)
        source_id = api.source(weights={api.operator(max_load=1): 1})
        api.contact(source_id)
        api.contact(source_id)
    for revision in ScriptDirectory.from_config(migrations()).walk_revisions():
        migrate(url, lambda config, down=revision.down_revision or "base": command.downgrade(config, down))
        migrate(url, lambda config, up=revision.revision: command.upgrade(config, up))
        migrate(url, lambda config, down=revision.down_revision or "base": command.downgrade(config, down))
    migrate(url)
    assert_is_schema_of_models(url, other)
    with local(create_app(settings_of(url))) as client:
        Api(client).contact(Api(client).source("New"))


def test_a_database_that_the_start_may_not_migrate_must_be_up_to_date(new_databases: tuple[str, str]) -> None:
    url = new_databases[0]
    refused = start(url, CRM_MIGRATE="false")
    assert "Traceback" not in refused.stderr
    assert "python -m crm migrate" in refused.stderr
    run("migrate", DATABASE_URL=url)
    run("migrate", DATABASE_URL=url)
    with serving(url, CRM_MIGRATE="false") as service:
        assert service.call("GET", "/operators/") == []


def test_a_database_newer_than_the_code_stops_the_start_with_one_line(new_databases: tuple[str, str]) -> None:
    migrate(new_databases[0])
    sql(new_databases[0], "UPDATE alembic_version SET version_num = '9999'")
    for environment in ({}, {"CRM_MIGRATE": "false"}):
        refused = start(new_databases[0], **environment)
        assert refused.returncode != 0
        assert "Traceback" not in refused.stderr
        assert "9999" in next(line for line in refused.stderr.splitlines() if "ERROR" in line)
    assert "9999" in run("migrate", expect=1, DATABASE_URL=new_databases[0])


# --- copy ------------------------------------------------------------------------------------------------------------


def run(*arguments: str, expect: int = 0, **environment: str) -> str:
    """Does what `python -m crm` does, and returns what it printed."""
    result = CliRunner().invoke(cli, arguments, env=environment)
    assert result.exit_code == expect, result.output
    assert expect == 0 or result.output.splitlines()[-1].startswith("Error: ")
    return str(result.output)


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


def test_copy_carries_a_sqlite_database_over_to_postgresql_where_it_goes_on(path: Path, empty_postgresql: str) -> None:
    old, new = f"sqlite:///{path}", empty_postgresql
    with local(create_app(settings_of(old))) as client:
        api = Api(client)
        source_id = api.source(weights={api.operator("Анна", max_load=2): 0.5, api.operator("Boris", max_load=0): 1})
        for number in range(5):
            api.contact(source_id, f"tg:{number}", lead_phone="+7 999 123-45-67", event_id=number, message="😀 'x'")
        api.close(1)
        api.delete(f"/operators/{api.operator('Clara')}")
        before = {call: api.get(call) for call in ("/contacts/", "/contacts/1", "/leads/", "/sources/", "/operators/")}
    assert "contact: 5" in run("copy", old, new)
    with local(create_app(settings_of(new))) as client:
        api = Api(client)
        assert {call: api.get(call) for call in before} == before
        assert api.contact(source_id, "tg:0", event_id=0, expect=200)["id"] == 1
        assert api.contact(source_id, "tg:9")["id"] == 6
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
    migrate(old)
    assert "sqlite:///FILE to postgresql" in run("copy", empty_postgresql, old, expect=1)
    assert "refused" in run("copy", old, "postgresql://me@127.0.0.1:1/crm", expect=1)
    sql(old, "UPDATE alembic_version SET version_num = '0000'")
    assert "python -m crm migrate" in run("copy", old, empty_postgresql, expect=1)
