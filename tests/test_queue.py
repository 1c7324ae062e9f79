"""Waiting contacts get out by themselves, and people can steer: the queue, assign, release, candidates."""

from collections.abc import Callable
from typing import Any

import pytest

from crm.main import create_app
from tests.conftest import Api, local, settings_of
from tests.postgres import sql


def statuses(api: Api) -> list[str]:
    """Of all contacts, oldest first."""
    return [contact["status"] for contact in reversed(api.get("/contacts/"))]


def reasons(api: Api, contact_id: int) -> list[tuple[str, int | None]]:
    return [(entry["reason"], entry["operator_id"]) for entry in api.get(f"/contacts/{contact_id}")["history"]]


def outcomes(api: Api, contact_id: int) -> dict[int, str]:
    """Of the newest draw, by operator."""
    newest = api.get(f"/contacts/{contact_id}")["history"][-1]
    return {candidate["operator_id"]: candidate["outcome"] for candidate in newest["candidates"]}


# --- what makes room -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "event"),
    [
        pytest.param({"max_load": 0}, lambda api: api.patch("/operators/1", {"max_load": 1}), id="limit raised"),
        pytest.param({"is_active": False}, lambda api: api.patch("/operators/1", {"is_active": True}), id="activated"),
        pytest.param(
            {"weight": 0}, lambda api: api.patch("/sources/1/operators/1", {"weight": 0.5}), id="weight raised from 0"
        ),
        pytest.param(
            {"weight": None},
            lambda api: api.post("/sources/1/operators", {"operator_id": 1}),
            id="operator added to the source",
        ),
        pytest.param(
            {"weight": None},
            lambda api: api.put("/sources/1/operators", [{"operator_id": 1, "weight": 1}]),
            id="weights replaced",
        ),
    ],
)
def test_what_makes_room_hands_out_in_the_same_call(
    api: Api, start: dict[str, Any], event: Callable[[Api], Any]
) -> None:
    weight = start.get("weight", 1)
    operator_id = api.operator(**{field: value for field, value in start.items() if field != "weight"})
    source_id = api.source(weights={} if weight is None else {operator_id: weight})
    waiting = api.contact(source_id)
    assert (waiting["status"], waiting["assigned_at"]) == ("pending", None)
    event(api)
    contact = api.get(f"/contacts/{waiting['id']}")
    assert (contact["status"], contact["operator_id"]) == ("new", operator_id)
    assert contact["assigned_at"] > contact["created_at"]
    assert reasons(api, waiting["id"]) == [("queued", None), ("from_queue", operator_id)]
    assert outcomes(api, waiting["id"]) == {operator_id: "chosen"}


def test_closing_hands_the_place_to_whom_waits_by_priority_then_age(api: Api) -> None:
    source_id = api.source(weights={api.operator(max_load=1): 1})
    first = api.contact(source_id)["id"]
    older, urgent, newer = (api.contact(source_id, priority=priority)["id"] for priority in (0, 5, 0))
    assert [contact["id"] for contact in api.get("/contacts/?order=queue")] == [urgent, older, newer]
    for closed, served in ((first, urgent), (urgent, older), (older, newer)):
        api.close(closed)
        assert api.get(f"/contacts/{served}")["status"] == "new"
        assert api.get("/operators/1")["load"] == 1
    assert api.get("/stats/")["pending"] == 0


def test_a_source_whose_operators_stay_full_never_delays_another(api: Api) -> None:
    busy, free = api.operator("Busy", max_load=1), api.operator("Free", max_load=1)
    crowded, quiet = api.source("Crowded", {busy: 1}), api.source("Quiet", {free: 1})
    api.contact(crowded)
    for _ in range(3):
        api.contact(crowded, priority=9)
    first = api.contact(quiet)["id"]
    waiting = api.contact(quiet)["id"]
    api.close(first)
    assert api.get(f"/contacts/{waiting}")["operator_id"] == free
    assert [contact["source_id"] for contact in api.get("/contacts/?order=queue")] == [crowded] * 3


