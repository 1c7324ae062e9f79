"""Subscriptions at the page: who is told, how that goes, and what one can do about it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from crm.outbox import deliveries
from tests.conftest import empty_file
from tests.outbox.receiver import Answer, Receiver, receiving
from tests.page.browser import Tab, row, team, write
from tests.service import Service, threaded


@pytest.fixture
def service(path: Path) -> Iterator[Service]:
    with threaded(empty_file(path), webhook_allow="127.0.0.0/8") as service:
        team(service, Anna=50, Boris=50)
        yield service


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def subscribe(service: Service, target: str, name: str, **fields: object) -> None:
    service.call("POST", "/subscriptions/", {"target": target, "name": name, **fields})


def asked(page: Page, accept: bool) -> list[str]:
    """The questions, which are all answered so."""
    texts: list[str] = []

    def on(dialog: Dialog) -> None:
        texts.append(dialog.message)
        dialog.accept() if accept else dialog.dismiss()

    page.once("dialog", on)
    return texts


def test_a_webhook_is_added_shows_its_secret_once_and_is_tested(service: Service, tab: Tab, receiver: Receiver) -> None:
    page = tab.go("subscriptions")
    expect(page.locator("main")).to_contain_text("Nobody is told yet")
    page.get_by_label("Name").fill("our CRM")
    page.get_by_label("Address").fill(receiver.url)
    for of_what in ("assigned", "closed"):
        page.get_by_label(of_what, exact=True).check()
    page.get_by_label("Source").select_option("Shop")
    page.get_by_label("Operator").select_option("Boris")
    page.get_by_role("button", name="Add receiver").click()
    one = row(page, "our CRM")
    expect(one).to_contain_text("up to date")
    expect(one).to_contain_text("assigned, closed · Source: Shop · Operator: Boris")
    expect(one).to_contain_text("Nothing was sent yet.")
    made = service.call("GET", "/subscriptions/1")
    assert (made["types"], made["source_id"], made["operator_id"]) == (["contact.assigned", "contact.closed"], 1, 2)
    secret = page.get_by_label("Secret of our CRM")
    first = secret.input_value()
    one.get_by_role("button", name="Send a test").click()
    expect(page.get_by_role("alert")).to_contain_text("The test arrived at our CRM.")
    expect(one).to_contain_text("a test delivered")
    (got,) = receiver.wait_for(1)
    assert got.verified_by(first)
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("main")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == first
    page.get_by_role("button", name="I have kept it").click()
    expect(secret).to_have_count(0)
    one.get_by_role("button", name="New secret").click()
    expect(page.get_by_role("alert")).to_contain_text("For 24 hours the old secret signs too.")
    second = secret.input_value()
    assert second != first
    one.get_by_role("button", name="Send a test").click()
    got = receiver.wait_for(2)[1]
    assert got.verified_by(first)
    assert got.verified_by(second)
    page.reload()
    expect(row(page, "our CRM")).to_be_visible()
    expect(secret).to_have_count(0)


def test_people_are_added_with_a_word_of_warning_and_errors_stand_beside_the_field(service: Service, tab: Tab) -> None:
    tab.expected = ("422",)
    page = tab.go("subscriptions")
    page.get_by_label("Who is told").select_option("people")
    page.get_by_label("Address").fill("nonsense")
    expect(page.locator("main form")).to_contain_text("whoever carries the messages can read them")
    page.get_by_label("with the lead's name and phone").check()
    page.get_by_label("Language").nth(1).select_option("Русский")
    page.get_by_role("button", name="Add receiver").click()
    expect(page.get_by_label("Address")).to_have_accessible_description(re.compile("neither an https:// URL nor"))
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.get_by_label("with the lead's name and phone")).to_be_checked()
    page.get_by_label("Address").fill("tgram://123456789:abcdefghijklmnop/12345")
    page.get_by_role("button", name="Add receiver").click()
    expect(row(page, "tgram://****")).to_contain_text(
        "what somebody should act on · Русский · with the lead and the message"
    )
    expect(page.get_by_label("Address")).to_have_value("")
    made = service.call("GET", "/subscriptions/1")
    assert (made["types"], made["language"], made["with_lead"]) == (None, "ru", True)
    expect(page.locator("main input[readonly]")).to_have_count(0)  # there is no secret


def test_what_fails_says_why_and_is_skipped_paused_resumed_and_deleted(
    service: Service, tab: Tab, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "RETRIES", (0.05, 3600))
    receiver.always = Answer(500)
    subscribe(service, receiver.url, "Broken")
    page = tab.go("subscriptions")
    write(service)
    one = row(page, "Broken")
    expect(one).to_contain_text("fails")
    expect(one).to_contain_text("Failed tries: 2, the next today")
    expect(one).to_contain_text("Behind since today")
    expect(one).to_contain_text("event 1, try 2: answered 500 failed")
    one.get_by_role("button", name="Send a test").click()
    expect(page.get_by_role("alert")).to_contain_text("The test did not arrive at Broken: answered 500")
    one.get_by_role("button", name="Log").click()
    dialog = page.get_by_role("dialog", name="Sent to Broken")
    expect(dialog.locator("li")).to_contain_text(
        ["a test: answered 500failed", "event 1, try 2: answered 500failed", "event 1: answered 500failed"]
    )
    assert tab.axe() == []
    page.keyboard.press("Escape")
    receiver.always = Answer()
    questions = asked(page, accept=False)
    one.get_by_role("button", name="Skip").click()
    assert questions == ["Skip event 1? Broken is never told of it."]
    assert service.call("GET", "/subscriptions/1")["blocked_by"] == 1
    asked(page, accept=True)
    one.get_by_role("button", name="Skip").click()
    expect(one).to_contain_text("up to date")
    expect(one).to_contain_text("event 1, try 2 skipped")
    one.get_by_role("button", name="Pause").click()
    expect(one).to_contain_text("paused")
    write(service, "tg:2")
    assert service.call("GET", "/subscriptions/1")["is_active"] is False
    one.get_by_role("button", name="Resume").click()
    expect(one).to_contain_text("event 2 delivered")
    questions = asked(page, accept=True)
    one.get_by_role("button", name="Delete").click()
    expect(one).to_have_count(0)
    assert questions == ["Delete Broken? What it was not told yet, it never is."]
    assert service.call("GET", "/subscriptions/") == []


def test_what_was_switched_off_or_waits_goes_on_when_it_is_told_to(
    service: Service, tab: Tab, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "RETRIES", (3600,))
    receiver.by_path = {"/hook/gone": Answer(410), "/hook/ill": Answer(500)}
    subscribe(service, f"{receiver.url}/gone", "Gone")
    subscribe(service, f"{receiver.url}/ill", "Ill")
    page = tab.go("subscriptions")
    write(service)
    gone, ill = row(page, "Gone"), row(page, "Ill")
    expect(gone).to_contain_text("switched off")
    expect(gone).to_contain_text("The receiver says that it is gone for good (410).")
    expect(ill).to_contain_text("Failed tries: 1, the next")
    receiver.by_path = {}
    for one, name in ((gone, "Resume"), (ill, "Try now")):
        one.get_by_role("button", name=name).click()
        expect(one).to_contain_text("event 1 delivered")
        expect(one).to_contain_text("up to date")


def test_a_message_to_people_links_to_a_contact_that_the_page_then_opens(service: Service, tab: Tab) -> None:
    write(service, "tg:1", lead_name="Ivan")
    page = tab.go("contacts/1")
    expect(page.get_by_role("dialog", name="Contact 1")).to_contain_text("Ivan")
    page.keyboard.press("Escape")
    expect(page.locator("main h2")).to_have_text("Contacts")
    tab.expected = ("404",)
    tab.go("contacts/99")
    expect(page.get_by_role("alert")).to_contain_text("contact 99 not found")


def test_the_history_says_in_words_what_happened_to_a_contact(browser: Browser, service: Service, tab: Tab) -> None:
    write(service)
    service.call("PATCH", "/operators/1", {"is_active": False})
    service.call("PATCH", "/contacts/1/status", {"status": "in_progress"})
    service.call("PATCH", "/contacts/1/status", {"status": "closed"})
    holder = service.call("GET", "/contacts/1")["operator"]["name"]
    items = tab.go("contacts/1").get_by_role("dialog").locator("li")
    expect(items).to_contain_text(["Distributed", f"Started: {holder}.", f"Closed: {holder}."])
    russian = Tab(browser, tab.base, locale="ru-RU")
    items = russian.go("contacts/1").get_by_role("dialog").locator("li")
    expect(items).to_contain_text(["Распределено", f"Начато: {holder}.", f"Закрыто: {holder}."])
    russian.check()


def test_it_fits_a_phone_and_is_accessible_with_long_names(
    browser: Browser, service: Service, receiver: Receiver
) -> None:
    receiver.always = Answer(500)
    subscribe(service, f"{receiver.url}/{'w' * 300}", "W" * 100, types=["contact.assigned"], source_id=1)
    subscribe(service, "tgram://123456789:abcdefghijklmnop/12345", "<b>phone</b>", operator_id=1, is_active=False)
    write(service)
    phone = {"width": 390, "height": 844}
    tab = Tab(browser, f"http://127.0.0.1:{service.port}", viewport=phone, color_scheme="dark", locale="ru-RU")
    page = tab.go("subscriptions")
    expect(page.locator("main li .bad").first).to_be_visible()
    page.locator("main section select").first.select_option("people")
    page.locator("main").get_by_role("button").first.click()  # a test
    expect(page.get_by_role("alert")).to_contain_text("500")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("main b").count() == 0
    assert tab.axe() == []
    tab.check()
