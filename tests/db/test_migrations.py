"""Migrations: the tables of each version become those of the models, and back, on both engines."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, inspect
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

from crm.db import open_database
from crm.db.base import migrations
from crm.main import create_app
from tests.conftest import Api, local, settings_of
from tests.day.shifts import Clock, only
from tests.postgres import connected, server, sql
from tests.service import run, serving, start

EXPRESSIONS = {
    "ix_contact_queue",
    "ix_contact_queue_source",
    "ix_contact_queue_topic",
}  # Alembic can't compare their DESC


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


def is_of_models(name: str | None, *_: object) -> bool:
    """The index of the search is not: each engine has another."""
    return not re.search("lead_search|_search$", name or "")


def details(connection: Connection) -> dict[str, set[Any]]:
    """Each index to the letter, with its predicate, and each check."""
    statement = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    if connection.dialect.name == "postgresql":
        statement = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
    indexes = {text for (text,) in connection.exec_driver_sql(statement)}
    found: dict[str, set[Any]] = {"indexes": {text for text in indexes if not re.search("alembic|_search ", text)}}
    for table in SQLModel.metadata.tables:
        checks = inspect(connection).get_check_constraints(table)
        found[table] = {(check["name"], check["sqltext"]) for check in checks}
    return found


def assert_is_schema_of_models(migrated: str, empty: str) -> None:
    engine, other = (create_engine(url, poolclass=NullPool) for url in (migrated, empty))
    SQLModel.metadata.create_all(other)
    with engine.connect() as connection, other.connect() as made_of_models:
        options = {"compare_type": True, "compare_server_default": True, "include_name": is_of_models}
        context = MigrationContext.configure(connection, opts=options)
        differences = compare_metadata(context, SQLModel.metadata)
        # Alembic gives what differs in a column as a list, and all else as a tuple.
        assert [
            each for each in differences if isinstance(each, list) or getattr(each[1], "name", "") not in EXPRESSIONS
        ] == []
        assert details(connection) == details(made_of_models)


@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based index")
def test_the_migrated_schema_is_that_of_the_models(new_databases: tuple[str, str]) -> None:
    migrate(new_databases[0])
    assert_is_schema_of_models(*new_databases)


def test_on_sqlite_no_revision_loses_what_the_comparison_does_not_see(tmp_path: Path) -> None:
    """Ids that are never reused, and the figures by which SQLite finds the right index: Alembic's batches lose both."""
    url, other = f"sqlite:///{tmp_path / 'a.db'}", f"sqlite:///{tmp_path / 'b.db'}"
    migrate(url)
    engine = create_engine(other)
    SQLModel.metadata.create_all(engine)
    engine.dispose()
    never_reused = "SELECT name FROM sqlite_schema WHERE sql LIKE '%AUTOINCREMENT%' ORDER BY name"
    assert sql(url, never_reused) == sql(other, never_reused) != []
    described = {name for (name,) in sql(url, "SELECT idx FROM sqlite_stat1")}
    assert {index.name for table in SQLModel.metadata.tables.values() for index in table.indexes} <= described


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


def test_a_table_that_is_made_anew_keeps_rows_ids_and_the_figures_of_its_indexes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    migrate(url)
    migrate(url, lambda config: command.downgrade(config, "0005"))
    for statement in (
        "INSERT INTO source (id, name, created_at) VALUES (1, 'Shop', '2026-01-01 00:00:00.000000')",
        "INSERT INTO lead (id, created_at) VALUES (1, '2026-01-01 00:00:00.000000')",
        "INSERT INTO contact (id, lead_id, source_id, status, priority, created_at)"
        " VALUES (1, 1, 1, 'pending', 0, '2026-01-01 00:00:00.000000')",
        "INSERT INTO assignment (id, contact_id, reason, candidates, created_at) VALUES"
        " (5, 1, 'queued', '[]', '2026-01-01 00:00:00.000000'), (7, 1, 'released', '[]', '2026-01-02 00:00:00.000000'),"
        " (9, 1, 'manual', '[]', '2026-01-03 00:00:00.000000')",
        "DELETE FROM assignment WHERE id = 9",
        "UPDATE sqlite_stat1 SET stat = '77 7 7' WHERE idx = 'ix_assignment_contact_id'",
    ):
        sql(url, statement)
    looks = "SELECT * FROM assignment ORDER BY id", "SELECT * FROM sqlite_stat1 WHERE tbl = 'assignment' ORDER BY idx"
    before = [sql(url, look) for look in looks]
    migrate(url)
    assert [sql(url, look) for look in looks] == before
    assert sql(url, "SELECT seq FROM sqlite_sequence WHERE name LIKE '%assignment%'") == [(9,)]
    assert sql(url, "SELECT waits_since FROM contact") == [("2026-01-02 00:00:00.000000",)]


