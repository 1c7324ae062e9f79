"""The page as people use it, in a real Chromium: what they do, and what the page and the API say then."""

import http.client
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Locator, Page, Request, Route, expect

from tests.conftest import empty_file
from tests.effort import effort
from tests.page.browser import LOOKS, Tab, hide, row, team, under_prefix, wait_for, wheel_down_to, write
from tests.service import Service, serving

VIEWS = ("operators", "sources", "queue", "contacts", "leads", "pictures", "subscriptions", "test")
LONG = "<script>alert(1)</script><img src=x onerror=alert(2)>" + "W" * 40
ADMIN = "the-admin's-own-key"


def answer(page: Page, accept: bool) -> list[str]:
    """How the next questions are answered; what they asked is added to the list."""
    asked: list[str] = []

    def on(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept() if accept else dialog.dismiss()

    page.on("dialog", on)
    return asked


def test_totals_and_the_last_hour_are_those_of_the_api_and_follow_it(service: Service, tab: Tab) -> None:
    team(service, Anna=2)
    for number in range(3):
        write(service, f"tg:{number}")
    page = tab.go()
    cells = page.locator(".totals")
    expect(cells).to_contain_text("Contacts today3 ")
    expect(cells).to_contain_text("Load100% 2 of 2")
    expect(cells).to_contain_text("Waiting1")
    expect(cells).to_contain_text("Of today's without operator33.3%")
    expect(cells).to_contain_text("3 in all")
    expect(page.get_by_role("img")).to_have_accessible_name(
        re.compile("Contacts per minute in the last hour: at most [23]")
    )
    expect(page.get_by_role("link", name="Queue (1)")).to_be_visible()
    service.call("PATCH", "/contacts/1/status", {"status": "closed"})
    write(service, "tg:9")
    expect(cells).to_contain_text("Contacts today4 ")
    expect(cells).to_contain_text("4 in all")
    expect(cells.locator("small").nth(2)).to_contain_text(re.compile(r"the longest \d+ s"))
    assert service.call("GET", "/stats/")["pending"] == 1


def test_nothing_that_can_be_clicked_moves_away_when_the_totals_come(service: Service, tab: Tab) -> None:
    team(service, Anna=2)
    write(service, "tg:1", lead_name="Ivan")
    tab.page.add_init_script("""
        const look = () => window.isEarly ||= document.querySelector("main") && !document.querySelector(".totals");
        new MutationObserver(look).observe(document, { childList: true, subtree: true });""")
    page = tab.go("leads")
    expect(page.locator("main li")).to_contain_text("Ivan")
    assert not page.evaluate("window.isEarly")


def test_operators_are_added_changed_switched_and_released(service: Service, tab: Tab) -> None:
    team(service, Anna=2)
    write(service, "tg:1"), write(service, "tg:2")
    page = tab.go("operators")
    form = page.locator("main form").first
    form.get_by_label("Name").fill("Boris")
    form.get_by_label("Limit").fill("7")
    form.get_by_role("button", name="Add operator").click()
    expect(row(page, "Boris")).to_contain_text("0 of 7")
    assert service.call("GET", "/operators/2")["max_load"] == 7
    anna = row(page, "Anna")
    expect(anna).to_contain_text("2 of 2")
    expect(anna.get_by_role("meter")).to_have_attribute("aria-valuetext", "2 of 2")
    expect(anna).to_contain_text("today: 2")
    anna.get_by_label("Limit").fill("9")
    anna.get_by_role("button", name="Set").click()
    expect(anna).to_contain_text("2 of 9")
    assert service.call("GET", "/operators/1")["max_load"] == 9
    anna.get_by_role("switch").click()
    expect(anna.get_by_role("switch")).to_have_attribute("aria-checked", "false")
    assert service.call("GET", "/operators/1")["is_active"] is False
    anna.get_by_role("switch").click()
    expect(anna.get_by_role("switch")).to_have_attribute("aria-checked", "true")
    service.call("POST", "/sources/1/operators", {"operator_id": 2, "weight": 1})
    asked = answer(page, accept=True)
    anna.get_by_role("button", name="Release").click()
    expect(page.get_by_role("alert")).to_contain_text("Released: 2. To others: 2, back to the queue: 0.")
    assert asked == ["Release Anna? All open contacts go to others or back to the queue."]
    assert [service.call("GET", f"/operators/{number}")["load"] for number in (1, 2)] == [0, 2]


def test_a_release_that_is_not_confirmed_and_a_refused_name_change_nothing(service: Service, tab: Tab) -> None:
    team(service, Anna=2)
    write(service)
    page = tab.go("operators")
    answer(page, accept=False)
    row(page, "Anna").get_by_role("button", name="Release").click()
    assert service.call("GET", "/operators/1")["is_active"] is True
    tab.expected = ("422",)
    form = page.locator("main form").first
    form.get_by_label("Name").fill("  ")
    form.get_by_role("button", name="Add operator").click()
    expect(form.get_by_label("Name")).to_have_accessible_description("must not be blank")
    expect(form.get_by_label("Name")).to_be_focused()
    expect(form.get_by_label("Name")).to_have_value("  ")  # to be mended
    expect(page.get_by_role("alert")).to_be_empty()  # it is said once
    assert len(service.call("GET", "/operators/")) == 1
    form.get_by_label("Name").fill("Boris")
    form.get_by_role("button", name="Add operator").click()
    expect(page.get_by_role("alert")).to_have_text("Operator addedHide")
    expect(form.get_by_label("Name")).to_have_accessible_description("")
    page.get_by_role("button", name="Hide").click()
    expect(page.get_by_role("alert")).to_be_empty()


def test_weights_are_edited_together_with_the_percentages_while_typing(service: Service, tab: Tab) -> None:
    team(service, Anna=20, Boris=20)
    service.call("POST", "/operators/", {"name": "Vera"})
    page = tab.go("sources")
    card = page.locator("section", has_text="Shop")
    expect(card).to_contain_text("shop_bot")
    expect(card.locator(".share").nth(1)).to_contain_text("75%")
    card.get_by_role("button", name="Edit weights").click()
    card.get_by_label("Weight of Anna").fill("9")
    expect(card.locator("output")).to_have_text(["75%", "25%"])
    card.get_by_label("Weight of Boris").fill("0.5")
    card.get_by_label("Add").select_option(label="Vera (0 of 10)")
    expect(card.locator("output")).to_have_text(["85.7%", "4.8%", "9.5%"])
    page.wait_for_timeout(2_500)  # a poll does not take away what was typed
    expect(card.get_by_label("Weight of Boris")).to_have_value("0.5")
    card.get_by_role("button", name="Remove Vera").click()
    card.get_by_role("button", name="Save weights").click()
    expect(card.locator(".share").nth(0)).to_contain_text("94.7%")
    entries = service.call("GET", "/sources/1")["operators"]
    assert [(entry["operator_name"], entry["weight"]) for entry in entries] == [("Anna", 9), ("Boris", 0.5)]
    card.get_by_role("button", name="Edit weights").click()
    card.get_by_label("Weight of Anna").fill("1")
    card.get_by_role("button", name="Cancel").click()
    assert service.call("GET", "/sources/1")["operators"][0]["weight"] == 9


def test_a_source_is_added_and_waits_for_operators(service: Service, tab: Tab) -> None:
    page = tab.go("sources")
    expect(page.locator("main")).to_contain_text("No sources yet")
    form = page.locator("main form").first
    form.get_by_label("Name").fill("WhatsApp")
    form.get_by_label("Bot id").fill("wa_bot")
    form.get_by_role("button", name="Add source").click()
    expect(page.locator("section")).to_contain_text("Nobody serves this source")
    assert service.call("GET", "/sources/?bot_id=wa_bot")[0]["name"] == "WhatsApp"
    tab.expected = ("409",)
    form.get_by_label("Name").fill("WhatsApp")
    form.get_by_role("button", name="Add source").click()
    expect(page.get_by_role("alert")).to_contain_text("source 1 already has the name 'WhatsApp'")


def test_shares_stand_beside_the_weights_and_are_marked_where_limits_bend_them(service: Service, tab: Tab) -> None:
    team(service, Anna=1000, Boris=2)  # by weight 25 % and 75 %
    for number in range(40):
        write(service, f"tg:{number}")
    page = tab.go("sources")
    anna, boris = page.locator(".share").nth(0), page.locator(".share").nth(1)
    expect(anna).to_contain_text("95%")
    expect(boris).to_contain_text("75%5%")
    expect(anna.get_by_role("meter").nth(0)).to_have_attribute("aria-valuetext", "25%")
    expect(anna.get_by_role("meter").nth(1)).to_have_attribute("aria-valuetext", "95%")
    expect(anna).to_contain_text("▲ more than by weight")
    expect(boris).to_contain_text("▼ less than by weight: full, 2 of 2")
    page.get_by_label("Shares of contacts").select_option("all")
    expect(boris).to_contain_text("75%5%")
    service.call("PATCH", "/operators/2", {"is_active": False})
    page.get_by_role("button", name="Who gets the next one?").click()
    dialog = page.get_by_role("dialog", name="Who gets the next one of Shop?")
    expect(dialog.locator("li")).to_have_text(["Annawith 100%, load 38 of 1000", "Borisnot: off"])
    service.call("PATCH", "/operators/2", {"is_active": True})
    expect(dialog.locator("li").nth(1)).to_have_text("Borisnot: full, 2 of 2")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_shares_that_follow_the_weights_have_no_mark(service: Service, tab: Tab) -> None:
    team(service, Anna=1000, Boris=1000)  # by weight 25 % and 75 %
    for number in range(40):
        contact = write(service, f"tg:{number}")
        service.request("POST", f"/contacts/{contact['id']}/assign", {"operator_id": 1 if number % 5 == 0 else 2})
    page = tab.go("sources")
    expect(page.locator(".share")).to_contain_text(["25%20%", "75%80%"])
    expect(page.locator(".mark")).to_have_count(0)


def test_the_queue_is_in_order_and_is_assigned_by_hand(service: Service, tab: Tab) -> None:
    team(service, Anna=1, Boris=1)
    for number in range(4):
        write(service, f"tg:{number}")
    write(service, "tg:urgent", lead_name="Urgent", priority=7)
    service.call("POST", "/operators/", {"name": "Vera", "max_load": 1})  # serves no source
    page = tab.go("queue")
    items = page.locator("main li")
    expect(items).to_have_count(3)
    expect(items.nth(0)).to_contain_text(re.compile(r"1\. \d+ s.*№ 5 · Urgent.*priority 7"))
    assert re.findall(r"№ (\d)", " ".join(items.all_text_contents())) == ["5", "3", "4"]
    items.nth(1).get_by_role("combobox", name="To").select_option(label="Vera (0 of 1)")
    items.nth(1).get_by_role("button", name="Assign").click()
    expect(page.get_by_role("alert")).to_contain_text("Vera has it now.")
    assert service.call("GET", "/contacts/3")["operator"]["name"] == "Vera"
    tab.expected = ("409",)
    items.nth(0).get_by_role("button", name="To anyone").click()
    expect(page.get_by_role("alert")).to_contain_text("no other operator of source 1 can take contact 5 now")
    asked = answer(page, accept=True)
    items.nth(0).get_by_role("combobox", name="To").select_option(label="Anna (1 of 1)")
    items.nth(0).get_by_role("button", name="Assign").click()
    expect(page.get_by_role("alert")).to_contain_text("Anna has it now.")
    assert asked == ["Anna is full: 1 of 1. Assign all the same?"]
    assert service.call("GET", "/contacts/5")["history"][-1]["reason"] == "forced"
    expect(items).to_have_count(1)
    service.call("PATCH", "/operators/2", {"max_load": 5})
    expect(page.locator("main")).to_contain_text("Nobody waits.")


def test_contacts_are_filtered_opened_explained_started_closed_and_reassigned(service: Service, tab: Tab) -> None:
    team(service, Anna=10, Boris=1)
    service.call("PATCH", "/operators/1", {"is_active": False})
    write(service, "tg:0")
    service.call("PATCH", "/operators/1", {"is_active": True})
    write(service, "tg:7", lead_phone="not a phone", lead_name="Ivan", message="Where is\nmy order?")
    service.call("POST", "/sources/", {"name": "Nobody's"})
    service.call("POST", "/contacts/", {"source_id": 2, "lead_email": "a@example.com"})
    page = tab.go("contacts")
    items = page.locator("main li")
    expect(items).to_contain_text(["№ 3", "№ 2", "№ 1"])
    page.get_by_label("Source").select_option("Shop")
    expect(items).to_contain_text(["№ 2", "№ 1"])
    page.get_by_label("Operator").select_option("Anna")
    expect(items).to_contain_text(["№ 2"])
    page.get_by_label("Operator").select_option("all")
    page.get_by_label("Source").select_option("all")
    page.get_by_label("Status").select_option("pending")
    expect(items).to_contain_text(["№ 3"])
    page.get_by_label("Status").select_option("all")
    row(page, "№ 2").get_by_role("button", name="Ivan").click()
    dialog = page.get_by_role("dialog", name="Contact 2")
    expect(dialog).to_contain_text("lead_phone 'not a phone' is not a phone number")
    expect(dialog.locator(".message")).to_have_text("Where is\nmy order?", use_inner_text=True)
    first = dialog.locator("li").first
    expect(first).to_contain_text(
        re.compile(
            r"Distributed: Anna was drawn with (25|100)%, at 0 of 10; Boris was (full, 1 of 1|not drawn \(75%\))\."
        )
    )
    dialog.get_by_role("button", name="Start").click()
    expect(dialog).to_contain_text("in progress")
    assert service.call("GET", "/contacts/2")["status"] == "in_progress"
    service.call("PATCH", "/operators/2", {"max_load": 2})
    dialog.get_by_text("To anyone else").click()
    expect(dialog.locator("li").nth(1)).to_contain_text("Started: Anna.")
    expect(dialog.locator("li").nth(2)).to_contain_text(
        "Assigned by hand: Anna had it before; Boris was drawn with 100%, at 1 of 2."
    )
    dialog.get_by_role("combobox", name="To").select_option(label="Anna (0 of 10)")
    dialog.get_by_role("button", name="Assign").click()
    expect(dialog.locator("li").nth(3)).to_contain_text("Assigned by hand: Anna got it, at 0 of 10.")
    dialog.get_by_role("button", name="Close: № 2").click()
    expect(dialog.locator("li").nth(4)).to_contain_text("Closed: Anna.")
    expect(dialog.get_by_role("button", name="Start")).to_have_count(0)
    assert service.call("GET", "/contacts/2")["status"] == "closed"
    dialog.get_by_role("button", name="Close this window").click()
    row(page, "№ 3").get_by_role("button", name="a@example.com").click()
    expect(page.get_by_role("dialog")).to_contain_text("Nobody could take it, it waits: nobody serves the source.")


def fifty_of_sixty_contacts(service: Service, tab: Tab) -> tuple[Page, Locator]:
    """The view of contacts and its rows; Anna has room for many more."""
    team(service, Anna=500)
    for number in range(60):
        write(service, f"tg:{number}")
    page = tab.go("contacts")
    rows = page.locator("main li")
    expect(rows).to_have_count(50)
    return page, rows


def test_more_contacts_are_shown_when_asked_for(service: Service, tab: Tab) -> None:
    page, rows = fifty_of_sixty_contacts(service, tab)
    expect(rows.nth(5)).to_contain_text("№ 55 ·")
    expect(rows.last).to_be_empty()  # it is drawn when it comes in sight
    more = page.get_by_role("button", name="Show more")
    more.scroll_into_view_if_needed()
    expect(rows.last).to_contain_text("№ 11 ·")  # until then the button moves
    asked: list[Route] = []
    page.route("**/contacts/?limit=100*", lambda route: asked.append(route))
    more.focus()
    page.keyboard.press("Enter")
    wait_for(lambda: bool(page.wait_for_timeout(50)) or asked != [])
    expect(more).to_be_focused()  # while they are asked for, too
    for route in asked:
        route.continue_()
    page.unroute("**/contacts/?limit=100*")
    expect(rows).to_have_count(60)
    expect(more).to_have_count(0)
    rows.last.scroll_into_view_if_needed()
    expect(rows.last).to_contain_text("№ 1 ·")
    service.call("PATCH", "/contacts/60/status", {"status": "closed"})  # has been in sight
    expect(page.locator(".totals")).to_contain_text("59 of 500")
    rows.first.scroll_into_view_if_needed()
    expect(rows.first).to_contain_text("closed")


def test_the_contacts_of_a_lead_are_drawn_as_its_window_is_scrolled(service: Service, tab: Tab) -> None:
    team(service, Anna=200)
    for _ in range(101):
        write(service)
    page = tab.go("leads")
    page.locator("main li").get_by_role("button").first.click()
    rows = page.get_by_role("dialog").locator("li")
    expect(rows.first).to_contain_text("№ 101 ·")
    expect(rows.last).to_be_empty()
    wheel_down_to(page, rows.last, "№ 2 ·")
    expect(page.get_by_role("dialog")).to_contain_text("These are the newest 100.")
    page.get_by_role("button", name="Close this window").click()  # which stays in sight


def test_a_lead_is_found_with_its_contacts_of_all_sources(service: Service, tab: Tab) -> None:
    team(service, Anna=10)
    service.call("POST", "/sources/", {"name": "WhatsApp"})
    write(service, "tg:1", lead_phone="8 (999) 123-45-67", lead_name="Жанна")
    service.call("POST", "/contacts/", {"source_id": 2, "lead_phone": "+79991234567", "message": "Hello?"})
    write(service, "tg:2", lead_name="Other")
    page = tab.go("leads")
    page.get_by_role("searchbox").fill("жан")
    page.get_by_role("button", name="Search").click()
    items = page.locator("main li")
    expect(items).to_have_count(1)
    expect(items).to_contain_text("+79991234567, tg:1")
    expect(items).to_contain_text("contacts: 2")
    items.get_by_role("button", name="Жанна").click()
    dialog = page.get_by_role("dialog", name="Жанна")
    expect(dialog.locator("li")).to_contain_text(["WhatsApp", "Shop"])
    dialog.get_by_role("button", name="№ 2 ·").click()
    expect(page.get_by_role("dialog", name="Contact 2")).to_contain_text("Hello?")
    page.keyboard.press("Escape")
    page.get_by_role("searchbox").fill("nobody")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("No lead found.")


def test_a_test_contact_is_sent(service: Service, tab: Tab) -> None:
    team(service, Anna=1)
    page = tab.go("test")
    page.get_by_label("Phone").fill("8 999 123-45-67")
    page.get_by_label("Message").fill("Hello")
    page.get_by_label("Priority").fill("3")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("Contact 1: Anna got it.")
    contact = service.call("GET", "/contacts/1")
    assert (contact["lead"]["phones"], contact["message"], contact["priority"]) == (["+79991234567"], "Hello", 3)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("Contact 2: nobody has room, it waits.")
    tab.expected = ("422",)
    page.get_by_label("Messenger id").fill("")
    page.get_by_label("Phone").fill("12")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_label("Phone")).to_have_accessible_description(re.compile("is not a phone number"))
    expect(page.get_by_label("Messenger id")).to_have_accessible_description("is missing")
    expect(page.get_by_role("alert")).to_be_empty()
    expect(page.get_by_label("Phone")).to_have_value("12")


