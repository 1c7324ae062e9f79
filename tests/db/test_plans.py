"""What is asked often uses an index, however long the history: each statement that a call sends is explained."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, inspect

from crm.day.due import is_any_overdue
from crm.db import search
from crm.db.direct import Prepared
from tests.bench.history import add_history, add_team
from tests.conftest import Api, app_on, empty_file, local
from tests.postgres import connected, migrated_database, server, sql

CONTACTS, LEADS = 20_000, 10_000


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One for all tests of an engine, with a long history; they may add a little to it."""
    if request.param == "sqlite":
        file = tmp_path_factory.mktemp("grown") / "crm.db"
        url = empty_file(file)
        grow(url)
        yield url
        file.unlink()
    else:
        url = migrated_database()
        grow(url)
        yield url
        server().drop_database(url)


def grow(database: str) -> None:
    with local(app_on(database)) as client:
        add_team(lambda method, path, body: client.request(method, path, json=body))
    add_history(database, CONTACTS)
    with local(app_on(database)) as client:
        api = Api(client)
        nobody = api.source("Nobody")
        for number in range(300):
            api.contact(number % 30 + 1, f"tg:new-{number}")
            api.contact(nobody, f"tg:waiting-{number}")


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """What is sent meanwhile, by SQLAlchemy and past it, with the parameters."""
    sent: list[tuple[str, Any]] = []
    values_of = Prepared.values

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, many: bool) -> None:
        sent.append((statement, parameters[0] if many else parameters))

    def note_direct(prepared: Prepared, parameters: Any) -> Any:
        values = values_of(prepared, parameters)
        sent.append((prepared.sql, values))
        return values

    event.listen(Engine, "before_cursor_execute", note)
    Prepared.values = note_direct  # type: ignore[method-assign]
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)
        Prepared.values = values_of  # type: ignore[method-assign]


def bad_steps(database: str, statement: str, parameters: Any) -> list[str]:
    """The steps of its plan that read all of a table that grows, or sort a part of it that an index could give."""
    is_sqlite = database.startswith("sqlite")
    with connected(database) as connection:
        explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
        rows = connection.exec_driver_sql(explain + statement, parameters).all()
    steps = [str(row[-1]).strip() for row in rows]
    grows = "(contact|lead|lead_identifier|assignment)"
    if is_sqlite:
        in_order_of_id = re.search(r"ORDER BY (contact|lead)\.id( DESC)?\s+LIMIT", statement)
        scans = [step for step in steps if re.fullmatch(f"SCAN {grows}", step) and not in_order_of_id]
        is_page = "LIMIT" in statement and re.search(rf"FROM {grows}\b", statement)
        # At the outermost, of a union, it sorts two pages.
        inner = [str(row[-1]) for row in rows if row[1] != 0 or "UNION" not in statement]
        return scans + [step for step in inner if is_page and "TEMP B-TREE FOR ORDER BY" in step]
    return [step for step in steps if re.search(f"Seq Scan on {grows}\\b", step)]


