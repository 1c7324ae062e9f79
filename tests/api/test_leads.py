"""Leads over the API: finding and correcting them."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import Api


@pytest.fixture
def leads(api: Api) -> Api:
    """1: Ivan with everything, 2: Анна with a phone, 3: nameless with an odd id."""
    everything = {"lead_external_id": "tg:1001", "lead_phone": "89991234567", "lead_email": "Ivan@Example.com"}
    source_id = api.source()
    for lead in (
        {**everything, "lead_name": "Ivan Petrov"},
        {"lead_phone": "8 916 000-00-01", "lead_name": "Анна Ёлкина"},
        {"lead_external_id": "x*[?]^%_]-'\"z"},
    ):
        api.post("/contacts/", {"source_id": source_id, **lead})
    return api


def ids(api: Api, query: str) -> list[int]:
    return [lead["id"] for lead in api.get(f"/leads/{query}")]


def test_the_list_is_by_id_with_identifiers_and_count_and_pages(leads: Api) -> None:
    leads.post("/contacts/", {"source_id": 1, "lead_external_id": "tg:1001"})
    first = leads.get("/leads/")[0]
    assert (first["name"], first["contacts_count"]) == ("Ivan Petrov", 2)
    assert (first["external_ids"], first["phones"]) == (["tg:1001"], ["+79991234567"])
    assert first["emails"] == ["ivan@example.com"]
    assert ids(leads, "") == [1, 2, 3]
    assert ids(leads, "?skip=1&limit=1") == [2]
    assert ids(leads, "?after_id=1&limit=1") == [2]
    assert ids(leads, "?after_id=99999999999999999999") == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("external_id=tg:1001", [1]),
        ("external_id=%20tg:1001%20", [1]),
        ("external_id=TG:1001", []),
        ("phone=8(999)123-45-67", [1]),
        ("phone=%2B79991234567", [1]),
        ("phone=no%20number", []),
        ("email=IVAN@example.COM", [1]),
        ("email=ivan", []),
        ("phone=89160000001&email=ivan@example.com", []),
        ("phone=89991234567&email=ivan@example.com&external_id=tg:1001&q=petrov", [1]),
    ],
)
def test_an_identifier_finds_exactly_its_lead(leads: Api, query: str, found: list[int]) -> None:
    assert ids(leads, f"?{query}") == found


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("ivan", [1]),
        ("PETROV", [1]),
        ("example", [1]),
        ("1001", [1]),
        ("+7", [1, 2]),
        ("анна", [2]),
        ("ЁЛК", [2]),
        ("ёЛкИн", [2]),
        ("X*[?]^%_]-'\"Z", [3]),
        ("*[?", [3]),
        ("^%_", [3]),
        ("_]-", [3]),
        ("***", []),
        ("???", []),
        ("%%%", []),
        ("n P", [1]),
        ("a-z", []),
        ("nowhere", []),
    ],
)
def test_q_finds_a_part_of_name_or_identifier_in_any_case(leads: Api, part: str, found: list[int]) -> None:
    assert ids(leads, f"?q={quote(part, safe='')}") == found


@pytest.mark.parametrize(
    ("part", "found"),
    [("i", [1]), ("PE", [1]), ("ё", [2]), ("АН", [2]), ("tg", [1]), ("T", [1]), ("x*", [3]), ("+7", [1, 2])]
    + [(part, []) for part in ("v", "ov", "ё ", "н", "g:", "1", "@", "*", "99", " ", "\u0307")],
)
def test_q_of_one_letter_or_two_finds_what_begins_so(leads: Api, part: str, found: list[int]) -> None:
    assert ids(leads, f"?q={quote(part, safe='')}") == found


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("8 (999) 123-45-67", [1]),
        ("+7 999 1234567", [1]),
        ("89991234567", [1]),
        ("(999) 123", [1]),
        ("8 (999) 12", [1]),
        ("8916", [2]),
        ("8 00-01", []),
        ("8 9", [1, 2]),
        ("916 000", [2]),
        ("00-01", [2]),
        ("0-0", []),
        ("10-01", []),  # in an external id only as it is written
        ("10.01", []),
        ("1001", [1]),
        ("...", []),
        ("12 345678", []),
    ],
)
def test_q_finds_a_phone_or_a_part_of_one_however_it_is_written(leads: Api, part: str, found: list[int]) -> None:
    assert ids(leads, f"?q={quote(part, safe='')}") == found


@pytest.mark.parametrize("part", ["912 345 67 89", "9123456789", "(912) 345-6789"])
def test_q_that_may_be_a_phone_of_here_also_finds_those_of_elsewhere(api: Api, part: str) -> None:
    source_id = api.source()
    for number, phone in enumerate(("+79123456789", "+19123456789", "+499123456789", "+79123456780")):
        api.contact(source_id, f"tg:{number}", lead_phone=phone)
    assert ids(api, f"?q={quote(part)}") == [1, 2, 3]


@pytest.mark.parametrize(
    ("spellings", "others"),
    [
        (["Οδυσσεύς", "ΟΔΥΣΣΕΎΣ", "οδυσσεύσ"], ["Οδυσσέας"]),
        (["Straße 5", "STRASSE 5", "STRAẞE 5", "strasse 5", "StraSse 5"], ["Strase 5", "Stra\u03b2e 5"]),
        (["İpek", "i̇pek", "ipek", "IPEK", "I\u0307PEK"], ["pek"]),
        (["Ilgaz", "ılgaz", "ILGAZ"], ["lgaz"]),
        (["Fußweg-Maßstab", "FUSSWEG-MASSSTAB", "fussweg-maßstab"], ["fußweg-maßtab"]),
    ],
)
def test_q_finds_letters_that_change_more_than_their_case(api: Api, spellings: list[str], others: list[str]) -> None:
    """The final sigma, the sharp s whose capital is two letters, the i that has a dot or none."""
    source_id = api.source()
    for name in [*spellings, *others]:
        api.contact(source_id, f"tg:{len(api.get('/leads/'))}", lead_name=name)
    for spelling in spellings:
        found = {lead["name"] for lead in api.get(f"/leads/?q={quote(spelling)}")}
        # What is asked for without a dot need not be found with the dot as a letter of its own.
        missing = {name for name in spellings if "\u0307" in name} if "\u0307" not in unfolded(spelling) else set()
        assert set(spellings) - missing <= found <= set(spellings), spelling


def unfolded(text: str) -> str:
    return text.replace("İ", "i\u0307")


def test_q_of_many_such_letters_is_answered(leads: Api) -> None:
    assert ids(leads, f"?q={'ß' * 255}") == []


def test_q_finds_a_lead_once_however_often_it_matches(leads: Api) -> None:
    """Ivan: in the name and in the e-mail."""
    assert ids(leads, "?q=ivan") == [1]
    assert ids(leads, "?q=ivan&limit=1&skip=1") == []
    assert ids(leads, "?q=ivan&after_id=1") == []


@pytest.mark.parametrize("query", ["q=ivan&external_id=x", "q=анна&phone=89991234567", "q=tg&email=nobody"])
def test_q_combines_with_the_exact_filters(leads: Api, query: str) -> None:
    assert ids(leads, f"?{quote(query, safe='=&')}") == []


def test_q_does_not_cut_off_whom_an_exact_filter_finds(leads: Api) -> None:
    assert ids(leads, "?q=%2B79&limit=1&phone=89160000001") == [2]


@pytest.mark.parametrize("url", ["/leads/?nmae=ivan", "/leads/1/contacts?status=new"])
def test_an_unknown_query_parameter_is_422_and_named(leads: Api, url: str) -> None:
    [problem] = leads.get(url, expect=422)["detail"]
    assert problem["loc"] == ["query", url.partition("?")[2].partition("=")[0]]


def test_q_pages_too(leads: Api) -> None:
    assert ids(leads, "?q=pet&limit=1") == [1]
    assert ids(leads, "?q=%2B7&limit=1&skip=1") == [2]
    assert ids(leads, "?q=%2B7&limit=1&after_id=1") == [2]


def test_a_lead_shows_its_newest_100_contacts_and_lists_all(api: Api) -> None:
    source_id = api.source()
    newest_first = [api.contact(source_id)["id"] for _ in range(103)][::-1]
    lead = api.get("/leads/1")
    assert lead["contacts_count"] == 103
    assert [contact["id"] for contact in lead["contacts"]] == newest_first[:100]
    page = api.get(f"/leads/1/contacts?before_id={newest_first[99]}")
    assert [contact["id"] for contact in page] == newest_first[100:]
    assert [contact["id"] for contact in api.get("/leads/1/contacts?skip=1&limit=2")] == newest_first[1:3]


def test_a_lead_shows_its_own_contacts_of_all_sources(api: Api) -> None:
    shop, help_desk = api.source("Shop"), api.source("Help")
    own = [api.contact(shop, "tg:1"), api.contact(help_desk, "tg:1")]
    other = api.contact(shop, "tg:2")
    assert api.get("/leads/1")["contacts"] == api.get("/leads/1/contacts") == own[::-1]
    assert api.get("/leads/2/contacts") == [other]
    assert [lead["contacts_count"] for lead in api.get("/leads/")] == [2, 1]


@pytest.mark.parametrize(("method", "part"), [("GET", ""), ("GET", "/contacts"), ("PATCH", "")])
def test_a_lead_that_is_not_there_is_404(leads: Api, method: str, part: str) -> None:
    body = {"external_ids": ["tg:9"]} if method == "PATCH" else None
    assert leads.call(method, f"/leads/9{part}", body, expect=404)["detail"] == "lead 9 not found"
    assert ids(leads, "?external_id=tg:9") == []


def test_a_cleared_name_is_filled_by_the_next_contact(leads: Api) -> None:
    leads.patch("/leads/1", {"name": None})
    contact = {"source_id": 1, "lead_external_id": "tg:1001"}
    assert leads.post("/contacts/", {**contact, "lead_name": "Pyotr"})["lead"]["name"] == "Pyotr"


def test_a_name_can_be_changed_and_cleared(leads: Api) -> None:
    assert leads.patch("/leads/1", {"name": " Pyotr "})["name"] == "Pyotr"
    assert leads.patch("/leads/1", {})["name"] == "Pyotr"
    assert leads.patch("/leads/1", {"name": None})["name"] is None


def test_a_list_replaces_all_identifiers_of_its_kind_and_frees_the_old(leads: Api) -> None:
    lead = leads.patch("/leads/1", {"phones": ["8 999 765-43-21", "+7 999 765 43 21", "8 916 000-00-02"]})
    assert lead["phones"] == ["+79160000002", "+79997654321"]
    assert (lead["external_ids"], lead["emails"]) == (["tg:1001"], ["ivan@example.com"])
    contact = leads.post("/contacts/", {"source_id": 1, "lead_phone": "89991234567"})
    assert contact["lead_id"] == 4
    assert leads.patch("/leads/1", {"phones": [], "external_ids": [5, " x "]})["external_ids"] == ["5", "x"]


def test_an_identifier_that_was_taken_away_is_free_for_another_lead(leads: Api) -> None:
    leads.patch("/leads/1", {"phones": []})
    assert ids(leads, "?phone=89991234567") == []
    assert leads.patch("/leads/2", {"phones": ["8 999 123 45 67"]})["phones"] == ["+79991234567"]
    assert ids(leads, "?phone=89160000001") == []
    assert ids(leads, "?phone=89991234567") == [2]


def test_spellings_of_one_identifier_collapse(leads: Api) -> None:
    body = {"external_ids": ["5", 5, " 5 "], "emails": ["A@example.com", " a@EXAMPLE.com"]}
    lead = leads.patch("/leads/1", body)
    assert (lead["external_ids"], lead["emails"]) == (["5"], ["a@example.com"])


def test_sending_a_lead_what_it_shows_changes_nothing(leads: Api) -> None:
    before = leads.get("/leads/1")
    body = {field: before[field] for field in ("name", "external_ids", "phones", "emails")}
    assert leads.patch("/leads/1", body) == before


def test_all_unusable_values_are_named(leads: Api) -> None:
    body = {"phones": ["12", "89991234567", "call me"], "emails": ["a@example.com", "nobody"]}
    problems = leads.patch("/leads/1", body, expect=422)["detail"]
    assert [problem["loc"] for problem in problems] == [
        ["body", "phones", 0],
        ["body", "phones", 2],
        ["body", "emails", 1],
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"external_ids": ["new", "tg:1001"]},
        {"phones": ["+79991234567"], "external_ids": ["new"]},
        {"emails": ["IVAN@example.com"], "phones": []},
    ],
)
def test_what_another_lead_has_is_409_that_names_it_and_both_stay(leads: Api, body: dict[str, list[str]]) -> None:
    before = [leads.get(f"/leads/{lead_id}") for lead_id in (1, 2)]
    assert "belongs to lead 1" in leads.patch("/leads/2", body, expect=409)["detail"]
    assert [leads.get(f"/leads/{lead_id}") for lead_id in (1, 2)] == before


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"phones": ["8 916 000-00-01"]}, 409, "phone '+79160000001' belongs to lead 2"),
        ({"external_ids": [], "phones": [], "emails": []}, 409, "lead 1 would be left without an identifier"),
        ({"external_ids": ["x" * 256]}, 422, "['body', 'external_ids', 0]"),
        ({"emails": ["a@example.com", 5]}, 422, "['body', 'emails', 1]"),
        ({"phones": ["89991234567", "12345"]}, 422, "['body', 'phones', 1]"),
        ({"emails": ["nobody"]}, 422, "['body', 'emails', 0]"),
        ({"external_ids": [" "]}, 422, "['body', 'external_ids', 0]"),
        ({"phones": None}, 422, "['body', 'phones']"),
        ({"phones": "89991234567"}, 422, "['body', 'phones']"),
        ({"name": "  "}, 422, "['body', 'name']"),
        ({"name": "x" * 256}, 422, "['body', 'name']"),
        ({"nickname": "x"}, 422, "['body', 'nickname']"),
    ],
)
def test_what_cannot_be_done_says_why_and_changes_nothing(
    leads: Api, body: dict[str, Any], status: int, words: str
) -> None:
    before = leads.get("/leads/1")
    assert words in str(leads.patch("/leads/1", {"name": "New", **body}, expect=status)["detail"])
    assert leads.get("/leads/1") == before