def test_the_language_is_the_browsers_until_another_is_chosen(browser: Browser, service: Service) -> None:
    team(service, Anna=1)
    tab = Tab(browser, f"http://127.0.0.1:{service.port}", locale="ru-RU")
    page = tab.go()
    expect(page.locator("main h2")).to_have_text("Операторы")
    expect(page.locator("html")).to_have_attribute("lang", "ru")
    page.get_by_label("Язык").select_option("English")
    expect(page.locator("main h2")).to_have_text("Operators")
    page.reload()
    expect(page.locator("main h2")).to_have_text("Operators")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    tab.check()


def test_the_page_says_that_the_service_is_away_and_that_it_is_back(browser: Browser, path: Path) -> None:
    with serving(empty_file(path)) as service:
        team(service, Anna=1)
        tab = Tab(browser, f"http://127.0.0.1:{service.port}")
        tab.expected = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE")
        page = tab.go()
        expect(row(page, "Anna")).to_be_visible()
        service.kill()
        expect(page.get_by_role("status")).to_contain_text("The service is away since")
        expect(row(page, "Anna")).to_be_visible()
        page.get_by_role("switch").click()
        expect(page.get_by_role("alert")).to_contain_text("No answer: it may be done or not.")
        service.restart()
        expect(page.get_by_role("status")).to_have_text("The service is back.")
        expect(page.get_by_role("status")).to_be_empty()
        tab.check()


