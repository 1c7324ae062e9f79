"""Shifts over the API: the plan, and that who is off shift gets nothing by itself."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from crm.errors import StartupError
from crm.main import create_app
from crm.settings import load_settings
from tests.api.test_metrics import scrape
from tests.conftest import Api, address, app_on, local, settings_of
from tests.day.shifts import EIGHT, HOUR, Clock, at, only
from tests.test_queue import outcomes, reasons
from tests.web.test_auth import ADMIN, KeyApi

WEEK = {
    "time_zone": "Europe/Berlin",
    "hours": [{"weekday": day, "begin": "12:00", "end": "20:00"} for day in range(5)],
    "exceptions": [{"begin": at(26), "end": at(50), "works": False}],
}


def shift(api: Api, operator_id: int = 1) -> tuple[bool, str | None]:
    """As the operator's row has it."""
    operator = api.get(f"/operators/{operator_id}")
    return operator["on_shift"], operator["shift_until"]


# --- the plan --------------------------------------------------------------------------------------------------------


def test_a_plan_is_replaced_at_once_and_says_what_follows_from_it(api: Api, clock: Clock) -> None:
    """It is ten o'clock in Berlin."""
    api.operator()
    always = {"operator_id": 1, "time_zone": None, "zone": "UTC", "hours": [], "exceptions": []}
    always |= {"on_shift": True, "shift_until": None}
    assert api.get("/operators/1/shifts") == always
    week = {**WEEK, "operator_id": 1, "zone": "Europe/Berlin", "on_shift": False, "shift_until": at(2)}
    assert api.put("/operators/1/shifts", WEEK) == week == api.get("/operators/1/shifts")
    assert shift(api) == (False, at(2))
    [listed] = api.get("/operators/")
    assert (listed["on_shift"], listed["shift_until"]) == (False, at(2))
    clock.set(3)
    api.patch("/operators/1", {})
    assert shift(api) == (True, at(10))
    other = api.put("/operators/1/shifts", {"hours": [{"weekday": 0, "begin": "11:00", "end": "11:00"}]})
    assert (other["zone"], other["exceptions"], other["on_shift"], other["shift_until"]) == ("UTC", [], True, at(27))
    assert api.put("/operators/1/shifts", {}) == always
    for call in (api.get("/operators/9/shifts", expect=404), api.put("/operators/9/shifts", {}, expect=404)):
        assert "operator 9" in call["detail"]
    api.put("/operators/1/shifts", WEEK)
    api.delete("/operators/1")
    assert api.operator() == 2
    assert api.get("/operators/2/shifts") == always | {"operator_id": 2}


SPAN = {"weekday": 0, "begin": "09:00", "end": "18:00"}
AWAY = {"begin": at(0), "end": at(1), "works": False}
BAD: list[tuple[Any, tuple[Any, ...]]] = [
    *(
        ({"time_zone": zone}, ("time_zone",))
        for zone in ("Mars/Base", "", "europe/berlin", "../UTC", 5, "a\x00", "MSK")
    ),
    *(({"hours": [SPAN, {**SPAN, "weekday": day}]}, ("hours", 1, "weekday")) for day in (-1, 7, 10**30, None, 1.5)),
    *(
        ({"hours": [{**SPAN, field: clock}]}, ("hours", 0, field))
        for field in ("begin", "end")
        for clock in ("24:00", "9:00", "09:00:00", "09:60", "09:00\n", "", "٠٩:٠٠", "0٩:00", 9, None)
    ),
    ({"hours": [{"weekday": 0, "begin": "09:00"}]}, ("hours", 0, "end")),
    ({"hours": [{**SPAN, "until": "x"}]}, ("hours", 0, "until")),
    ({"hours": [SPAN] * 101}, ("hours",)),
    ({"hours": None}, ("hours",)),
    *(
        ({"exceptions": [{**AWAY, field: moment}]}, ("exceptions", 0, field))
        for field in ("begin", "end")
        for moment in ("2026-06-01T09:00:00", "2026-06-01", "tomorrow", 1_780_000_000, None)
    ),
    ({"exceptions": [{**AWAY, "end": "9999-12-31T23:59:59-01:00"}]}, ("exceptions", 0, "end")),
    ({"exceptions": [AWAY, {**AWAY, "end": at(0)}]}, ("exceptions", 1)),
    *(({"exceptions": [{**AWAY, "works": value}]}, ("exceptions", 0, "works")) for value in ("no", 0, None)),
    ({"exceptions": [AWAY] * 201}, ("exceptions",)),
    ({"weekly": []}, ("weekly",)),
    ([], ()),
]


