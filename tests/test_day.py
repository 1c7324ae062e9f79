"""A team's day: the same operator again, contacts that nobody accepts, and topics. Shifts are in tests/api."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.conftest import Api
from tests.day.shifts import EIGHT, Clock, only
from tests.effort import effort
from tests.postgres import sql
from tests.test_queue import outcomes, reasons

pytestmark = pytest.mark.usefixtures("without_timer")


def operator_of(api: Api, contact_id: int) -> int | None:
    operator_id: int | None = api.get(f"/contacts/{contact_id}")["operator_id"]
    return operator_id


def due(api: Api) -> float:
    """Minutes from eight o'clock until contact 1 is passed on."""
    return (datetime.fromisoformat(api.get("/contacts/1")["due_at"]) - EIGHT).total_seconds() / 60


# --- the same operator again ------------------------------------------------------------------------------------------


def test_a_lead_that_returns_comes_to_the_same_operator_while_there_is_room(api: Api) -> None:
    operators = [api.operator(name, max_load=3000) for name in ("Anna", "Boris", "Vera")]
    source_id = api.source(weights=dict.fromkeys(operators, 1), sticky="prefer")
    leads = range(effort(30, 1000))
    contacts = [api.contact(source_id, f"tg:{lead}") for _ in range(3) for lead in leads]
    first = {contact["lead_id"]: contact["operator_id"] for contact in contacts[: len(leads)]}
    assert all(contact["operator_id"] == first[contact["lead_id"]] for contact in contacts)
    assert set(first.values()) == set(operators)
    assert reasons(api, contacts[0]["id"]) == [("distributed", first[1])]
    assert [reasons(api, contact["id"]) for contact in contacts[:: len(leads)]][1:] == [[("sticky", first[1])]] * 2
    others = set(operators) - {first[1]}
    seen = {first[1]: "chosen", **dict.fromkeys(others, "not_drawn")}
    assert outcomes(api, contacts[len(leads)]["id"]) == seen

    [row] = api.get("/stats/sources")
    came = Counter(contact["operator_id"] for contact in contacts)
    assert {entry["operator_id"]: entry["contacts"] for entry in row["operators"]} == came
    assert all(entry["sticky"] * 3 == entry["contacts"] * 2 for entry in row["operators"])


@pytest.mark.parametrize(
    ("hinder", "outcome"),
    [
        pytest.param(lambda api: api.patch("/operators/1", {"max_load": 1}), "full", id="full"),
        pytest.param(lambda api: api.patch("/operators/1", {"is_active": False}), "inactive", id="inactive"),
        pytest.param(lambda api: api.put("/operators/1/shifts", only((1, 2))), "off_shift", id="off shift"),
        pytest.param(
            lambda api: api.patch("/sources/1/operators/1", {"weight": 0}), "zero_weight", id="weight set to 0"
        ),
        pytest.param(lambda api: api.delete("/sources/1/operators/1"), None, id="removed from the source"),
        pytest.param(lambda api: api.patch("/sources/1", {"sticky": "off"}), "chosen", id="setting switched off"),
    ],
)
@pytest.mark.usefixtures("clock")
def test_who_had_the_lead_but_is_not_eligible_is_passed_over(
    api: Api, hinder: Callable[[Api], Any], outcome: str | None
) -> None:
    api.source(weights={api.operator("Anna"): 1}, sticky="prefer")
    api.contact(1)
    hinder(api)
    if outcome != "chosen":
        api.post("/sources/1/operators", {"operator_id": api.operator("Boris")})
    contact = api.contact(1)
    winner = 1 if outcome == "chosen" else 2
    assert reasons(api, contact["id"]) == [("distributed", winner)]
    assert outcomes(api, contact["id"]).get(1) == outcome
    lead = api.get(f"/sources/1/candidates?lead_id={contact['lead_id']}")
    assert [row["operator_id"] for row in lead if row["probability"] == 1] == [winner]


