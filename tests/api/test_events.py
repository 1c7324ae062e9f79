"""GET /events/ and /events/stream: what is told, to whom, and how a reader goes on."""

import http.client
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import pytest
from fastapi.testclient import TestClient

from crm.api import events as api_events
from tests.api.test_exports import add_contacts
from tests.conftest import Api
from tests.effort import effort
from tests.outbox.reading import Stream
from tests.postgres import sql
from tests.service import Service, serving, threaded
from tests.web.test_auth import Team, team

__all__ = ["team"]


def events(api: Api, query: str = "") -> Any:
    return api.get(f"/events/{query}")


def types(api: Api, query: str = "") -> list[tuple[str, int]]:
    return [(event["type"], event["data"]["contact_id"]) for event in events(api, query)]


def cursor(client: TestClient, query: str = "") -> int:
    return int(client.get(f"/events/{query}").headers["X-Cursor"])


def test_events_tell_a_contact_from_the_registration_to_its_end(api: Api) -> None:
    boris = api.operator("Boris", max_load=0)
    source_id = api.source(weights={boris: 1})
    contact = api.contact(source_id, event_id=880002, message="Secret", lead_name="Ivan", lead_phone="+79991234567")
    api.patch(f"/operators/{boris}", {"max_load": 1})
    for status in ("in_progress", "closed"):
        api.patch(f"/contacts/{contact['id']}/status", {"status": status})
    told = events(api)
    data = {"contact_id": contact["id"], "event_id": "880002", "source_id": source_id, "lead_id": contact["lead_id"]}
    assert [event["data"] for event in told] == [
        {**data, "operator": operator, "status": status, "reason": reason, "new": True}
        for operator, status, reason in (
            (None, "pending", "queued"),
            ({"id": boris, "name": "Boris"}, "new", "from_queue"),
            ({"id": boris, "name": "Boris"}, "in_progress", "started"),
            ({"id": boris, "name": "Boris"}, "closed", "closed"),
        )
    ]
    assert [event["type"] for event in told] == [
        f"contact.{kind}" for kind in ("queued", "assigned", "started", "closed")
    ]
    history = api.get(f"/contacts/{contact['id']}")["history"]
    assert [(event["id"], event["timestamp"]) for event in told] == [(row["id"], row["created_at"]) for row in history]
    assert told[0].keys() == {"id", "type", "timestamp", "data"}
    for word in ("Secret", "Ivan", "79991234567", "tg:1"):
        assert word not in str(told)


def test_new_says_whether_it_is_the_first_contact_of_the_lead(api: Api) -> None:
    source_id = api.source(weights={api.operator(): 1})
    for lead in ("tg:1", "tg:2", "tg:1"):
        api.contact(source_id, lead)
    assert [event["data"]["new"] for event in events(api)] == [True, True, False]


def test_a_released_contact_is_queued_or_assigned_to_another(api: Api) -> None:
    anna = api.operator("Anna")
    source_id = api.source(weights={anna: 1})
    api.contact(source_id)
    api.post(f"/operators/{anna}/release", expect=200)
    boris = api.operator("Boris")
    api.post(f"/sources/{source_id}/operators", {"operator_id": boris, "weight": 1})
    api.patch(f"/operators/{anna}", {"is_active": True})
    api.post(f"/operators/{boris}/release", expect=200)
    told = [(event["type"], event["data"]["reason"], event["data"]["operator"]) for event in events(api)]
    assert [(kind, reason, operator and operator["id"]) for kind, reason, operator in told] == [
        ("contact.assigned", "distributed", anna),
        ("contact.queued", "released", None),
        ("contact.assigned", "from_queue", boris),
        ("contact.assigned", "released", anna),
    ]


def test_an_event_stays_what_it_was_whatever_happens_later(api: Api) -> None:
    anna = api.operator("Anna")
    contact = api.contact(api.source(weights={anna: 1}))
    before = events(api)
    api.patch(f"/contacts/{contact['id']}/status", {"status": "in_progress"})
    api.post(f"/contacts/{contact['id']}/assign", {"operator_id": api.operator("Boris")}, expect=200)
    api.close(contact["id"])
    assert events(api)[:1] == before


