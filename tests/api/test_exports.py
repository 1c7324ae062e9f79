"""GET /contacts/export: what is read back is what is there, and a file that is not whole does not look so."""

import csv
import http.client
import io
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy.exc import OperationalError

from crm.api import exports
from crm.web import logs
from tests.conftest import Api
from tests.day.shifts import Clock, at
from tests.postgres import sql
from tests.service import Service, threaded

EVIL = ["=1+2", "+1-2", "-cmd|' /C calc'!A1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few contacts need several pages, and some windows of ids hold none."""
    monkeypatch.setattr(exports, "PAGE", 3)
    monkeypatch.setattr(exports, "PAGES", exports.PAGES.limit(3))
    monkeypatch.setattr(exports, "WINDOW", 5)


def export(api: Api, query: str = "") -> str:
    answer = api.client.get(f"/contacts/export?{query}")
    assert answer.status_code == 200, answer.text
    return answer.content.decode()


def lines(api: Api, query: str = "") -> list[Any]:
    return [json.loads(line) for line in export(api, f"format=jsonl&{query}").splitlines()]


def cells(text: str) -> list[dict[str, str]]:
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True))


def ids(api: Api, query: str) -> list[int]:
    found = [line["id"] for line in lines(api, query)]
    assert [int(row["id"]) for row in cells(export(api, query))] == found
    return found


def fill(api: Api) -> None:
    """Ten contacts of five leads at two sources: those of Anna, of Boris and, of the last two, nobody's."""
    anna, boris = api.operator("Anna", max_load=100), api.operator("Boris; the 2nd", max_load=100)
    shop, help_desk = api.source("Shop", {anna: 1}), api.source('Help "desk"', {boris: 1}, bot_id="help")
    for number in range(8):
        topic = {"topic": "returns"} if number % 4 == 0 else {}
        more = {"lead_phone": f"8999123450{number}", "lead_name": f"Лид {number % 5}"}
        api.contact(shop if number % 2 else help_desk, f"tg:{number % 5}", message=f"№ {number}\nи, \"так\"; далее",
                    event_id=number, priority=number, **more, **topic)  # fmt: skip
    api.close(1)
    for operator_id in (anna, boris):
        api.patch(f"/operators/{operator_id}", {"is_active": False})
    api.contact(shop, "tg:0", lead_phone="nonsense")
    api.contact(help_desk, "tg:1", lead_email="One@Example.com")
    api.close(10)


def test_the_lines_are_what_the_list_has_oldest_first(api: Api) -> None:
    assert export(api, "format=jsonl") == ""
    fill(api)
    for line, contact in zip(lines(api), api.get("/contacts/")[::-1], strict=True):
        assert line == contact


def test_the_cells_are_what_the_list_has(api: Api) -> None:
    fill(api)
    rows = cells(export(api))
    assert len(rows) == 10
    for row, contact in zip(rows, api.get("/contacts/")[::-1], strict=True):
        source, lead, operator = contact["source"], contact["lead"], contact["operator"] or {}
        expected = {name: contact[name] for name in row if name in contact}
        expected |= {"source_name": source["name"], "operator_name": operator.get("name"), "lead_name": lead["name"]}
        expected |= {f"lead_{kind}": "; ".join(lead[kind]) for kind in ("external_ids", "phones", "emails")}
        assert {name: value for name, value in row.items() if value} == {
            name: str(value) for name, value in expected.items() if value not in (None, "")
        }
    assert export(api).splitlines()[0] == "\ufeff" + ",".join(rows[0])
    assert list(rows[0]) == list(exports.COLUMNS)