def test_the_operator_of_the_newest_contact_that_has_one_counts_wherever_it_came_from(api: Api) -> None:
    anna, boris, vera = (api.operator(name) for name in ("Anna", "Boris", "Vera"))
    source_id = api.source(weights={anna: 1}, sticky="prefer")
    api.contact(api.source("Other", {boris: 1}))
    api.post(f"/sources/{source_id}/operators", {"operator_id": boris})
    assert operator_of(api, api.contact(source_id)["id"]) == boris
    api.post("/contacts/2/assign", {"operator_id": anna}, expect=200)
    assert operator_of(api, api.contact(source_id)["id"]) == anna
    api.post("/contacts/1/assign", {"operator_id": vera}, expect=200)  # an older one, and she doesn't serve it
    api.close(3)
    assert operator_of(api, api.contact(source_id)["id"]) == anna
    api.patch(f"/operators/{boris}", {"is_active": False})
    api.post(f"/operators/{anna}/release", expect=200)
    assert {contact["id"] for contact in api.get("/contacts/?order=queue")} == {2, 4}
    api.patch(f"/operators/{boris}", {"is_active": True})
    # Of those that have one, contact 3 is the newest still: it is closed, and Anna's.
    assert [reasons(api, number)[-1] for number in (2, 4)] == [("from_queue", boris)] * 2
    assert operator_of(api, api.contact(source_id)["id"]) == boris


def test_from_the_queue_a_lead_comes_to_the_same_operator_if_that_one_has_room(api: Api) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris")
    source_id = api.source(weights={anna: 1}, sticky="prefer")
    first = api.contact(source_id, "tg:1")["id"]
    for operator_id in (anna, boris):
        api.patch(f"/operators/{operator_id}", {"max_load": 0})
    api.post(f"/sources/{source_id}/operators", {"operator_id": boris, "weight": 1_000_000})
    waiting = [api.contact(source_id, lead)["id"] for lead in ("tg:1", "tg:1", "tg:2", "tg:2")]
    api.patch(f"/operators/{boris}", {"is_active": False, "max_load": 4})
    api.patch(f"/operators/{anna}", {"max_load": 2})  # she has one
    assert [reasons(api, contact)[-1] for contact in waiting] == [("sticky", anna), *[("queued", None)] * 3]
    api.patch(f"/operators/{boris}", {"is_active": True})
    assert [reasons(api, contact)[-1] for contact in waiting[1:]] == [
        ("from_queue", boris),
        ("from_queue", boris),
        ("sticky", boris),
    ]
    assert operator_of(api, first) == anna
    [row] = api.get("/stats/sources")
    assert [(entry["contacts"], entry["sticky"]) for entry in row["operators"]] == [(2, 1), (3, 1)]


# --- acceptance -------------------------------------------------------------------------------------------------------


def tick(api: Api, clock: Clock, seconds: float = 61) -> None:
    """A minute later what is due is done, by a call that has nothing else to do."""
    clock.tick(seconds)
    assert api.post("/contacts/distribute", expect=200)["assigned"] == 0


def test_what_two_let_pass_is_the_third_one_s(api: Api, clock: Clock) -> None:
    three = {api.operator(name) for name in ("Anna", "Boris", "Vera")}
    api.source(weights=dict.fromkeys(three, 1), accept_within=60)
    first = api.contact(1)["operator_id"]
    assert 1 <= due(api) < 1.5
    tick(api, clock, 50)
    assert reasons(api, 1) == [("distributed", first)]
    tick(api, clock, 11)
    second = operator_of(api, 1)
    assert second in three - {first}
    [third] = three - {first, second}
    assert outcomes(api, 1) == {first: "excluded", second: "chosen", third: "not_drawn"}
    tick(api, clock)
    assert outcomes(api, 1) == {first: "excluded", second: "excluded", third: "chosen"}
    api.patch("/contacts/1/status", {"status": "in_progress", "operator_id": third})
    tick(api, clock)
    story = [("distributed", first), ("silent", second), ("silent", third), ("started", third)]
    assert reasons(api, 1) == story
    contact = api.get("/contacts/1")
    assert (contact["status"], contact["due_at"]) == ("in_progress", None)
    assert [operator["load"] for operator in api.get("/operators/") if operator["id"] != third] == [0, 0]


def test_who_comes_on_shift_later_gets_it_then(api: Api, clock: Clock) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris")
    api.put(f"/operators/{boris}/shifts", only((1, 2)))
    api.source(weights={anna: 1, boris: 1}, accept_within=60)
    assert api.contact(1)["operator_id"] == anna
    for _ in range(3):
        tick(api, clock)
    assert reasons(api, 1) == [("distributed", anna)]
    assert api.get("/contacts/1")["due_at"] is not None
    clock.set(1)
    tick(api, clock, 0)
    assert reasons(api, 1) == [("distributed", anna), ("silent", boris)]
    assert outcomes(api, 1) == {anna: "excluded", boris: "chosen"}


