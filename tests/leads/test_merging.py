"""Two leads made one, and two again, over the API."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import Api, address, app_on
from tests.effort import effort
from tests.postgres import sql
from tests.web.test_auth import ADMIN, KeyApi

PHONE, EMAIL = "+79991234567", "ivan@example.com"


def people(api: Api, *leads: dict[str, Any]) -> None:
    """A lead of one contact each, of source 1, in their order; by itself nothing is assigned."""
    api.source()
    for number, lead in enumerate(leads, 1):
        assert api.contact(1, f"tg:{number}", **lead)["lead_id"] == number


def merge(api: Api, lead_id: int, into: int, expect: int = 200) -> Any:
    return api.post(f"/leads/{lead_id}/merge", {"into": into}, expect)


def unmerge(api: Api, lead_id: int, expect: int = 200) -> Any:
    return api.post(f"/leads/{lead_id}/unmerge", expect=expect)


def known(api: Api, lead_id: int) -> tuple[str | None, list[str], list[int]]:
    """Of a living lead: its name, its identifiers, and its contacts."""
    lead = api.get(f"/leads/{lead_id}")
    assert lead["id"] == lead_id
    assert [contact["id"] for contact in lead["contacts"]] == [
        contact["id"] for contact in api.get(f"/contacts/?lead_id={lead_id}")
    ]
    identifiers = [*lead["external_ids"], *lead["phones"], *lead["emails"]]
    return lead["name"], identifiers, sorted(contact["id"] for contact in lead["contacts"])


def acts(lead: Any) -> list[tuple[str, int, int | None, int]]:
    return [(act["act"], act["lead_id"], act["other_id"], act["contacts"]) for act in lead["acts"]]


def pairs(api: Api, query: str = "") -> list[tuple[int, int, list[tuple[str, str, int]]]]:
    return [
        (pair["lead"]["id"], pair["other"]["id"],
         [(each["kind"], each["value"], each["contact_id"]) for each in pair["evidence"]])
        for pair in api.get(f"/leads/duplicates{query}")
    ]  # fmt: skip


# --- merging ---------------------------------------------------------------------------------------------------------


def statistics(api: Api) -> tuple[Any, ...]:
    """Without the minutes of no contact, of which there may be another by the next call."""
    came = [row for row in api.get("/stats/timeline") if row["contacts"]]
    return api.get("/stats/"), api.get("/stats/sources"), came


def test_all_of_a_lead_goes_to_the_other_and_the_statistics_stay(api: Api) -> None:
    people(api, {"lead_phone": PHONE, "lead_name": "Ivan"}, {"lead_email": EMAIL})
    api.contact(1, "tg:1")
    before = statistics(api)
    survivor = merge(api, 1, 2)
    assert survivor == api.get("/leads/2")
    assert survivor["contacts_count"] == 3
    assert known(api, 2) == ("Ivan", ["tg:1", "tg:2", PHONE, EMAIL], [1, 2, 3])
    assert acts(survivor) == [("merged", 1, 2, 2)]
    assert survivor["acts"][0]["who"] == "without a key"
    after = statistics(api)
    assert after[0].pop("oldest_pending_seconds") > before[0].pop("oldest_pending_seconds")
    assert after == before
    assert api.contact(1, "tg:1")["lead_id"] == 2
    assert api.contact(1, "tg:9", lead_phone=PHONE)["lead_id"] == 2


def test_a_name_that_is_there_stays(api: Api) -> None:
    people(api, {"lead_name": "Ivan"}, {"lead_name": "Pyotr"})
    assert merge(api, 1, 2)["name"] == "Pyotr"
    assert unmerge(api, 1)["name"] == "Ivan"
    assert known(api, 2)[0] == "Pyotr"


def test_the_old_id_leads_to_the_same_of_the_other_lead(database: str) -> None:
    """Relative, so that it is right under whatever path a proxy serves the API; the query goes along."""
    prefix = "/crm"
    with TestClient(app_on(database), address(), client=("127.0.0.1", 1), root_path=prefix) as client:
        api = Api(client)
        people(api, {}, {})
        merge(api, 1, 2)
        for path, location in (
            ("/leads/1", "2"),
            ("/leads/1/contacts?limit=1&skip=1", "../2/contacts?limit=1&skip=1"),
            ("/leads/1/export", "../2/export"),
        ):
            answer = client.get(f"{prefix}{path}", follow_redirects=False)
            assert (answer.status_code, answer.headers["location"]) == (308, location)
            assert answer.json() == {"detail": "lead 1 was merged into lead 2"}
            assert answer.headers["cache-control"] == "no-cache"  # for it may be undone
            assert client.get(f"{prefix}{path}").json() == client.get(f"{prefix}{path.replace('1', '2', 1)}").json()
        assert len(client.get(f"{prefix}/leads/1/contacts?limit=1&skip=1").json()) == 1


def test_the_old_id_is_in_no_list_and_still_means_the_lead_in_filters(api: Api) -> None:
    operators = [api.operator(name) for name in ("Anna", "Boris")]
    people(api, {"lead_name": "Ivan Petrov"}, {}, {})
    api.patch("/sources/1", {"sticky": "prefer"})
    api.put("/sources/1/operators", [{"operator_id": one} for one in operators])
    had = api.get("/contacts/1")["operator_id"]
    merge(api, 1, 2)
    assert [lead["id"] for lead in api.get("/leads/")] == [2, 3]
    assert [lead["id"] for lead in api.get("/leads/?q=petrov")] == [2]
    assert [lead["id"] for lead in api.get("/leads/?external_id=tg:1")] == [2]
    assert [lead["id"] for lead in api.get("/leads/?limit=1&skip=1")] == [3]
    assert [contact["id"] for contact in api.get("/contacts/?lead_id=1")] == [2, 1]
    asked = [api.get(f"/sources/1/candidates?lead_id={lead_id}") for lead_id in (1, 2)]
    assert asked[0] == asked[1]
    assert 1.0 in [candidate["probability"] for candidate in asked[0]]
    assert had in operators


def test_the_operator_of_the_newest_contact_of_both_is_asked_first(api: Api) -> None:
    anna = api.operator("Anna")
    api.source(weights={anna: 1, api.operator("Boris"): 1}, sticky="prefer")
    for lead in ("tg:1", "tg:2"):
        api.contact(1, lead)
    for contact_id, operator_id in ((1, 1), (2, 2)):
        api.post(f"/contacts/{contact_id}/assign", {"operator_id": operator_id}, expect=200)
    merge(api, 2, 1)
    assert [api.contact(1, "tg:1")["operator_id"] for _ in range(5)] == [2] * 5


def test_what_was_merged_before_goes_along_so_that_no_chain_is_longer_than_one(api: Api) -> None:
    people(api, {}, {}, {})
    merge(api, 1, 2)
    survivor = merge(api, 2, 3)
    assert acts(survivor) == [("merged", 1, 2, 1), ("merged", 2, 3, 2)]
    for lead_id in (1, 2):
        assert api.client.get(f"/leads/{lead_id}", follow_redirects=False).headers["location"] == "3"
    assert known(api, 3) == (None, ["tg:1", "tg:2", "tg:3"], [1, 2, 3])


REFUSED = [
    (1, 1, 422, "lead 1 can't be merged into itself"),
    (9, 1, 404, "lead 9 not found"),
    (1, 9, 404, "lead 9 not found"),
    (1, 10**30, 404, f"lead {10**30} not found"),
    (2, 1, 409, "lead 2 was merged into lead 3"),
    (1, 2, 409, "lead 2 was merged into lead 3"),
    (3, 2, 409, "lead 2 was merged into lead 3"),
    (4, 1, 409, "lead 4 was forgotten"),
    (1, 4, 409, "lead 4 was forgotten"),
]


def test_what_cannot_be_merged_says_why_and_changes_nothing(api: Api) -> None:
    people(api, {}, {}, {}, {})
    merge(api, 2, 3)
    api.close(4)
    api.post("/leads/4/forget", expect=200)
    before = [api.get(f"/leads/{each}") for each in (1, 3, 4)]
    for lead_id, into, status, words in REFUSED:
        error = merge(api, lead_id, into, status)["detail"]
        assert error == words if status != 422 else (error[0]["loc"], error[0]["msg"]) == (["body", "into"], words)
    for body in ({}, {"into": None}, {"into": "2"}, {"into": 0}, {"into": 3, "force": True}, []):
        api.post("/leads/1/merge", body, expect=422)
    assert [api.get(f"/leads/{each}") for each in (1, 3, 4)] == before


def test_the_old_id_takes_no_writes(api: Api) -> None:
    people(api, {}, {}, {})
    merge(api, 1, 2)
    for method, path, body in (
        ("PATCH", "/leads/1", {"name": "Ivan"}),
        ("POST", "/leads/1/merge", {"into": 3}),
        ("POST", "/leads/1/forget", None),
        ("DELETE", "/leads/1/duplicates/3", None),
        ("DELETE", "/leads/3/duplicates/1", None),
    ):
        assert api.call(method, path, body, expect=409)["detail"] == "lead 1 was merged into lead 2"


# --- and back --------------------------------------------------------------------------------------------------------


def test_an_undone_merge_gives_all_back(api: Api) -> None:
    people(api, {"lead_phone": PHONE, "lead_name": "Ivan"}, {"lead_email": EMAIL})
    before = [known(api, lead_id) for lead_id in (1, 2)]
    merge(api, 1, 2)
    lead = unmerge(api, 1)
    assert lead == api.get("/leads/1")
    assert [known(api, lead_id) for lead_id in (1, 2)] == before
    assert acts(lead) == [("merged", 1, 2, 1), ("unmerged", 1, 2, 1)] == acts(api.get("/leads/2"))
    assert api.contact(1, "tg:1")["lead_id"] == 1
    assert merge(api, 2, 1)["contacts_count"] == 3


def test_only_what_is_still_where_it_went_comes_back(api: Api) -> None:
    """Not an identifier that was taken away since, nor a name that was changed; what came later stays."""
    people(api, {"lead_phone": PHONE, "lead_name": "Ivan"}, {}, {})
    merge(api, 1, 2)
    later = api.contact(1, "tg:1", lead_email=EMAIL)["id"]
    api.patch("/leads/2", {"phones": [], "name": "Pyotr"})
    api.patch("/leads/3", {"phones": [PHONE]})
    unmerge(api, 1)
    assert known(api, 1) == ("Ivan", ["tg:1"], [1])
    assert known(api, 2) == ("Pyotr", ["tg:2", EMAIL], [2, later])
    assert known(api, 3) == (None, ["tg:3", PHONE], [3])


def three(api: Api) -> list[tuple[str | None, list[str], list[int]]]:
    people(api, {"lead_name": "Ivan"}, {}, {})
    return [known(api, lead_id) for lead_id in (1, 2, 3)]


def test_merges_that_followed_each_other_are_undone_in_any_order(api: Api) -> None:
    """Also the name, which filled one after the other."""
    before = three(api)
    for order in ((1, 2), (2, 1)):
        merge(api, 1, 2)
        merge(api, 2, 3)
        assert known(api, 3)[0] == "Ivan"
        for lead_id in order:
            unmerge(api, lead_id)
        assert [known(api, lead_id) for lead_id in (1, 2, 3)] == before


def test_what_came_along_comes_back_along(api: Api) -> None:
    three(api)
    merge(api, 1, 2)
    merge(api, 2, 3)
    assert acts(unmerge(api, 2)) == [("merged", 1, 2, 1), ("merged", 2, 3, 2), ("unmerged", 2, 3, 2)]
    assert known(api, 2) == ("Ivan", ["tg:1", "tg:2"], [1, 2])
    assert api.client.get("/leads/1", follow_redirects=False).headers["location"] == "2"


def test_what_was_given_back_and_merged_anew_does_not_come_along(api: Api) -> None:
    before = three(api)
    merge(api, 1, 2)
    merge(api, 2, 3)
    unmerge(api, 1)
    merge(api, 1, 3)
    unmerge(api, 2)
    assert known(api, 2) == (None, *before[1][1:])
    assert known(api, 3) == ("Ivan", ["tg:1", "tg:3"], [1, 3])


def test_a_name_that_the_other_had_by_itself_is_not_taken_back(api: Api) -> None:
    people(api, {"lead_name": "Ivan"}, {}, {"lead_name": "Ivan"})
    merge(api, 1, 2)
    merge(api, 2, 3)
    unmerge(api, 1)
    assert known(api, 3)[0] == "Ivan"
    assert unmerge(api, 2)["name"] is None


@pytest.mark.parametrize("said_by", ["hand", "contact"])
def test_the_same_name_that_the_other_said_since_by_itself_is_not_taken_back(api: Api, said_by: str) -> None:
    people(api, {"lead_name": "Ivan"}, {})
    merge(api, 1, 2)
    if said_by == "hand":
        api.patch("/leads/2", {"name": "Ivan"})
    else:
        api.patch("/leads/2", {"name": None})
        api.contact(1, "tg:2", lead_name="Ivan")
    unmerge(api, 1)
    assert known(api, 2)[0] == "Ivan"


def test_a_name_that_is_taken_back_gives_way_to_that_of_the_next_that_is_merged(api: Api) -> None:
    """As if the first had never been; also where the lead went on into another, and comes back."""
    people(api, {"lead_name": "Ivan"}, {"lead_name": "Vanya"}, {}, {}, {"lead_name": "Pyotr"})
    for lead_id in (1, 2):
        merge(api, lead_id, 3)
    merge(api, 3, 4)
    merge(api, 5, 4)
    assert known(api, 4)[0] == "Ivan"
    unmerge(api, 1)
    assert known(api, 4)[0] == "Vanya"
    assert unmerge(api, 3)["name"] == "Vanya"
    assert known(api, 4)[0] == "Pyotr"
    unmerge(api, 2)
    unmerge(api, 5)
    assert [known(api, lead_id)[0] for lead_id in (1, 2, 3, 4, 5)] == ["Ivan", "Vanya", None, None, "Pyotr"]


def test_what_would_leave_the_other_without_an_identifier_is_not_undone(api: Api) -> None:
    people(api, {"lead_phone": PHONE}, {})
    merge(api, 1, 2)
    api.patch("/leads/2", {"external_ids": []})
    words = "lead 2 would be left without an identifier: nobody could find it again"
    assert unmerge(api, 1, expect=409)["detail"] == words
    assert known(api, 2) == (None, [PHONE], [1, 2])
    api.patch("/leads/2", {"external_ids": ["tg:2"]})
    unmerge(api, 1)
    assert known(api, 2) == (None, ["tg:2"], [2])


def test_many_identifiers_move_and_go_in_pages(api: Api, database: str) -> None:
    """As of a bot that sends one external id with many phones; a statement of PostgreSQL takes 65,535 parameters."""
    many = effort(2_500, 33_000)
    people(api, {}, {})
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})"
    values = f"{numbers} SELECT 'phone', '+7999' || (1000000 + i), 1 FROM n"
    sql(database, f"INSERT INTO lead_identifier (kind, value, lead_id) {values}")

    def counts() -> dict[int, int]:
        return dict(map(tuple, sql(database, "SELECT lead_id, count(*) FROM lead_identifier GROUP BY lead_id")))

    merge(api, 1, 2)
    assert counts() == {2: many + 2}
    unmerge(api, 1)
    assert counts() == {1: many + 1, 2: 1}
    api.close(1)
    api.post("/leads/1/forget", expect=200)
    assert counts() == {2: 1}


def test_what_is_not_merged_or_went_into_a_forgotten_lead_cannot_be_undone(api: Api) -> None:
    people(api, {}, {})
    assert unmerge(api, 1, expect=409)["detail"] == "lead 1 is not merged into another"
    assert unmerge(api, 9, expect=404)["detail"] == "lead 9 not found"
    merge(api, 1, 2)
    for contact_id in (1, 2):
        api.close(contact_id)
    api.post("/leads/2/forget", expect=200)
    assert unmerge(api, 1, expect=409)["detail"] == "lead 1 was merged into lead 2, which was forgotten since"
    assert api.get("/leads/1")["is_forgotten"]
    api.post("/leads/2/unmerge", expect=409)


# --- duplicates ------------------------------------------------------------------------------------------------------


def test_a_contact_that_names_two_leads_makes_a_pair_with_what_speaks_for_it(api: Api) -> None:
    people(api, {"lead_name": "Ivan"}, {"lead_phone": PHONE, "lead_email": EMAIL})
    assert pairs(api) == []
    contact = api.contact(1, "tg:1", lead_phone=PHONE, lead_email=EMAIL)
    assert "belongs to lead 2" in contact["identity_note"]
    [pair] = api.get("/leads/duplicates")
    assert (pair["lead"], pair["other"]) == tuple(api.get("/leads/"))
    assert pair["lead"]["contacts_count"] == 2
    assert pairs(api) == [(1, 2, [("phone", PHONE, 3), ("email", EMAIL, 3)])]
    assert {each["created_at"] for each in pair["evidence"]} == {contact["created_at"]}


def test_the_same_is_noted_once_and_each_pair_listed_once_newest_first(api: Api) -> None:
    people(api, {"lead_phone": PHONE}, {"lead_email": EMAIL}, {})
    for _ in range(2):
        api.contact(1, "tg:3", lead_phone=PHONE)
    api.contact(1, "tg:3", lead_email=EMAIL)
    api.contact(1, "tg:2", lead_phone=PHONE)
    assert api.post("/contacts/", {"source_id": 1, "lead_phone": PHONE, "lead_email": EMAIL})["lead_id"] == 1
    newest = [(1, 2, [("email", EMAIL, 8), ("phone", PHONE, 7)]), (2, 3, [("email", EMAIL, 6)])]
    assert pairs(api) == [*newest, (1, 3, [("phone", PHONE, 4)])]
    assert pairs(api, "?limit=1&skip=1") == newest[1:]
    assert pairs(api, "?skip=99999999999999999999") == []
    assert api.get("/leads/duplicates?q=x", expect=422)["detail"][0]["loc"] == ["query", "q"]
    assert api.client.patch("/leads/duplicates", json={}).headers["allow"] == "GET"


def test_three_leads_named_by_one_contact_are_two_pairs(api: Api) -> None:
    people(api, {}, {"lead_phone": PHONE}, {"lead_email": EMAIL})
    api.contact(1, "tg:1", lead_phone=PHONE, lead_email=EMAIL)
    assert pairs(api) == [(1, 2, [("phone", PHONE, 4)]), (1, 3, [("email", EMAIL, 4)])]


def test_two_people_are_told_apart_for_good_in_either_order(api: Api) -> None:
    people(api, {}, {"lead_phone": PHONE}, {})
    api.contact(1, "tg:1", lead_phone=PHONE)
    api.delete("/leads/2/duplicates/1")
    api.contact(1, "tg:1", lead_phone=PHONE)
    api.patch("/leads/2", {"emails": [EMAIL]})
    assert "belongs to lead 2" in api.contact(1, "tg:1", lead_email=EMAIL)["identity_note"]
    assert pairs(api) == []
    for one, other in ((1, 2), (2, 1)):
        detail = api.delete(f"/leads/{one}/duplicates/{other}", expect=404)["detail"]
        assert detail == f"lead {one}: possible duplicate {other} not found"
    for lead_id in (1, 2):
        assert [act[0] for act in acts(api.get(f"/leads/{lead_id}"))] == ["told_apart"]
    api.contact(1, "tg:3", lead_phone=PHONE)
    assert [pair[:2] for pair in pairs(api)] == [(2, 3)]
    api.delete("/leads/2/duplicates/3")
    assert pairs(api) == []
    assert api.delete("/leads/1/duplicates/9", expect=404)["detail"] == "lead 9 not found"
    api.delete("/leads/1/duplicates/1", expect=404)


def test_merging_closes_a_pair_for_good_and_what_spoke_for_a_third_speaks_for_who_stays(api: Api) -> None:
    people(api, {"lead_phone": PHONE}, {}, {"lead_email": EMAIL})
    api.contact(1, "tg:2", lead_phone=PHONE)
    api.contact(1, "tg:3", lead_phone=PHONE)
    merge(api, 1, 2)
    assert pairs(api) == [(2, 3, [("phone", PHONE, 5)])]
    unmerge(api, 1)
    assert pairs(api) == [(1, 3, [("phone", PHONE, 5)])]
    api.contact(1, "tg:2", lead_phone=PHONE)
    assert pairs(api) == [(1, 3, [("phone", PHONE, 5)])]
    merge(api, 1, 2)
    api.delete("/leads/3/duplicates/2")
    api.contact(1, "tg:1", lead_email=EMAIL)
    api.contact(1, "tg:3", lead_phone=PHONE)
    assert pairs(api) == []


def test_a_merge_that_is_undone_brings_back_the_pairs_about_which_nobody_decided(api: Api) -> None:
    people(api, {}, {}, {"lead_phone": PHONE})
    for lead in ("tg:1", "tg:2"):
        api.contact(1, lead, lead_phone=PHONE)
    api.delete("/leads/1/duplicates/3")
    merge(api, 1, 2)
    assert pairs(api) == []
    api.delete("/leads/2/duplicates/3", expect=404)
    unmerge(api, 1)
    assert pairs(api) == [(2, 3, [("phone", PHONE, 5)])]


def test_a_merge_that_is_undone_decides_nothing_about_a_third_lead(api: Api) -> None:
    people(api, {}, {}, {"lead_phone": PHONE, "lead_email": EMAIL})
    api.contact(1, "tg:2", lead_phone=PHONE)
    merge(api, 1, 2)
    unmerge(api, 1)
    merge(api, 1, 3)
    api.contact(1, "tg:2", lead_email=EMAIL)
    assert pairs(api) == [(2, 3, [("email", EMAIL, 5), ("phone", PHONE, 4)])]


def test_what_is_said_while_a_lead_is_merged_speaks_for_the_other_after_that(api: Api) -> None:
    people(api, {}, {}, {"lead_phone": PHONE})
    api.contact(1, "tg:1", lead_phone=PHONE)
    merge(api, 1, 2)
    api.contact(1, "tg:2", lead_phone=PHONE)
    assert pairs(api) == [(2, 3, [("phone", PHONE, 5), ("phone", PHONE, 4)])]
    unmerge(api, 1)
    assert pairs(api) == [(2, 3, [("phone", PHONE, 5)]), (1, 3, [("phone", PHONE, 4)])]


# --- who did it ------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(database: str) -> Iterator[KeyApi]:
    with TestClient(app_on(database, admin_key=ADMIN, rate_limit=10_000), address()) as client:
        yield KeyApi(client, ADMIN)


def test_who_did_it_is_kept_also_when_the_key_is_gone_and_only_admins_see_it(keys: KeyApi) -> None:
    anna = keys.operator("Anna")
    keys.source(weights={anna: 1})
    for lead in ("tg:1", "tg:2"):
        keys.contact(1, lead)
    maria = keys.at(keys.post("/keys/", {"role": "admin", "name": "Maria's"})["key"])
    merge(maria, 1, 2)
    unmerge(keys, 1)
    keys.delete("/keys/1")
    assert [act["who"] for act in keys.get("/leads/1")["acts"]] == ["key 1 (Maria's)", "CRM_ADMIN_KEY"]
    mine = keys.make("operator", operator_id=anna)
    assert mine.get("/leads/1") == keys.get("/leads/1") | {"acts": []}
    merge(keys, 1, 2)
    assert mine.get("/leads/1")["id"] == 2
    keys.operator("Boris")
    keys.make("operator", operator_id=2).get("/leads/1", expect=404)