@pytest.mark.usefixtures("clock")
def test_what_is_no_plan_is_refused_by_name_and_changes_nothing(api: Api) -> None:
    api.operator()
    before = api.put("/operators/1/shifts", WEEK)
    for body, where in BAD:
        [error, *_] = api.put("/operators/1/shifts", body, expect=422)["detail"]
        assert tuple(error["loc"]) == ("body", *where), body
    assert api.get("/operators/1/shifts") == before


@pytest.mark.usefixtures("clock")
def test_the_beginning_and_the_end_of_time_are_moments_like_others(api: Api) -> None:
    api.source(weights={api.operator(): 1})
    first, last = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
    hours = [{"weekday": day, "begin": "00:00", "end": "00:00"} for day in range(7)]
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):
        forever = {"time_zone": zone, "hours": hours, "exceptions": [{"begin": first, "end": last, "works": False}]}
        answer = api.put("/operators/1/shifts", forever)
        assert (answer["on_shift"], answer["shift_until"]) in ((False, None), (False, last))
        assert api.get("/operators/1/shifts") == answer
        for moment in (first, last):
            api.get(f"/sources/1/candidates?at={moment}")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("at=2026-06-01T09:00:00", "at"),
        ("at=1780000000", "at"),
        ("at=", "at"),
        ("lead_id=0", "lead_id"),
        ("topic=" + "x" * 101, "topic"),
        ("topic=%00", "topic"),
        ("when=now", "when"),
    ],
)
def test_a_bad_question_for_candidates_names_the_parameter(api: Api, query: str, field: str) -> None:
    api.source()
    assert api.get(f"/sources/1/candidates?{query}", expect=422)["detail"][0]["loc"] == ["query", field]


@pytest.fixture
def keys(database: str) -> Iterator[KeyApi]:
    with TestClient(app_on(database, admin_key=ADMIN, rate_limit=10_000), address()) as client:
        yield KeyApi(client, ADMIN)


def test_an_operator_may_read_its_own_plan_and_write_none(keys: KeyApi) -> None:
    anna, boris = keys.operator("Anna"), keys.operator("Boris")
    mine = keys.make("operator", operator_id=anna)
    assert mine.get(f"/operators/{anna}/shifts") == keys.get(f"/operators/{anna}/shifts")
    mine.get(f"/operators/{boris}/shifts", expect=404)
    for operator_id in (anna, boris):
        mine.put(f"/operators/{operator_id}/shifts", WEEK, expect=403)
    assert mine.get(f"/operators/{anna}")["shift_until"] is None


@pytest.mark.usefixtures("clock")
def test_plans_that_name_no_time_zone_are_in_that_of_the_setting_also_after_it_has_changed(database: str) -> None:
    hours = [{"weekday": 0, "begin": "09:00", "end": "18:00"}]
    expected = {"UTC": (False, at(1)), "Europe/Berlin": (True, at(8)), "Asia/Tokyo": (True, at(1))}
    for zone, state in expected.items():
        with local(app_on(database, time_zone=zone)) as client:
            api = Api(client)
            if not api.get("/operators/"):
                api.put(f"/operators/{api.operator()}/shifts", {"hours": hours})
                api.put(f"/operators/{api.operator()}/shifts", {"hours": hours, "time_zone": "UTC"})
            assert (shift(api, 1), shift(api, 2)) == (state, expected["UTC"])
            assert api.get("/operators/1/shifts")["zone"] == zone
            assert api.get(f"/operators/{api.operator()}/shifts")["zone"] == zone