def test_a_reader_goes_on_from_its_cursor_page_by_page(api: Api, client: TestClient) -> None:
    source_id = api.source(weights={api.operator(): 1})
    for number in range(5):
        api.contact(source_id, f"tg:{number}")
    first = client.get("/events/?limit=2")
    assert [event["id"] for event in first.json()] == [1, 2]
    assert first.headers["X-Cursor"] == "2"
    assert [event["id"] for event in events(api, "?after=2&limit=2")] == [3, 4]
    assert (types(api, "?after=5"), cursor(client, "?after=5")) == ([], 5)
    assert (types(api, "?after=77"), cursor(client, "?after=77")) == ([], 77)
    assert cursor(client, f"?after={10**30}") == 10**30


def test_filters_combine_and_the_cursor_passes_over_what_they_leave_out(api: Api, client: TestClient) -> None:
    anna = api.operator()
    shop, help_desk = api.source("Shop", {anna: 1}), api.source("Help", {anna: 1})
    first, second = api.contact(shop)["id"], api.contact(help_desk, "tg:2")["id"]
    api.close(first)
    api.contact(shop, "tg:3")
    assert types(api, f"?source_id={help_desk}") == [("contact.assigned", second)]
    assert types(api, f"?source_id={shop}&type=contact.closed") == [("contact.closed", first)]
    both = types(api, "?type=contact.closed&type=contact.assigned&after=1")
    assert [kind for kind, _ in both] == ["contact.assigned", "contact.closed", "contact.assigned"]
    assert cursor(client, "?type=contact.overdue") == cursor(client, "?type=contact.closed") == 4
    assert types(api, "?source_id=77") == []


@pytest.mark.parametrize(
    ("query", "named"),
    [
        *(("after=-1", "after"), ("after=x", "after"), ("limit=0", "limit"), ("limit=1001", "limit")),
        *(("wait=31", "wait"), ("wait=nan", "wait"), ("type=contact.lost", "type"), ("source_id=0", "source_id")),
        *(("since=2026-01-01T00:00:00Z", "since"), ("skip=1", "skip")),
    ],
)
def test_what_can_not_be_asked_for_is_named(api: Api, query: str, named: str) -> None:
    problems = api.get(f"/events/?{query}", expect=422)["detail"]
    assert named in problems[0]["loc"]


def test_a_stream_refuses_what_is_no_cursor(client: TestClient) -> None:
    for value in ("x", "-1", "1.5"):
        answer = client.get("/events/stream", headers={"Last-Event-ID": value})
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "last-event-id"])


def test_who_waits_is_answered_as_soon_as_there_is_something(api: Api, client: TestClient) -> None:
    source_id = api.source(weights={api.operator(): 1})
    begin = time.monotonic()
    assert (types(api, "?wait=0.3"), time.monotonic() - begin > 0.3) == ([], True)
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(client.get("/events/?wait=30").json()))
    waiting.start()
    time.sleep(0.3)
    api.contact(source_id)
    waiting.join(15)
    assert [event["type"] for event in answers[0]] == ["contact.assigned"]


def test_each_key_is_told_of_what_is_its_own(team: Team) -> None:
    team.admin.post("/contacts/2/assign", {"operator_id": 1}, expect=200)
    team.boris.patch("/contacts/1/status", {"status": "closed"}, expect=404)
    team.anna.patch("/contacts/1/status", {"status": "closed"})
    everything = [("contact.assigned", 1), ("contact.assigned", 2), ("contact.assigned", 2), ("contact.closed", 1)]
    assert types(team.admin) == everything
    assert types(team.anna) == [everything[0], *everything[2:]]
    assert types(team.boris) == [("contact.assigned", 2)]
    assert types(team.shop) == types(team.shop, "?source_id=1") == [("contact.assigned", 1), ("contact.closed", 1)]
    assert types(team.help) == [("contact.assigned", 2), ("contact.assigned", 2)]
    assert "source 1 only" in team.shop.get("/events/?source_id=2", expect=403)["detail"]
    assert types(team.anna, "?source_id=2") == [("contact.assigned", 2)]