def test_what_only_a_team_s_day_knows_becomes_on_the_way_down_what_comes_nearest(
    new_databases: tuple[str, str], clock: Clock
) -> None:
    """Contacts, weights and the rest of the history come through, up and down, with their ids."""
    url, _ = new_databases
    with local(create_app(settings_of(url))) as client:
        api = Api(client)
        operators = [api.operator(name, max_load=5) for name in ("Anna", "Boris")]
        source_id = api.source(weights=dict.fromkeys(operators, 0.5))
        plain = api.contact(source_id)
        before = api.get("/contacts/1"), api.get("/sources/1"), api.get("/operators/1")
    migrate(url, lambda config: command.downgrade(config, "0007"))
    migrate(url)
    with local(create_app(settings_of(url))) as client:
        api = Api(client)
        assert (api.get("/contacts/1"), api.get("/sources/1"), api.get("/operators/1")) == before
        api.patch("/sources/1", {"sticky": "prefer", "accept_within": 60, "silence_pauses": True})
        api.post("/sources/1/operators", {"operator_id": 1, "topic": "returns", "weight": 3})
        api.put("/operators/1/shifts", only((-1, 2)))
        sticky = api.contact(source_id)
        assert api.contact(source_id, "tg:2", topic="returns")["operator_id"] == 1
        api.patch(f"/operators/{plain['operator_id']}", {"max_load": 0})
        queued = api.contact(source_id, topic="returns") if plain["operator_id"] == 1 else None
        for operator_id in operators:
            api.patch(f"/operators/{operator_id}", {"max_load": 9, "is_active": True})
        clock.tick(61)
        api.post("/contacts/distribute", expect=200)
        clock.tick(61)
        api.post("/contacts/distribute", expect=200)
        reasons = [entry["reason"] for entry in api.get(f"/contacts/{sticky['id']}")["history"]]
        assert reasons == ["sticky", "silent", "unaccepted"]
        assert queued is None or api.get(f"/contacts/{queued['id']}")["history"][1]["reason"] == "sticky"
    look = "SELECT id, contact_id, operator_id, reason FROM assignment ORDER BY id"
    old = {"sticky": "distributed", "silent": "released"}
    history = [tuple(row) for row in sql(url, look)]
    queued_ids = {contact_id for _, contact_id, _, reason in history if reason == "queued"}
    contacts = sql(url, "SELECT id, lead_id, source_id, operator_id, status, assigned_at FROM contact ORDER BY id")
    migrate(url, lambda config: command.downgrade(config, "0007"))
    assert [tuple(row) for row in sql(url, look)] == [
        (id_, contact_id, operator_id, "from_queue" if (reason, contact_id in queued_ids) == ("sticky", True)
         else old.get(reason, reason))
        for id_, contact_id, operator_id, reason in history if reason != "unaccepted"
    ]  # fmt: skip
    weights = "SELECT source_id, operator_id, weight FROM source_operator ORDER BY operator_id"
    assert sql(url, weights) == [(1, 1, 0.5), (1, 2, 0.5)]
    same = "SELECT id, lead_id, source_id, operator_id, status, assigned_at FROM contact ORDER BY id"
    assert sql(url, same) == contacts
    migrate(url)
    with local(create_app(settings_of(url))) as client:
        api = Api(client)
        assert api.get("/operators/1/shifts")["exceptions"] == []
        assert {entry["due_at"] for entry in api.get("/contacts/")} == {None}
        assert api.contact(source_id, "tg:3")["id"] == len(contacts) + 1