def test_what_nobody_accepted_stays_is_told_once_and_is_not_asked_again(api: Api, clock: Clock) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris")
    api.source(weights={anna: 1, boris: 1, api.operator("Vera"): 0}, accept_within=60)
    api.contact(1, event_id="880002")
    for _ in range(6):
        tick(api, clock)
    history = reasons(api, 1)
    assert [reason for reason, _ in history] == ["distributed", "silent", "unaccepted"]
    last = history[1][1]
    assert history[2][1] == last == operator_of(api, 1)
    contact = api.get("/contacts/1")
    assert (contact["status"], contact["due_at"]) == ("new", None)
    [event] = api.get("/events/?type=contact.unaccepted")
    assert event["data"]["operator"]["id"] == last
    assert (event["data"]["contact_id"], event["data"]["event_id"], event["data"]["status"]) == (1, "880002", "new")
    api.post("/sources/1/operators", {"operator_id": api.operator("Gleb")})
    tick(api, clock, 100_000)
    assert len(reasons(api, 1)) == 3


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda api: api.patch("/contacts/1/status", {"status": "in_progress"}), id="started"),
        pytest.param(lambda api: api.close(1), id="closed"),
        pytest.param(lambda api: api.post("/contacts/1/assign", {"operator_id": 2}, expect=200), id="by hand"),
        pytest.param(lambda api: api.post("/contacts/1/assign", {}, expect=200), id="drawn by hand"),
        pytest.param(
            lambda api: api.post("/contacts/1/assign", {"operator_id": 3, "force": True}, expect=200), id="forced"
        ),
        pytest.param(lambda api: api.patch("/sources/1", {"accept_within": None}), id="setting removed"),
    ],
)
def test_who_has_taken_a_contact_or_was_given_it_by_a_person_keeps_it(
    api: Api, clock: Clock, act: Callable[[Api], Any]
) -> None:
    anna, boris, vera = api.operator("Anna"), api.operator("Boris", max_load=5), api.operator("Vera", max_load=0)
    api.source(weights={anna: 1, vera: 1}, accept_within=60)
    assert api.contact(1)["due_at"] is not None
    api.post("/sources/1/operators", {"operator_id": boris})
    act(api)
    kept = api.get("/contacts/1")
    for _ in range(3):
        tick(api, clock)
    assert api.get("/contacts/1") == kept | {"due_at": None}


def test_what_is_given_by_itself_is_due_again_also_from_the_queue_and_after_a_release(api: Api, clock: Clock) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris", max_load=0)
    api.source(weights={anna: 1, boris: 1}, accept_within=60)
    api.contact(1)
    api.post(f"/operators/{anna}/release", expect=200)
    assert (api.get("/contacts/1")["status"], api.get("/contacts/1")["due_at"]) == ("pending", None)
    tick(api, clock)
    api.patch(f"/operators/{boris}", {"max_load": 1})
    assert 2 <= due(api) < 3
    clock.tick(30)
    api.patch(f"/operators/{anna}", {"is_active": True})
    api.post(f"/operators/{boris}/release", expect=200)
    assert reasons(api, 1)[-1] == ("released", anna)
    assert 2.5 <= due(api) < 3.5


def test_the_place_of_who_was_silent_is_handed_out(api: Api, clock: Clock) -> None:
    anna, boris = api.operator("Anna", max_load=1), api.operator("Boris", max_load=0)
    api.source(weights={anna: 1, boris: 1}, accept_within=60)
    api.source("Help", {anna: 1})
    api.contact(1)
    api.contact(2)
    api.patch(f"/operators/{boris}", {"max_load": 1})
    assert api.get("/contacts/2")["status"] == "pending"
    tick(api, clock)
    assert (reasons(api, 1)[-1], reasons(api, 2)[-1]) == (("silent", boris), ("from_queue", anna))


def test_what_waits_comes_before_what_was_not_accepted(api: Api, clock: Clock) -> None:
    """Whoever comes on shift takes from the queue first."""
    anna, boris = api.operator("Anna", max_load=1), api.operator("Boris", max_load=1)
    api.put(f"/operators/{boris}/shifts", only((1, 2)))
    api.source(weights={anna: 1, boris: 1}, accept_within=1800)
    api.contact(1)
    api.contact(1, priority=9)
    clock.set(1)
    api.post("/contacts/distribute", expect=200)
    assert (reasons(api, 1)[-1], reasons(api, 2)[-1]) == (("distributed", anna), ("from_queue", boris))
    assert api.get("/contacts/1")["due_at"] is not None


