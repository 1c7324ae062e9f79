"""Which lead wrote: design.md, "Lead identity"."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, reject
from hypothesis import strategies as st

from crm.identity import KINDS, normalise
from crm.main import create_app
from tests.conftest import Api, settings_of


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


@pytest.mark.parametrize(
    ("kind", "spellings"),
    [
        ("phone", ["8 (999) 123-45-67", "+7 999 123-45-67", "79991234567", " 8-999-123-45-67 "]),
        ("email", ["Ivan@Example.com", "ivan@example.com", "  IVAN@EXAMPLE.COM "]),
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


def test_a_very_long_email_that_only_normalising_makes_too_long_is_a_note(api: Api) -> None:
    long = "я" * 30 + "@" + ".".join(["ж" * 20] * 5) + ".example"
    contact = write(api, external_id="tg:1", email=long)
    assert len(contact["lead"]["emails"]) + (contact["identity_note"] is not None) == 1


def test_the_default_region_is_a_setting(path: Path) -> None:
    other = path.with_name("other.db")
    with TestClient(create_app(settings_of(other, default_region="de"))) as client:
        api = Api(client)
        api.source()
        assert write(api, phone="030 123456")["lead"]["phones"] == ["+4930123456"]
        assert "one of DE" in write(api, external_id="tg:1", phone="12")["identity_note"]
