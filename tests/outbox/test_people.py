"""Messages to people: what they say, to whom, how often; through a real mail server and a stand-in of Telegram."""

import email
import email.policy
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from typing import Any, get_args

import pytest
from aiosmtpd.controller import Controller

from crm.fields import EventType, utcnow
from crm.outbox import deliveries, people
from tests.conftest import Api
from tests.outbox.conftest import contacts, log_of, subscribe, until
from tests.outbox.receiver import Answer, Receiver
from tests.postgres import sql
from tests.service import free_port

PASSWORD = "correct-horse"  # noqa: S105


class Mailbox:
    """A mail server on this machine."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.answer = "250 OK"
        self.port = free_port()
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port)

    async def handle_DATA(self, _: Any, __: Any, envelope: Any) -> str:
        if self.answer.startswith("250"):
            mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
        return self.answer

    def url(self, to: str = "lead@team.example") -> str:
        return f"mailto://127.0.0.1:{self.port}?mode=insecure&from=crm@team.example&to={to}&pass={PASSWORD}"

    def texts(self, count: int, to: str = "lead@team.example") -> list[str]:
        """When so many have come to this address."""

        def read() -> list[str]:
            mails = [mail for mail in self.mails if to in mail["To"]]
            return [
                body.get_content().strip().replace("\r\n", "\n")
                for mail in mails
                if (body := mail.get_body(("plain",)))
            ]

        return list(until(read, lambda texts: len(texts) >= count))


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox()
    mailbox.controller.start()
    yield mailbox
    mailbox.controller.stop()


@pytest.fixture
def shop(told: Api) -> int:
    """A source of Anna (1), who has room for one contact."""
    return told.source("Shop", {told.operator("Anna", max_load=1): 1})


def test_people_get_short_texts_in_their_language_with_a_link(told: Api, shop: int, mailbox: Mailbox) -> None:
    subscribe(told, mailbox.url("en@team.example"))
    subscribe(told, mailbox.url("ru@team.example"), language="ru")
    subscribe(told, mailbox.url("anna@team.example"), operator_id=1, language="ru")
    told.contact(shop, lead_name="Ivan", lead_phone="+79991234567", message="Where is my order?")
    mailbox.texts(1, "en@")
    mailbox.texts(1, "ru@")
    told.contact(shop)
    link = "https://crm.example/#contacts"
    assert mailbox.texts(2, "en@") == [
        f"Contact 1 from Shop went to Anna.\n{link}/1",
        f"Contact 2 from Shop waits: nobody has room.\n{link}/2",
    ]
    assert mailbox.texts(2, "ru@") == [
        f"Обращение 1 (Shop) получает Anna.\n{link}/1",
        f"Обращение 2 (Shop) ждёт: ни у кого нет места.\n{link}/2",
    ]
    assert mailbox.texts(1, "anna@") == [f"Обращение 1 (Shop) — вам.\n{link}/1"]
    said = "".join(str(mail) for mail in mailbox.mails)
    assert "Ivan" not in said
    assert "9991234567" not in said


def test_what_the_lead_said_is_told_only_if_the_subscription_allows_it(told: Api, shop: int, mailbox: Mailbox) -> None:
    subscribe(told, mailbox.url(), with_lead=True)
    told.contact(shop, lead_name="Ivan", lead_phone="+79991234567", message="Where is my order? " * 20)
    [text] = mailbox.texts(1)
    first, who, said, _ = text.splitlines()
    assert (first, who) == ("Contact 1 from Shop went to Anna.", "Ivan +79991234567")
    assert said == ("Where is my order? " * 20)[:200] + "..."


def test_what_waits_is_joined_and_one_alert_comes_in_ten_minutes(
    told: Api, shop: int, mailbox: Mailbox, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "RETRIES", (3600,) * 9)
    subscribe(told, mailbox.url())
    mailbox.answer = "451 later"
    contacts(told, 1)
    until(lambda: log_of(told), lambda log: log)
    for _ in range(14):
        told.contact(shop)
    mailbox.answer = "250 OK"
    until(lambda: told.get("/events/?after=0"), lambda events: len(events) == 15)  # the sender knows of them too
    sql(database, "UPDATE subscription SET next_attempt_at = NULL")  # as if the hour were over
    [text] = mailbox.texts(1)
    lines = [line for line in text.splitlines() if "://" not in line]
    assert lines == [
        "Contact 1 from Shop went to Anna.",
        *(f"Contact {n} from Shop waits: nobody has room." for n in range(2, 11)),
        "And 5 more.",
    ]
    told.contact(shop)  # an alert, of which there was one
    told.patch("/operators/1", {"max_load": 2})
    assert mailbox.texts(2)[1].splitlines()[0] == "Contact 2 from Shop went to Anna."
    until(lambda: told.get("/subscriptions/1")["cursor"], lambda cursor: cursor == 17)
    log = log_of(told)
    assert [(one["outcome"], one["events"]) for one in log[-2:]] == [("delivered", 15), ("delivered", 1)]
    assert log[-2]["attempt"] == len(log) - 1


def test_what_is_older_than_an_hour_is_left_out(
    told: Api, shop: int, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(told, mailbox.url(), is_active=False)
    told.contact(shop)
    real = utcnow
    monkeypatch.setattr(people, "utcnow", lambda: real() + timedelta(minutes=61))
    told.patch("/subscriptions/1", {"is_active": True})
    until(lambda: told.get("/subscriptions/1")["cursor"], lambda cursor: cursor == 1)
    monkeypatch.setattr(people, "utcnow", real)
    told.contact(shop)
    assert mailbox.texts(1)[0].startswith("Contact 2 from Shop waits")


def test_an_event_that_failed_and_grew_too_old_holds_up_nothing(
    told: Api, shop: int, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "RETRIES", (1,) * 9)
    subscribe(told, mailbox.url())
    mailbox.answer = "451 later"
    told.contact(shop)
    until(lambda: told.get("/subscriptions/1")["blocked_by"], lambda event_id: event_id == 1)
    real = utcnow
    monkeypatch.setattr(people, "utcnow", lambda: real() + timedelta(minutes=61))
    state = until(lambda: told.get("/subscriptions/1"), lambda state: state["cursor"] == 1)
    assert (state["blocked_by"], state["next_attempt_at"]) == (None, None)


def test_people_are_not_told_of_each_step_unless_they_ask_for_it(told: Api, shop: int, mailbox: Mailbox) -> None:
    subscribe(told, mailbox.url())
    subscribe(told, mailbox.url("all@team.example"), types=["contact.started", "contact.closed"])
    told.contact(shop)
    for status in ("in_progress", "closed"):
        told.patch("/contacts/1/status", {"status": status})
    text = until(lambda: "\n".join(mailbox.texts(1, "all@")), lambda text: "closed" in text)
    assert "Anna works on contact 1" in text
    assert len(mailbox.texts(1)) == 1


def test_the_team_is_told_that_a_subscription_was_switched_off(
    told: Api, shop: int, mailbox: Mailbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if that does not succeed at once."""
    monkeypatch.setattr(deliveries, "RETRIES", (1,) * 9)
    subscribe(told, mailbox.url(), types=["contact.overdue"])
    subscribe(told, mailbox.url("anna@team.example"), operator_id=1, types=["contact.overdue"])
    subscribe(told, receiver.url, name="our CRM")
    receiver.always = Answer(410)
    mailbox.answer = "451 later"
    told.contact(shop)
    [entry] = until(lambda: log_of(told), lambda log: log and log[0]["error"])
    assert (entry["outcome"], entry["attempt"]) == ("waiting", 2)
    mailbox.answer = "250 OK"
    assert mailbox.texts(1) == ["Subscription 3 (our CRM) was switched off: its messages can't be delivered."]
    [entry] = until(lambda: log_of(told), lambda log: log and log[0]["outcome"] != "waiting")
    assert (entry["kind"], entry["outcome"], entry["error"]) == ("notice", "delivered", None)
    assert log_of(told, 2) == []