def test_a_poll_leaves_the_focus_and_half_typed_text_where_they_are(service: Service, tab: Tab) -> None:
    team(service, Anna=3, Boris=3)
    page = tab.go("operators")
    page.locator("main form").first.get_by_label("Name").fill("Half")
    limit = row(page, "Boris").get_by_label("Limit")
    limit.fill("77")
    write(service)
    expect(page.locator(".totals")).to_contain_text("Contacts today1 ")
    expect(limit).to_be_focused()
    expect(limit).to_have_value("77")
    expect(page.locator("main form").first.get_by_label("Name")).to_have_value("Half")
    page.keyboard.press("Tab")  # and all is reached by the keyboard
    expect(row(page, "Boris").get_by_role("button", name="Set")).to_be_focused()
    page.keyboard.press("Enter")
    expect(row(page, "Boris")).to_contain_text("of 77")


def test_doing_it_twice_does_it_once(service: Service, tab: Tab) -> None:
    team(service, Anna=5)
    write(service)
    page = tab.go("operators")
    form = page.locator("main form").first
    form.get_by_label("Name").fill("Boris")
    form.get_by_role("button", name="Add operator").dblclick()
    expect(row(page, "Boris")).to_be_visible()
    assert len(service.call("GET", "/operators/")) == 2
    tab.go("contacts")
    start = page.get_by_role("button", name="Start: № 1")
    start.focus()
    page.keyboard.press("Enter")
    expect(start).to_have_count(0)
    page.keyboard.press("Enter")  # there is a Close now where Start was
    page.wait_for_timeout(500)
    tab.settle()
    assert service.call("GET", "/contacts/1")["status"] == "in_progress"


