"""Which lead wrote: design.md, "Lead identity"."""

from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from crm.identity import KINDS, normalise
from crm.main import create_app
from tests.conftest import Api, local, settings_of


def write(api: Api, expect: int = 201, **lead: Any) -> Any:
    """A contact at source 1 with these of external_id, phone, email and name."""
    return api.post("/contacts/", {"source_id": 1, **{f"lead_{key}": value for key, value in lead.items()}}, expect)


@pytest.fixture(autouse=True)
def source(api: Api) -> int:
    return api.source()


digits = st.integers(0, 9_999_999).map("{:07}".format)
separators = st.tuples(*[st.sampled_from(["", " ", "-", ".", ") ", " ("])] * 3)


@given(digits, st.sampled_from(["8", "7", "+7"]), separators, st.sampled_from(["", " ", "\t"]))
def test_any_spelling_of_a_phone_has_one_form(number: str, prefix: str, gaps: tuple[str, ...], space: str) -> None:
    spelled = f"{space}{prefix}{gaps[0]}916{gaps[1]}{number[:3]}{gaps[2]}{number[3:]}{space}"
    assert normalise("phone", spelled, "RU") == f"+7916{number}"


@given(st.sampled_from(KINDS), st.text(max_size=20) | st.sampled_from(["a@B.example", "89161234567", " x "]))
def test_normalising_twice_is_normalising_once(kind: Any, text: str) -> None:
    try:
        once = normalise(kind, text, "RU")
    except ValueError:
        reject()
    assert normalise(kind, once, "RU") == once


letters = st.sampled_from([*"abhjtwyABHJTWYжЖёЁ", "\u0308", "\u030a", "\u030c", "\u0331"])


@given(st.text(letters, max_size=6).map("a{}@Example.com".format))
def test_normalising_an_email_twice_is_normalising_once(email: str) -> None:
    once = normalise("email", email, "RU")
    assert normalise("email", once, "RU") == once


@pytest.mark.parametrize(
    ("kind", "spellings"),
    [
        ("phone", ["8 (999) 123-45-67", "+7 999 123-45-67", "79991234567", " 8-999-123-45-67 "]),
        ("email", ["Ivan@Example.com", "ivan@example.com", "  IVAN@EXAMPLE.COM "]),
        ("email", ["a@EXAMPLE.рф", "A@example.xn--p1ai", "a@example.РФ"]),
        ("email", ["H\u0331ana@example.com", "\u1e96ana@example.com"]),
        ("external_id", ["1001", 1001, " 1001 ", 1001.0]),
    ],
)
def test_spellings_of_one_identifier_are_one_lead(api: Api, kind: str, spellings: list[Any]) -> None:
    assert {write(api, **{kind: spelling})["lead_id"] for spelling in spellings} == {1}
    [lead] = api.get("/leads/")
    assert len(lead["external_ids"] + lead["phones"] + lead["emails"]) == 1


def test_an_external_id_differs_by_case(api: Api) -> None:
    assert write(api, external_id="tg:a")["lead_id"] != write(api, external_id="tg:A")["lead_id"]


def test_identifiers_that_come_together_name_the_lead_from_then_on(api: Api) -> None:
    write(api, external_id="tg:1", phone="89991234567")
    write(api, external_id="wa:2", phone="+7 999 123 45 67", email="i@example.com")
    contact = write(api, external_id="wa:2")
    assert contact["lead"] | {"created_at": ""} == {
        "id": 1,
        "created_at": "",
        "name": None,
        "external_ids": ["tg:1", "wa:2"],
        "phones": ["+79991234567"],
        "emails": ["i@example.com"],
    }