def test_telegram_gets_plain_text_and_no_log_or_answer_shows_the_token(
    told: Api, shop: int, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A stand-in of its API, which first refuses."""
    from apprise.plugins.telegram import NotifyTelegram

    monkeypatch.setattr(NotifyTelegram, "notify_url", receiver.url.replace("/hook", "/bot"))
    token = "123456789:abcdefghijklmnopqrstuvwxyz_ABCDEFGH"  # noqa: S105
    receiver.answers = [Answer(401, json.dumps({"ok": False, "description": f"bad {token}"}).encode())]
    receiver.always = Answer(200, b'{"ok": true, "result": {}}')
    caplog.set_level(logging.DEBUG)
    made = subscribe(told, f"tgram://{token}/987654321")
    assert (made["target"], made["secret"], made["kind"]) == ("tgram://****", None, "people")
    told.contact(shop, "tg:1", lead_name="*Ivan* <b>")
    got = receiver.wait_for(2)
    assert got[-1].path == f"/bot{token}/sendMessage"
    assert got[-1].event["text"].strip().startswith("Contact 1 from Shop went to Anna.")
    log = until(lambda: log_of(told), lambda log: len(log) == 2)
    assert [one["outcome"] for one in log] == ["failed", "delivered"]
    told.post("/subscriptions/1/rotate", expect=409)
    answers = [told.get(path) for path in ("/subscriptions/", "/subscriptions/1", "/subscriptions/1/deliveries")]
    ours = [record.getMessage() for record in caplog.records if record.name.split(".")[0] in ("crm", "apprise")]
    output = capfd.readouterr()
    for secret in (token, "abcdefghijkl", "987654321"):
        assert secret not in str((answers, ours, output.out, output.err))


@pytest.mark.parametrize(
    "target",
    [
        *("json://127.0.0.1", "xmls://127.0.0.1", "form://127.0.0.1", "dbus://", "gnome://", "windows://", "syslog://"),
        *("fcm://project@key/device?keyfile=/etc/passwd", "vapid://crm@team.example/person"),
        *(
            "workflows://host/workflow/signature?template=/etc/passwd",
            "tgram://123456789:abcdefghijklmnopqrstuvwxyzABCDEFGH/1?template=/etc/passwd",
        ),
        *("nothing://here", "tgram://", "hello", "mailto://", "ftp://files.example", "javascript:alert(1)", "://"),
    ],
)
def test_a_target_that_cannot_be_used_is_422_and_names_the_field(told: Api, target: str) -> None:
    [problem] = told.post("/subscriptions/", {"target": target}, expect=422)["detail"]
    assert problem["loc"] == ["body", "target"]
    assert told.get("/subscriptions/") == []


def test_without_the_library_it_is_501_and_webhooks_work(told: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "IS_INSTALLED", False)
    assert ".[notify]" in told.post("/subscriptions/", {"target": "tgram://1:2/3"}, expect=501)["detail"]
    monkeypatch.setitem(sys.modules, "apprise", None)
    [problem] = told.post("/subscriptions/", {"target": "foo"}, expect=422)["detail"]
    assert problem["loc"] == ["body", "target"]
    subscribe(told, "https://example.com/hook")


def test_the_libraries_that_send_are_not_loaded_before_they_are_needed() -> None:
    code = "import sys, crm.main; sys.exit(bool({'apprise', 'aiohttp'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], env={"PATH": ""}).returncode == 0


def test_there_is_a_text_for_each_event_in_both_languages() -> None:
    assert people.TEXTS["en"].keys() == people.TEXTS["ru"].keys() >= {*get_args(EventType)}