def test_an_open_window_keeps_nothing_of_the_one_before(service: Service, tab: Tab) -> None:
    team(service, Anna=5, Boris=5)
    write(service, "tg:1"), write(service, "tg:2")
    page = tab.go("contacts")
    page.get_by_role("button", name="№ 1 ·").click()
    page.get_by_role("dialog").get_by_role("combobox").select_option(index=2)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="№ 2 ·").click()
    dialog = page.get_by_role("dialog", name="Contact 2")
    expect(dialog.get_by_role("combobox")).to_have_value("")
    dialog.get_by_role("button", name="Start: № 2").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Started")
    dialog.get_by_role("button", name="tg:2", exact=True).click()
    expect(page.get_by_role("dialog", name="tg:2")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_empty()


def test_an_assignment_that_comes_too_late_takes_it_from_nobody(service: Service, tab: Tab) -> None:
    team(service, Anna=0, Boris=0)
    write(service)
    page = tab.go("queue")
    expect(page.locator("main li")).to_have_count(1)
    hide(page)  # it stands still
    tab.settle()
    service.call("PATCH", "/operators/1", {"max_load": 1})
    service.call("PATCH", "/operators/2", {"max_load": 1})
    holder = service.call("GET", "/contacts/1")["operator"]["name"]
    page.get_by_role("button", name="To anyone: № 1").click()
    expect(page.get_by_role("alert")).to_contain_text(f"Meanwhile {holder} has it.")
    assert len(service.call("GET", "/contacts/1")["history"]) == 2


def test_a_weight_may_have_a_comma_and_nothing_else_odd(service: Service, tab: Tab) -> None:
    team(service, Anna=5, Boris=5)
    page = tab.go("sources")
    page.get_by_role("button", name="Edit weights").click()
    weight = page.get_by_label("Weight of Anna")
    weight.fill("")
    weight.press_sequentially("4,5")
    expect(page.locator("output")).to_have_text(["60%", "40%"])
    page.get_by_role("button", name="Save weights").click()
    expect(page.locator("output")).to_have_count(0)
    assert service.call("GET", "/sources/1")["operators"][0]["weight"] == 4.5
    page.get_by_role("button", name="Edit weights").click()
    weight.fill("-1")
    page.get_by_role("button", name="Save weights").click()
    page.wait_for_timeout(300)
    expect(page.locator("output")).to_have_count(2)
    assert service.call("GET", "/sources/1")["operators"][0]["weight"] == 4.5


def test_the_list_stands_still_under_the_pointer(service: Service, tab: Tab) -> None:
    team(service, Anna=50)
    write(service, "tg:1")
    page = tab.go("contacts")
    page.locator("main li").first.hover()
    write(service, "tg:2")
    expect(page.locator("main")).to_contain_text("new meanwhile: 1")
    expect(page.locator("main li")).to_contain_text(["№ 1"])
    page.mouse.move(0, 0)
    expect(page.locator("main li")).to_contain_text(["№ 2", "№ 1"])


def test_the_list_stands_still_however_many_come_and_shows_what_is_done_meanwhile(service: Service, tab: Tab) -> None:
    """Under the pointer, and where the keyboard is."""
    page, rows = fifty_of_sixty_contacts(service, tab)
    row(page, "№ 55 ·").hover()
    for number in range(70):
        write(service, f"tg:new-{number}")
    expect(page.locator("main")).to_contain_text("new meanwhile: 50+")
    expect(rows.nth(5)).to_contain_text("№ 55 ·")
    expect(rows).to_have_count(50)
    row(page, "№ 55 ·").get_by_role("button", name="Close").click()
    expect(row(page, "№ 55 ·")).to_contain_text("closed")
    page.get_by_label("Status").select_option("new")
    page.mouse.move(0, 0)
    expect(rows.first).to_contain_text("№ 130 ·")
    expect(page.locator("main")).not_to_contain_text("meanwhile")
    page.get_by_label("Operator").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(rows.first.get_by_role("button", name="№ 130 ·")).to_be_focused()
    write(service, "tg:last")
    expect(page.locator("main")).to_contain_text("new meanwhile: 1")
    expect(rows.first.get_by_role("button", name="№ 130 ·")).to_be_focused()
    page.get_by_label("Operator").focus()
    expect(rows.first).to_contain_text("№ 131 ·")


@pytest.mark.parametrize("spelled", ["8 (999) 123-45-67", "+7 999 123 45 67", "123456"])
def test_a_lead_is_found_by_its_phone_however_it_is_written(service: Service, tab: Tab, spelled: str) -> None:
    team(service, Anna=5)
    write(service, "tg:1", lead_phone="89991234567", lead_name="Ivan")
    write(service, "tg:2", lead_name="Other")
    page = tab.go("leads")
    expect(page.locator("main li")).to_have_count(2)  # all, until something is searched
    page.get_by_role("searchbox").fill(spelled)
    page.keyboard.press("Enter")
    expect(page.locator("main li")).to_contain_text(["Ivan"])


def test_what_the_service_says_is_said_in_russian_too(browser: Browser, service: Service) -> None:
    team(service, Anna=1)
    write(service)
    write(service, "tg:2")
    tab = Tab(browser, f"http://127.0.0.1:{service.port}", locale="ru-RU")
    tab.expected = ("409", "422")
    page = tab.go("queue")
    asked = answer(page, accept=False)
    page.get_by_role("combobox", name="Кому").select_option(index=1)
    page.get_by_role("button", name="Назначить").click()
    wait_for(lambda: bool(page.wait_for_timeout(50)) or asked != [])
    assert asked == ["Anna: нет места, 1 из 1. Всё равно назначить?"]
    expect(page.get_by_role("alert")).to_be_empty()
    page.get_by_role("button", name="Любому").click()
    expect(page.get_by_role("alert")).to_contain_text("никто другой сейчас не может взять обращение 2")
    page.goto(f"{tab.base}/#test")
    page.get_by_label("Id в мессенджере").fill("")
    page.get_by_label("Телефон").fill("позвони мне")
    page.get_by_role("button", name="Отправить").click()
    missing, no_phone = "не указано", "не похоже на номер"
    for label, wrong in (("Id в мессенджере", missing), ("Телефон", no_phone), ("Почта", missing)):
        expect(page.get_by_label(label)).to_have_accessible_description(wrong)
    page.get_by_label("Почта").fill("a@example.com")
    page.get_by_role("button", name="Отправить").click()
    expect(page.get_by_role("alert")).to_contain_text(
        "Обращение 3 ждёт: ни у кого нет места. телефон 'позвони мне' не похоже"
    )
    tab.check()


def test_an_answer_of_somebody_else_is_said_and_the_page_goes_on(service: Service, tab: Tab) -> None:
    """Such as the login page of a proxy."""
    team(service, Anna=1)
    tab.deafen()  # it polls every two seconds then
    page = tab.go()
    expect(row(page, "Anna")).to_be_visible()
    page.route("**/stats/**", lambda route: route.fulfill(status=200, body="<html>Log in</html>"))
    expect(page.get_by_role("status")).to_contain_text("no answer of this service")
    page.unroute("**/stats/**")
    expect(page.get_by_role("status")).to_contain_text("The service is back.")
    tab.expected += ("429",)
    page.route("**/stats/**", lambda route: route.fulfill(status=429, body='{"detail": "wait"}'))
    expect(page.get_by_role("alert")).to_contain_text("wait")
    page.unroute("**/stats/**")
    service.call("POST", "/operators/", {"name": "Boris"})
    expect(row(page, "Boris")).to_be_visible()


def fill_with_ugly_data(service: Service) -> None:
    for number in range(2):
        service.call("POST", "/operators/", {"name": f"{LONG}{number}", "max_load": 1})
    service.call("POST", "/sources/", {"name": LONG, "bot_id": LONG, "description": LONG})
    service.call("PUT", "/sources/1/operators", [{"operator_id": 1, "weight": 1}, {"operator_id": 2, "weight": 0.001}])
    for number in range(4):
        message = f"{LONG}\n" * 40 if number else "w" * 10_000
        write(service, f"{LONG}{number}", lead_name=LONG * 2, lead_phone="<b>no phone</b>", message=message, priority=9)


@pytest.mark.parametrize(("width", "scheme", "locale"), LOOKS)
def test_each_screen_fits_is_accessible_and_shows_all_text_as_text(
    browser: Browser, service: Service, width: int, scheme: Any, locale: str, tmp_path: Path
) -> None:
    fill_with_ugly_data(service)
    options: Any = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme, "locale": locale}
    tab = Tab(browser, f"http://127.0.0.1:{service.port}", **options)
    found: list[tuple[str, str]] = []

    def look(name: str) -> None:
        found.extend(tab.look(tmp_path / f"{width}-{scheme}-{locale}-{name}.png"))

    for view in VIEWS:
        page = tab.go(view)
        expect(page.locator(".totals")).to_be_visible()
        if view == "leads":
            page.get_by_role("searchbox").fill("script")
            page.keyboard.press("Enter")
        if view != "test":
            expect(page.locator("main")).to_contain_text("<script>alert(1)</script>")
        if view == "sources":
            page.locator("section button").first.click()
            expect(page.locator("section input")).to_have_count(2)
            look("weights")
            page.locator("section button").last.click()
            page.locator("section button").last.click()
            expect(page.get_by_role("dialog").locator("li")).to_have_count(2)
            look("candidates")
            page.keyboard.press("Escape")
        if view == "contacts":
            page.locator("main li .link").first.click()
            expect(page.get_by_role("dialog")).to_contain_text("<b>no phone</b>")
            look("contact")
            page.locator("dialog .link").first.click()
            expect(page.get_by_role("dialog").locator("li")).to_have_count(1)
            look("lead")
            page.keyboard.press("Escape")
        look(view)
    tab.check()
    assert found == []


