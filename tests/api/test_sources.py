"""Sources and weights over the API."""

from typing import Any

import pytest

from tests.conftest import Api


def weights(api: Api, source_id: int) -> dict[int, tuple[float, float]]:
    """weight and share by operator"""
    operators = api.get(f"/sources/{source_id}")["operators"]
    return {entry["operator_id"]: (entry["weight"], entry["share"]) for entry in operators}


def test_a_new_source_has_no_operators(api: Api) -> None:
    source = api.post("/sources/", {"name": " Shop ", "bot_id": " shop_bot ", "description": "Orders"})
    assert (source["id"], source["name"], source["bot_id"], source["description"]) == (1, "Shop", "shop_bot", "Orders")
    assert source["operators"] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", " "),
        ("name", "x" * 101),
        ("name", None),
        ("bot_id", ""),
        ("bot_id", "x" * 101),
        ("bot_id", 1.5),
        ("bot_id", True),
        ("description", "x" * 1001),
        ("description", "\x00"),
        ("id", 5),
    ],
)
def test_a_bad_field_is_422_and_named_and_nothing_changes(api: Api, field: str, value: object) -> None:
    before = api.post("/sources/", {"name": "Shop"})
    for method, path in (("POST", "/sources/"), ("PATCH", "/sources/1")):
        answer = api.call(method, path, {"name": "Help", field: value}, expect=422)
        assert [problem["loc"] for problem in answer["detail"]] == [["body", field]]
    assert api.get("/sources/") == [before]


def test_name_and_bot_id_are_unique_and_the_clash_is_named(api: Api) -> None:
    shop, help_desk = api.source("Shop", bot_id=1001), api.source("Help")
    for body, words in (
        ({"name": "Shop"}, f"source {shop} already has the name 'Shop'"),
        ({"name": "Sales", "bot_id": " 1001 "}, f"source {shop} already has the bot_id '1001'"),
    ):
        assert api.post("/sources/", body, expect=409)["detail"] == words
        assert api.patch(f"/sources/{help_desk}", body, expect=409)["detail"] == words
    assert [source["name"] for source in api.get("/sources/")] == ["Shop", "Help"]
    assert api.patch(f"/sources/{shop}", {"name": "Shop", "bot_id": "1001"})["bot_id"] == "1001"
    assert api.source("Without bot"), "any number may have no bot_id"


def test_the_list_is_by_id_with_filter_skip_and_limit(api: Api) -> None:
    anna = api.operator()
    ids = [api.source(name, {anna: 1}, bot_id=name.lower()) for name in ("A", "B", "C")]
    assert [source["id"] for source in api.get("/sources/")] == ids
    assert [source["id"] for source in api.get("/sources/?skip=1&limit=1")] == ids[1:2]
    [found] = api.get("/sources/?bot_id=b")
    assert (found["id"], found["operators"][0]["share"]) == (ids[1], 1.0)
    assert api.get("/sources/?bot_id=B") == []


def test_a_patch_changes_only_what_it_sends_and_null_clears(api: Api) -> None:
    source_id = api.source("Shop", bot_id="shop_bot", description="Orders")
    changed = api.patch(f"/sources/{source_id}", {"description": None})
    assert (changed["name"], changed["bot_id"], changed["description"]) == ("Shop", "shop_bot", None)
    assert api.patch(f"/sources/{source_id}", {"bot_id": None})["bot_id"] is None
    assert api.patch(f"/sources/{source_id}", {}) == api.get(f"/sources/{source_id}")


def test_a_share_is_the_weight_among_all_operators_active_or_not(api: Api) -> None:
    anna, boris, clara = api.operator("Anna"), api.operator("Boris", is_active=False), api.operator("Clara")
    source_id = api.source(weights={anna: 10, boris: 30, clara: 0})
    assert weights(api, source_id) == {anna: (10, 0.25), boris: (30, 0.75), clara: (0, 0)}
    assert weights(api, api.source("Zero", {anna: 0})) == {anna: (0, 0)}


def test_replacing_the_weights_replaces_all_or_nothing(api: Api) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris")
    source_id = api.source(weights={anna: 1})
    path = f"/sources/{source_id}/operators"
    for body, status, words in (
        ([{"operator_id": boris}, {"operator_id": 99}], 404, "operator 99 not found"),
        ([{"operator_id": boris}, {"operator_id": boris, "weight": 2}], 422, "operator 2 is there twice"),
        ([{"operator_id": boris, "weight": -1}], 422, "greater than or equal to 0"),
        ([{"operator_id": boris, "weight": 1_000_001}], 422, "less than or equal to 1000000"),
        ([{"weight": 1}], 422, "Field required"),
        ({"operator_id": boris}, 422, "list"),
    ):
        assert words in str(api.put(path, body, expect=status)["detail"])
        assert weights(api, source_id) == {anna: (1, 1)}
    api.put(path, [{"operator_id": boris, "weight": 0.5}])
    assert weights(api, source_id) == {boris: (0.5, 1)}
    assert api.put(path, [])["operators"] == []
    assert "source 9 not found" in api.put("/sources/9/operators", [], expect=404)["detail"]


def test_an_operator_is_added_changed_and_removed(api: Api) -> None:
    anna, boris = api.operator("Anna"), api.operator("Boris")
    source_id = api.source(weights={anna: 3})
    added = api.post(f"/sources/{source_id}/operators", {"operator_id": boris})
    assert added == {"operator_id": boris, "operator_name": "Boris", "topic": "", "weight": 1.0, "share": 0.25}
    clash = api.post(f"/sources/{source_id}/operators", {"operator_id": boris, "weight": 5}, expect=409)
    assert f"operator {boris} serves source {source_id} already" in clash["detail"]
    path = f"/sources/{source_id}/operators/{boris}"
    assert api.patch(path, {"weight": 9})["share"] == 0.75
    api.patch(path, {}, expect=422)
    api.delete(path)
    assert weights(api, source_id) == {anna: (3, 1)}
    for missing in (api.delete(path, expect=404), api.patch(path, {"weight": 1}, expect=404)):
        assert missing["detail"] == f"source {source_id}: operator {boris} not found"


@pytest.mark.parametrize("body", [{"operator_id": 9}, {"operator_id": 10**30}])
def test_only_known_operators_are_added_to_known_sources(api: Api, body: dict[str, Any]) -> None:
    source_id = api.source()
    assert "operator" in api.post(f"/sources/{source_id}/operators", body, expect=404)["detail"]
    assert "source 9" in api.post("/sources/9/operators", body, expect=404)["detail"]


def test_deleting_takes_the_weights_along_but_not_a_source_with_contacts(api: Api) -> None:
    anna = api.operator()
    quiet, busy = api.source("Quiet", {anna: 1}), api.source("Busy", {anna: 1})
    api.contact(busy)
    api.delete(f"/sources/{quiet}")
    assert f"source {busy} has contacts" in api.delete(f"/sources/{busy}", expect=409)["detail"]
    assert [entry["source_id"] for entry in api.get(f"/operators/{anna}")["sources"]] == [busy]
    assert api.source("Quiet") > busy
