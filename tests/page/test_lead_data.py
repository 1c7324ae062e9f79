"""The data of leads on the page: duplicates, merged and forgotten ones, files, and weights that are tried."""

import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from tests.page.browser import LOOKS, Tab, hide, row, team, under_prefix, write
from tests.page.conftest import ADMIN, new_key
from tests.service import Service


def write_pair(service: Service, one: str, other: str, phone: str, **fields: Any) -> int:
    """Two leads, the second of which comes with the phone of the first one; the id of that contact."""
    write(service, one, lead_phone=phone, **fields)
    write(service, other)
    return int(write(service, other, lead_phone=phone)["id"])


def open_lead(page: Page, name: str) -> Any:
    page.locator("main li").get_by_role("button", name=name).click()
    dialog = page.get_by_role("dialog", name=name)
    dialog.get_by_text("Merge or forget").click()
    return dialog


def test_a_pair_is_decided_by_one_click_and_a_merge_is_undone(service: Service, tab: Tab) -> None:
    team(service, Anna=50)
    write_pair(service, "tg:3", "tg:4", "+79991234568")
    contact = write_pair(service, "tg:1", "wa:ivan", "+79991234567", lead_name="Ivan")
    page = tab.go("duplicates")
    pairs = page.locator(".pair")
    expect(pairs).to_have_count(2)
    ivan, strangers = pairs.nth(0), pairs.nth(1)  # the newest first
    expect(ivan.locator("> div").nth(0)).to_contain_text("Ivan+79991234567, tg:1Lead 3, first seen today")
    expect(ivan.locator("> div").nth(0)).to_contain_text("contacts: 1")
    expect(ivan.locator("> div").nth(2)).to_contain_text("contacts: 2")
    expect(ivan.locator("> div").nth(1)).to_contain_text("Phone: +79991234567")
    ivan.get_by_role("button", name=f"came with contact {contact}").click()
    expect(page.get_by_role("dialog", name=f"Contact {contact}")).to_contain_text("belongs to lead 3")
    page.keyboard.press("Escape")
    merge = ivan.get_by_role("button", name="Merge into this one: wa:ivan, lead 4")
    merge.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Lead 3 is part of lead 4 now.")
    page.keyboard.press("Enter")  # it does not go on to the next
    expect(ivan).to_contain_text("Lead 3 is part of lead 4 now.")
    expect(merge).to_be_disabled()
    assert service.call("GET", "/leads/4")["contacts_count"] == 3
    assert len(service.call("GET", "/leads/duplicates")) == 1
    ivan.get_by_role("button", name="Undo: Ivan, wa:ivan").click()
    expect(ivan).to_contain_text("Lead 3 is a lead of its own again.")
    expect(ivan.get_by_role("button", name="Undo")).to_have_count(0)
    assert service.call("GET", "/leads/3")["contacts_count"] == 1
    strangers.get_by_role("button", name="Two people").dblclick()
    expect(strangers).to_contain_text("Leads 1 and 2 are two people.")
    assert service.call("GET", "/leads/duplicates") == []
    tab.go("queue")
    expect(tab.go("duplicates").locator("main")).to_contain_text("No two leads look like one person.")


