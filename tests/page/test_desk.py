"""An operator's desk: new contacts are seen without looking, and worked through by keyboard."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.page.browser import Tab, hide, wait_for, write
from tests.page.conftest import new_key
from tests.service import Service

# What a test can't see or hear is noted.
NOTED = """
  window.noted = {notifications: [], tones: 0};
  window.Notification = class {
    static permission = "default";
    static async requestPermission() { return (Notification.permission = window.answer ?? "granted"); }
    constructor(title, options) { noted.notifications.push([title, options.body]); }
  };
  const start = OscillatorNode.prototype.start;
  OscillatorNode.prototype.start = function (...at) { noted.tones += 1; return start.apply(this, at); };
"""


@pytest.fixture
def desk(guarded: Service, locked: Tab) -> Tab:
    """Anna is signed in, and has nothing open."""
    guarded.request("PATCH", "/operators/2", {"is_active": False})
    for contact in guarded.call("GET", "/contacts/"):
        guarded.request("PATCH", f"/contacts/{contact['id']}/status", {"status": "closed"})
    locked.context.add_init_script(NOTED)
    page = locked.go()
    page.get_by_label("Key").fill(new_key(guarded, "operator", operator_id=1)[1])
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("heading", name="My desk")).to_be_visible()
    return locked


def noted(page: Page) -> Any:
    return page.evaluate("noted")


def test_a_new_contact_is_seen_and_heard_without_looking(guarded: Service, desk: Tab) -> None:
    page = desk.page
    write(guarded, "tg:1")
    expect(page).to_have_title("(1) My desk – Mini-CRM")
    assert noted(page) == {"notifications": [], "tones": 0}  # nothing is switched on
    page.get_by_role("switch", name="Notification").click()
    page.get_by_role("switch", name="Sound").click()
    expect(page.get_by_role("switch", name="Sound")).to_have_attribute("aria-checked", "true")
    assert noted(page) == {"notifications": [], "tones": 2}  # to hear how it sounds
    page.get_by_role("link", name="Contacts").click()
    hide(page)
    write(guarded, "tg:2", lead_name="Ivan")
    expect(page).to_have_title("(2) Contacts – Mini-CRM")
    assert noted(page) == {"notifications": [["New contact: Ivan", "Shop"]], "tones": 4}
    page.reload()
    expect(page).to_have_title("(2) Contacts – Mini-CRM")
    page.get_by_role("link", name="My desk").click()
    expect(page.get_by_role("switch", name="Sound")).to_have_attribute("aria-checked", "true")  # it is remembered
    page.get_by_role("switch", name="Sound").click()
    page.get_by_role("switch", name="Notification").click()
    write(guarded, "tg:3")
    expect(page).to_have_title("(3) My desk – Mini-CRM")
    assert noted(page) == {"notifications": [], "tones": 0}


def test_a_browser_that_allows_no_notifications_is_named(desk: Tab) -> None:
    desk.page.evaluate("window.answer = 'denied'")
    desk.page.get_by_role("switch", name="Notification").click()
    expect(desk.page.locator("main")).to_contain_text("The browser does not let this page show notifications.")
    expect(desk.page.get_by_role("switch", name="Notification")).to_have_attribute("aria-checked", "false")


def test_who_waits_longest_is_first_and_shown_with_message_and_note(guarded: Service, desk: Tab) -> None:
    first = write(guarded, "a:1", lead_name="First", message="Where is\nmy order?", lead_phone="call me")["id"]
    write(guarded, "a:2", lead_name="Second")
    items = desk.page.locator("main li")
    expect(items).to_contain_text(["First", "Second"])
    expect(items.nth(0).locator(".message")).to_have_text("Where is\nmy order?", use_inner_text=True)
    expect(items.nth(0)).to_contain_text("lead_phone 'call me' is not a phone number")
    expect(items.nth(0)).to_contain_text(f"№ {first}")
    assert desk.axe() == []


def test_contacts_are_started_and_closed_by_keyboard(guarded: Service, desk: Tab) -> None:
    page = desk.page
    ids = [write(guarded, f"b:{number}", lead_name=name)["id"] for number, name in enumerate(("One", "Two", "Three"))]
    expect(page.locator("main li")).to_have_count(3)

    def states() -> list[str]:
        return [guarded.call("GET", f"/contacts/{contact_id}")["status"] for contact_id in ids]

    def is_focused(name: str) -> None:
        expect(page.get_by_role("button", name=f"· {name}")).to_be_focused()

    expect(page.locator(".keys")).to_have_text("J next K previous S start C close ")
    page.keyboard.press("c")  # nothing is chosen
    page.keyboard.press("s")
    expect(page.locator("h3", has_text="in progress").locator("+ ul li")).to_contain_text(["One"])
    is_focused("One")
    assert states() == ["in_progress", "new", "new"]
    page.keyboard.press("c")
    expect(page.locator("main li")).to_have_count(2)
    assert states() == ["closed", "new", "new"]
    page.keyboard.press("j")
    is_focused("Two")
    page.keyboard.press("j")
    is_focused("Three")
    page.keyboard.press("k")
    is_focused("Two")
    page.keyboard.press("j")
    russian = "new KeyboardEvent('keydown', {key: 'ы', code: 'KeyS', bubbles: true})"  # the same key in that layout
    page.evaluate(f"document.activeElement.dispatchEvent({russian})")
    expect(page.locator("h3", has_text="in progress").locator("+ ul li")).to_contain_text(["Three"])
    assert states() == ["closed", "new", "in_progress"]
    page.get_by_role("link", name="Leads").click()
    page.get_by_role("searchbox").press_sequentially("sc")
    wait_for(lambda: page.get_by_role("searchbox").input_value() == "sc")
    assert states() == ["closed", "new", "in_progress"]