def test_the_notes_of_older_contacts_become_pairs_of_leads_exactly_as_if_they_came_now(
    new_databases: tuple[str, str],
) -> None:
    url, _ = new_databases
    with local(create_app(settings_of(url))) as client:
        api = Api(client)
        source_id = api.source()
        for number, email in enumerate(("o'brien@example.com", "b@example.com"), 1):
            api.contact(source_id, f"tg:{number}", lead_email=email, lead_phone=f"+7999123456{number}")
        api.contact(source_id, "tg:3")
        fake = "x' belongs to lead 2; lead_phone '+79991234562' belongs to lead 2"
        for said in (
            {"lead_email": "O'Brien@example.com", "lead_phone": "+79991234562"},
            {"lead_email": "o'brien@example.com", "lead_phone": fake},
            {"lead_phone": fake},
            {"lead_phone": f'{fake} "', "lead_email": "b@example.com"},
            {"lead_phone": "call me", "lead_email": "nobody"},
        ):
            assert api.contact(source_id, "tg:3", **said)["identity_note"]
    look = "SELECT created_at, lead_id, other_id, kind, value, contact_id FROM duplicate ORDER BY contact_id, kind"
    noted = sql(url, look)
    assert [tuple(row)[1:] for row in noted] == [
        (3, 1, "email", "o'brien@example.com", 4),
        (3, 2, "phone", "+79991234562", 4),
        (3, 2, "email", "b@example.com", 7),
    ]
    migrate(url, lambda config: command.downgrade(config, "0008"))
    migrate(url)
    assert sql(url, look) == noted


def test_a_database_that_the_start_may_not_migrate_must_be_up_to_date(new_databases: tuple[str, str]) -> None:
    url = new_databases[0]
    _, said = start(url, CRM_MIGRATE="false")
    assert "Traceback" not in said
    assert "python -m crm migrate" in said
    run("migrate", DATABASE_URL=url)
    run("migrate", DATABASE_URL=url)
    with serving(url, CRM_MIGRATE="false") as service:
        assert service.call("GET", "/operators/") == []


def test_a_database_newer_than_the_code_stops_the_start_with_one_line(new_databases: tuple[str, str]) -> None:
    migrate(new_databases[0])
    sql(new_databases[0], "UPDATE alembic_version SET version_num = '9999'")
    for environment in ({}, {"CRM_MIGRATE": "false"}):
        code, said = start(new_databases[0], **environment)
        assert code > 0
        assert "Traceback" not in said
        assert "9999" in next(line for line in said.splitlines() if "ERROR" in line)
    assert "9999" in run("migrate", expect=1, DATABASE_URL=new_databases[0])


def test_the_database_has_all_tables_with_named_constraints(api: Api, database: str) -> None:
    api.operator()
    with connected(database) as connection:
        tables = {name for name in inspect(connection).get_table_names() if is_of_models(name)}
    data = {"operator", "source", "source_operator", "lead", "lead_identifier", "contact", "assignment"}
    data |= {"api_key", "browser_session", "subscription", "delivery", "lease", "shift_plan", "duplicate", "lead_act"}
    data |= {"contact_count", "uncounted_contact", "counted_up_to"}
    assert tables == data | {"alembic_version"}
    for statement in (
        "INSERT INTO operator (name, is_active, max_load, created_at) VALUES ('', true, 1, '2026-01-01')",
        "UPDATE operator SET max_load = -1",
        "INSERT INTO lead_identifier (kind, value, lead_id) VALUES ('fax', '1', 1)",
        "INSERT INTO contact (lead_id, source_id, status, priority, created_at) VALUES (1, 1, 'lost', 0, '2026-01-01')",
    ):
        with pytest.raises(IntegrityError, match="ck_"):
            sql(database, statement)