def test_each_statement_of_what_is_asked_often_uses_an_index(
    api: Api, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "NEXT", 100)  # a small part here too
    half, lead = CONTACTS // 2, LEADS // 2
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/contacts/", {"source_bot_id": "bot-7", "lead_external_id": "tg:1", "lead_phone": "84950000007"}),
        ("POST", "/contacts/", {"source_id": 7, "lead_email": "a@example.com", "event_id": "h-1"}),
        ("PATCH", f"/contacts/{CONTACTS + 1}/status", {"status": "closed"}),
        ("POST", f"/contacts/{CONTACTS + 2}/assign", {"operator_id": 1}),
        ("PATCH", "/operators/1", {"max_load": 61}),
        ("PUT", "/sources/31/operators", [{"operator_id": number, "weight": 1} for number in range(1, 4)]),
        ("POST", "/operators/5/release", None),
        ("GET", "/sources/7/candidates", None),
        ("POST", "/contacts/", {"source_id": 7, "lead_external_id": "tg:new-5", "lead_phone": "84950000007"}),
        ("GET", "/leads/duplicates", None),
        ("POST", f"/leads/{lead}/merge", {"into": lead + 1}),
        ("GET", f"/leads/{lead}/export", None),
        ("GET", f"/contacts/?lead_id={lead}", None),
        ("POST", f"/leads/{lead}/unmerge", None),
        ("DELETE", f"/leads/8/duplicates/{LEADS + 11}", None),
        ("POST", f"/leads/{lead}/forget", None),
    ]
    lists = ["/contacts/", f"/contacts/?before_id={half}", f"/contacts/{half}", f"/contacts/?lead_id={lead}"]
    lists += ["/contacts/?order=queue", "/contacts/?order=queue&source_id=31", "/contacts/?status=pending"]
    lists += ["/contacts/?status=closed", f"/contacts/?status=new&before_id={half}", "/contacts/?source_id=5"]
    lists += [
        "/contacts/?operator_id=7",
        "/contacts/?operator_id=7&status=closed",
        "/contacts/?source_id=5&operator_id=7",
    ]
    lists += ["/leads/", f"/leads/?after_id={lead}", "/leads/?phone=84950000001", "/leads/?external_id=tg:1"]
    lists += [f"/leads/?q={part}" for part in ("h-19", "lead%20777", "nowhere", "%2B7", "o", "%2B7%20(495)%200000001")]
    lists += [f"/leads/{lead}", f"/leads/{lead}/contacts", "/operators/", "/operators/7", "/sources/", "/health"]
    lists += [f"/events/?after={half}", f"/events/?after={half}&source_id=5&type=contact.closed"]
    calls += [("GET", call, None) for call in lists]
    bad = []
    for method, path, body in calls:
        with statements() as sent:
            answer = api.client.request(method, path, json=body)
        assert answer.status_code < 300, (path, answer.text)
        explained = [each for each in sent if each[0].split()[0] in ("SELECT", "UPDATE", "DELETE", "WITH")]
        assert explained or path == "/health", path
        for statement, parameters in explained:
            if "advisory" not in statement:
                bad += [(path, statement, step) for step in bad_steps(database, statement, parameters)]
    assert bad == []


def test_to_see_that_nobody_is_overdue_reads_one_entry_of_an_index(database: str) -> None:
    """Though hundreds wait: each process looks once a second."""
    engine = create_engine(database)
    with statements() as sent, engine.connect() as connection:
        assert not is_any_overdue(connection, datetime.now(UTC) - timedelta(days=1))
    with engine.connect() as connection:
        explain = "EXPLAIN QUERY PLAN " if database.startswith("sqlite") else "EXPLAIN "
        [(statement, parameters)] = [each for each in sent if "waits_since" in each[0]]
        plan = " ".join(str(row[-1]) for row in connection.exec_driver_sql(explain + statement, parameters))
    engine.dispose()
    if database.startswith("sqlite"):  # PostgreSQL takes another one of those that wait, while they are few
        assert "ix_contact_waits_since" in plan
    assert "SCAN" not in plan
    assert "Seq Scan" not in plan


def test_deleting_an_operator_reads_no_history(api: Api, database: str) -> None:
    """Neither to see whether it ever had a contact, nor to check the references to it."""
    with statements() as sent:
        api.delete("/operators/1", expect=409)
        api.delete(f"/operators/{api.operator('New')}")
    looked = [each for each in sent if re.search("FROM (contact|assignment)", each[0])]
    assert len(looked) >= 3
    assert [step for each in looked for step in bad_steps(database, *each)] == []
    engine = create_engine(database)
    for table in ("contact", "assignment"):
        indexed = {index["column_names"][0] for index in inspect(engine).get_indexes(table)}
        assert {key["constrained_columns"][0] for key in inspect(engine).get_foreign_keys(table)} <= indexed
    engine.dispose()


def plans(api: Api, database: str, path: str, which: str) -> list[list[str]]:
    """The steps of each statement of a call in which this expression is found."""
    engine = create_engine(database, isolation_level="AUTOCOMMIT")
    explain = "EXPLAIN QUERY PLAN " if database.startswith("sqlite") else "EXPLAIN "
    with statements() as sent:
        api.get(path)
    with engine.connect() as connection:
        found = [
            [str(row[-1]) for row in connection.exec_driver_sql(explain + statement, parameters)]
            for statement, parameters in sent
            if re.search(which, statement, re.DOTALL)
        ]
    engine.dispose()
    assert found
    return found