@pytest.mark.parametrize("zone", ["Mars/Base", "berlin"])
def test_a_setting_that_is_no_time_zone_stops_the_start(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("CRM_TIME_ZONE", zone)
    with pytest.raises(StartupError, match="CRM_TIME_ZONE"):
        load_settings()


# --- who is off shift ------------------------------------------------------------------------------------------------


def test_who_is_off_shift_gets_nothing_by_itself_and_keeps_what_it_has(api: Api, clock: Clock) -> None:
    anna, boris = api.operator("Anna", max_load=2), api.operator("Boris", max_load=1)
    source_id = api.source(weights={anna: 1, boris: 0})
    kept = api.contact(source_id)["id"]
    api.put(f"/operators/{anna}/shifts", only((-1, 1)))
    clock.set(1)
    waiting = api.contact(source_id)
    assert (waiting["status"], waiting["operator"]) == ("pending", None)
    assert outcomes(api, waiting["id"]) == {anna: "off_shift", boris: "zero_weight"}
    api.post(f"/contacts/{waiting['id']}/assign", {}, expect=409)
    api.post("/contacts/distribute", expect=200)
    api.patch(f"/operators/{anna}", {"max_load": 3, "is_active": True})
    assert api.get(f"/contacts/{waiting['id']}")["status"] == "pending"
    assert api.get(f"/contacts/{kept}")["operator_id"] == anna
    assert api.post(f"/contacts/{waiting['id']}/assign", {"operator_id": anna}, expect=200)["operator_id"] == anna
    assert reasons(api, waiting["id"]) == [("queued", None), ("manual", anna)]
    assert api.post(f"/operators/{anna}/release", expect=200) == {"released": 2, "reassigned": 0, "pending": 2}
    api.patch(f"/operators/{anna}", {"is_active": True})
    assert api.get("/stats/")["pending"] == 2
    clock.set(24)
    api.put(f"/operators/{anna}/shifts", {})
    assert [contact["status"] for contact in api.get("/contacts/")] == ["new", "new"]


def test_a_shift_and_being_active_are_two_things_and_to_get_anything_one_needs_both(api: Api, clock: Clock) -> None:
    anna = api.operator(is_active=False)
    source_id = api.source(weights={anna: 1})
    api.put(f"/operators/{anna}/shifts", only((1, 2)))
    contact = api.contact(source_id)["id"]
    for hours, is_active, on_shift in ((1, False, True), (2, False, False), (2, True, False)):
        clock.set(hours)
        if is_active:
            assert api.patch(f"/operators/{anna}", {"is_active": True})["on_shift"] is on_shift
        api.post("/contacts/distribute", expect=200)
        operator = api.get(f"/operators/{anna}")
        assert (operator["is_active"], operator["on_shift"]) == (is_active, on_shift)
        assert api.get(f"/contacts/{contact}")["status"] == "pending"
    assert api.put(f"/operators/{anna}/shifts", only((2, 3)))["on_shift"] is True
    assert api.get(f"/contacts/{contact}")["operator_id"] == anna
    api.post(f"/operators/{anna}/release", expect=200)
    operator = api.get(f"/operators/{anna}")
    assert (operator["is_active"], operator["on_shift"], operator["shift_until"]) == (False, True, at(3))


def test_capacity_and_figures_count_who_is_active_and_on_shift(api: Api, clock: Clock) -> None:
    anna, boris = api.operator("Anna", max_load=4), api.operator("Boris", max_load=6)
    api.operator("Vera", max_load=10, is_active=False)
    source_id = api.source(weights={anna: 1, boris: 0})
    api.contact(source_id)
    api.put(f"/operators/{boris}/shifts", only((1, 2)))
    for hours, capacity, on_shift in ((0, 4, False), (1, 10, True), (2, 4, False)):
        clock.set(hours)
        api.post("/contacts/distribute", expect=200)
        totals = api.get("/stats/")
        assert (totals["capacity"], totals["utilization"], totals["active_operators"]) == (capacity, 1 / capacity, 2)
        assert api.get(f"/stats/series?measure=load&step=hour&since={at(-1)}")["capacity"] == capacity
        assert [row["on_shift"] for row in api.get("/stats/operators")] == [True, on_shift, True]
        figures = scrape(api)
        active = [figures[f'crm_operator_active{{operator="{name}",operator_id="{n}"}}'] for n, name in
                  ((1, "Anna"), (2, "Boris"), (3, "Vera"))]  # fmt: skip
        assert active == [1, on_shift, 0]


def candidates(api: Api, **query: Any) -> dict[int, tuple[str | None, float]]:
    """Why not, and how probably, by operator."""
    path = "/sources/1/candidates?" + "&".join(f"{name}={value}" for name, value in query.items())
    return {row["operator_id"]: (row["reason"], row["probability"]) for row in api.get(path)}


def test_candidates_may_be_asked_for_another_moment_lead_or_topic(api: Api, clock: Clock) -> None:
    anna, boris, vera = (api.operator(name) for name in ("Anna", "Boris", "Vera"))
    api.source(weights={anna: 10, boris: 30}, sticky="prefer")
    api.post("/sources/1/operators", {"operator_id": vera, "topic": "returns"})
    api.patch(f"/operators/{boris}", {"is_active": False})
    lead = api.contact(1)["lead_id"]
    api.patch(f"/operators/{boris}", {"is_active": True})
    api.put(f"/operators/{anna}/shifts", only((-2, 1)))
    both, only_boris = {anna: (None, 0.25), boris: (None, 0.75)}, {anna: ("off_shift", 0), boris: (None, 1)}
    assert candidates(api) == both == candidates(api, topic="thanks") == candidates(api, at=at(-2), topic="")
    assert candidates(api, lead_id=lead) == {anna: (None, 1), boris: (None, 0)}
    assert candidates(api, at=at(1)) == only_boris == candidates(api, at=at(1), lead_id=lead)
    assert candidates(api, at="2026-06-01T11:00:00%2B02:00") == only_boris
    assert candidates(api, topic="returns") == {vera: (None, 1)} == candidates(api, topic="returns", lead_id=lead)
    api.put(f"/operators/{vera}/shifts", only((5, 6)))
    assert candidates(api, topic="returns") == {vera: ("off_shift", 0)}
    assert candidates(api, topic="returns", at=at(5.5)) == {vera: (None, 1)}
    api.patch(f"/operators/{vera}", {"is_active": False})
    assert candidates(api, topic="returns") == {vera: ("inactive", 0)} == candidates(api, topic="returns", at=at(5.5))
    clock.set(1)
    assert candidates(api, at=at(0)) == both
    assert "lead 9" in api.get("/sources/1/candidates?lead_id=9", expect=404)["detail"]


# --- what is due by time ---------------------------------------------------------------------------------------------


def test_a_shift_that_begins_hands_out_what_waits_within_a_second_and_without_a_call(api: Api, clock: Clock) -> None:
    """A read is none: it changes nothing."""
    source_id = api.source(weights={api.operator(): 1})
    api.put("/operators/1/shifts", only((1, 2)))
    for _ in range(3):
        api.contact(source_id)
    clock.set(1)
    clock.tick(-0.3)
    begin = time.monotonic()
    while [contact["status"] for contact in api.get("/contacts/")] != ["new"] * 3:
        assert time.monotonic() - begin < 5  # of these one is a busy machine's
        time.sleep(0.02)
    assert time.monotonic() - begin > 0.25
    moments = {datetime.fromisoformat(contact["assigned_at"]) for contact in api.get("/contacts/")}
    assert all(EIGHT + HOUR <= moment < EIGHT + HOUR + timedelta(seconds=3) for moment in moments)
    assert shift(api) == (True, at(2))


@pytest.mark.usefixtures("without_timer")
def test_what_is_due_is_done_before_each_draw(api: Api, clock: Clock) -> None:
    """The end of one shift and the begin of another, seen first by each call that draws."""
    anna, boris = api.operator("Anna"), api.operator("Boris")
    source_id = api.source(weights={anna: 1, boris: 1})
    api.put(f"/operators/{anna}/shifts", only((0, 1), (2, 3), (4, 5)))
    api.put(f"/operators/{boris}/shifts", only((1, 2), (3, 4), (5, 6)))
    assert api.contact(source_id)["operator_id"] == anna
    clock.set(1)
    assert api.contact(source_id)["operator_id"] == boris
    clock.set(2)
    assert api.post("/contacts/2/assign", {}, expect=200)["operator_id"] == anna
    clock.set(3)
    assert api.post(f"/operators/{anna}/release", expect=200)["reassigned"] == 2
    api.patch(f"/operators/{anna}", {"is_active": True})
    api.patch(f"/operators/{boris}", {"max_load": 2})
    clock.set(5)
    waiting = api.contact(source_id)["id"]
    api.put(f"/operators/{anna}/shifts", only((6, 7)))
    assert (shift(api, anna), shift(api, boris)) == ((False, at(6)), (True, at(6)))
    clock.set(6)
    api.close(1)  # Boris has room now, and somebody waits for it
    assert reasons(api, waiting) == [("queued", None), ("from_queue", anna)]


def test_a_service_that_starts_later_does_what_was_due(database: str, clock: Clock) -> None:
    def begun() -> Any:
        return local(create_app(settings_of(database)))

    with begun() as client:
        api = Api(client)
        for name in ("Day", "Ended", "Over"):
            api.source(name, {api.operator(name): 1})
        for operator_id, spans in ((1, only((1, 9))), (2, only((-1, 0.5))), (3, only((0.5, 1)))):
            api.put(f"/operators/{operator_id}/shifts", spans)
        for source_id in (1, 2, 3):
            api.contact(source_id)
        assert [contact["status"] for contact in api.get("/contacts/")] == ["pending", "new", "pending"]
    clock.set(2)
    with begun() as client:
        api = Api(client)
        assert [contact["operator_id"] for contact in api.get("/contacts/")] == [None, 2, 1]
        off = (False, "2100-01-01T00:00:00Z")
        assert [shift(api, n) for n in (1, 2, 3)] == [(True, at(9)), off, off]
