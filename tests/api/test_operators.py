"""Operators over the API."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import Api


def test_a_new_operator_is_active_with_a_limit_of_10_and_no_load(api: Api) -> None:
    operator = api.post("/operators/", {"name": "  Anna  "})
    assert operator["id"] == 1
    assert (operator["name"], operator["is_active"], operator["max_load"], operator["load"]) == ("Anna", True, 10, 0)
    assert operator["created_at"].endswith("Z")


BAD_FIELDS = [
    ("name", ""),
    ("name", " \t "),
    ("name", "x" * 101),
    ("name", "a\x00b"),
    ("name", 5),
    ("name", None),
    ("is_active", "yes"),
    ("is_active", 1),
    ("is_active", None),
    ("max_load", -1),
    ("max_load", 100_001),
    ("max_load", 10**30),
    ("max_load", 1.5),
    ("max_load", "5"),
    ("max_load", True),
    ("max_load", None),
    ("surprise", 1),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_a_bad_field_is_422_and_named_and_nothing_changes(api: Api, field: str, value: object) -> None:
    before = api.post("/operators/", {"name": "Anna"})
    for method, path in (("POST", "/operators/"), ("PATCH", "/operators/1")):
        answer = api.call(method, path, {"name": "Boris", field: value}, expect=422)
        assert [problem["loc"] for problem in answer["detail"]] == [["body", field]]
    assert api.get("/operators/") == [before]


def test_a_lone_surrogate_in_a_name_is_422(client: TestClient) -> None:
    answer = client.post("/operators/", content=rb'{"name": "a\ud800b"}', headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "name"])


def test_the_list_is_by_id_with_filter_skip_and_limit(api: Api) -> None:
    ids = [api.operator(name, is_active=name != "B") for name in ("A", "B", "C", "D")]

    def listed(query: str) -> list[int]:
        return [operator["id"] for operator in api.get(f"/operators/{query}")]

    assert listed("") == ids
    assert listed("?is_active=true") == [ids[0], ids[2], ids[3]]
    assert listed("?is_active=false") == [ids[1]]
    assert listed("?skip=1&limit=2") == ids[1:3]
    assert listed("?is_active=true&skip=1&limit=1") == [ids[2]]


def test_an_operator_shows_its_sources_with_its_weights(api: Api) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris")
    shop = api.source("Shop", {anna: 10, boris: 30})
    help_desk = api.source("Help", {anna: 0})
    assert api.get(f"/operators/{anna}")["sources"] == [
        {"source_id": shop, "source_name": "Shop", "topic": "", "weight": 10.0},
        {"source_id": help_desk, "source_name": "Help", "topic": "", "weight": 0.0},
    ]


def test_a_load_counts_new_and_in_progress_over_all_sources(api: Api) -> None:
    anna = api.operator()
    contacts = [api.contact(api.source(name, {anna: 1}))["id"] for name in ("Shop", "Help", "Sales")]
    api.patch(f"/contacts/{contacts[0]}/status", {"status": "in_progress"})
    assert api.get(f"/operators/{anna}")["load"] == 3
    api.close(contacts[1])
    assert api.get(f"/operators/{anna}")["load"] == api.get("/operators/")[0]["load"] == 2


@pytest.mark.parametrize("change", [{"name": "Boris"}, {"is_active": False}, {"max_load": 0}, {}])
def test_a_patch_changes_only_what_it_sends(api: Api, change: dict[str, Any]) -> None:
    anna = api.operator()
    before = api.get(f"/operators/{anna}")
    assert api.patch(f"/operators/{anna}", change) == before | change
    assert api.get(f"/operators/{anna}") == before | change


def test_lowering_a_limit_or_deactivating_takes_nothing_away(api: Api) -> None:
    anna = api.operator()
    source_id = api.source(weights={anna: 1})
    api.contact(source_id)
    assert api.patch(f"/operators/{anna}", {"max_load": 0, "is_active": False})["load"] == 1
    assert api.contact(source_id)["status"] == "pending"


def test_deleting_takes_the_weights_along_and_never_reuses_the_id(api: Api) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris")
    source_id = api.source(weights={anna: 1, boris: 1})
    api.delete(f"/operators/{boris}")
    assert [entry["operator_id"] for entry in api.get(f"/sources/{source_id}")["operators"]] == [anna]
    api.get(f"/operators/{boris}", expect=404)
    assert api.operator("Clara") > boris


def test_one_who_ever_had_a_contact_cannot_be_deleted(api: Api) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris")
    contact_id = api.contact(api.source(weights={anna: 1}))["id"]
    api.post(f"/contacts/{contact_id}/assign", {"operator_id": boris}, expect=200)
    for operator_id in (anna, boris):
        assert f"operator {operator_id} has" in api.delete(f"/operators/{operator_id}", expect=409)["detail"]
    assert len(api.get("/operators/")) == 2