@pytest.mark.parametrize("known", [{"external_id": "tg:1"}, {"phone": "89991234567"}, {"email": "i@example.com"}])
def test_whatever_names_the_lead_the_other_identifiers_are_added(api: Api, known: dict[str, str]) -> None:
    everything = {"external_id": "tg:1", "phone": "89991234567", "email": "i@example.com"}
    write(api, **known)
    contact = write(api, **everything)
    assert (contact["lead_id"], contact["identity_note"]) == (1, None)
    for kind, value in everything.items():
        assert write(api, **{kind: value})["lead_id"] == 1
    assert contact["lead"]["external_ids"] + contact["lead"]["phones"] + contact["lead"]["emails"] == [
        "tg:1",
        "+79991234567",
        "i@example.com",
    ]


def test_the_phone_of_another_lead_stays_where_it_is_and_the_note_says_so(api: Api) -> None:
    first = write(api, external_id="A")
    second = write(api, phone="89991234567")
    contact = write(api, external_id="A", phone="+7 999 123-45-67")
    assert contact["lead"] == first["lead"]
    assert contact["identity_note"] == f"lead_phone '+79991234567' belongs to lead {second['lead_id']}"
    assert api.get("/leads/2")["phones"] == ["+79991234567"]
    assert write(api, phone="89991234567")["lead_id"] == second["lead_id"]


def test_the_external_id_decides_before_the_phone_and_the_phone_before_the_email(api: Api) -> None:
    write(api, external_id="tg:a")
    write(api, phone="89991234567")
    write(api, email="c@example.com")
    everything = {"external_id": "tg:a", "phone": "89991234567", "email": "c@example.com"}
    contact = write(api, **everything)
    assert contact["lead_id"] == 1
    assert contact["identity_note"] == (
        "lead_phone '+79991234567' belongs to lead 2; lead_email 'c@example.com' belongs to lead 3"
    )
    assert api.get(f"/contacts/{contact['id']}")["identity_note"] == contact["identity_note"]
    assert write(api, external_id="tg:new", phone="89991234567", email="c@example.com")["lead_id"] == 2
    assert api.get("/leads/2")["phones"] == ["+79991234567"]
    assert api.get("/leads/1")["phones"] == []


def test_a_missing_name_is_filled_and_a_given_one_stays(api: Api) -> None:
    assert write(api, external_id="tg:1", name="  ")["lead"]["name"] is None
    assert write(api, external_id="tg:1", name=" Ivan ")["lead"]["name"] == "Ivan"
    assert write(api, external_id="tg:1", name="Pyotr")["lead"]["name"] == "Ivan"


@pytest.mark.parametrize(
    ("unusable", "why"),
    [
        ({"phone": "12345"}, "lead_phone '12345' is not a phone number"),
        ({"phone": "call me"}, "lead_phone 'call me' is not a phone number"),
        ({"phone": " "}, "lead_phone ' ' is blank"),
        ({"email": "Ivan <i@example.com>"}, "lead_email 'Ivan <i@example.com>' is not an e-mail address"),
        ({"email": ""}, "lead_email '' is blank"),
    ],
)
def test_what_cannot_be_used_is_a_note_while_something_can(api: Api, unusable: dict[str, str], why: str) -> None:
    contact = write(api, external_id="tg:1", **unusable)
    assert why in contact["identity_note"]
    assert contact["lead"]["phones"] == contact["lead"]["emails"] == []
    assert write(api, external_id="tg:1")["identity_note"] is None


def test_a_note_says_all_that_was_not_used_and_is_the_same_wherever_it_is_read(api: Api) -> None:
    write(api, phone="89991234567")
    write(api, external_id="tg:1")
    contact = write(api, external_id="tg:1", phone="89991234567", email="nobody")
    note = contact["identity_note"]
    assert "lead_phone '+79991234567' belongs to lead 1" in note
    assert "lead_email 'nobody' is not an e-mail address" in note
    assert api.get(f"/contacts/{contact['id']}")["identity_note"] == note
    assert api.get("/contacts/")[0]["identity_note"] == note
    assert api.get("/leads/2/contacts")[0]["identity_note"] == note


