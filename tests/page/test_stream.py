"""The page is told what happens by the stream of events, and asks by itself where there is none."""

import time

import pytest
from playwright.sync_api import Page, expect

from tests.page.browser import Tab, hide, row, team, wait_for, write
from tests.page.conftest import ADMIN, new_key
from tests.service import Service

NOTED = """
  window.streams = [];
  window.EventSource = class extends EventSource { constructor(url) { super(url); streams.push(this); } };
"""
QUIET_POLL = 10  # seconds, while the stream is heard


@pytest.fixture
def tab(tab: Tab) -> Tab:
    tab.context.add_init_script(NOTED)
    return tab


def streams(page: Page, state: int) -> int:
    """How many there are that are connecting (0), open (1), closed (2)."""
    return int(page.evaluate("state => streams.filter(one => one.readyState === state).length", state))


def heard(tab: Tab, view: str = "") -> Page:
    """The page, when its stream is open and it asks for nothing any more."""
    page = tab.go(view)
    wait_for(lambda: streams(page, 1) == 1)
    rest(tab)
    return page


def rest(tab: Tab) -> None:
    """After an event it asks twice, with a second in between."""
    before = -1
    while before < len(tab.requests):
        before = len(tab.requests)
        tab.page.wait_for_timeout(1_300)


def test_what_others_do_is_shown_within_a_second(service: Service, tab: Tab) -> None:
    team(service, Anna=20)
    page, waited = heard(tab, "contacts"), list[float]()
    while not waited or (min(waited) >= 1 and len(waited) < 10):  # a busy machine gets some more tries
        rest(tab)
        begin = time.monotonic()
        contact_id = write(service, f"tg:{len(waited)}")["id"]
        expect(row(page, f"№ {contact_id} ·")).to_be_visible()
        waited.append(time.monotonic() - begin)
    assert min(waited) < 1, waited
    service.call("PATCH", f"/contacts/{contact_id}/status", {"status": "closed"})
    expect(row(page, f"№ {contact_id} ·")).to_contain_text("closed")


def test_it_asks_seldom_while_nothing_happens_and_is_told_nothing_while_nobody_can_see_it(
    service: Service, tab: Tab
) -> None:
    team(service, Anna=9)
    page = heard(tab)
    before = len(tab.requests)
    service.call("PATCH", "/operators/1", {"max_load": 90})  # no event
    expect(row(page, "Anna")).to_contain_text("0 of 90")
    assert len(tab.requests) - before <= 2 * 3  # two polls at most
    before = len(tab.requests)
    for number in range(20):
        write(service, f"tg:{number}")
    expect(page.locator(".totals")).to_contain_text("Contacts today20 ")
    assert len(tab.requests) - before < 4 * 10
    hide(page)
    tab.settle()
    assert (streams(page, 1), tab.streams) == (0, 1)  # each takes one of the browser's six connections
    before = len(tab.requests)
    write(service, "tg:hidden")
    page.wait_for_timeout(3_000)
    assert len(tab.requests) == before
    hide(page, hidden=False)
    expect(page.locator(".totals")).to_contain_text("Contacts today21 ")
    wait_for(lambda: streams(page, 1) == 1)


def test_without_the_stream_it_asks_every_two_seconds_and_listens_again_when_that_is_possible(
    service: Service, tab: Tab
) -> None:
    team(service, Anna=9)
    tab.deafen()
    page = tab.go()
    expect(row(page, "Anna")).to_be_visible()
    for number in range(3):
        begin = time.monotonic()
        write(service, f"tg:{number}")
        expect(row(page, "Anna")).to_contain_text(f"{number + 1} of 9")
        assert time.monotonic() - begin < QUIET_POLL
    assert 1 < tab.streams < 8  # and not with each poll
    assert streams(page, 1) == 0
    tab.context.unroute("**/events/stream")
    wait_for(lambda: bool(page.wait_for_timeout(50)) or streams(page, 1) == 1)


def test_seven_tabs_of_which_one_is_seen_leave_each_other_connections(service: Service, tab: Tab) -> None:
    team(service, Anna=9)
    pages = [tab.page, *(tab.open() for _ in range(6))]
    for page in pages:
        page.goto(tab.base)
        expect(row(page, "Anna")).to_be_visible()
        wait_for(lambda page=page: streams(page, 1) == 1)
        hide(page, hidden=page is not pages[-1])
    write(service)
    expect(row(pages[-1], "Anna")).to_contain_text("1 of 9")
    hide(pages[0], hidden=False)
    expect(row(pages[0], "Anna")).to_contain_text("1 of 9")


def test_an_operator_is_told_of_its_own_contacts_and_signed_out_of_nothing(guarded: Service, locked: Tab) -> None:
    locked.context.add_init_script(NOTED)
    page = locked.go()
    expect(page.get_by_label("Key")).to_be_visible()
    assert locked.streams == 0  # who has no session asks for none
    key_id, key = new_key(guarded, "operator", operator_id=1)
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("heading", name="My desk")).to_be_visible()
    page = heard(locked)
    begin = time.monotonic()
    contact_id = write(guarded, "tg:own")["id"]
    guarded.call("POST", f"/contacts/{contact_id}/assign", {"operator_id": 1, "force": True})
    expect(page.locator("main li")).to_have_count(1)
    assert time.monotonic() - begin < QUIET_POLL
    guarded.call("DELETE", f"/keys/{key_id}")
    expect(page.get_by_role("alert")).to_contain_text("The session has ended, or its key was revoked.")
    assert streams(page, 1) == 0
    page.get_by_label("Key").fill(ADMIN)
    page.get_by_role("button", name="Enter").click()
    expect(row(page, "Anna")).to_be_visible()
    wait_for(lambda: streams(page, 1) == 1)
