"""What happens to a contact, as lines of its history: that is all that anybody is told from."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Api, app_on, local
from tests.postgres import sql


def lines(api: Api, contact_id: int) -> list[tuple[str, int | None]]:
    return [(line["reason"], line["operator_id"]) for line in api.get(f"/contacts/{contact_id}")["history"]]


def set_status(api: Api, contact_id: int, status: str) -> None:
    api.patch(f"/contacts/{contact_id}/status", {"status": status})


def eventually(get: Callable[[], Any], expected: Any) -> None:
    deadline = time.monotonic() + 20
    while (got := get()) != expected:
        assert time.monotonic() < deadline, got
        time.sleep(0.02)


def test_the_history_says_that_a_contact_was_started_and_closed_by_whom_it_belongs_to(api: Api) -> None:
    anna = api.operator()
    contact_id = api.contact(api.source(weights={anna: 1}))["id"]
    for status in ("in_progress", "in_progress", "closed", "closed"):
        set_status(api, contact_id, status)
    assert lines(api, contact_id) == [("distributed", anna), ("started", anna), ("closed", anna)]
    assert [line["candidates"] for line in api.get(f"/contacts/{contact_id}")["history"][1:]] == [[], []]


def test_a_refused_status_writes_no_line(api: Api) -> None:
    contact_id = api.contact(api.source())["id"]
    api.patch(f"/contacts/{contact_id}/status", {"status": "in_progress"}, expect=409)
    set_status(api, contact_id, "closed")
    api.patch(f"/contacts/{contact_id}/status", {"status": "in_progress"}, expect=409)
    assert lines(api, contact_id) == [("queued", None), ("closed", None)]


def test_a_contact_is_closed_before_the_one_that_gets_its_place_is_handed_out(api: Api, database: str) -> None:
    anna = api.operator(max_load=1)
    source_id = api.source(weights={anna: 1})
    first, second = api.contact(source_id)["id"], api.contact(source_id)["id"]
    api.close(first)
    told = sql(database, "SELECT contact_id, reason FROM assignment ORDER BY id")
    assert [tuple(row) for row in told] == [
        *((first, "distributed"), (second, "queued"), (first, "closed"), (second, "from_queue"))
    ]


def test_who_waits_longer_than_the_setting_is_overdue_once(database: str) -> None:
    with local(app_on(database, overdue_minutes=0.01)) as client:
        api = Api(client)
        anna = api.operator(max_load=0)
        source_id = api.source(weights={anna: 1})
        contact_id = api.contact(source_id)["id"]
        eventually(lambda: lines(api, contact_id), [("queued", None), ("overdue", None)])
        api.patch(f"/operators/{anna}", {"max_load": 2})
        api.post(f"/operators/{anna}/release", expect=200)
        later = api.contact(source_id)["id"]
        eventually(lambda: lines(api, later), [("queued", None), ("overdue", None)])
        told = [("queued", None), ("overdue", None), ("from_queue", anna), ("released", None)]
        assert lines(api, contact_id) == told  # it waits for longer than the other, which was told


def test_who_was_released_is_overdue_only_after_waiting_anew(database: str) -> None:
    with local(app_on(database, overdue_minutes=1)) as client:
        api = Api(client)
        anna = api.operator()
        source_id = api.source(weights={anna: 1})
        contact_id = api.contact(source_id)["id"]
        sql(database, "UPDATE contact SET created_at = '2026-01-01 00:00:00.000000'")
        api.post(f"/operators/{anna}/release", expect=200)
        waits = api.contact(source_id)["id"]
        sql(database, f"UPDATE contact SET waits_since = '2026-01-01 00:00:00.000000' WHERE id = {waits}")
        eventually(lambda: lines(api, waits), [("queued", None), ("overdue", None)])
        assert lines(api, contact_id) == [("distributed", anna), ("released", None)]


@pytest.mark.parametrize("how", ["close", "assign"])
def test_who_waits_no_more_is_not_overdue(database: str, how: str) -> None:
    with local(app_on(database, overdue_minutes=0.01)) as client:
        api = Api(client)
        anna = api.operator()
        source_id = api.source()
        served = api.contact(source_id)["id"]
        if how == "close":
            api.close(served)
        else:
            api.post(f"/contacts/{served}/assign", {"operator_id": anna}, expect=200)
        waits = api.contact(source_id)["id"]
        eventually(lambda: lines(api, waits), [("queued", None), ("overdue", None)])
        assert "overdue" not in dict(lines(api, served))