def test_who_is_off_shift_by_then_is_not_paused(api: Api, clock: Clock) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris", max_load=0)
    api.put(f"/operators/{anna}/shifts", only((0, 1)))
    api.source(weights={anna: 1, boris: 1}, accept_within=1800, silence_pauses=True)
    api.contact(1)
    api.patch(f"/operators/{boris}", {"max_load": 5})
    clock.set(1)
    api.post("/contacts/distribute", expect=200)
    assert operator_of(api, 1) == boris
    assert api.get(f"/operators/{anna}")["is_active"]


def test_a_lead_that_waits_twice_goes_to_one_operator(api: Api, database: str) -> None:
    """Though the first of its contacts is given in the same step."""
    operators = [api.operator(f"Operator {number}", max_load=0) for number in range(10)]
    api.source(weights=dict.fromkeys(operators, 1))
    api.source("Sticky", dict.fromkeys(operators, 1), sticky="prefer")
    for lead in range(20):
        api.contact(1, f"tg:{lead}", priority=1)
        api.contact(2, f"tg:{lead}")
    sql(database, "UPDATE operator SET max_load = 100")
    api.post("/contacts/distribute", expect=200)
    given = [operator_of(api, number) for number in range(1, 41)]
    assert given[::2] == given[1::2]


def test_who_is_silent_is_paused_but_never_the_last_one_who_could_take_the_next(api: Api, clock: Clock) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris")
    api.source(weights={anna: 1, boris: 1}, accept_within=60, silence_pauses=True)
    first = api.contact(1)["operator_id"]
    [second] = {anna, boris} - {first}
    tick(api, clock)
    assert [api.get(f"/operators/{one}")["is_active"] for one in (first, second)] == [False, True]
    assert operator_of(api, 1) == second
    contact = api.contact(1, "tg:2")
    tick(api, clock)
    assert operator_of(api, contact["id"]) == second
    assert api.get(f"/operators/{second}")["is_active"]
    api.patch(f"/operators/{first}", {"is_active": True, "max_load": 1})
    tick(api, clock)  # now that one gets it, and is full with that: the other stays
    assert operator_of(api, contact["id"]) == first
    assert api.get(f"/operators/{second}")["is_active"]


def test_who_alone_serves_what_has_no_topic_is_not_paused_for_silence_at_another(api: Api, clock: Clock) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris", max_load=0)
    api.source(weights={anna: 1}, accept_within=60, silence_pauses=True)
    for operator_id in (anna, boris):
        api.post("/sources/1/operators", {"operator_id": operator_id, "topic": "returns"})
    assert api.contact(1, topic="returns")["operator_id"] == anna
    api.patch(f"/operators/{boris}", {"max_load": 5})
    tick(api, clock)
    assert operator_of(api, 1) == boris
    assert api.get(f"/operators/{anna}")["is_active"]
    assert api.contact(1)["operator_id"] == anna


def test_a_start_names_whose_contact_it_must_be_still(api: Api) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris", max_load=0)
    api.source(weights={anna: 1})
    api.contact(1)
    before = api.get("/contacts/1")
    for status in ("in_progress", "closed", "new"):
        refused = api.call("PATCH", "/contacts/1/status", {"status": status, "operator_id": boris}, expect=409)
        assert f"contact 1 is operator {anna}'s by now" in refused["detail"]
    assert api.get("/contacts/1") == before
    assert api.patch("/contacts/1/status", {"status": "in_progress", "operator_id": anna})["operator_id"] == anna
    api.post(f"/operators/{anna}/release", expect=200)
    refused = api.call("PATCH", "/contacts/1/status", {"status": "closed", "operator_id": anna}, expect=409)
    assert "contact 1 is nobody's by now" in refused["detail"]
    for bad in (0, "1", -1, 1.5):
        [error] = api.call("PATCH", "/contacts/1/status", {"status": "closed", "operator_id": bad}, 422)["detail"]
        assert error["loc"] == ["body", "operator_id"]
    assert api.get("/contacts/1")["status"] == "pending"


BAD_SETTINGS = [
    *(("sticky", value) for value in ("always", "", None, True)),
    *(("accept_within", value) for value in (0, -1, 30 * 86_400 + 1, 1.5, "60", True, 10**30)),
    *(("silence_pauses", value) for value in (None, 1, "yes")),
]