def test_over_two_sources_the_highest_priority_then_the_oldest_goes_first(api: Api) -> None:
    anna = api.operator(max_load=0)
    shop, help_desk = api.source("Shop", {anna: 1}), api.source("Help", {anna: 1})
    contacts = [api.contact(s, priority=p)["id"] for s, p in ((shop, 0), (help_desk, 0), (shop, 3), (help_desk, 7))]
    for limit, served in ((1, contacts[3]), (2, contacts[2]), (3, contacts[0]), (4, contacts[1])):
        api.patch(f"/operators/{anna}", {"max_load": limit})
        assert api.get(f"/contacts/{served}")["status"] == "new"
        assert api.get("/stats/")["pending"] == 4 - limit


def test_raising_a_limit_hands_out_as_many_as_there_is_room_for(api: Api) -> None:
    source_id = api.source(weights={api.operator(max_load=0): 1})
    for _ in range(30):
        api.contact(source_id)
    api.patch("/operators/1", {"max_load": 20})
    assert statuses(api) == ["new"] * 20 + ["pending"] * 10


def test_a_queue_is_handed_out_by_weight(api: Api) -> None:
    anna, boris = api.operator("Anna", max_load=400), api.operator("Boris", max_load=400)
    source_id = api.source()
    for _ in range(400):
        api.contact(source_id)
    entries = [{"operator_id": anna, "weight": 10}, {"operator_id": boris, "weight": 30}]
    api.put(f"/sources/{source_id}/operators", entries)
    assert api.get(f"/operators/{anna}")["load"] + api.get(f"/operators/{boris}")["load"] == 400
    assert 70 <= api.get(f"/operators/{anna}")["load"] <= 130  # 100, within 3.5 standard deviations of a fixed seed


def test_what_an_older_version_left_waiting_is_handed_out_at_the_start(database: str) -> None:
    with local(create_app(settings_of(database))) as client:
        api = Api(client)
        source_id = api.source(weights={api.operator(max_load=0): 1})
        api.contact(source_id)
    sql(database, "UPDATE operator SET max_load = 1")
    with local(create_app(settings_of(database))) as client:
        assert statuses(Api(client)) == ["new"]


# --- distribute ------------------------------------------------------------------------------------------------------


def test_distribute_tries_one_source_or_all(api: Api, database: str) -> None:
    anna = api.operator(max_load=0)
    shop, help_desk = api.source("Shop", {anna: 1}), api.source("Help", {anna: 1})
    for source_id in (shop, shop, help_desk, help_desk):
        api.contact(source_id)
    assert api.post("/contacts/distribute", expect=200) == {"assigned": 0, "pending": 4}
    sql(database, "UPDATE operator SET max_load = 3")
    assert api.post(f"/contacts/distribute?source_id={help_desk}", expect=200) == {"assigned": 2, "pending": 0}
    assert api.post("/contacts/distribute", expect=200) == {"assigned": 1, "pending": 1}
    assert "source 7 not found" in api.post("/contacts/distribute?source_id=7", expect=404)["detail"]


# --- assign ----------------------------------------------------------------------------------------------------------


def test_assigning_to_another_moves_the_contact_and_frees_the_place_for_whom_waits(api: Api) -> None:
    anna, boris = api.operator("Anna", max_load=1), api.operator("Boris", max_load=1)
    source_id = api.source(weights={anna: 1})
    first, second = api.contact(source_id)["id"], api.contact(source_id)["id"]
    before = api.patch(f"/contacts/{first}/status", {"status": "in_progress"})
    moved = api.post(f"/contacts/{first}/assign", {"operator_id": boris}, expect=200)
    assert (moved["operator_id"], moved["status"], moved["assigned_at"]) == (boris, "new", before["assigned_at"])
    assert reasons(api, first) == [("distributed", anna), ("started", anna), ("manual", boris)]
    assert outcomes(api, first) == {anna: "not_drawn", boris: "chosen"}
    assert api.get(f"/contacts/{second}")["operator_id"] == anna


def test_assigning_to_the_one_who_has_it_changes_nothing(api: Api) -> None:
    source_id = api.source(weights={api.operator(max_load=1): 1})
    contact_id = api.contact(source_id)["id"]
    before = api.patch(f"/contacts/{contact_id}/status", {"status": "in_progress"})
    assert api.post(f"/contacts/{contact_id}/assign", {"operator_id": 1}, expect=200) == before
    assert reasons(api, contact_id) == [("distributed", 1), ("started", 1)]


