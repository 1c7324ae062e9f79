"""Webhooks: signed, in order, with the same id over retries, and whatever a receiver does."""

import asyncio
import base64
import hashlib
import hmac
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import datetime
from ipaddress import ip_address
from typing import Any

import pytest
import trustme
from standardwebhooks import Webhook, WebhookVerificationError

from crm.api import subscriptions
from crm.outbox import client, deliveries, lease, webhooks
from crm.outbox.webhooks import is_allowed, new_secret
from tests.api.test_metrics import scrape
from tests.conftest import Api, app_on, local
from tests.docs import reading
from tests.outbox.conftest import contacts, log_of, subscribe, until
from tests.outbox.receiver import Answer, Got, Receiver, receiving
from tests.postgres import sql

FAILURES = [Answer(500), Answer(0), Answer(503, Retry_After="0"), Answer(302, Location="/elsewhere"), Answer(429)]


def test_each_event_is_sent_signed_and_in_order(told: Api, receiver: Receiver) -> None:
    secret = subscribe(told, receiver.url)["secret"]
    source_id = told.source(weights={told.operator("Anna"): 1})
    contact = told.contact(source_id, event_id="880002")
    told.close(contact["id"])
    got = receiver.wait_for(2)
    events = [one.verified_by(secret) for one in got]
    assert [one.id for one in got] == [f"evt_{event['id']}" for event in events]
    assert [event["type"] for event in events] == ["contact.assigned", "contact.closed"]
    assert events[0]["data"] == {
        "contact_id": contact["id"], "event_id": "880002", "source_id": source_id, "lead_id": 1,
        "operator": {"id": 1, "name": "Anna"}, "status": "new", "reason": "distributed", "new": True,
    }  # fmt: skip
    one = got[0]
    signed = b".".join([one.id.encode(), one.headers["webhook-timestamp"].encode(), one.body])
    by_hand = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    assert one.headers["webhook-signature"] == f"v1,{base64.b64encode(by_hand).decode()}"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(one.body + b" ", one.headers)
    checked_as_documented(one, secret)


def checked_as_documented(got: Got, secret: str) -> None:
    [block] = [block for block in reading.blocks(reading.BOTS) if "def is_genuine" in block.text]
    names: dict[str, Any] = {}
    exec(block.text.partition("\nsecret = ")[0], names)  # noqa: S102
    is_genuine = names["is_genuine"]
    assert is_genuine([new_secret(), secret], got.headers, got.body)
    assert not is_genuine([new_secret()], got.headers, got.body)
    assert not is_genuine([secret], got.headers, got.body + b" ")
    assert not is_genuine([secret], {**got.headers, "webhook-id": "evt_9"}, got.body)
    assert not is_genuine([secret], got.headers, got.body, now=time.time() + 301)


def test_what_fails_is_sent_again_with_the_same_id_and_nothing_overtakes_it(told: Api, receiver: Receiver) -> None:
    secret = subscribe(told, receiver.url)["secret"]
    receiver.answers = [Answer(200), *FAILURES, Answer(201)]
    contacts(told, 3)
    got = receiver.wait_for(8)
    first, second, third = ("evt_1", "evt_2", "evt_3")
    assert receiver.ids == [first, *[second] * 6, third]
    assert len({one.body for one in got[1:7]}) == 1
    assert {one.path for one in got} == {"/hook"}
    assert all(one.verified_by(secret) for one in got)
    log = until(lambda: log_of(told), lambda log: len(log) == 8)
    assert [(one["event_id"], one["attempt"], one["outcome"], one["status"]) for one in log] == [
        *[(1, 1, "delivered", 200), (2, 1, "failed", 500), (2, 2, "failed", None), (2, 3, "failed", 503)],
        *[(2, 4, "failed", 302), (2, 5, "failed", 429), (2, 6, "delivered", 201), (3, 1, "delivered", 204)],
    ]
    state = told.get("/subscriptions/1")
    assert (state["cursor"], state["attempts"], state["next_attempt_at"], state["blocked_by"]) == (3, 0, None, None)
    assert state["last_delivery"] == log[-1]