# --- the stream: over a real server, for it has no end --------------------------------------------------------------


def set_up(service: Service) -> None:
    service.call("POST", "/operators/", {"name": "Anna", "max_load": 100})
    service.call("POST", "/sources/", {"name": "Shop"})
    service.call("PUT", "/sources/1/operators", [{"operator_id": 1, "weight": 1}])


@pytest.fixture(autouse=True)
def _does_not_wait_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_events, "PING", 0.5)


@pytest.fixture
def service(database: str) -> Iterator[Service]:
    with threaded(database) as service:
        set_up(service)
        yield service


def register(service: Service, lead: str = "tg:1") -> None:
    service.call("POST", "/contacts/", {"source_id": 1, "lead_external_id": lead})


def test_a_stream_tells_what_happens_from_now_on_and_goes_on_where_it_was_cut(service: Service) -> None:
    register(service)
    with Stream(service) as stream:
        assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
        blocks = stream.blocks()
        assert next(blocks) == (1, None, None)
        register(service)
        told = next(block for block in blocks if block.data is not None)
        assert told == (2, "contact.assigned", service.call("GET", "/events/?after=1")[0])
    for contact_id in (1, 2):
        service.call("PATCH", f"/contacts/{contact_id}/status", {"status": "closed"})
    with Stream(service, "?after=0", {"Last-Event-ID": "2"}) as stream:
        assert [event["id"] for event in islice(stream.events(), 2)] == [3, 4]
    with Stream(service, "?after=0&type=contact.closed&source_id=1") as stream:
        assert [event["id"] for event in islice(stream.events(), 2)] == [3, 4]


def test_a_ping_moves_the_cursor_of_a_stream_on_over_what_it_leaves_out(service: Service) -> None:
    with Stream(service, "?after=0&type=contact.closed") as stream:
        register(service)
        assert next(block for block in stream.blocks() if block.id) == (1, None, None)


def test_a_stop_ends_all_who_follow_at_once_even_who_takes_nothing(database: str) -> None:
    fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) INSERT INTO assignment"
    columns = "contact_id, reason, candidates, created_at"
    with serving(database, workers=effort(1, 2)) as service:
        set_up(service)
        register(service)
        sql(service.url, f"{fill} ({columns}) SELECT {columns} FROM assignment, n")
        add_contacts(service, 2000)
        waiting, exporting = service.connect(), service.connect()
        waiting.request("GET", "/events/?wait=30&after=40002")
        exporting.request("GET", "/contacts/export")
        with Stream(service) as one, Stream(service) as other, Stream(service, "?after=0"):
            time.sleep(1)  # 10 MB of each kind, which nobody takes
            begin = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(20) is not None
            assert time.monotonic() - begin < 4
            assert [list(stream.events()) for stream in (one, other)] == [[], []]
        assert waiting.getresponse().read() == b"[]"
        waiting.close()
        with closing(exporting), pytest.raises((http.client.IncompleteRead, ConnectionError)):
            exporting.getresponse().read()


def test_a_stream_ends_when_its_key_is_revoked(database: str) -> None:
    with threaded(database, admin_key="the-admin's-own-key") as service:
        service.headers = {"X-API-Key": "the-admin's-own-key"}
        service.call("POST", "/sources/", {"name": "Shop"})
        key = service.call("POST", "/keys/", {"role": "source", "name": "bot", "source_id": 1})
        with Stream(service, headers={"X-API-Key": key["key"]}) as stream:
            assert next(stream.blocks()) == (0, None, None)
            service.call("DELETE", f"/keys/{key['id']}")
            assert list(stream.events()) == []  # it ends, else the reader's time would be out
        assert service.request("GET", "/events/stream", headers={"X-API-Key": key["key"]})[0] == 401