def test_the_first_load_is_small_and_the_next_comes_from_the_cache(service: Service, tab: Tab) -> None:
    team(service, Anna=1)
    sizes: dict[str, int] = {}  # of what was sent, with headers

    def note(request: Request) -> None:
        found = request.sizes()
        sizes[request.url.removeprefix(tab.base)] = found["responseBodySize"] + found["responseHeadersSize"]

    tab.page.on("requestfinished", note)
    page = tab.go()
    expect(row(page, "Anna")).to_be_visible()
    tab.settle()
    files = [path for path in sizes if path == "/" or path.startswith("/static/")]
    assert len(files) <= 13, files
    assert sum(sizes.values()) < 60_000, sizes
    first, body = sum(sizes[path] for path in files), sizes["/static/app.js"]
    sizes.clear()
    page.reload()
    expect(row(page, "Anna")).to_be_visible()
    tab.settle()
    assert sum(sizes.get(path, 0) for path in files) < first / 3, (body, sizes)


@pytest.mark.parametrize("prefix", ["/crm", ""][: effort(1, 2)])
def test_swagger_works_offline_with_a_key_and_behind_a_prefix(browser: Browser, path: Path, prefix: str) -> None:
    options = {"options": ["--root-path", prefix]} if prefix else {}
    with serving(f"sqlite:///{path}", CRM_ADMIN_KEY=ADMIN, **options) as service, under_prefix(service) as proxy:
        service.headers = {"X-API-Key": ADMIN}
        team(service, Anna=1)
        tab = Tab(browser, f"http://127.0.0.1:{proxy if prefix else service.port}{prefix}")
        tab.expected = ("401",)
        page = tab.page
        page.goto(f"{tab.base}/docs")
        page.get_by_role("button", name="Authorize").click()
        page.locator(".auth-container input").first.fill(ADMIN)  # the second is the cookie
        page.locator(".auth-btn-wrapper .authorize").first.click()
        page.locator(".btn-done").first.click()
        call = page.locator("#operations-Contacts-create_contact")
        call.locator(".opblock-summary-control").click()
        call.get_by_role("button", name="Try it out").click()
        call.get_by_role("button", name="Execute").click()
        expect(call.locator(".live-responses-table .response-col_status").nth(1)).to_contain_text("201")
        assert service.call("GET", "/contacts/1")["source"]["bot_id"] == "shop_bot"
        page.goto(f"{tab.base}/")
        page.get_by_label("Key").fill(ADMIN)
        page.get_by_role("button", name="Enter").click()
        expect(row(page, "Anna")).to_contain_text("1 of 1")
        tab.check()