def test_analysts_read_the_same_from_either_file(api: Api, tmp_path: Path) -> None:
    fill(api)
    contacts = api.get("/contacts/")[::-1]
    columns = ("id", "lead_id", "operator_id", "message", "event_id", "topic", "status")
    expected = [
        tuple(None if contact[name] in ("", None) else str(contact[name]) for name in columns) for contact in contacts
    ]
    begin = datetime.fromisoformat(contacts[0]["created_at"]) - datetime(1970, 1, 1, tzinfo=UTC)
    with duckdb.connect() as analysis:
        for name, reader in (("csv", "read_csv"), ("jsonl", "read_json")):
            file = tmp_path / f"contacts.{name}"
            file.write_bytes(api.client.get(f"/contacts/export?format={name}").content)
            texts = ", ".join(f"nullif({column}::VARCHAR, '')" for column in columns)
            assert analysis.execute(f"SELECT {texts} FROM {reader}('{file}') ORDER BY id").fetchall() == expected
            first = f"SELECT epoch_us(min(created_at)::TIMESTAMPTZ) FROM {reader}('{file}')"
            assert analysis.execute(first).fetchone() == (begin // timedelta(microseconds=1),)


def test_without_contacts_there_is_a_head(api: Api) -> None:
    assert cells(export(api)) == []
    assert export(api) == "\ufeff" + ",".join(exports.COLUMNS) + "\r\n"


def test_the_answer_is_a_file_with_a_name(api: Api, clock: Clock) -> None:
    assert clock
    for name, kind in (("csv", "text/csv; charset=utf-8"), ("jsonl", "application/jsonl")):
        headers = api.client.get(f"/contacts/export?format={name}").headers
        assert headers["content-disposition"] == f'attachment; filename="contacts-2026-06-01.{name}"'
        assert headers["content-type"] == kind


def test_filters_are_those_of_the_list(api: Api) -> None:
    fill(api)
    queries = ["source_id=1", "source_id=2&operator_id=2", "operator_id=1", "lead_id=1", "status=pending", "lead_id=99"]
    queries += ["status=new&lead_id=2", "topic=returns", "topic=returns&source_id=1", "topic=other"]
    for query in queries:
        assert ids(api, query) == [contact["id"] for contact in api.get(f"/contacts/?{query}")][::-1], query


def test_a_period_begins_with_since_and_ends_before_until(api: Api, clock: Clock) -> None:
    source_id = api.source()
    for hours in range(8):
        clock.set(hours)
        api.contact(source_id)
    assert ids(api, f"since={at(2)}&until={at(5)}") == [3, 4, 5]
    assert ids(api, f"since={at(6)}") == [7, 8]
    assert ids(api, f"until={at(1)}") == [1]
    assert ids(api, f"since=2026-01-01T00:00:00Z&until={at(2)}&source_id=1") == [1, 2]
    assert ids(api, f"since={at(5)}&until={at(5)}") == []


def test_a_bad_question_names_the_parameter(api: Api) -> None:
    bad = ["format=xlsx", "since=yesterday", "until=2026-06-01T09:00:00", "limit=5", "order=queue", "status=open"]
    for query in [*bad, "source_id=0", "topic=%00"]:
        [error] = api.get(f"/contacts/export?{query}", expect=422)["detail"]
        assert error["loc"] == ["query", query.partition("=")[0]]


def test_no_cell_is_run_by_a_spreadsheet_and_phones_stay_as_they_are(api: Api) -> None:
    source_id = api.source("=Shop", {api.operator("@Anna"): 1})
    for number, evil in enumerate(EVIL):
        api.contact(source_id, f"-{number}", lead_phone=f"8999123450{number}", lead_name=evil + "x", message=evil,
                    lead_email=f"=x{number}@example.com", topic="+topic", event_id="=" + evil)  # fmt: skip
    for phone in ("89991234508", "89991234509"):
        api.contact(source_id, "+79991230000", lead_phone=phone, message="'=fine = 1")
    rows = cells(export(api))
    assert [row["message"] for row in rows[: len(EVIL)]] == [f"'{evil}" for evil in EVIL]
    assert not [cell for row in rows for cell in row.values() if cell[:1] in tuple("=-@\t\r\n")]
    assert {cell for row in rows for cell in row.values() if cell.startswith("+")} == {
        *(f"+7999123450{number}" for number in range(len(EVIL))), "+79991230000", "+79991234508; +79991234509"
    }  # fmt: skip
    assert rows[0]["lead_emails"] == "'=x0@example.com"
    assert rows[0]["source_name"] == "'=Shop"
    assert rows[-2]["message"] == "'=fine = 1"
    assert lines(api)[0]["message"] == EVIL[0]


# --- over a real server: how it ends ---------------------------------------------------------------------------------


def add_contacts(service: Service, number: int) -> None:
    """With a message of 10,000 letters each; at source 1."""
    service.call("POST", "/contacts/", {"source_id": 1, "lead_external_id": 1, "message": "x" * 10_000})
    columns = "created_at, message, priority, lead_id, source_id, operator_id, status"
    fill = f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {number}) INSERT INTO contact"
    sql(service.url, f"{fill} ({columns}) SELECT {columns} FROM contact, n")