def test_a_waiting_contact_can_be_assigned_by_hand_to_somebody_who_does_not_serve_the_source(api: Api) -> None:
    source_id, helper = api.source(), api.operator("Helper")
    contact_id = api.contact(source_id)["id"]
    contact = api.post(f"/contacts/{contact_id}/assign", {"operator_id": helper}, expect=200)
    assert (contact["status"], contact["operator"]["name"]) == ("new", "Helper")
    [queued, manual] = api.get(f"/contacts/{contact_id}")["history"]
    assert manual["created_at"] == contact["assigned_at"] > queued["created_at"]
    seen = {"operator_id": helper, "weight": 0.0, "outcome": "chosen", "load": 0, "max_load": 10}
    assert manual["candidates"] == [seen]


@pytest.mark.parametrize("state", [{"max_load": 0}, {"is_active": False}])
def test_force_goes_past_a_limit_or_inactivity_and_is_recorded_only_then(api: Api, state: dict[str, Any]) -> None:
    source_id, boris, clara = api.source(), api.operator("Boris", **state), api.operator("Clara")
    contact_id = api.contact(source_id)["id"]
    refused = api.post(f"/contacts/{contact_id}/assign", {"operator_id": boris}, expect=409)
    assert f"operator {boris} is" in refused["detail"]
    assert reasons(api, contact_id) == [("queued", None)]
    api.post(f"/contacts/{contact_id}/assign", {"operator_id": boris, "force": True}, expect=200)
    api.post(f"/contacts/{contact_id}/assign", {"operator_id": clara, "force": True}, expect=200)
    assert reasons(api, contact_id) == [("queued", None), ("forced", boris), ("manual", clara)]


def test_an_overloaded_operator_gets_nothing_until_below_the_limit_again(api: Api) -> None:
    anna = api.operator(max_load=1)
    source_id = api.source(weights={anna: 1})
    first, second, third = (api.contact(source_id)["id"] for _ in range(3))
    api.post(f"/contacts/{second}/assign", {"operator_id": anna, "force": True}, expect=200)
    assert api.get(f"/operators/{anna}")["load"] == 2
    api.close(first)
    assert api.get(f"/contacts/{third}")["status"] == "pending"
    api.close(second)
    assert api.get(f"/contacts/{third}")["status"] == "new"


def test_without_an_operator_it_is_drawn_among_the_eligible_others(api: Api) -> None:
    anna, boris, clara = (api.operator(name, max_load=1) for name in ("Anna", "Boris", "Clara"))
    source_id = api.source(weights={anna: 1})
    contact_id = api.contact(source_id)["id"]
    entries = [{"operator_id": anna, "weight": 1000}, {"operator_id": boris, "weight": 1}]
    api.put(f"/sources/{source_id}/operators", [*entries, {"operator_id": clara, "weight": 0}])
    assert api.post(f"/contacts/{contact_id}/assign", {}, expect=200)["operator_id"] == boris
    assert outcomes(api, contact_id) == {anna: "excluded", boris: "chosen", clara: "zero_weight"}
    api.patch(f"/operators/{anna}", {"is_active": False})
    refused = api.post(f"/contacts/{contact_id}/assign", {}, expect=409)
    assert f"source {source_id}" in refused["detail"]
    assert reasons(api, contact_id) == [("distributed", anna), ("manual", boris)]


def test_what_cannot_be_assigned_says_which_and_why(api: Api) -> None:
    anna = api.operator(max_load=1)
    source_id = api.source(weights={anna: 1})
    closed, waiting = api.contact(source_id)["id"], api.contact(source_id)["id"]
    api.close(closed)
    for contact_id, body, status, words in (
        (closed, {"operator_id": anna}, 409, f"contact {closed} is closed"),
        (closed, {}, 409, f"contact {closed} is closed"),
        (waiting, {"operator_id": 9}, 404, "operator 9 not found"),
        (99, {"operator_id": anna}, 404, "contact 99 not found"),
        (waiting, {"force": True}, 422, "operator_id"),
        (waiting, {"operator_id": "1"}, 422, "integer"),
        (waiting, {"operator": 1}, 422, "Extra"),
    ):
        before = api.get("/contacts/")
        answer = api.post(f"/contacts/{contact_id}/assign", body, expect=status)
        assert words in str(answer["detail"])
        assert api.get("/contacts/") == before


