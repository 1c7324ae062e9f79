"""Subscriptions: made, changed and deleted, without ever showing what is secret. How they are told: tests/outbox."""

import logging
from typing import Any

import pytest

from crm.outbox import webhooks
from tests.conftest import Api
from tests.postgres import sql


def test_a_webhook_shows_its_secret_once_and_its_target_without_credentials(api: Api, database: str) -> None:
    target = "https://user:pass-word@hooks.example:8443/crm/in?token=t0ken"
    made = api.post("/subscriptions/", {"target": target, "name": " our CRM "})
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made == api.get("/subscriptions/1") == api.get("/subscriptions/")[0]
    assert made["target"] == "https://****@hooks.example:8443/****?****"
    fields = ("name", "kind", "types", "source_id", "operator_id", "language", "with_lead", "is_active", "off_reason")
    assert [made[name] for name in fields] == ["our CRM", "webhook", None, None, None, "en", False, True, None]
    rotated = api.post("/subscriptions/1/rotate", expect=200)
    assert rotated["old_secret_until"] is not None
    assert sql(database, "SELECT target, secret, old_secret FROM subscription") == [(target, rotated["secret"], secret)]


def test_nothing_secret_is_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for target in ("https://user:pass-word@hooks.invalid/?token=t0ken", "https://user:pass-word@hooks.invalid:99999/"):
        answer = api.client.post("/subscriptions/", json={"target": target})
        assert "pass-word" not in answer.text
    api.post("/subscriptions/1/test", expect=202)
    while (entry := api.get("/subscriptions/1/deliveries")[0])["outcome"] == "waiting":
        pass
    ours = str([(record.getMessage(), record.__dict__) for record in caplog.records if "crm" in record.name])
    for secret in ("pass-word", "t0ken", "whsec_"):
        assert secret not in ours + str(entry)


def test_a_subscription_is_changed_and_deleted(api: Api) -> None:
    source_id, operator_id = api.source(), api.operator()
    api.post("/subscriptions/", {"target": "https://hooks.example/"})
    changes: dict[str, Any] = {
        "name": "x", "types": ["contact.closed"], "source_id": source_id, "operator_id": operator_id,
        "language": "ru", "with_lead": True, "is_active": False,
    }  # fmt: skip
    changed = api.patch("/subscriptions/1", changes)
    assert changed | changes == changed
    assert api.patch("/subscriptions/1", {"target": "https://other.example/"})["target"] == "https://other.example/"
    nothing = {"name": None, "types": None, "source_id": None, "operator_id": None}
    assert api.patch("/subscriptions/1", nothing) == changed | nothing | {"target": "https://other.example/"}
    assert "other kind" in api.patch("/subscriptions/1", {"target": "tgram://1:a/2"}, expect=409)["detail"]
    api.delete("/subscriptions/1")
    api.get("/subscriptions/1", expect=404)
    assert api.get("/subscriptions/") == []


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"target": ""}, {"target": 5}, {"target": "https://"}, {"target": "https:///path"}),
        *({"target": "http://hooks.example/"}, {"target": "https://127.0.0.1/"}, {"target": "https://[::1]:8000/"}),
        *({"target": "https://169.254.169.254/latest"}, {"target": "https://[::ffff:10.0.0.1]/"}),
        *({"target": "https://hooks.example:port/"}, {"target": "https://hooks.example/#there"}),
        *({"target": "https://hooks.example/ ä"}, {"target": "https://hooks.example/a\nHost: b"}),
        *({"target": f"https://{'a' * 64}.example/"}, {"target": "https://.example.com/"}, {"target": "https://./"}),
        *({"target": "https://[nonsense/"}, {"target": "https://hooks..example/"}, {"target": "x" * 2001}),
    ],
)
def test_a_target_that_cannot_be_sent_to_is_422_and_names_the_field(api: Api, body: Any) -> None:
    for problem in api.post("/subscriptions/", body, expect=422)["detail"]:
        assert problem["loc"] == ["body", "target"]


def test_what_a_subscription_is_about_must_be_there_and_be_known(api: Api) -> None:
    target = {"target": "https://hooks.example/"}
    for unknown, status in (
        *(({"source_id": 9}, 404), ({"operator_id": 9}, 404), ({"types": []}, 422), ({"types": ["contact.lost"]}, 422)),
        *(({"language": "de"}, 422), ({"name": " "}, 422), ({"is_active": None}, 422), ({"secret": "x"}, 422)),
    ):
        api.post("/subscriptions/", {**target, **unknown}, expect=status)
    assert api.get("/subscriptions/") == []
    api.post("/subscriptions/", target)
    for unknown in ({"target": None}, {"language": None}, {"is_active": None}, {"with_lead": None}):
        api.patch("/subscriptions/1", unknown, expect=422)


def test_a_deleted_source_or_operator_takes_its_subscriptions_along(api: Api) -> None:
    source_id, operator_id = api.source(), api.operator()
    api.post("/subscriptions/", {"target": "https://hooks.example/", "source_id": source_id})
    api.post("/subscriptions/", {"target": "https://hooks.example/", "operator_id": operator_id})
    api.delete(f"/sources/{source_id}")
    api.delete(f"/operators/{operator_id}")
    assert api.get("/subscriptions/") == []


def test_the_log_is_paged_newest_first(api: Api, database: str) -> None:
    for _ in range(2):
        api.post("/subscriptions/", {"target": "https://hooks.example/", "is_active": False})
    rows = ", ".join(f"({n % 2 + 1}, 'events', {n}, 1, 'delivered', 1, '2026-11-01 00:00:00.000000')" for n in range(6))
    columns = "subscription_id, kind, event_id, events, outcome, attempt, created_at"
    sql(database, f"INSERT INTO delivery ({columns}) VALUES {rows}")
    log = api.get("/subscriptions/1/deliveries?limit=2")
    assert [entry["event_id"] for entry in log] == [4, 2]
    older = api.get(f"/subscriptions/1/deliveries?before_id={log[-1]['id']}")
    assert [entry["event_id"] for entry in older] == [0]
    assert [row["last_delivery"]["event_id"] for row in api.get("/subscriptions/")] == [4, 5]


def test_the_masked_target_shows_where_it_goes() -> None:
    assert webhooks.mask("https://hooks.example/services/T0/B0") == "https://hooks.example/****"
    assert webhooks.mask("https://a@b@[::1]:80/x?y=@z") == "https://****@[::1]:80/****?****"