@pytest.fixture
def service(database: str) -> Iterator[Service]:
    with threaded(database) as service:
        service.call("POST", "/sources/", {"name": "Shop"})
        yield service


def test_a_fault_in_the_middle_breaks_the_connection_off(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = exports.read_page

    def fail(session: Any, statement: Any, after: int, last: int) -> Any:
        if after:
            raise OperationalError("SELECT", None, Exception("disk I/O error"))
        return read(session, statement, after, last)

    add_contacts(service, 4)
    monkeypatch.setattr(exports, "read_page", fail)
    connection = service.connect()
    connection.request("GET", "/contacts/export?format=jsonl")
    answer = connection.getresponse()
    assert answer.status == 200
    with pytest.raises(http.client.IncompleteRead) as broken:
        answer.read()
    connection.close()
    assert [json.loads(line)["id"] for line in broken.value.partial.splitlines()] == [1, 2, 3]
    said = [record.getMessage() for record in caplog.records if record.name == exports.__name__]
    assert said == ["an export was broken off: disk I/O error"]
    assert not [record for record in caplog.records if record.exc_info]


def test_a_database_that_is_away_at_the_begin_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> Any:
        raise OperationalError("SELECT", None, Exception("gone"))

    monkeypatch.setattr(api.client.app.state.service.database, "look", fail)  # type: ignore[attr-defined]
    assert "try again" in api.get("/contacts/export", expect=503)["detail"]


def test_a_stop_breaks_an_export_off(database: str) -> None:
    with ExitStack() as stack:
        with threaded(database) as service:
            service.call("POST", "/sources/", {"name": "Shop"})
            add_contacts(service, 1000)
            connection = stack.enter_context(closing(service.connect()))
            connection.request("GET", "/contacts/export?format=jsonl")
            answer = connection.getresponse()
            answer.readline()
            begin = time.monotonic()
        assert time.monotonic() - begin < 4
        with pytest.raises(http.client.IncompleteRead):
            answer.read()


def test_who_hangs_up_ends_its_export(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_contacts(service, 2000)
    read, last = exports.read_page, 0

    def watch(session: Any, statement: Any, after: int, up_to: int) -> Any:
        nonlocal last
        rows, last = read(session, statement, after, up_to)
        return rows, last

    monkeypatch.setattr(exports, "read_page", watch)
    monkeypatch.setattr(logs.requests, "disabled", False)
    caplog.set_level("INFO", logs.requests.name)
    with closing(service.connect()) as connection:
        connection.request("GET", "/contacts/export?format=jsonl")
        connection.getresponse().readline()
    begin = time.monotonic()
    while not any("/contacts/export" in str(getattr(record, "fields", "")) for record in caplog.records):
        assert time.monotonic() - begin < 20
        time.sleep(0.01)
    assert 0 < last < 1900