def test_a_receiver_that_does_not_answer_in_time_is_tried_again(
    told: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT", 0.2)
    subscribe(told, receiver.url)
    receiver.answers = [Answer(200, wait=5)]
    contacts(told, 1)
    receiver.wait_for(2)
    assert receiver.ids == ["evt_1", "evt_1"]
    assert log_of(told)[0]["error"] == "no answer within 0.2 seconds"


def test_of_a_huge_answer_only_the_beginning_is_read(told: Api, receiver: Receiver) -> None:
    subscribe(told, receiver.url)
    receiver.always = Answer(200, b"x" * 10_000_000)
    contacts(told, 3)
    receiver.wait_for(3)
    assert receiver.ids == ["evt_1", "evt_2", "evt_3"]


def test_the_receiver_says_how_long_to_wait(told: Api, receiver: Receiver) -> None:
    for answer, least, most in (
        (Answer(503, Retry_After="3600"), 3500, 3600),
        (Answer(429, Retry_After="999999999999"), 86_300, 86_400),
        (Answer(500, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), -10, 1),
        (Answer(500, Retry_After="²"), -10, 1),
        (Answer(500, Retry_After="Fri, 31 Dec 9999 23:59:59 -2359"), -10, 1),
    ):
        subscription_id = subscribe(told, receiver.url)["id"]
        receiver.answers = [answer]
        contacts(told, 1)
        log = until(lambda i=subscription_id: log_of(told, i), lambda log: log)
        wait = wait_of(told, subscription_id)
        assert log[0]["outcome"] == "failed"
        assert wait is None or least <= wait <= most, answer.headers
        told.delete(f"/subscriptions/{subscription_id}")


def wait_of(api: Api, subscription_id: int) -> float | None:
    """From the try to the next; None: that has been already."""
    row = api.get(f"/subscriptions/{subscription_id}")
    if row["next_attempt_at"] is None:
        return None
    since = datetime.fromisoformat(row["last_delivery"]["created_at"])
    return (datetime.fromisoformat(row["next_attempt_at"]) - since).total_seconds()


def test_what_is_refused_for_good_is_passed_over_after_three_tries(told: Api, receiver: Receiver) -> None:
    subscribe(told, receiver.url)
    receiver.answers = [Answer(404), Answer(422), Answer(400)]
    contacts(told, 2)
    receiver.wait_for(4)
    assert receiver.ids == ["evt_1"] * 3 + ["evt_2"]
    log = until(lambda: log_of(told), lambda log: len(log) == 4)
    assert [one["outcome"] for one in log] == ["failed", "failed", "passed_over", "delivered"]


def test_a_receiver_that_is_gone_is_switched_off_at_once_and_loses_nothing(
    told: Api, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    subscribe(told, receiver.url)
    receiver.answers = [Answer(410)]
    with caplog.at_level(logging.INFO, "crm.events"):
        contacts(told, 2)
        state = until(lambda: told.get("/subscriptions/1"), lambda state: not state["is_active"])
    assert (state["off_reason"], state["cursor"]) == ("gone", 0)
    assert "subscription switched off" in caplog.messages
    back = told.patch("/subscriptions/1", {"is_active": True})
    assert (back["is_active"], back["off_reason"]) == (True, None)
    receiver.wait_for(3)
    assert receiver.ids == ["evt_1", "evt_1", "evt_2"]


def test_one_that_always_fails_is_switched_off_after_the_last_retry(told: Api, receiver: Receiver) -> None:
    subscribe(told, receiver.url)
    receiver.always = Answer(500)
    contacts(told, 2)
    state = until(lambda: told.get("/subscriptions/1"), lambda state: not state["is_active"])
    assert (state["off_reason"], state["cursor"], state["attempts"]) == ("failed", 0, 10)
    assert receiver.ids == ["evt_1"] * 10
    receiver.always = Answer()
    told.patch("/subscriptions/1", {"is_active": True})
    receiver.wait_for(12)
    assert receiver.ids[10:] == ["evt_1", "evt_2"]


def test_the_waits_between_the_tries_are_those_of_the_contract() -> None:
    minutes = [seconds / 60 for seconds in deliveries.RETRIES]
    assert minutes == [5 / 60, 5, 30, *(hours * 60 for hours in (2, 5, 10, 14, 20, 24))]


def test_a_try_that_fails_in_any_other_way_is_recorded_as_well(told: Api, receiver: Receiver, database: str) -> None:
    """As of a target that an older version allowed."""
    subscribe(told, receiver.url)
    sql(database, f"UPDATE subscription SET target = 'https://{'a' * 64}.example/'")
    contacts(told, 1)
    log = until(lambda: log_of(told), lambda log: len(log) >= 2)
    assert [(one["outcome"], one["error"], one["attempt"]) for one in log[:2]] == [
        ("failed", "failed: ValueError", 1),
        ("failed", "failed: ValueError", 2),
    ]


def test_what_the_old_target_answers_is_not_booked_on_the_new_one(told: Api, receivers: Callable[[], Receiver]) -> None:
    old, new = receivers(), receivers()
    subscribe(told, old.url)
    old.answers = [Answer(410, wait=20)]
    contacts(told, 1)
    old.wait_for(1)
    told.patch("/subscriptions/1", {"target": new.url})
    old.is_over.set()
    new.wait_for(1)
    assert new.ids == ["evt_1"]
    state = until(lambda: told.get("/subscriptions/1"), lambda state: state["cursor"] == 1)
    assert (state["is_active"], state["off_reason"]) == (True, None)


def test_while_nothing_can_be_written_nothing_is_sent_again(
    told: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures, is_full = lease.take_lease, list[str](), True

    def take_lease(connection: Any, holder: str, is_held: bool) -> bool:
        if is_full and receiver.got:
            failures.append(holder)
            raise OSError("disk full")
        return real(connection, holder, is_held)

    monkeypatch.setattr(lease, "take_lease", take_lease)
    subscribe(told, receiver.url)
    contacts(told, 1)
    until(lambda: len(failures), lambda count: count >= 5)
    assert receiver.ids == ["evt_1"]
    is_full = False
    until(lambda: told.get("/subscriptions/1")["cursor"], lambda cursor: cursor == 1)
    assert receiver.ids == ["evt_1", "evt_1"]


def test_a_changed_filter_counts_from_where_the_subscription_stands(told: Api, receiver: Receiver) -> None:
    subscribe(told, receiver.url, types=["contact.unaccepted"])
    contacts(told, 3)
    told.post("/subscriptions/1/test", expect=202)  # the look that sends it has seen all
    receiver.wait_for(1)
    told.patch("/subscriptions/1", {"types": None})
    receiver.wait_for(4)
    assert receiver.ids[1:] == ["evt_1", "evt_2", "evt_3"]


def test_a_filter_that_is_changed_while_a_webhook_is_under_way_counts_too(told: Api, receiver: Receiver) -> None:
    """Else the cursor would be moved over what only the new one wants."""
    subscribe(told, receiver.url, types=["contact.closed"])
    contacts(told, 3)
    receiver.answers = [Answer(wait=60)]  # until it is over
    told.close(1)
    receiver.wait_for(1)
    told.patch("/subscriptions/1", {"types": None})
    receiver.is_over.set()
    receiver.wait_for(5)
    assert receiver.ids == ["evt_4", "evt_1", "evt_2", "evt_3", "evt_4"]


def test_an_outage_of_the_receiver_loses_nothing(
    told: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "RETRIES", (0.02,) * 10_000)
    subscribe(told, receiver.url)
    receiver.always = Answer(0)
    contacts(told, 30)
    receiver.wait_for(3)
    receiver.always = Answer()
    got = receiver.wait_for(lambda got: got[-1].id == "evt_30")
    assert list(dict.fromkeys(one.id for one in got)) == [f"evt_{n}" for n in range(1, 31)]


def test_an_event_that_blocks_can_be_passed_over_by_hand(
    told: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "RETRIES", (3600,) * 9)
    subscribe(told, receiver.url)
    assert "not held up" in told.post("/subscriptions/1/skip", expect=409)["detail"]
    receiver.answers = [Answer(500)]
    contacts(told, 2)
    state = until(lambda: told.get("/subscriptions/1"), lambda state: state["blocked_by"])
    assert (state["blocked_by"], state["attempts"], state["cursor"]) == (1, 1, 0)
    assert told.post("/subscriptions/1/skip", expect=200)["cursor"] == 1
    receiver.wait_for(2)
    assert receiver.ids == ["evt_1", "evt_2"]
    log = until(lambda: log_of(told), lambda log: len(log) == 3)
    assert [one["outcome"] for one in log] == ["failed", "skipped", "delivered"]


def test_events_can_be_sent_again_from_any_of_them(told: Api, receiver: Receiver) -> None:
    subscribe(told, receiver.url)
    contacts(told, 4)
    until(lambda: told.get("/subscriptions/1")["cursor"], lambda cursor: cursor == 4)
    for after in (5, 2**63):
        assert "event 4" in told.post("/subscriptions/1/redeliver", {"after": after}, expect=409)["detail"]
    told.post("/subscriptions/1/redeliver", {"after": 2}, expect=200)
    receiver.wait_for(6)
    assert receiver.ids == ["evt_1", "evt_2", "evt_3", "evt_4", "evt_3", "evt_4"]


def test_a_new_secret_and_the_old_one_both_sign_for_a_day(
    told: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = subscribe(told, receiver.url)["secret"]
    changed = told.post("/subscriptions/1/rotate", expect=200)
    assert changed["secret"] != old
    contacts(told, 1)
    [got] = receiver.wait_for(1)
    assert got.verified_by(old) == got.verified_by(changed["secret"])
    monkeypatch.setattr(subscriptions, "BOTH_SIGN", -subscriptions.BOTH_SIGN)
    newest = told.post("/subscriptions/1/rotate", expect=200)["secret"]
    contacts(told, 1)
    got = receiver.wait_for(2)[1]
    assert got.verified_by(newest)
    with pytest.raises(WebhookVerificationError):
        got.verified_by(changed["secret"])


def test_a_test_is_sent_once_also_to_one_that_is_off_and_its_outcome_logged(told: Api, receiver: Receiver) -> None:
    secret = subscribe(told, receiver.url, is_active=False)["secret"]
    test = told.post("/subscriptions/1/test", expect=202)
    assert (test["kind"], test["outcome"]) == ("test", "waiting")
    [got] = receiver.wait_for(1)
    assert got.id == f"test_{test['id']}"
    assert got.verified_by(secret)["type"] == "test"
    [entry] = until(lambda: log_of(told), lambda log: log[0]["outcome"] != "waiting")
    assert (entry["outcome"], entry["status"]) == ("delivered", 204)
    receiver.answers = [Answer(500)]
    told.post("/subscriptions/1/test", expect=202)
    log = until(lambda: log_of(told), lambda log: log[-1]["outcome"] != "waiting")
    assert (log[-1]["outcome"], log[-1]["error"]) == ("failed", "answered 500")
    assert len(receiver.got) == 2
    assert told.get("/subscriptions/1")["attempts"] == 0


def test_a_subscription_is_told_only_what_it_asked_for(told: Api, receivers: Callable[[], Receiver]) -> None:
    anna, boris = told.operator("Anna"), told.operator("Boris")
    shop, help_desk = told.source("Shop", {anna: 1}), told.source("Help", {boris: 1})
    told.contact(shop)  # before anybody has subscribed
    closed, of_help, of_anna, all_ = (receivers() for _ in range(4))
    subscribe(told, closed.url, types=["contact.closed"])
    subscribe(told, of_help.url, source_id=help_desk)
    subscribe(told, of_anna.url, operator_id=anna)
    subscribe(told, all_.url)
    for source_id in (shop, help_desk, shop):
        told.close(told.contact(source_id)["id"])
    assert [one.id for one in all_.wait_for(6)] == [f"evt_{n}" for n in range(2, 8)]
    assert [one.id for one in closed.wait_for(3)] == ["evt_3", "evt_5", "evt_7"]
    assert [one.id for one in of_help.wait_for(2)] == ["evt_4", "evt_5"]
    assert [one.id for one in of_anna.wait_for(4)] == ["evt_2", "evt_3", "evt_6", "evt_7"]


def test_thirty_dead_receivers_of_a_hundred_do_not_delay_the_others(
    told: Api, receivers: Callable[[], Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten each that are silent, break the connection, and answer 500."""
    monkeypatch.setattr(deliveries, "RETRIES", (1,) * 9)
    good, silent, broken, failing = (receivers() for _ in range(4))
    silent.always, broken.always, failing.always = Answer(wait=30), Answer(0), Answer(500)
    for dead in (silent, broken, failing):
        for _ in range(10):
            subscribe(told, dead.url)
    for _ in range(70):
        subscribe(told, good.url)
    contacts(told, 1)
    good.wait_for(70, seconds=10)  # takes less than 2 at rest; behind a silent one it would take 15
    silent.wait_for(10)
    contacts(told, 1)
    good.wait_for(140, seconds=10)


def test_names_whose_look_up_hangs_do_not_hold_up_the_service(
    told: Api, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, hanging, is_over = socket.getaddrinfo, list[str](), threading.Event()

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if host == "hanging.example":
            hanging.append(host)
            is_over.wait(20)
            raise socket.gaierror
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        for _ in range(40):  # asyncio's own threads are 32 at most
            subscribe(told, "https://hanging.example/")
        subscribe(told, receiver.url)
        contacts(told, 1)
        until(lambda: len(hanging), lambda count: count == 40)
        receiver.wait_for(1)
        assert len(told.get("/events/?after=0")) == 1
    finally:
        is_over.set()


def test_nothing_is_written_while_there_is_nothing_to_tell(told: Api, receiver: Receiver, database: str) -> None:
    contacts(told, 3)
    subscribe(told, receiver.url, is_active=False)
    subscribe(told, receiver.url, types=["contact.unaccepted"])
    contacts(told, 100)
    told.post("/subscriptions/1/test", expect=202)  # the look that sends it has seen all
    receiver.wait_for(1)
    assert sql(database, "SELECT count(*) FROM delivery WHERE kind = 'events'") == [(0,)]
    until(lambda: log_of(told), lambda log: log[0]["outcome"] == "delivered")
    [(cursor,)] = sql(database, "SELECT cursor FROM subscription WHERE id = 2")
    assert cursor == 3


# --- where it may go -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),  # noqa: S104
        *("192.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1"),
        *("255.255.255.255", "::1", "::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "fe80::1"),
        *("fe80::1%1", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "ff0e::1", "2002:7f00:1::", "2002:a00:1::1"),
        *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2001:db8::1", "2001::1", "100::1", "4000::1"),
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not is_allowed(ip_address(address), None, is_secure=True)
    assert not is_allowed(ip_address(address), "192.168.77.0/24, fd77::/16", is_secure=True)


def test_public_addresses_are_allowed_by_https_and_named_networks_by_http_too() -> None:
    for public in ("93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"):
        assert is_allowed(ip_address(public), None, is_secure=True)
        assert not is_allowed(ip_address(public), "10.0.0.0/8", is_secure=False)
    for named in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::5"):
        for is_secure in (True, False):
            assert is_allowed(ip_address(named), "10.1.0.0/16,fd00::/64", is_secure)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The addresses of names, one for each look-up; the last stays."""
    table: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in table:
            addresses = table[name]
            host = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return table


def test_a_name_that_leads_to_this_machine_is_refused_when_it_is_connected_to(
    receiver: Receiver, names: dict[str, list[str]], database: str
) -> None:
    names["inside.example"] = ["127.0.0.1"]
    port = receiver.url.split(":")[2]
    with local(app_on(database, webhook_allow="10.0.0.0/8")) as client:
        api = Api(client)
        for scheme in ("http", "https"):
            subscribe(api, f"{scheme}://inside.example:{port}")
        contacts(api, 1)
        for number in (1, 2):
            log = until(lambda n=number: log_of(api, n), lambda log: log)
            assert "not a public one" in log[0]["error"]
    assert receiver.got == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_no_spelling_of_this_machines_address_leads_to_it(receiver: Receiver, host: str) -> None:
    """Not even of one that was there before it was refused, or that only the connection makes an address of."""

    async def send(scheme: str) -> None:
        port, message, hooks = (
            receiver.url.split(":")[2],
            webhooks.Message("evt_1", "{}"),
            webhooks.Webhooks("10.0.0.0/8"),
        )
        try:
            with pytest.raises(webhooks.Failed):
                await hooks.send(f"{scheme}://{host}:{port}", message, [new_secret()])
        finally:
            await hooks.close()

    for scheme in ("http", "https"):
        asyncio.run(send(scheme))
    assert receiver.got == []


def test_a_name_that_changes_its_address_leads_nowhere_else(
    told: Api, receiver: Receiver, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was looked up is what is connected to; and at the next connection it is looked at again."""
    monkeypatch.setattr(deliveries, "RETRIES", (3600,) * 9)
    names["changing.example"] = ["127.0.0.1", "0.0.0.0"]  # noqa: S104  (both lead to the receiver)
    receiver.always = Answer(200, Connection="close")
    subscribe(told, receiver.url.replace("127.0.0.1", "changing.example"))
    contacts(told, 1)
    receiver.wait_for(1)
    contacts(told, 1)
    log = until(lambda: log_of(told), lambda log: len(log) == 2)
    assert "not a public one" in log[1]["error"]
    assert receiver.ids == ["evt_1"]
    assert receiver.got[0].headers["host"].startswith("changing.example:")


def test_https_checks_the_certificate_of_the_name(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    """And who has issued it."""
    names["right.example"] = names["wrong.example"] = ["127.0.0.1"]
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("right.example").configure_cert(tls)

    def trusting() -> ssl.SSLContext:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    with receiving(tls) as receiver:
        port = receiver.url.split(":")[2].removesuffix("/hook")
        for name, context in (("right", ssl.create_default_context), ("right", trusting), ("wrong", trusting)):
            monkeypatch.setattr(client, "tls_context", context)
            with local(app_on(database, webhook_allow="127.0.0.1/32")) as caller:
                subscription_id = subscribe(Api(caller), f"https://{name}.example:{port}", is_active=False)["id"]
                Api(caller).post(f"/subscriptions/{subscription_id}/test", expect=202)
                until(lambda i=subscription_id: log_of(Api(caller), i), lambda log: log[0]["outcome"] != "waiting")
    told_of = sql(database, "SELECT outcome, status FROM delivery ORDER BY id")
    assert told_of == [("failed", None), ("delivered", 204), ("failed", None)]
    assert [one.headers["host"] for one in receiver.got] == [f"right.example:{port}"]


# --- figures ---------------------------------------------------------------------------------------------------------


def test_tries_are_counted_and_the_oldest_event_that_waits_is_shown(told: Api, receiver: Receiver) -> None:
    for name, fields in (("up", {}), ("off", {"is_active": False}), ("gone", {})):
        subscribe(told, receiver.url if name != "gone" else f"{receiver.url}/gone", name=name, **fields)
    receiver.by_path["/hook/gone"] = Answer(410)
    before = scrape(told)
    contacts(told, 2)
    until(lambda: told.get("/subscriptions/1")["cursor"], lambda cursor: cursor == 2)
    until(lambda: told.get("/subscriptions/3")["is_active"], lambda is_active: not is_active)
    figures = scrape(told)

    def grown(subscription_id: int, outcome: str) -> float:
        name = f'crm_deliveries_total{{outcome="{outcome}",subscription_id="{subscription_id}"}}'
        return figures.get(name, 0) - before.get(name, 0)

    assert [grown(1, "delivered"), grown(1, "failed"), grown(3, "delivered"), grown(3, "failed")] == [2, 0, 0, 1]
    ages = {name: age for name, age in figures.items() if name.startswith("crm_oldest_delivery_seconds")}
    assert ages.pop('crm_oldest_delivery_seconds{subscription="up",subscription_id="1"}') == 0
    assert 0 < ages.pop('crm_oldest_delivery_seconds{subscription="gone",subscription_id="3"}') < 60
    assert ages == {}
