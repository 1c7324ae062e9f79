"""Contacts over the API: registering, repeats, explanation, life and lists."""

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
    pages, before = [], 10**30
    while page := ids(api, f"?limit=3&before_id={before}"):
        pages.append(page)
        before = page[-1]
    assert pages == [newest_first[:3], newest_first[3:6], newest_first[6:]]


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


def test_the_queue_is_in_the_order_of_handing_out(api: Api) -> None:
    anna = api.operator()
    shop, help_desk, served = api.source("Shop"), api.source("Help"), api.source("Served", {anna: 1})
    waiting = [api.contact(source, priority=p)["id"] for source, p in ((shop, 0), (help_desk, 5), (shop, 9), (shop, 5))]
    api.contact(served, priority=9)
    assert ids(api, "?order=queue") == [waiting[2], waiting[1], waiting[3], waiting[0]]
    assert ids(api, f"?order=queue&source_id={shop}&limit=2") == [waiting[2], waiting[3]]
    assert ids(api, "?order=queue&status=new") == []
