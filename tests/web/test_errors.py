"""No input gives a 5xx: a clear 4xx that names the field, and nothing changed."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import Api

JSON = {"Content-Type": "application/json"}
IDENTIFIED = {"source_id": 1, "lead_external_id": "tg:1"}


@pytest.fixture
def team(api: Api) -> Api:
    api.source(weights={api.operator(): 1})
    return api


def everything(api: Api) -> list[Any]:
    return [api.get(path) for path in ("/operators/", "/sources/", "/contacts/", "/leads/")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source_id", 0),
        ("source_id", -1),
        ("source_id", "1"),
        ("source_id", 1.5),
        ("source_id", True),
        ("source_id", [1]),
        ("source_bot_id", ""),
        ("source_bot_id", " "),
        ("source_bot_id", "x" * 101),
        ("source_bot_id", 1.5),
        ("lead_external_id", "x" * 256),
        ("lead_external_id", "a\x00b"),
        ("lead_external_id", True),
        ("lead_external_id", 1.5),
        ("lead_external_id", 10**255),
        ("lead_external_id", {"id": 1}),
        ("lead_phone", "1" * 256),
        ("lead_phone", 79991234567),
        ("lead_phone", "\x00"),
        ("lead_email", "a" * 256),
        ("lead_email", ["a@b.example"]),
        ("lead_name", "x" * 256),
        ("lead_name", 5),
        ("message", "x" * 10_001),
        ("message", "\x00"),
        ("message", 5),
        ("priority", -1),
        ("priority", 10),
        ("priority", 10**30),
        ("priority", "5"),
        ("priority", None),
        ("priority", 1.5),
        ("event_id", ""),
        ("event_id", "  "),
        ("event_id", "x" * 256),
        ("event_id", False),
        ("surprise", 1),
    ],
)
def test_a_field_of_a_contact_that_cannot_be_used_is_422_and_named(team: Api, field: str, value: object) -> None:
    before = everything(team)
    other = {"lead_external_id": "tg:1"} if field == "source_bot_id" else IDENTIFIED
    answer = team.post("/contacts/", {**other, field: value}, expect=422)
    assert field in answer["detail"][0]["loc"]
    assert everything(team) == before


@pytest.mark.parametrize("field", ["lead_external_id", "lead_phone", "lead_name", "message", "event_id"])
def test_a_lone_surrogate_is_422_and_named(team: Api, client: TestClient, field: str) -> None:
    body = json.dumps({**IDENTIFIED, field: "a\ud800b"})
    answer = client.post("/contacts/", content=body, headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", field]
    assert team.get("/contacts/") == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1", "1000000.5", '"1"', "true", "null"])
def test_a_weight_that_is_none_is_422_and_named(team: Api, client: TestClient, number: str) -> None:
    answer = client.put("/sources/1/operators", content=f'[{{"operator_id": 1, "weight": {number}}}]', headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", 0, "weight"]
    assert team.get("/sources/1")["operators"][0]["weight"] == 1


def test_the_largest_weights_of_many_operators_still_have_a_sum(api: Api) -> None:
    weights = {api.operator(f"Operator {number}"): 1_000_000.0 for number in range(50)}
    source_id = api.source(weights=weights)
    assert api.contact(source_id)["operator_id"] in weights


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"text"', b"1", b"\xff\xfe", b'{"source_id": 1', b'{"lead_name": "\xff"}', b"{}" * 2],
)
def test_a_body_that_is_no_json_object_in_utf_8_is_422(team: Api, client: TestClient, content: bytes) -> None:
    answer = client.post("/contacts/", content=content, headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"
    assert team.get("/contacts/") == []


def test_deeply_nested_json_is_422(client: TestClient) -> None:
    answer = client.post("/contacts/", content=b'{"message": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", headers=JSON)
    assert answer.status_code == 422


def test_without_a_content_type_the_answer_names_the_header(client: TestClient) -> None:
    answer = client.post("/contacts/", content=json.dumps(IDENTIFIED))
    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize(
    "url",
    [
        "/contacts/?before_id=0",
        "/contacts/?lead_id=x",
        "/contacts/?source_id=-1",
        "/contacts/?operator_id=1.5",
        "/contacts/?status=lost",
        "/contacts/?order=oldest",
        "/contacts/?limit=0",
        "/contacts/?limit=1001",
        "/contacts/?skip=-1",
        "/contacts/?satus=new",
        "/leads/?after_id=x",
        "/leads/?q=",
        "/leads/?phone=" + "1" * 256,
        "/operators/?is_active=maybe",
        "/sources/?limit=many",
        "/stats/?since=yesterday",
        "/stats/?since=0.5",
        "/stats/?since=2026-01-01T00:00:00",
        "/stats/?until=0001-01-01T00:00:00%2B14:00",
        "/stats/operators?until=2026-13-01T00:00:00Z",
    ],
)
def test_a_query_that_cannot_be_used_is_422_and_named(api: Api, url: str) -> None:
    answer = api.get(url, expect=422)
    assert answer["detail"][0]["loc"] == ["query", url.split("?")[1].split("=")[0]]


@pytest.mark.parametrize(
    "url",
    [
        "/contacts/?before_id=99999999999999999999",
        "/contacts/?skip=99999999999999999999",
        "/leads/?q=tg&skip=99999999999999999999",
        "/leads/?q=%00",
        "/leads/?external_id=tg%00",
        "/leads/?email=%00",
        "/sources/?bot_id=%00",
    ],
)
def test_an_extreme_query_that_can_be_used_finds_nothing(team: Api, url: str) -> None:
    team.contact(1)
    found = team.get(url)
    assert len(found) == (1 if "before_id" in url else 0)


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/operators/{}"),
        ("PATCH", "/operators/{}"),
        ("DELETE", "/operators/{}"),
        ("GET", "/operators/{}/stats"),
        ("GET", "/sources/{}"),
        ("DELETE", "/sources/{}"),
        ("GET", "/sources/{}/candidates"),
        ("GET", "/stats/sources/{}"),
        ("GET", "/contacts/{}"),
        ("GET", "/leads/{}"),
        ("GET", "/leads/{}/contacts"),
    ],
)
def test_what_is_not_there_is_404_and_what_is_no_id_422(api: Api, method: str, url: str) -> None:
    body = {} if method == "PATCH" else None
    for number in (1, 2**63 - 1, 2**63, 10**30):
        assert f" {number} not found" in api.call(method, url.format(number), body, expect=404)["detail"]
    for text in ("0", "-1", "x", "1.5", "%00"):
        assert api.call(method, url.format(text), body, expect=422)["detail"][0]["loc"][0] == "path"


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("POST", "/contacts/", {"source_id": 10**30, "lead_external_id": "tg:1"}),
        ("POST", "/contacts/1/assign", {"operator_id": 10**30}),
        ("PUT", "/sources/1/operators", [{"operator_id": 10**30}]),
        ("POST", "/sources/1/operators", {"operator_id": 10**30}),
        ("PATCH", f"/sources/1/operators/{10**30}", {"weight": 1}),
        ("PATCH", f"/contacts/{10**30}/status", {"status": "closed"}),
        ("POST", "/keys/", {"role": "operator", "operator_id": 10**30, "name": "x"}),
        ("POST", f"/contacts/distribute?source_id={10**30}", None),
    ],
)
def test_an_id_beyond_64_bits_is_shown_as_it_was_sent(team: Api, method: str, url: str, body: Any) -> None:
    team.contact(1)
    assert f"{10**30} not found" in team.call(method, url, body, expect=404)["detail"]


def test_an_unknown_path_and_a_wrong_method_answer_in_the_same_shape(api: Api, client: TestClient) -> None:
    assert api.get("/nowhere", expect=404) == {"detail": "Not Found"}
    assert api.delete("/contacts/", expect=405) == {"detail": "Method Not Allowed"}
    assert client.delete("/contacts/").headers["Allow"] == "GET, POST"
    assert client.post("/operators/1").headers["Allow"] == "DELETE, GET, PATCH"