def test_a_lead_is_merged_by_its_number_and_its_window_follows(service: Service, tab: Tab) -> None:
    team(service, Anna=50)
    for number, name in enumerate(("Ivan", "Olga"), 1):
        write(service, f"tg:{number}", lead_name=name)
    asked: list[str] = []

    def on_question(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept() if len(asked) > 1 else dialog.dismiss()

    page = tab.go("leads")
    page.on("dialog", on_question)
    dialog = open_lead(page, "Ivan")
    into, merge = dialog.get_by_label("Number of the lead that stays"), dialog.get_by_role("button", name="Merge")
    tab.expected = ("404", "409", "422")
    for number, problem in (("99", "lead 99 not found"), ("1", "lead 1 can't be merged into itself")):
        into.fill(number)
        merge.click()
        expect(into).to_have_accessible_description(problem)
    into.fill("2")
    merge.click()
    expect(into).to_have_accessible_description("")
    assert service.call("GET", "/leads/1")["acts"] == []
    merge.click()
    olga = page.get_by_role("dialog", name="Olga")
    expect(olga.get_by_role("alert")).to_contain_text("Lead 1 is part of lead 2 now.")
    assert asked == ["Merge lead 1 into lead 2 (Olga)?"] * 2
    expect(olga.locator("li")).to_contain_text(["Lead 1 was merged into lead 2, with contacts: 1.", "№ 2", "№ 1"])
    expect(olga.locator("li").first).to_contain_text("by: somebody without a key")
    expect(olga.get_by_role("heading").first).to_be_focused()
    expect(page.locator("main li")).to_have_count(1)  # the list behind it follows too
    olga.get_by_role("button", name="Undo: lead 1").click()
    ivan = page.get_by_role("dialog", name="Ivan")  # which is what was opened
    expect(ivan.get_by_role("alert")).to_contain_text("Lead 1 is a lead of its own again.")
    expect(ivan.locator("li").nth(1)).to_contain_text("Lead 1 was taken out of lead 2 again, with contacts: 1.")
    ivan.get_by_role("button", name="lead 2").first.click()
    expect(page.get_by_role("dialog", name="Olga").get_by_role("button", name="Undo")).to_have_count(0)
    service.call("POST", "/leads/1/merge", {"into": 2})
    page.keyboard.press("Escape")
    page.locator("main li").get_by_role("button", name="Ivan").click()  # the list does not know it yet
    undo = olga.get_by_role("button", name="Undo: lead 1")
    expect(undo).to_be_visible()
    hide(page)  # it stands still
    tab.settle()
    service.call("POST", "/leads/1/unmerge")
    undo.click()
    expect(page.get_by_role("alert")).to_contain_text("Lead 1 is no part of lead 2 any more.")


def test_a_lead_is_forgotten_after_its_number_was_typed(service: Service, tab: Tab) -> None:
    team(service, Anna=50)
    write(service, "tg:1", lead_name="Ivan", message="My secret")
    page = tab.go("leads")
    dialog = open_lead(page, "Ivan")
    number, forget = dialog.get_by_label("Type 1, the number"), dialog.get_by_role("button", name="Forget this lead")
    expect(forget).to_be_disabled()
    number.fill("2")
    page.keyboard.press("Enter")
    expect(forget).to_be_disabled()
    tab.expected = ("409",)
    number.fill("1")
    page.keyboard.press("Enter")
    expect(number).to_have_accessible_description("lead 1 has 1 open contact, contact 1: close them first")
    expect(number).to_be_focused()
    assert service.call("GET", "/leads/1")["name"] == "Ivan"
    service.call("PATCH", "/contacts/1/status", {"status": "closed"})
    forget.click()
    dialog = page.get_by_role("dialog", name="lead 1")
    expect(dialog.get_by_role("alert")).to_contain_text("Forgotten")
    expect(dialog).to_contain_text("This lead was forgotten: its name, identifiers and messages were deleted.")
    expect(dialog.locator("li")).to_contain_text(["Lead 1 was forgotten, its contacts stay: 1.", "№ 1 · lead 1"])
    expect(dialog.locator("form")).to_have_count(0)
    expect(page.locator("body")).not_to_contain_text("Ivan")
    expect(page.locator("body")).not_to_contain_text("My secret")


def enter(page: Page, key: str) -> None:
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Enter").click()


def download(page: Page, name: str) -> tuple[str, str]:
    """The name and the content of the file that a link gives."""
    with page.expect_download() as found:
        page.get_by_role("link", name=name).click()
    return found.value.suggested_filename, Path(found.value.path()).read_text("utf-8-sig")


def test_files_are_given_out_to_who_is_signed_in_also_behind_a_prefix(browser: Browser, guarded: Service) -> None:
    for number in range(3):
        write(guarded, f"export:{number}", message="Hello, =you")
    contact = write(guarded, "export:closed")
    guarded.call("PATCH", f"/contacts/{contact['id']}/status", {"status": "closed"})
    lead_id, parts = contact["lead_id"], [write(guarded, f"export:part:{number}")["lead_id"] for number in range(2)]
    key_id, key = new_key(guarded, "admin")
    for part, headers in zip(parts, ({}, {"X-API-Key": key}), strict=True):
        assert guarded.request("POST", f"/leads/{part}/merge", {"into": lead_id}, headers=headers)[0] == 200
    with under_prefix(guarded) as proxy:
        tab = Tab(browser, f"http://127.0.0.1:{proxy}/crm")
        tab.expected = ("401",)
        page = tab.go("contacts")
        enter(page, ADMIN)
        page.locator("main summary").click()
        name, text = download(page, "CSV")
        assert name.startswith("contacts-"), name
        assert text.count("Hello, =you") == 3
        page.get_by_label("Status").select_option("closed")
        name, text = download(page, "JSON lines")
        assert name.endswith(".jsonl"), name
        assert [json.loads(line)["id"] for line in text.splitlines()] == [contact["id"]]
        today = datetime.now(tab.zone).date()
        for first, last, found in (
            (today, today - timedelta(days=1), 1),  # whichever way round
            (date(2001, 1, 2), date(2001, 1, 5), 0),
        ):
            page.get_by_label("First day").fill(first.isoformat())
            page.get_by_label("Last day").fill(last.isoformat())
            assert len(download(page, "JSON lines")[1].splitlines()) == found
        page.locator("main li").get_by_role("button", name="export:closed").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="export:closed").click()
        expect(dialog.locator("li")).to_contain_text(["by: the key of the settings", f"by: key {key_id} (test)", "№"])
        name, text = download(page, "Export this lead")
        assert name == f"lead-{lead_id}.json"
        assert [one["lead_id"] for one in json.loads(text)["acts"]] == parts
        tab.check()