def test_the_page_and_its_files_are_served_with_what_a_browser_needs(service: Service) -> None:
    for path, kind in (("/", "text/html"), ("/static/app.js", "javascript"), ("/static/page.css", "text/css")):
        with closing(http.client.HTTPConnection("127.0.0.1", service.port)) as connection:
            connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
            found = connection.getresponse()
            assert (found.status, kind in found.headers["Content-Type"]) == (200, True)
            assert found.headers["Cache-Control"] == "no-cache"
            assert found.headers.get("Content-Encoding") == ("gzip" if path.startswith("/static") else None)
            found.read()
            connection.request("GET", path, headers={"If-None-Match": found.headers["ETag"]})
            again = connection.getresponse()
            again.read()
            assert again.status == (304 if path.startswith("/static") else 200)


def test_what_is_out_of_sight_is_fresh_when_it_is_scrolled_to(service: Service, tab: Tab) -> None:
    team(service, Anna=100)
    for number in range(2, 31):
        service.call("POST", "/sources/", {"name": f"Source {number}"})
        service.call("POST", f"/sources/{number}/operators", {"operator_id": 1})
    page = tab.go("sources")
    expect(page.locator("section")).to_have_count(30)
    page.wait_for_timeout(1_000)
    service.call("POST", "/contacts/", {"source_id": 30, "lead_external_id": "tg:1"})
    expect(page.locator(".totals")).to_contain_text("Contacts today1 ")
    wheel_down_to(page, page.locator("section").last, "contacts: 1")
    expect(page.locator("section").last).to_contain_text("100%")
