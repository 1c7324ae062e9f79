"""What is due by time is done without a call."""

import time
from typing import Any

import pytest

import crm.day.clock
from tests.conftest import Api
from tests.day.shifts import Clock, only
from tests.postgres import sql
from tests.test_queue import reasons


def test_what_was_not_accepted_is_passed_on_without_a_call(api: Api, clock: Clock) -> None:
    """A read is none: it changes nothing."""
    api.source(weights={api.operator("Anna"): 1, api.operator("Boris"): 1}, accept_within=60)
    api.contact(1)
    clock.tick(61)
    begin = time.monotonic()
    while len(reasons(api, 1)) == 1:
        assert time.monotonic() - begin < 5  # of these all but one are a busy machine's
        time.sleep(0.02)
    assert [reason for reason, _ in reasons(api, 1)] == ["distributed", "silent"]


def test_shifts_without_a_plan_are_none(api: Api, database: str) -> None:
    """However they came to be there, they must not stay due for ever."""
    api.source(weights={api.operator("Anna"): 1})
    sql(database, "UPDATE operator SET on_shift = false, shift_until = '2000-01-01 00:00:00.000000'")
    assert api.contact(1)["operator_id"] == 1
    assert (api.get("/operators/1")["on_shift"], api.get("/operators/1")["shift_until"]) == (True, None)


def test_a_zone_that_this_host_does_not_know_stops_nothing(api: Api, database: str, clock: Clock) -> None:
    """Another host, with newer time zones, has stored it."""
    api.source(weights={api.operator("Anna"): 1})
    api.put("/operators/1/shifts", only((0, 1)))
    sql(database, "UPDATE shift_plan SET zone = 'Mars/Olympus'")
    clock.set(1)
    assert api.contact(1)["operator_id"] == 1
    assert api.get("/operators/1")["on_shift"]
    [candidate] = api.get("/sources/1/candidates?at=2030-01-01T00:00:00Z")
    assert candidate["eligible"]  # as it is now, for what will be is not known here


def test_a_fault_in_what_is_due_does_not_end_the_clock(
    api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("crm.day.clock.AFTER_ERROR", 0.01)
    api.source(weights={api.operator("Anna"): 1, api.operator("Boris"): 1}, accept_within=60)
    api.contact(1)
    real, faults = crm.day.clock.catch_up, list[str]()

    def catch_up(connection: Any, rng: Any) -> None:
        if not faults:
            faults.append("one")
            raise KeyError("nothing of it")
        real(connection, rng)

    monkeypatch.setattr("crm.day.clock.catch_up", catch_up)
    clock.tick(61)
    begin = time.monotonic()
    while len(reasons(api, 1)) == 1:
        assert time.monotonic() - begin < 10
        time.sleep(0.02)
    assert faults
    assert "what is due was not done" in caplog.text