def test_an_operator_sees_none_of_it(guarded: Service, locked: Tab) -> None:
    contact = write(guarded, "operator:1", lead_name="Ivan")
    guarded.call("POST", f"/contacts/{contact['id']}/assign", {"operator_id": 1, "force": True})
    page = locked.go("duplicates")
    enter(page, new_key(guarded, "operator", operator_id=1)[1])
    expect(page.get_by_role("heading", name="My desk")).to_be_visible()
    expect(page.get_by_role("link", name="Duplicates")).to_have_count(0)
    page = locked.go("contacts")
    row(page, "Ivan").get_by_role("button", name="Ivan").click()
    expect(page.locator("summary")).to_have_count(0)
    page.get_by_role("dialog").get_by_role("button", name="Ivan").click()
    dialog = page.get_by_role("dialog", name="Ivan")
    expect(dialog.locator("li")).to_have_count(1)
    expect(dialog.locator("summary, a, form")).to_have_count(0)


def test_weights_are_tried_without_saving_them(service: Service, tab: Tab) -> None:
    team(service, Anna=10, Boris=1000)
    page = tab.go("sources")
    card = page.locator("section.card", has_text="Shop")
    card.get_by_role("button", name="Edit weights").click()
    trial = card.get_by_role("region", name="Try: Shop")
    card.get_by_label("Weight of Anna").fill("x")
    card.get_by_role("button", name="Try").click()
    expect(trial).to_have_count(0)
    card.get_by_label("Weight of Anna").fill("3")
    card.get_by_role("button", name="Try").click()
    rows = trial.locator("tbody tr")
    expect(rows).to_have_text(["Anna then full, 10 of 1050010", "Boris 500990"])
    expect(trial).to_contain_text("If 1,000 contacts came at once now, and none were closed meanwhile.")
    expect(trial).to_contain_text("Nobody would have to wait.")
    count = trial.get_by_label("How many contacts come")
    count.fill("2000")
    page.keyboard.press("Enter")
    expect(trial).to_contain_text("990 would wait: nobody has room for them.")
    card.get_by_label("Topic").select_option("a new one…")
    card.get_by_label("New topic").fill("returns")
    card.get_by_role("button", name="Add topic").click()
    expect(trial).to_have_count(0)  # it was of other weights
    card.get_by_label("Add").select_option(label="Boris (0 of 1000)")
    card.get_by_role("button", name="Try").click()
    expect(rows).to_have_text(["Boris then full, 1000 of 10002,0001,000"])
    assert [one["weight"] for one in service.call("GET", "/sources/1")["operators"]] == [1, 3]
    assert service.call("GET", "/contacts/") == []
    card.get_by_role("button", name="Save weights").click()
    expect(card.get_by_role("button", name="Edit weights")).to_be_visible()
    assert [one["weight"] for one in service.call("GET", "/sources/1")["operators"]] == [3, 3, 1]


def fill_with_ugly_data(service: Service) -> None:
    long = "<b>Ivan</b>" + "W" * 80
    team(service, **{long: 5, "Boris": 2})
    write_pair(service, "x" * 250, "y" * 250, "+79991234567", lead_name=long)
    write_pair(service, "tg:1", "tg:2", "+79991234568")
    write(service, "merged", lead_name="Merged"), write(service, "forgotten")
    service.call("POST", "/leads/5/merge", {"into": 1})
    for contact in service.call("GET", "/contacts/?lead_id=6"):
        service.call("PATCH", f"/contacts/{contact['id']}/status", {"status": "closed"})
    service.call("POST", "/leads/6/forget")


@pytest.mark.parametrize(("width", "scheme", "locale"), LOOKS)
def test_each_window_of_a_leads_data_fits_and_is_accessible(
    browser: Browser, service: Service, width: int, scheme: Any, locale: str, tmp_path: Path
) -> None:
    fill_with_ugly_data(service)
    options: Any = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme, "locale": locale}
    tab = Tab(browser, f"http://127.0.0.1:{service.port}", **options)
    found: list[tuple[str, str]] = []

    def look(name: str) -> None:
        found.extend(tab.look(tmp_path / f"{width}-{scheme}-{locale}-{name}.png"))

    page = tab.go("duplicates")
    page.locator(".pair > div > button:last-child").first.click()
    expect(page.locator(".between .good")).to_be_visible()
    look("duplicates")
    page = tab.go("leads")
    page.locator("main li .link").first.click()
    page.locator("dialog summary").click()
    look("lead")
    page.keyboard.press("Escape")
    page.locator("main li .link").last.click()
    expect(page.locator("dialog .warn")).to_be_visible()
    look("forgotten")
    page.keyboard.press("Escape")
    page = tab.go("contacts")
    page.locator("main summary").click()
    look("export")
    page = tab.go("sources")
    page.locator("section button").first.click()
    page.locator("section form .line button").nth(1).click()
    expect(page.locator(".trial tbody tr")).to_have_count(2)
    look("trial")
    tab.check()
    assert found == []