@pytest.mark.parametrize(
    "call", ["timeline?minutes=60", "sources?since={day}", "operators?since={day}&until={now}", "sources/5?since={day}"]
)
def test_what_came_lately_is_read_in_an_index_by_time(api: Api, database: str, call: str) -> None:
    now = datetime.now(UTC)
    path = "/stats/" + call.format(day=f"{now - timedelta(days=1):%FT%TZ}", now=f"{now:%FT%TZ}")
    of_time = r"^(?!.*IN \('new').*count\(\*\).*\bcreated_at >="
    for plan in plans(api, database, path, of_time):
        # Those of sticky ones and of topics begin with the time too.
        assert re.search("ix_contact_(created_at|sticky|topic_counts)", " ".join(plan))
        if database.startswith("sqlite"):
            assert not re.search("SCAN|ANY", " ".join(plan))


@pytest.mark.parametrize("path", ["/stats/", "/stats/operators", "/stats/sources", "/stats/sources/5", "/metrics"])
def test_of_all_time_only_what_is_new_or_open_is_read(api: Api, database: str, path: str) -> None:
    """The rest has been counted; at the start, or by the clock."""
    assert sql(database, "SELECT sum(contacts) FROM contact_count")[0][0] > CONTACTS / 2
    with statements() as sent:
        assert api.client.get(path).status_code == 200
    of_contacts = [each for each in sent if "FROM contact" in each[0]]
    assert of_contacts
    for statement, parameters in of_contacts:
        assert bad_steps(database, statement, parameters) == []
        if database.startswith("sqlite"):
            engine = create_engine(database)
            with engine.connect() as connection:
                steps = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters).all()
            engine.dispose()
            whole = [step[-1] for step in steps if re.match("SCAN contact USING", step[-1])]
            assert [step for step in whole if not re.search("ix_contact_(load|queue)", step)] == []


@pytest.mark.parametrize("status", ["pending", "new"])
def test_what_is_open_at_a_source_is_not_looked_for_in_all_that_it_ever_had(
    api: Api, database: str, status: str
) -> None:
    for plan in plans(api, database, f"/contacts/?source_id=5&status={status}", "FROM contact"):
        assert "ix_contact_source_id" not in " ".join(plan)


SERIES = {"contacts": {"created_at", "moves"}, "assign_seconds": {"created_at", "waited"}}
SERIES["load"] = {"created_at", "moves", "closed_at", "contact_id"}


@pytest.mark.parametrize("measure", SERIES)
def test_series_look_up_each_step_in_an_index_by_time(api: Api, database: str, measure: str) -> None:
    """Not even an index is read as a whole, but for that of the present load."""
    now = datetime.now(UTC)
    period = f"since={now - timedelta(days=90):%FT%TZ}&until={now - timedelta(days=60):%FT%TZ}"
    engine = create_engine(database, isolation_level="AUTOCOMMIT")
    explain = "EXPLAIN QUERY PLAN " if database.startswith("sqlite") else "EXPLAIN "
    with statements() as sent:
        api.get(f"/stats/series?measure={measure}&step=hour&{period}")
    with engine.connect() as connection:
        plans = [
            [str(row[-1]) for row in connection.exec_driver_sql(explain + statement, parameters)]
            for statement, parameters in sent
            if re.search("(FROM|JOIN) (contact|assignment)", statement)
        ]
    engine.dispose()
    steps = [step for plan in plans for step in plan]
    used = {found[1] for step in steps if (found := re.search(r"ix_(?:contact|assignment)_(\w+)", step))}
    if database.startswith("sqlite"):
        assert used - {"load", "status", "operator_id"} == SERIES[measure]  # these for what is open, or nobody's
    else:  # it may take others too, by what its collector of statistics has seen so far
        assert used >= SERIES[measure]
    whole = [step for step in steps if re.search(r"\bSCAN (contact|assignment)|Seq Scan on (contact|assignment)", step)]
    assert [step for step in whole if "ix_contact_load" not in step] == []