def test_a_bad_setting_of_a_source_is_refused_by_name(api: Api) -> None:
    api.source(sticky="prefer", accept_within=30 * 86_400, silence_pauses=True)
    before = api.get("/sources/")
    for field, value in BAD_SETTINGS:
        body = {field: value}
        for error in api.patch("/sources/1", body, expect=422), api.post("/sources/", {"name": "B", **body}, 422):
            assert error["detail"][0]["loc"] == ["body", field], body
    assert api.get("/sources/") == before


# --- topics -----------------------------------------------------------------------------------------------------------


def with_topics(api: Api, **fields: Any) -> tuple[int, int, int]:
    """Plain contacts go to Anna and Boris, 10 and 30, and what is about returns only to Vera."""
    anna, boris, vera = (api.operator(name, max_load=100_000) for name in ("Anna", "Boris", "Vera"))
    api.source(weights={anna: 10, boris: 30}, **fields)
    api.post("/sources/1/operators", {"operator_id": vera, "topic": "returns"})
    return anna, boris, vera


def test_contacts_of_a_topic_go_to_its_specialists_and_the_others_by_the_plain_weights(api: Api) -> None:
    anna, boris, vera = with_topics(api)
    count = effort(100, 4000)
    drawn: dict[str, Counter[int]] = {"": Counter(), "returns": Counter(), "thanks": Counter()}
    for number in range(count):
        for topic, counter in drawn.items():
            counter[api.contact(1, f"tg:{number % 50}", **({"topic": topic} if topic else {}))["operator_id"]] += 1
    assert drawn["returns"] == {vera: count}
    deviation = (count * 0.25 * 0.75) ** 0.5
    for topic in ("", "thanks"):
        assert set(drawn[topic]) == {anna, boris}
        assert abs(drawn[topic][anna] - count / 4) < 4 * deviation
    [row] = api.get("/stats/sources")
    assert row["topics"] == [
        {"topic": "returns", "contacts": count, "pending": 0, "has_weights": True},
        {"topic": "thanks", "contacts": count, "pending": 0, "has_weights": False},
    ]
    assert {entry["operator_id"]: entry["of_topics"] for entry in row["operators"]} == {anna: 0, boris: 0, vera: count}
    assert {entry["topic"] for entry in api.get("/contacts/?topic=returns&limit=1000")} == {"returns"}
    assert api.get("/contacts/?topic=return") == []


def test_what_waits_for_a_specialist_holds_up_nobody(api: Api) -> None:
    anna, _, vera = with_topics(api)
    api.patch(f"/operators/{vera}", {"max_load": 1})
    assert api.contact(1, topic="returns")["operator_id"] == vera
    waiting = [api.contact(1, topic="returns", priority=9)["id"] for _ in range(3)]
    assert outcomes(api, waiting[0]) == {vera: "full"}
    assert api.contact(1)["operator_id"] != vera
    for operator_id in (1, 2):
        api.patch(f"/operators/{operator_id}", {"is_active": False})
    plain = api.contact(1)["id"]
    api.patch(f"/operators/{anna}", {"is_active": True})
    assert operator_of(api, plain) == anna
    assert [contact["id"] for contact in api.get("/contacts/?order=queue")] == waiting
    [row] = api.get("/stats/sources")
    assert row["topics"] == [{"topic": "returns", "contacts": 4, "pending": 3, "has_weights": True}]
    assert api.get("/sources/1/candidates?topic=returns")[0]["reason"] == "full"
    api.patch(f"/operators/{vera}", {"max_load": 2})
    assert [operator_of(api, contact) for contact in waiting] == [vera, None, None]


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(
            lambda api: api.patch("/sources/1/operators/3?topic=returns", {"weight": 0}), id="weight set to 0"
        ),
        pytest.param(lambda api: api.delete("/sources/1/operators/3?topic=returns"), id="entry removed"),
        pytest.param(lambda api: api.delete("/operators/3"), id="operator deleted"),
        pytest.param(
            lambda api: api.put("/sources/1/operators", [{"operator_id": 1, "weight": 1}]), id="weights replaced"
        ),
    ],
)
def test_when_the_last_specialist_goes_all_that_waited_go_out_in_that_call(
    api: Api, leave: Callable[[Api], Any]
) -> None:
    _, _, vera = with_topics(api)
    api.patch(f"/operators/{vera}", {"is_active": False})
    waiting = [api.contact(1, topic="returns")["id"] for _ in range(effort(20, 100))]
    assert api.get("/stats/")["pending"] == len(waiting)
    leave(api)
    assert api.get("/stats/")["pending"] == 0
    assert {operator_of(api, contact) for contact in waiting} <= {1, 2}
    assert reasons(api, waiting[-1])[-1][0] == "from_queue"


