"""Contacts over the API: registering, repeats, explanation, life and lists."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Api


def test_an_assigned_contact_has_its_lead_source_and_operator(api: Api) -> None:
    anna = api.operator()
    source_id = api.source(weights={anna: 1}, bot_id="shop_bot")
    body = {"source_bot_id": "shop_bot", "lead_external_id": 1001, "message": "Hello", "priority": 3, "event_id": 7}
    contact = api.post("/contacts/", body)
    assert contact["lead"] == {
        "id": 1,
        "created_at": contact["created_at"],
        "name": None,
        "external_ids": ["1001"],
        "phones": [],
        "emails": [],
    }
    assert contact["source"] == {"id": source_id, "name": "Shop", "bot_id": "shop_bot"}
    assert contact["operator"] == {"id": anna, "name": "Anna"}
    assert (contact["status"], contact["message"], contact["priority"], contact["event_id"]) == ("new", "Hello", 3, "7")
    assert contact["assigned_at"] == contact["created_at"]
    assert contact["closed_at"] is contact["identity_note"] is None
    detail = api.get(f"/contacts/{contact['id']}")
    [assignment] = detail.pop("history")
    assert detail == contact
    assert (assignment["reason"], assignment["operator_id"]) == ("distributed", anna)


@pytest.mark.parametrize(
    ("operator", "weight", "outcome"),
    [
        (None, 0, None),
        ({"max_load": 0}, 1, "full"),
        ({"is_active": False}, 1, "inactive"),
        ({}, 0, "zero_weight"),
        ({"is_active": False, "max_load": 0}, 0, "zero_weight"),
    ],
)
def test_what_nobody_can_take_is_pending_and_says_why(
    api: Api, operator: dict[str, Any] | None, weight: float, outcome: str | None
) -> None:
    source_id = api.source(weights={} if operator is None else {api.operator(**operator): weight})
    contact = api.contact(source_id)
    assert (contact["status"], contact["operator"], contact["operator_id"]) == ("pending", None, None)
    assert contact["assigned_at"] is None
    [assignment] = api.get(f"/contacts/{contact['id']}")["history"]
    assert (assignment["reason"], assignment["operator_id"]) == ("queued", None)
    assert [candidate["outcome"] for candidate in assignment["candidates"]] == ([outcome] if outcome else [])


def test_each_draw_is_explained_with_loads_where_they_were_counted(api: Api) -> None:
    names = ("chosen", "away", "zero")
    chosen, away, zero = (api.operator(name, is_active=name != "away") for name in names)
    contact = api.contact(api.source(weights={chosen: 2, away: 5, zero: 0}))
    [assignment] = api.get(f"/contacts/{contact['id']}")["history"]
    unknown = {"load": None, "max_load": None}
    assert assignment["candidates"] == [
        {"operator_id": chosen, "weight": 2, "outcome": "chosen", "load": 0, "max_load": 10},
        {"operator_id": away, "weight": 5, "outcome": "inactive", **unknown},
        {"operator_id": zero, "weight": 0, "outcome": "zero_weight", **unknown},
    ]


def test_a_draw_says_who_was_full_and_who_was_not_drawn(api: Api) -> None:
    full, anna, boris = api.operator("Full", max_load=1), api.operator("Anna"), api.operator("Boris")
    api.contact(api.source("Other", {full: 1}))
    source_id = api.source(weights={full: 1_000_000, anna: 0.0001, boris: 0.0001})
    contact = api.contact(source_id)
    [assignment] = api.get(f"/contacts/{contact['id']}")["history"]
    seen = {candidate["operator_id"]: candidate for candidate in assignment["candidates"]}
    [other] = {anna, boris} - {contact["operator_id"]}
    assert (seen[full]["outcome"], seen[full]["load"], seen[full]["max_load"]) == ("full", 1, 1)
    assert (seen[contact["operator_id"]]["outcome"], seen[contact["operator_id"]]["load"]) == ("chosen", 0)
    assert (seen[other]["outcome"], seen[other]["load"], seen[other]["max_load"]) == ("not_drawn", None, None)


def test_the_history_keeps_what_the_draw_saw(api: Api) -> None:
    anna = api.operator("Anna", max_load=3)
    source_id = api.source(weights={anna: 2.5})
    contact_id = api.contact(source_id, event_id=1)["id"]
    history = api.get(f"/contacts/{contact_id}")["history"]
    api.put(f"/sources/{source_id}/operators", [{"operator_id": anna, "weight": 7}])
    api.patch(f"/operators/{anna}", {"max_load": 9})
    api.contact(source_id, event_id=1, expect=200)
    api.patch(f"/contacts/{contact_id}/status", {"status": "in_progress"})
    api.close(contact_id)
    assert api.get(f"/contacts/{contact_id}")["history"][:1] == history
    assert history[0]["candidates"][0]["weight"] == 2.5
    assert (history[0]["candidates"][0]["load"], history[0]["candidates"][0]["max_load"]) == (0, 3)


@pytest.mark.parametrize(
    "field", [{"priority": 0}, {"priority": 9}, {"message": "я" * 10_000}, {"event_id": "x" * 255}]
)
def test_the_extreme_values_are_allowed(api: Api, field: dict[str, Any]) -> None:
    contact = api.contact(api.source(), **field)
    assert field.items() <= api.get(f"/contacts/{contact['id']}").items()


def test_without_the_optional_fields_there_is_no_message_no_event_and_priority_0(api: Api) -> None:
    contact = api.contact(api.source())
    assert (contact["message"], contact["event_id"], contact["priority"]) == (None, None, 0)


def test_times_are_utc_with_an_offset(api: Api) -> None:
    contact = api.contact(api.source(weights={api.operator(): 1}))
    closed = api.close(contact["id"])
    times = [datetime.fromisoformat(closed[field]) for field in ("created_at", "assigned_at", "closed_at")]
    assert {time.utcoffset() for time in times} == {timedelta(0)}
    assert times == sorted(times)
    assert datetime.now(UTC) - times[0] < timedelta(minutes=1)


def test_a_bot_may_name_its_source_by_an_integer(api: Api) -> None:
    source_id = api.source(bot_id="5001")
    for bot_id in (5001, "5001"):
        contact = api.post("/contacts/", {"source_bot_id": bot_id, "lead_external_id": "tg:1"})
        assert contact["source_id"] == source_id


@pytest.mark.parametrize(
    ("source", "status", "words"),
    [
        ({}, 422, "exactly one"),
        ({"source_id": 1, "source_bot_id": "shop_bot"}, 422, "exactly one"),
        ({"source_id": None, "source_bot_id": None}, 422, "exactly one"),
        ({"source_id": 9}, 404, "source 9 not found"),
        ({"source_id": 10**30}, 404, "not found"),
        ({"source_bot_id": "nobody"}, 404, "source with bot_id 'nobody' not found"),
    ],
)
def test_a_contact_names_one_known_source(api: Api, source: dict[str, Any], status: int, words: str) -> None:
    api.source(bot_id="shop_bot")
    assert words in str(api.post("/contacts/", {**source, "lead_external_id": "tg:1"}, expect=status)["detail"])
    assert api.get("/leads/") == []


# --- repeats ---------------------------------------------------------------------------------------------------------


def test_a_repeated_event_is_the_first_contact_as_it_is_now(api: Api) -> None:
    source_id = api.source(weights={api.operator(): 1})
    first = api.contact(source_id, "tg:1", event_id="update-1", message="Hello")
    closed = api.close(first["id"])
    for other in ({"lead_external_id": "tg:2", "message": "Bye"}, {"lead_phone": "no number"}, {}):
        body = {"source_id": source_id, "event_id": " update-1 ", **other}
        assert api.post("/contacts/", body, expect=200) == closed
    assert len(api.get("/contacts/")) == len(api.get("/leads/")) == 1


def test_a_repeat_changes_no_lead_and_takes_no_place(api: Api) -> None:
    source_id = api.source(weights={api.operator(): 1}, bot_id="shop_bot")
    first = api.contact(source_id, "tg:1", event_id=1, lead_phone="89991234567")
    other = api.contact(source_id, "tg:2")
    body = {"event_id": 1, "lead_external_id": "tg:2", "lead_email": "new@example.com", "lead_name": "New"}
    assert api.post("/contacts/", {"source_bot_id": "shop_bot", **body, "priority": 9}, expect=200) == first
    assert [lead["id"] for lead in api.get("/leads/")] == [first["lead_id"], other["lead_id"]]
    assert api.get("/leads/?email=new@example.com") == api.get("/leads/?q=New") == []
    assert api.get("/operators/1")["load"] == 2


@pytest.mark.parametrize(
    ("change", "status"),
    [({"priority": 10}, 422), ({"surprise": 1}, 422), ({"lead_external_id": True}, 422), ({"source_id": 9}, 404)],
)
def test_a_repeat_is_validated_and_its_source_looked_up_first(api: Api, change: dict[str, Any], status: int) -> None:
    source_id = api.source()
    api.contact(source_id, event_id=1)
    body = {"source_id": source_id, "lead_external_id": "tg:1", "event_id": 1, **change}
    api.post("/contacts/", body, expect=status)
    assert len(api.get("/contacts/")) == 1


def test_what_was_refused_may_be_sent_again_with_its_event(api: Api) -> None:
    source_id = api.source()
    api.post("/contacts/", {"source_id": source_id, "event_id": 1, "lead_phone": "12345"}, expect=422)
    api.post("/contacts/", {"source_id": source_id, "event_id": 1, "lead_phone": "89991234567"}, expect=201)


def test_an_event_id_is_of_its_source_and_text_or_integer(api: Api) -> None:
    shop, help_desk = api.source("Shop"), api.source("Help")
    first = api.contact(shop, event_id=7)
    assert api.contact(shop, event_id="7", expect=200)["id"] == first["id"]
    assert api.contact(help_desk, event_id=7)["id"] != first["id"]
    assert api.contact(shop, event_id=None)["id"] != api.contact(shop)["id"]


def test_a_waiting_contact_may_be_polled_by_its_event(api: Api) -> None:
    anna = api.operator(max_load=0)
    source_id = api.source(weights={anna: 1})
    assert api.contact(source_id, event_id=1)["status"] == "pending"
    assert api.contact(source_id, event_id=1, expect=200)["status"] == "pending"
    api.patch(f"/operators/{anna}", {"max_load": 1})
    assert api.contact(source_id, event_id=1, expect=200)["operator"]["name"] == "Anna"


# --- life ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["pending", "new", "in_progress", "closed"])
@pytest.mark.parametrize("after", ["pending", "new", "in_progress", "closed"])
def test_a_status_goes_only_forward(api: Api, before: str, after: str) -> None:
    source_id = api.source(weights={} if before == "pending" else {api.operator(): 1})
    contact_id = api.contact(source_id)["id"]
    if before in ("in_progress", "closed"):
        api.patch(f"/contacts/{contact_id}/status", {"status": before})
    contact = api.get(f"/contacts/{contact_id}")
    is_allowed = before == after or (before, after) == ("new", "in_progress") or after == "closed"
    answer = api.patch(f"/contacts/{contact_id}/status", {"status": after}, expect=200 if is_allowed else 409)
    now = api.get(f"/contacts/{contact_id}")
    if not is_allowed:
        assert answer["detail"] == f"contact {contact_id} is {before}: it can't become {after}"
        assert now == contact
    elif before == after:
        assert now == contact
    else:
        assert (now["status"], now["operator_id"]) == (after, contact["operator_id"])
        assert (now["closed_at"] is not None) == (after == "closed")
        assert now["assigned_at"] == contact["assigned_at"]


def test_closing_frees_the_place_for_the_next_contact(api: Api) -> None:
    source_id = api.source(weights={api.operator(max_load=1): 1})
    api.close(api.contact(source_id)["id"])
    assert api.contact(source_id)["status"] == "new"


def test_a_contact_in_progress_keeps_its_place_until_it_is_closed(api: Api) -> None:
    anna = api.operator(max_load=1)
    source_id = api.source(weights={anna: 1})
    contact_id = api.contact(source_id)["id"]
    api.patch(f"/contacts/{contact_id}/status", {"status": "in_progress"})
    waiting = api.contact(source_id)
    assert waiting["status"] == "pending"
    assert api.close(waiting["id"])["assigned_at"] is None
    assert api.close(contact_id)["operator"] == {"id": anna, "name": "Anna"}
    assert api.contact(source_id)["operator_id"] == anna


def test_a_contact_that_is_not_there_is_404(api: Api) -> None:
    assert api.get("/contacts/9", expect=404)["detail"] == "contact 9 not found"


@pytest.mark.parametrize("body", [{}, {"status": "lost"}, {"status": None}, {"status": "closed", "priority": 1}])
def test_a_status_that_is_none_is_422(api: Api, body: dict[str, Any]) -> None:
    contact_id = api.contact(api.source())["id"]
    assert api.patch(f"/contacts/{contact_id}/status", body, expect=422)["detail"][0]["loc"][0] == "body"
    assert "contact 9 not found" in api.patch("/contacts/9/status", {"status": "closed"}, expect=404)["detail"]


# --- lists -----------------------------------------------------------------------------------------------------------


def ids(api: Api, query: str) -> list[int]:
    return [contact["id"] for contact in api.get(f"/contacts/{query}")]


def test_the_list_is_newest_first_and_pages(api: Api) -> None:
    source_id = api.source()
    newest_first = [api.contact(source_id)["id"] for _ in range(7)][::-1]
    assert ids(api, "") == newest_first
    assert ids(api, "?skip=2&limit=3") == newest_first[2:5]
    before = 10**30
    for page in (newest_first[:3], newest_first[3:6], newest_first[6:]):
        assert ids(api, f"?limit=3&before_id={before}") == page
        before = page[-1]
    assert ids(api, f"?limit=3&before_id={before}") == []


def test_filters_combine_with_and(api: Api) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris")
    shop, help_desk, nobody = api.source("Shop", {anna: 1}), api.source("Help", {boris: 1}), api.source("Nobody")
    first, second = api.contact(shop, "tg:1")["id"], api.contact(help_desk, "tg:1")["id"]
    third, fourth = api.contact(shop, "tg:2")["id"], api.contact(nobody, "tg:2")["id"]
    api.close(first)
    for query, found in (
        ("?lead_id=1", [second, first]),
        (f"?source_id={shop}", [third, first]),
        (f"?operator_id={anna}", [third, first]),
        ("?status=pending", [fourth]),
        ("?status=new", [third, second]),
        (f"?lead_id=1&source_id={shop}&operator_id={anna}&status=closed", [first]),
        (f"?lead_id=2&operator_id={boris}", []),
        (f"?source_id={shop}&before_id={third}", [first]),
        ("?lead_id=99999999999999999999", []),
    ):
        assert ids(api, query) == found, query


def test_a_filtered_list_pages_by_before_id_through_all_that_match(api: Api) -> None:
    anna = api.operator()
    served, nobody = api.source("Served", {anna: 1}), api.source("Nobody")
    contacts = [api.contact(source)["id"] for source in (served, nobody, served, nobody, served)]
    for query, found in (
        ("status=pending", [contacts[3], contacts[1]]),
        (f"operator_id={anna}", [contacts[4], contacts[2], contacts[0]]),
        (f"lead_id=1&source_id={served}", [contacts[4], contacts[2], contacts[0]]),
    ):
        befores = [contacts[-1] + 1, *found]
        pages = [ids(api, f"?{query}&limit=1&before_id={before}") for before in befores]
        assert pages == [*([contact_id] for contact_id in found), []], query


def test_a_listed_contact_is_the_one_that_was_answered(api: Api) -> None:
    contact = api.contact(api.source(weights={api.operator(): 1}), lead_name="Ivan", message="Hello", event_id=1)
    assert api.get("/contacts/") == [contact]


def test_the_queue_is_in_the_order_of_handing_out(api: Api) -> None:
    anna = api.operator()
    shop, help_desk, served = api.source("Shop"), api.source("Help"), api.source("Served", {anna: 1})
    waiting = [api.contact(source, priority=p)["id"] for source, p in ((shop, 0), (help_desk, 5), (shop, 9), (shop, 5))]
    api.contact(served, priority=9)
    assert ids(api, "?order=queue") == [waiting[2], waiting[1], waiting[3], waiting[0]]
    assert ids(api, f"?order=queue&source_id={shop}&limit=2") == [waiting[2], waiting[3]]
    assert ids(api, "?order=queue&status=new") == []


def test_the_queue_is_not_paged_by_id_but_by_skip(api: Api) -> None:
    shop = api.source()
    waiting = [api.contact(shop, priority=priority)["id"] for priority in (0, 9, 5)]
    [problem] = api.get(f"/contacts/?order=queue&before_id={waiting[0]}", expect=422)["detail"]
    assert problem["loc"] == ["query", "before_id"]
    pages = [ids(api, f"?order=queue&limit=1&skip={skip}") for skip in range(3)]
    assert pages == [[waiting[1]], [waiting[2]], [waiting[0]]]