# --- release ---------------------------------------------------------------------------------------------------------


def test_release_hands_contacts_to_others_while_they_have_room_and_the_rest_waits(api: Api) -> None:
    anna, boris, clara = api.operator("Anna"), api.operator("Boris", max_load=4), api.operator("Clara", max_load=2)
    source_id = api.source(weights={anna: 1})
    contacts = [api.contact(source_id, priority=int(n == 9))["id"] for n in range(10)]
    api.put(f"/sources/{source_id}/operators", [{"operator_id": o, "weight": 1} for o in (anna, boris, clara)])
    assert api.post(f"/operators/{anna}/release", expect=200) == {"released": 10, "reassigned": 6, "pending": 4}
    waiting = [contact["id"] for contact in api.get("/contacts/?order=queue")]
    assert waiting == contacts[5:9]  # the urgent one and the five oldest found room
    operator = api.get(f"/operators/{anna}")
    assert (operator["is_active"], operator["load"]) == (False, 0)
    assert reasons(api, waiting[0]) == [("distributed", anna), ("released", None)]
    assert outcomes(api, waiting[0]) == {anna: "excluded", boris: "full", clara: "full"}
    newcomer = api.contact(source_id)["id"]
    api.patch(f"/operators/{boris}", {"max_load": 8})
    assert [contact["id"] for contact in api.get("/contacts/?order=queue")] == [newcomer]
    assert api.get(f"/operators/{anna}")["load"] == 0
    assert api.get(f"/contacts/{waiting[0]}")["assigned_at"] == api.get(f"/contacts/{waiting[0]}")["created_at"]


def test_releasing_somebody_without_contacts_only_deactivates(api: Api) -> None:
    anna = api.operator()
    assert api.post(f"/operators/{anna}/release", expect=200) == {"released": 0, "reassigned": 0, "pending": 0}
    assert api.post(f"/operators/{anna}/release", expect=200) == {"released": 0, "reassigned": 0, "pending": 0}
    assert api.get(f"/operators/{anna}")["is_active"] is False
    assert "operator 9 not found" in api.post("/operators/9/release", expect=404)["detail"]


# --- candidates ------------------------------------------------------------------------------------------------------


def test_candidates_say_who_could_get_the_next_contact_and_why_the_others_not(api: Api) -> None:
    free, freer = api.operator("Free", max_load=2), api.operator("Freer")
    full, away, zero = api.operator("Full", max_load=0), api.operator("Away", is_active=False), api.operator("Zero")
    nothing = api.operator("Nothing", max_load=0, is_active=False)
    source_id = api.source(weights={free: 1, freer: 3, full: 5, away: 5, zero: 0, nothing: 0})
    seen = {row["operator_id"]: row for row in api.get(f"/sources/{source_id}/candidates")}
    assert {row["operator_name"]: (row["eligible"], row["reason"], row["probability"]) for row in seen.values()} == {
        "Free": (True, None, 0.25),
        "Freer": (True, None, 0.75),
        "Full": (False, "full", 0),
        "Away": (False, "inactive", 0),
        "Zero": (False, "zero_weight", 0),
        "Nothing": (False, "zero_weight", 0),
    }
    assert (seen[free]["weight"], seen[free]["load"], seen[free]["max_load"]) == (1, 0, 2)
    api.patch(f"/operators/{nothing}", {"is_active": True})
    api.patch(f"/sources/{source_id}/operators/{nothing}", {"weight": 1})
    assert api.get(f"/sources/{source_id}/candidates")[-1]["reason"] == "full"


def test_candidates_of_a_source_without_operators_are_none(api: Api) -> None:
    assert api.get(f"/sources/{api.source()}/candidates") == []
    assert "source 9 not found" in api.get("/sources/9/candidates", expect=404)["detail"]
