"""Signing in at the page: the key is given once, then a session does, until it is ended."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.browser import Tab, row, write
from tests.page.conftest import ADMIN, new_key
from tests.service import Service, free_port

ASKED = "This service asks for a key"


@pytest.fixture(scope="module", autouse=True)
def contacts(guarded: Service) -> None:
    """Each operator has one."""
    for operator_id in (1, 2):
        write(guarded, f"tg:{operator_id}")
        guarded.call("POST", f"/contacts/{operator_id}/assign", {"operator_id": operator_id, "force": True})


def enter(page: Page, key: str) -> None:
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Enter").click()


def test_a_key_that_will_not_do_is_refused_beside_the_field(guarded: Service, locked: Tab) -> None:
    page = locked.go()
    expect(page.get_by_role("heading", name=ASKED)).to_be_visible()
    expect(page.locator(".totals")).to_have_count(0)
    expect(page.get_by_label("Key")).to_be_focused()
    enter(page, "nobody's")
    expect(page.locator(".field", has=page.get_by_label("Key"))).to_contain_text("This key is not known.")
    expect(page.get_by_label("Key")).to_have_accessible_description("This key is not known.")
    expect(page.get_by_role("alert")).to_be_empty()  # it is said once
    enter(page, new_key(guarded, "source", source_id=1)[1])
    expect(page.locator(".field")).to_contain_text("a key of the role source is for programs")
    page.route(
        "**/session", lambda route: route.fulfill(status=429, body='{"detail": "10 wrong keys in a minute: wait"}')
    )
    enter(page, ADMIN)
    expect(page.locator(".field")).to_contain_text("10 wrong keys in a minute: wait")
    page.unroute("**/session")
    enter(page, ADMIN)
    expect(row(page, "Anna")).to_contain_text("1 of 50")


def test_signed_in_once_it_lasts_over_reloads_and_in_other_tabs_until_signed_out(locked: Tab) -> None:
    page = locked.go()
    waiting = locked.open()
    waiting.goto(locked.base)
    expect(waiting.get_by_role("heading", name=ASKED)).to_be_visible()
    enter(page, ADMIN)
    expect(row(page, "Anna")).to_contain_text("1 of 50")
    page.reload()
    expect(row(page, "Anna")).to_contain_text("1 of 50")
    assert page.evaluate("[sessionStorage.length, document.cookie]") == [0, ""]  # no script gets at it
    waiting.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # somebody comes to that tab
    expect(row(waiting, "Anna")).to_be_visible()
    other = locked.open()
    other.goto(f"{locked.base}/#leads")
    expect(other.locator("main li")).to_have_count(2)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name=ASKED)).to_be_visible()
    expect(other.get_by_role("heading", name=ASKED)).to_be_visible()
    expect(other.get_by_role("alert")).to_contain_text("The session has ended, or its key was revoked.")
    expect(other.get_by_text("Anna")).to_have_count(0)


def test_ones_own_sessions_are_listed_and_ended(browser: Browser, guarded: Service, locked: Tab) -> None:
    key = new_key(guarded, "admin")[1]
    page = locked.go()
    enter(page, key)
    expect(row(page, "Anna")).to_be_visible()
    agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
    elsewhere = Tab(browser, locked.base, user_agent=agent)
    elsewhere.expected = ("401",)
    far = elsewhere.go()
    enter(far, key)
    expect(row(far, "Anna")).to_be_visible()
    page.get_by_role("button", name="Sessions").click()
    items = page.get_by_role("dialog", name="Where you are signed in").locator("li")
    expect(items).to_contain_text(["Chrome, Linux this one", "Firefox, Windows"])
    assert locked.axe() == []
    items.nth(1).get_by_role("button").click()
    expect(items).to_have_count(1)
    expect(far.get_by_role("heading", name=ASKED)).to_be_visible()
    items.get_by_role("button").click()
    expect(page.get_by_role("heading", name=ASKED)).to_be_visible()
    elsewhere.check()


def test_a_revoked_key_leads_back_to_the_form(guarded: Service, locked: Tab) -> None:
    key_id, key = new_key(guarded, "operator", operator_id=2)
    page = locked.go()
    enter(page, key)
    expect(page.get_by_role("heading", name="My desk")).to_be_visible()
    guarded.call("DELETE", f"/keys/{key_id}")
    expect(page.get_by_role("alert")).to_contain_text("The session has ended, or its key was revoked.")
    expect(page.get_by_text("Boris")).to_have_count(0)
    enter(page, ADMIN)
    expect(row(page, "Boris")).to_be_visible()


# By the first the browser sends no cookie along; by the second, another port of the same host, it does.
@pytest.mark.parametrize(("host", "status"), [("localhost", 401), ("127.0.0.1", 403)])
def test_a_page_of_another_site_can_do_nothing_with_the_session(
    guarded: Service, locked: Tab, host: str, status: int
) -> None:
    page = locked.go()
    enter(page, ADMIN)
    expect(row(page, "Anna")).to_be_visible()
    other = locked.context.new_page()
    form = f"<form method=post action='{locked.base}/operators/2/release'><button>You have won</button></form>"
    elsewhere = f"http://{host}:{free_port()}/"
    other.route(elsewhere, lambda route: route.fulfill(content_type="text/html", body=form))
    other.goto(elsewhere)
    with other.expect_response("**/release") as answer:
        other.get_by_role("button").click()
    assert answer.value.status == status
    assert guarded.call("GET", "/operators/2")["is_active"] is True


def test_an_operator_sees_its_own_desk_and_does_its_own_work(guarded: Service, locked: Tab) -> None:
    page = locked.go("leads")
    enter(page, new_key(guarded, "operator", operator_id=1)[1])
    expect(page.locator("main li")).to_have_count(1)
    page.get_by_role("link", name="My desk").click()
    expect(page.get_by_role("heading", name="My desk")).to_be_visible()
    expect(page.locator("#page")).to_contain_text("1 of 50")
    expect(page.locator("#page")).not_to_contain_text("Boris")
    expect(page.locator("main li")).to_have_count(1)
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(["My desk", "Contacts", "Leads"])
    page.locator("main").get_by_role("button", name="Start").click()
    expect(page.locator("h3", has_text="in progress").locator("+ ul li")).to_have_count(1)
    page.get_by_role("button", name="№ 1 ·").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Anna")
    expect(dialog.get_by_role("button", name="Assign")).to_have_count(0)
    dialog.get_by_role("button", name="Close: № 1").click()
    expect(dialog).to_contain_text("closed")
    page.keyboard.press("Escape")
    page.get_by_role("switch", name="Active: Anna").click()
    expect(page.get_by_role("switch", name="Active: Anna")).to_have_attribute("aria-checked", "false")
    assert guarded.call("GET", "/operators/1")["is_active"] is False
    page.get_by_role("link", name="Contacts").click()
    expect(page.locator("main li")).to_have_count(1)


def test_a_link_in_a_message_opens_its_contact_after_signing_in_too(guarded: Service, locked: Tab) -> None:
    locked.expected = (*locked.expected, "404")
    page = locked.go("contacts/1")
    enter(page, new_key(guarded, "operator", operator_id=1)[1])
    dialog = page.get_by_role("dialog", name="Contact 1")
    expect(dialog).to_contain_text("Anna")
    expect(page.locator("main h2")).to_have_text("Contacts")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page).to_have_url(f"{locked.base}/#contacts")  # a moment later
    page.reload()  # what was closed stays closed
    expect(page.locator("main li")).to_have_count(1)
    expect(dialog).to_be_hidden()
    page.goto(f"{locked.base}/#contacts/1")  # another link, while the page is open
    expect(dialog).to_be_visible()
    page.goto(f"{locked.base}/#contacts/2")  # Boris's
    expect(page.get_by_role("alert")).to_contain_text("contact 2 not found")
    expect(dialog).to_be_hidden()