def test_an_unusable_external_id_leaves_the_decision_to_the_phone(api: Api) -> None:
    write(api, phone="89991234567")
    contact = write(api, external_id="", phone="89991234567")
    assert (contact["lead_id"], contact["lead"]["external_ids"]) == (1, [])
    assert contact["identity_note"] == "lead_external_id '' is blank"


def test_null_is_no_identifier_and_no_note(api: Api) -> None:
    contact = write(api, external_id="tg:1", phone=None, email=None, name=None)
    assert contact["identity_note"] is None
    assert contact["lead"]["phones"] == contact["lead"]["emails"] == []


@pytest.mark.parametrize("external_id", ["x" * 255, 10**254, "tg:1\t\x01", "👤"])
def test_an_unusual_external_id_is_used_as_it_is(api: Api, external_id: str | int) -> None:
    assert write(api, external_id=external_id)["lead"]["external_ids"] == [str(external_id)]
    assert write(api, external_id=str(external_id))["lead_id"] == 1


def test_a_blank_external_id_is_a_note_too(api: Api) -> None:
    assert write(api, external_id="  ", phone="89991234567")["identity_note"] == "lead_external_id '  ' is blank"


def test_without_anything_usable_it_is_422_that_says_why_for_each(api: Api) -> None:
    answer = write(api, expect=422, external_id=" ", phone="12345", name="Ivan")
    assert {problem["loc"][1]: problem["msg"].split(" (")[0] for problem in answer["detail"]} == {
        "lead_external_id": "lead_external_id is blank",
        "lead_phone": "lead_phone is not a phone number",
        "lead_email": "lead_email is missing",
    }
    assert api.get("/leads/") == api.get("/contacts/") == []


@pytest.mark.parametrize(
    ("lead", "why"),
    [
        ({}, ["is missing"] * 3),
        ({"external_id": None, "phone": None, "email": None}, ["is missing"] * 3),
        ({"external_id": "", "phone": " ", "email": "\t"}, ["is blank"] * 3),
        ({"phone": "1", "email": "a@"}, ["is missing", "is not a phone number", "is not an e-mail address"]),
    ],
)
def test_each_of_the_three_fields_has_its_reason(api: Api, lead: dict[str, Any], why: list[str]) -> None:
    problems = write(api, expect=422, **lead)["detail"]
    fields = ["lead_external_id", "lead_phone", "lead_email"]
    assert [problem["loc"] for problem in problems] == [["body", field] for field in fields]
    assert [problem["msg"].split(" (")[0] for problem in problems] == [
        f"{field} {reason}" for field, reason in zip(fields, why, strict=True)
    ]
    assert api.get("/leads/") == api.get("/contacts/") == []


def test_a_very_long_email_that_only_normalising_makes_too_long_is_a_note(api: Api) -> None:
    long = "я" * 30 + "@" + ".".join(["ж" * 20] * 5) + ".example"
    contact = write(api, external_id="tg:1", email=long)
    assert len(contact["lead"]["emails"]) + (contact["identity_note"] is not None) == 1


def test_the_default_region_is_a_setting(database: str) -> None:
    with local(create_app(settings_of(database, default_region="de"))) as client:
        api = Api(client)
        assert write(api, phone="030 123456")["lead"]["phones"] == ["+4930123456"]
        assert "one of DE" in write(api, external_id="tg:1", phone="12")["identity_note"]


def test_the_environment_sets_the_region_of_phones_without_a_country_code(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_DEFAULT_REGION", "DE")
    with local(create_app(settings_of(database))) as client:
        api = Api(client)
        assert write(api, phone="030 123456")["lead_id"] == write(api, phone="+49 30 123456")["lead_id"] == 1
        assert write(api, phone="+7 999 123-45-67")["lead"]["phones"] == ["+79991234567"]
        assert [lead["id"] for lead in api.get("/leads/?phone=030%20123456")] == [1]
        assert api.patch("/leads/1", {"phones": ["(030) 654321"]})["phones"] == ["+4930654321"]
