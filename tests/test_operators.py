"""Operators over the API."""

from tests.conftest import Api


def test_a_new_operator_is_active_with_a_limit_of_10_and_no_load(api: Api) -> None:
    operator = api.post("/operators/", {"name": "  Anna  "})
    assert operator["id"] == 1
    assert (operator["name"], operator["is_active"], operator["max_load"], operator["load"]) == ("Anna", True, 10, 0)
    assert operator["created_at"].endswith("Z")