def test_a_first_specialist_takes_over_a_topic_that_waited_for_the_plain_ones(api: Api) -> None:
    anna, boris = api.operator("Anna", max_load=0), api.operator("Boris", max_load=1)
    source_id = api.source(weights={anna: 1})
    waiting = [api.contact(source_id, topic=topic)["id"] for topic in ("thanks", "returns", "returns")]
    added = api.post(f"/sources/{source_id}/operators", {"operator_id": boris, "topic": " returns ", "weight": 0})
    assert (added["topic"], added["share"], operator_of(api, waiting[1])) == ("returns", 0, None)
    api.patch(f"/sources/{source_id}/operators/{boris}?topic=returns", {"weight": 2})
    assert [operator_of(api, contact) for contact in waiting] == [None, boris, None]
    api.patch(f"/operators/{anna}", {"max_load": 5})  # plain: she serves no returns any more
    assert [operator_of(api, contact) for contact in waiting] == [anna, boris, None]


def test_weights_of_topics_are_given_changed_and_taken_away_apart_from_the_plain_ones(api: Api) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris")
    api.source()
    path = "/sources/1/operators"

    def entries() -> list[tuple[str, int, float, float]]:
        operators = api.get("/sources/1")["operators"]
        return [(entry["topic"], entry["operator_id"], entry["weight"], entry["share"]) for entry in operators]

    body = [{"operator_id": anna, "weight": 3}, {"operator_id": boris}, {"operator_id": anna, "topic": "returns"}]
    api.put(path, body)
    assert entries() == [("", anna, 3, 0.75), ("", boris, 1, 0.25), ("returns", anna, 1, 1)]
    for again in (body[2], {**body[2], "topic": " returns"}):
        assert "there twice" in str(api.put(path, [*body, again], expect=422)["detail"])
    clash = api.post(path, {"operator_id": anna, "topic": "returns", "weight": 5}, expect=409)["detail"]
    assert f"operator {anna} serves source 1, topic 'returns', already" in clash
    for topic in ("x" * 101, "a\x00", 5, None):
        assert "topic" in api.post(path, {"operator_id": boris, "topic": topic}, expect=422)["detail"][0]["loc"]
    changed = api.patch(f"{path}/{anna}?topic=returns", {"weight": 7})
    assert (changed["topic"], changed["weight"], changed["share"]) == ("returns", 7, 1)
    assert entries() == [("", anna, 3, 0.75), ("", boris, 1, 0.25), ("returns", anna, 7, 1)]
    for missing in ("returns", "nothing"):
        gone = api.delete(f"{path}/{boris}?topic={missing}", expect=404)["detail"]
        assert f"topic '{missing}'" in gone
        assert f"operator {boris} not found" in gone
    api.delete(f"{path}/{anna}?topics=returns", expect=422)
    api.delete(f"{path}/{anna}")
    assert entries() == [("", boris, 1, 1), ("returns", anna, 7, 1)]
    sources = api.get(f"/operators/{anna}")["sources"]
    assert [(row["source_id"], row["topic"], row["weight"]) for row in sources] == [(1, "returns", 7)]
    api.delete(f"{path}/{anna}?topic=returns")
    assert entries() == [("", boris, 1, 1)]


def test_a_bad_topic_of_a_contact_is_refused_by_name(api: Api) -> None:
    api.source()
    for topic in ("", "  ", "x" * 101, "a\x00b", 5, []):
        assert api.contact(1, topic=topic, expect=422)["detail"][0]["loc"] == ["body", "topic"]
    assert api.get("/stats/")["contacts"] == 0


def test_a_topic_is_kept_as_it_was_written(api: Api) -> None:
    api.source()
    for number, topic in enumerate(("Возврат", "🧦 socks", "x" * 100, "Returns", "returns")):
        assert api.contact(1, f"tg:{number}", topic=topic)["topic"] == topic
    assert api.contact(1, topic=None)["topic"] == ""
    [row] = api.get("/stats/sources")
    assert {entry["topic"]: entry["contacts"] for entry in row["topics"]} == dict.fromkeys(
        ("Возврат", "🧦 socks", "x" * 100, "Returns", "returns"), 1
    )
