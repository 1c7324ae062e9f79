"""A team's day on the page: shifts, the settings of a source, topics, and what was passed on."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Page, expect

from crm import fields
from tests.conftest import empty_file
from tests.page.browser import LOOKS, Tab, hide, row, team, write
from tests.page.conftest import new_key
from tests.service import Service, serving

KOLKATA = ZoneInfo("Asia/Kolkata")  # half an hour off the zones of whole hours, so its clock is never the browser's
ALWAYS = [{"weekday": day, "begin": "00:00", "end": "00:00"} for day in range(7)]


def shifts(service: Service, operator_id: int = 1, **plan: Any) -> Any:
    """The plan of an operator, after it was set if there is one."""
    path = f"/operators/{operator_id}/shifts"
    return service.call("PUT", path, plan) if plan else service.call("GET", path)


def plan_of(page: Page, name: str = "Anna") -> Any:
    """Opens the shifts of an operator."""
    page.get_by_role("button", name=f"Shifts: {name}").click()
    dialog = page.get_by_role("dialog", name=f"Shifts of {name}")
    expect(dialog.locator(".day strong")).to_have_count(7)
    return dialog


def spans(service: Service) -> list[str]:
    return [f"{one['weekday']} {one['begin']}-{one['end']}" for one in shifts(service)["hours"]]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the clock of the service ahead, by so many seconds."""
    return lambda seconds: monkeypatch.setattr(fields, "ahead", timedelta(seconds=seconds))


def test_a_week_is_edited_as_a_picture_and_saved_at_once(service: Service, tab: Tab) -> None:
    team(service, Anna=5)
    dialog = plan_of(tab.go("operators"))
    expect(dialog).to_contain_text("No hours: always on shift.")
    for day in ("Mon", "Sat"):
        dialog.get_by_role("button", name=f"Add hours: {day}").click()
    expect(dialog.get_by_label("Sat: begins")).to_be_focused()
    dialog.get_by_role("button", name="Add hours: Mon").click()  # after a break
    dialog.get_by_label("Mon: ends").nth(0).fill("13:00")
    dialog.get_by_label("Mon: begins").nth(1).fill("14:00")
    dialog.get_by_label("Mon: ends").nth(1).fill("18:30")
    dialog.get_by_label("Sat: begins").fill("22:00")
    dialog.get_by_label("Sat: ends").fill("06:00")
    pictures = dialog.get_by_role("img")
    expect(pictures.nth(0)).to_have_accessible_name("Mon: 09:00–13:00, 14:00–18:30")
    expect(pictures.nth(1)).to_have_accessible_name("Tue: off shift")
    expect(pictures.nth(5)).to_have_accessible_name("Sat: 22:00–24:00")
    expect(pictures.nth(6)).to_have_accessible_name("Sun: 00:00–06:00")  # over midnight it is on both days
    dialog.get_by_role("button", name="Tuesday to Friday as Monday").click()
    dialog.get_by_role("button", name="Remove: Fri 14:00–18:30").click()
    expect(dialog.get_by_role("button", name="Add hours: Fri")).to_be_focused()
    tab.page.wait_for_timeout(2_500)  # a poll does not take away what was typed
    assert spans(service) == []
    asked = len([url for url in tab.requests if url.endswith("/shifts")])
    dialog.get_by_label("Time zone").fill("Europe/Berlin")
    dialog.get_by_role("button", name="Save week").dblclick()
    expect(dialog.get_by_role("alert")).to_contain_text("Shifts saved")
    days = [f"{day} {span}" for day in range(4) for span in ("09:00-13:00", "14:00-18:30")]
    assert spans(service) == [*days, "4 09:00-13:00", "5 22:00-06:00"]
    assert shifts(service)["time_zone"] == "Europe/Berlin"
    expect(dialog).to_contain_text("The days and hours below are those of Europe/Berlin.")
    assert len([url for url in tab.requests if url.endswith("/shifts")]) > asked
    dialog.get_by_label("Mon: ends").nth(1).fill("20:00")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog.get_by_label("Mon: ends").nth(1)).to_have_value("18:30")
    dialog.get_by_label("Time zone").fill("")
    dialog.get_by_role("button", name="Save week").click()
    expect(dialog).to_contain_text("are those of UTC.")
    assert shifts(service)["time_zone"] is None


def test_what_is_wrong_with_a_plan_is_said_beside_its_field(service: Service, tab: Tab) -> None:
    team(service, Anna=5)
    tab.expected = ("422",)
    dialog = plan_of(tab.go("operators"))
    dialog.get_by_label("Time zone").fill("Europe/Nowhere")
    dialog.get_by_role("button", name="Save week").click()
    zone = dialog.get_by_label("Time zone")
    expect(zone).to_have_accessible_description("must be a time zone such as Europe/Berlin")
    expect(zone).to_be_focused()
    expect(zone).to_have_value("Europe/Nowhere")
    expect(dialog.get_by_role("alert")).to_be_empty()  # it is said once
    dialog.get_by_label("First day").fill("2030-05-02")
    dialog.get_by_label("Last day").fill("2030-05-01")
    dialog.get_by_role("button", name="Mark absent").click()
    expect(dialog.get_by_label("Last day")).to_have_accessible_description("must end after its begin")
    assert shifts(service)["exceptions"] == []


def test_somebody_is_absent_after_two_clicks_and_back_after_another(service: Service, tab: Tab) -> None:
    """Today is that of the plan, not of who looks."""
    team(service, Anna=5)
    shifts(service, time_zone=KOLKATA.key)
    page = tab.go("operators")
    expect(row(page, "Anna")).not_to_contain_text("until")  # who has no hours is always on
    page.get_by_role("button", name="Shifts: Anna").click()
    page.get_by_role("button", name="Absent today").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("li")).to_contain_text([f"{datetime.now(KOLKATA):absent%-d} "])
    page.get_by_role("button", name="Absent today").click()  # twice is the same
    tab.settle()
    [absence] = shifts(service)["exceptions"]
    begin = datetime.now(KOLKATA).replace(hour=0, minute=0, second=0, microsecond=0)
    assert datetime.fromisoformat(absence["begin"]) == begin
    assert datetime.fromisoformat(absence["end"]) == begin + timedelta(days=1)
    assert absence["works"] is False
    expect(row(page, "Anna")).to_contain_text("off shift until")
    dialog.get_by_role("button", name="Remove: ").click()
    expect(dialog.locator("li")).to_have_count(0)
    expect(row(page, "Anna")).not_to_contain_text("off shift")
    assert shifts(service)["exceptions"] == []


def test_absences_of_days_and_extra_shifts_are_put_down_and_removed(service: Service, tab: Tab) -> None:
    team(service, Anna=5)
    past = {"begin": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z", "works": False}
    shifts(service, time_zone="America/New_York", hours=ALWAYS, exceptions=[past])
    dialog = plan_of(tab.go("operators"))
    dialog.get_by_label("Wed: ends").fill("12:00")  # half an edit of the week stays through all of this
    dialog.get_by_label("First day").fill("2030-03-08")
    dialog.get_by_label("Last day").fill("2030-03-11")  # over the change of the clocks
    dialog.get_by_role("button", name="Mark absent").click()
    expect(dialog.locator("li").filter(visible=True)).to_contain_text(["absent8 – 11 Mar 2030"])
    dialog.get_by_label("Works also on").fill("2030-03-09")
    dialog.locator("form").filter(has_text="Add shift").get_by_label("begins").fill("20:00")
    dialog.locator("form").filter(has_text="Add shift").get_by_label("ends").fill("02:00")
    dialog.get_by_role("button", name="Add shift").click()
    expect(dialog.locator("li").filter(visible=True)).to_have_count(2)
    begins_and_ends = [(one["begin"], one["end"], one["works"]) for one in shifts(service)["exceptions"][1:]]
    assert begins_and_ends == [
        ("2030-03-08T05:00:00Z", "2030-03-12T04:00:00Z", False),
        ("2030-03-10T01:00:00Z", "2030-03-10T07:00:00Z", True),  # there is no two o'clock, it is three
    ]
    dialog.get_by_text("Past: 1").click()
    dialog.get_by_role("button", name="Remove: 31 Dec 2019").click()
    dialog.get_by_role("button", name="Remove: 8 – 11 Mar 2030").click()
    expect(dialog.locator("li")).to_contain_text(["extra shift9 Mar 2030, 20:00 – 10 Mar 2030, 03:00"])
    expect(dialog.get_by_label("Wed: ends")).to_have_value("12:00")
    assert shifts(service)["hours"] == ALWAYS


def test_beside_the_name_stands_until_when_somebody_is_on(service: Service, tab: Tab) -> None:
    """In the local time of who looks."""
    team(service, Anna=5, Boris=5, Vera=5)
    now, in_three_days = datetime.now(tab.zone), datetime.now(KOLKATA) + timedelta(days=3)
    noon = {"weekday": in_three_days.weekday(), "begin": "12:00", "end": "13:00"}
    shifts(service, hours=[noon], time_zone=KOLKATA.key)
    tomorrow = (now + timedelta(days=1)).replace(hour=9, minute=0)
    extra = {"begin": (now - timedelta(hours=1)).isoformat(), "end": tomorrow.isoformat(), "works": True}
    shifts(service, 2, hours=[ALWAYS[now.weekday()]], exceptions=[extra], time_zone=tab.zone.key)
    page = tab.go("operators")
    begin = in_three_days.replace(hour=12, minute=0).astimezone(tab.zone)
    expect(row(page, "Anna")).to_contain_text(f"off shift until {begin:%a %H:%M}")
    expect(row(page, "Boris")).to_contain_text("on until tomorrow 09:00")
    expect(row(page, "Vera")).not_to_contain_text("until")
    service.call("PATCH", "/operators/1", {"is_active": False})  # the one is not the other
    expect(row(page, "Anna")).to_contain_text(re.compile("Anna off off shift until"))
    until = now + timedelta(minutes=30)
    shifts(service, 2, exceptions=[{**extra, "end": until.isoformat(), "works": False}], time_zone=tab.zone.key)
    expect(row(page, "Boris")).to_contain_text(f"off shift until {until:%H:%M}")


def test_the_settings_of_a_source_are_in_one_window(service: Service, tab: Tab) -> None:
    team(service, Anna=5)
    page = tab.go("sources")
    page.get_by_role("button", name="Settings: Shop").click()
    dialog = page.get_by_role("dialog", name="Settings of Shop")
    dialog.get_by_label("Source name").fill("Store")
    dialog.get_by_label("Description").fill("Orders")
    dialog.get_by_label("A lead that comes again").check()
    dialog.get_by_label("seconds").fill("90")
    dialog.get_by_role("button", name="Save settings").click()
    assert service.call("GET", "/sources/1")["name"] == "Shop"  # the browser says that a minute has 60
    dialog.get_by_label("minutes").fill("2")
    dialog.get_by_label("seconds").fill("30")
    dialog.get_by_label("Who does not start in time").check()
    page.wait_for_timeout(2_500)  # a poll leaves it as it is
    dialog.get_by_role("button", name="Save settings").click()
    expect(page.get_by_role("dialog", name="Settings of Store").get_by_role("alert")).to_contain_text("Settings saved")
    found = service.call("GET", "/sources/1")
    expected: dict[str, Any] = {"name": "Store", "bot_id": "shop_bot", "description": "Orders"}
    expected |= {"sticky": "prefer", "accept_within": 150, "silence_pauses": True}
    assert {name: found[name] for name in expected} == expected
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings: Store").click()
    dialog = page.get_by_role("dialog", name="Settings of Store")
    expect(dialog.get_by_label("minutes")).to_have_value("2")
    expect(dialog.get_by_label("A lead that comes again")).to_be_checked()
    tab.expected = ("422",)
    dialog.get_by_label("minutes").fill("0")
    dialog.get_by_label("seconds").fill("0")
    dialog.get_by_role("button", name="Save settings").click()
    expect(dialog.get_by_label("minutes")).to_have_accessible_description(re.compile("greater than or equal to 1"))
    dialog.get_by_label("minutes").fill("")
    dialog.get_by_label("seconds").fill("")
    dialog.get_by_label("A lead that comes again").uncheck()
    dialog.get_by_role("button", name="Save settings").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Settings saved")
    found = service.call("GET", "/sources/1")
    assert (found["accept_within"], found["sticky"]) == (None, "off")


def test_weights_are_given_by_topic_too(service: Service, tab: Tab) -> None:
    team(service, Anna=20, Boris=20)
    page = tab.go("sources")
    card = page.locator("section", has_text="Shop")
    card.get_by_role("button", name="Edit weights").click()
    card.get_by_label("Weight of Anna").fill("2")
    card.get_by_label("Topic").select_option("a new one…")
    card.get_by_label("New topic").fill(" returns ")
    card.get_by_role("button", name="Add topic").click()
    expect(card).to_contain_text("Without weights of its own, a topic is drawn like any other contact.")
    card.get_by_label("Add").select_option(label="Boris (0 of 20)")
    card.get_by_label("Weight of Boris").fill("x")
    card.get_by_label("Topic").select_option("any other")  # not while there is something to be mended
    expect(card.get_by_label("Topic")).to_have_value("returns")
    card.get_by_label("Weight of Boris").fill("5")
    card.get_by_label("Topic").select_option("any other")
    expect(card.locator("output")).to_have_text(["40%", "60%"])
    card.get_by_role("button", name="Save weights").click()
    expect(card.get_by_role("button", name="Edit weights")).to_be_visible()
    entries = service.call("GET", "/sources/1")["operators"]
    assert [(one["topic"], one["operator_id"], one["weight"]) for one in entries] == [
        *[("", 1, 2), ("", 2, 3)],
        ("returns", 2, 5),
    ]
    card.get_by_role("button", name="Edit weights").click()
    card.get_by_label("Topic").select_option("returns")
    card.get_by_role("button", name="Remove Boris").click()
    card.get_by_role("button", name="Save weights").click()
    expect(card.get_by_role("button", name="Edit weights")).to_be_visible()
    assert {one["topic"] for one in service.call("GET", "/sources/1")["operators"]} == {""}


def test_a_topic_without_weights_is_hinted_at(service: Service, tab: Tab) -> None:
    team(service, Anna=3, Boris=1)
    service.call("POST", "/sources/1/operators", {"operator_id": 2, "topic": "returns"})
    page = tab.go("sources")
    expect(page.locator("section")).to_contain_text("Topics: returns: 0")
    for number, topic in enumerate(("returns", "returns", "retruns")):
        write(service, f"tg:{number}", topic=topic)
    expect(page.locator("section")).to_contain_text(re.compile("retruns: 1 – no weights: mistyped?"))
    expect(page.locator("section")).to_contain_text(re.compile("returns: 2, waiting: 1"))


def test_marks_leave_out_who_returned_and_what_was_drawn_by_topic(service: Service, tab: Tab) -> None:
    team(service, Anna=1000, Boris=1000)  # by weight 25 % and 75 %
    service.call("PATCH", "/sources/1", {"sticky": "prefer"})
    service.call("POST", "/sources/1/operators", {"operator_id": 1, "topic": "returns"})
    first = write(service, "tg:1")["operator"]["name"]
    for number in range(60):
        write(service, "tg:1")
        write(service, f"returns:{number}", topic="returns")
    page = tab.go("sources")
    expect(row_of(page, first)).to_contain_text("as last time: 60")
    expect(row_of(page, "Anna")).to_contain_text("by topic: 60")
    expect(page.locator(".mark")).to_have_count(0)
    page.goto(f"{tab.base}/#pictures")
    shares = page.get_by_role("region", name="Shares")
    expect(shares).to_contain_text("contacts: 121, drawn by these weights: 1")
    expect(shares).not_to_contain_text(re.compile("[▲▼]"))


def row_of(page: Page, name: str) -> Any:
    return page.locator(".share").filter(has_text=name)


def test_who_would_get_it_is_asked_for_another_time_and_topic(service: Service, tab: Tab) -> None:
    team(service, Anna=5, Boris=5)
    saturday = {"weekday": 5, "begin": "08:00", "end": "12:00"}
    shifts(service, hours=[saturday], time_zone=tab.zone.key)
    shifts(service, 2, exceptions=[{"begin": "2030-05-31T00:00:00Z", "end": "2030-06-02T00:00:00Z", "works": False}])
    page = tab.go("sources")
    page.get_by_role("button", name="Who gets the next one?").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Topic")).to_have_count(0)  # there are none
    dialog.get_by_label("When").fill("2030-06-01T09:00")  # a Saturday
    expect(dialog).to_contain_text(re.compile("By the shifts of 1 Jun 2030, 09:00; loads and switches are as of now."))
    expect(dialog.locator("li")).to_have_text(["Annawith 100%, load 0 of 5", "Borisnot: off shift"])
    dialog.get_by_label("When").fill("2030-06-03T09:00")
    expect(dialog.locator("li")).to_have_text(["Boriswith 100%, load 0 of 5", "Annanot: off shift"])
    page.keyboard.press("Escape")
    service.call("POST", "/sources/1/operators", {"operator_id": 1, "topic": "returns"})
    expect(page.locator("section")).to_contain_text("returns: 0 – Anna 100%")
    page.get_by_role("button", name="Who gets the next one?").click()
    expect(dialog.get_by_label("When")).to_have_value("")  # nothing is left of the question before
    dialog.get_by_label("When").fill("2030-06-01T09:00")
    dialog.get_by_label("Topic").select_option("returns")
    expect(dialog.locator("li")).to_have_text(["Annawith 100%, load 0 of 5"])


def test_who_would_get_it_is_asked_for_a_lead_where_it_returns_to_who_had_it(service: Service, tab: Tab) -> None:
    team(service, Anna=5, Boris=5)
    service.call("PATCH", "/sources/1", {"sticky": "prefer"})
    lead = write(service)["lead_id"]
    had = service.call("GET", "/contacts/1")["operator"]["name"]
    page = tab.go("sources")
    page.get_by_role("button", name="Who gets the next one?").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("li").first).to_contain_text("75%")
    dialog.get_by_label("Number of the lead").fill(str(lead))
    dialog.get_by_label("When").focus()
    expect(dialog.locator("li").first).to_contain_text(f"{had}with 100%")


def test_an_operator_sees_its_own_week(guarded: Service, locked: Tab) -> None:
    shifts(guarded, 2, hours=[{"weekday": 0, "begin": "09:00", "end": "18:00"}], time_zone="Europe/Berlin")
    page = locked.go()
    page.get_by_label("Key").fill(new_key(guarded, "operator", operator_id=2)[1])
    page.get_by_role("button", name="Enter").click()
    page.get_by_role("button", name="My week").click()
    dialog = page.get_by_role("dialog", name="Shifts of Boris")
    expect(dialog.get_by_role("group", name="Mon")).to_contain_text("09:00–18:00")
    expect(dialog.get_by_role("group", name="Tue")).to_contain_text("off shift")
    expect(dialog.locator("input")).to_have_count(0)
    expect(dialog.get_by_role("button")).to_have_count(1)  # that closes it
    shifts(guarded, 2, hours=[], time_zone=None)


def test_contacts_show_their_topic_and_are_filtered_by_it(service: Service, tab: Tab) -> None:
    team(service, Anna=10)
    write(service, "tg:1")
    page = tab.go("contacts")
    expect(page.locator("main li")).to_have_count(1)
    expect(page.get_by_label("Topic")).to_have_count(0)  # nobody uses them
    write(service, "tg:2", topic="returns")
    write(service, "tg:3", topic="<b>size</b>")
    expect(row(page, "№ 2")).to_contain_text("returns")
    topic = page.get_by_label("Topic")
    assert page.locator("#topics option").evaluate_all("all => all.map(one => one.value)") == ["<b>size</b>", "returns"]
    topic.fill("returns")
    topic.press("Enter")
    expect(page.locator("main li")).to_contain_text(["№ 2"])
    topic.fill("retu")  # half-typed, it stays over a poll
    write(service, "tg:4", topic="returns")
    expect(page.locator("main li")).to_contain_text(["№ 4", "№ 2"])
    expect(topic).to_have_value("retu")
    expect(topic).to_be_focused()
    topic.fill("")
    topic.press("Enter")
    expect(page.locator("main li")).to_have_count(4)


def test_who_is_to_accept_sees_until_when_and_what_became_of_it(service: Service, tab: Tab, later: Any) -> None:
    team(service, Anna=10, Boris=10)
    service.call("PUT", "/sources/1/operators", [{"operator_id": 1, "weight": 1}])
    service.call("PATCH", "/sources/1", {"accept_within": 300, "sticky": "prefer"})
    due_at = datetime.fromisoformat(write(service)["due_at"])
    page = tab.go("contacts")
    page.get_by_role("button", name="№ 1 ·").click()
    dialog = page.get_by_role("dialog", name="Contact 1")
    expect(dialog).to_contain_text(f"to be accepted until {due_at.astimezone(tab.zone):%H:%M}")
    service.call("POST", "/sources/1/operators", {"operator_id": 2})
    later(400)
    service.call("POST", "/contacts/distribute")
    lines = page.get_by_role("dialog").locator("li")
    passed_on = "Passed on, for it was not started in time: Anna had it before; Boris was drawn with 100%, at 0 of 10."
    expect(lines.nth(1)).to_contain_text(passed_on)
    later(800)
    service.call("POST", "/contacts/distribute")
    expect(lines.nth(2)).to_contain_text("Nobody accepted it, it stays: Boris.")
    shifts(service, hours=[{"weekday": (datetime.now(UTC).weekday() + 3) % 7, "begin": "12:00", "end": "13:00"}])
    second = write(service)["id"]
    page.keyboard.press("Escape")
    page.mouse.move(0, 0)
    page.get_by_role("button", name=f"№ {second} ·").click()
    expect(lines).to_contain_text(["As last time: Anna was off shift; Boris got it, at 1 of 10."])
    page.keyboard.press("Escape")
    page.get_by_label("Language").select_option("Русский")
    page.get_by_role("button", name=f"№ {second} ·").click()
    expect(lines).to_contain_text(["Как в прошлый раз: Anna – вне смены; Boris, нагрузка 1 из 10."])


def test_nobody_starts_what_was_passed_on_meanwhile(service: Service, tab: Tab) -> None:
    team(service, Anna=1, Boris=1)
    holder = write(service)["operator"]["id"]
    page = tab.go("contacts")
    start = page.get_by_role("button", name="Start: № 1")
    expect(start).to_be_visible()
    hide(page)  # it stands still
    tab.settle()
    service.call("POST", "/contacts/1/assign", {})
    tab.expected = ("409",)
    start.click()
    name = "Boris" if holder == 1 else "Anna"
    expect(page.get_by_role("alert")).to_contain_text(f"Contact 1 was passed on meanwhile: {name} has it.")
    assert service.call("GET", "/contacts/1")["status"] == "new"


@pytest.mark.parametrize("way", ["window", "keyboard"])
def test_an_operator_is_told_that_it_was_passed_on(guarded: Service, locked: Tab, way: str) -> None:
    """Whose it is no more it can't even see."""
    guarded.request("PATCH", "/operators/2", {"is_active": False})
    contact = write(guarded, f"passed:{way}")["id"]
    guarded.request("PATCH", "/operators/2", {"is_active": True})
    locked.expected += ("404", "409")
    page = locked.go()
    page.get_by_label("Key").fill(new_key(guarded, "operator", operator_id=1)[1])
    page.get_by_role("button", name="Enter").click()
    expect(row(page, f"№ {contact} ·")).to_be_visible()
    start: Any = page.get_by_role("button", name=f"№ {contact} ·")
    if way == "window":
        start.click()
        start = page.get_by_role("dialog").get_by_role("button", name="Start")
        expect(start).to_be_visible()
    hide(page)
    locked.settle()
    guarded.call("POST", f"/contacts/{contact}/assign", {"operator_id": 2})
    if way == "window":
        start.click()
    else:
        start.focus()
        page.keyboard.press("s")
    expect(page.get_by_role("alert")).to_contain_text(f"Contact {contact} was passed on meanwhile.")
    hide(page, hidden=False)
    expect(row(page, f"№ {contact} ·")).to_have_count(0)
    expect(page.get_by_role("alert")).to_contain_text(f"Contact {contact} was passed on meanwhile.")


@pytest.fixture
def ugly(path: Path) -> Iterator[Service]:
    with serving(empty_file(path)) as service:
        long = "<b>returns</b>" + "W" * 80
        for name in ("Anna", f"<b>Boris</b>{'W' * 80}"):
            service.call("POST", "/operators/", {"name": name})
        service.call("POST", "/sources/", {"name": "Shop", "accept_within": 600, "description": "<b>x</b>" * 50})
        weights = [{"operator_id": number, "topic": topic} for topic in ("", long) for number in (1, 2)]
        service.call("PUT", "/sources/1/operators", weights)
        late = {"begin": "2030-12-30T10:00:00Z", "end": "2031-01-02T11:00:00Z", "works": True}
        night = [{"weekday": day, "begin": "22:00", "end": "06:30"} for day in range(7)]
        shifts(service, 1, hours=[*night, *({**one, "begin": "12:00", "end": "13:30"} for one in night)])
        shifts(service, 2, hours=night, exceptions=[late, {**late, "works": False}])
        write(service, topic=long), write(service, topic=long[::-1])
        yield service


@pytest.mark.parametrize(("width", "scheme", "locale"), LOOKS)
def test_each_window_of_the_day_fits_and_is_accessible(
    browser: Browser, ugly: Service, width: int, scheme: Any, locale: str, tmp_path: Path
) -> None:
    options: Any = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme, "locale": locale}
    tab = Tab(browser, f"http://127.0.0.1:{ugly.port}", **options)
    found: list[tuple[str, str]] = []

    def look(name: str) -> None:
        found.extend(tab.look(tmp_path / f"{width}-{scheme}-{locale}-{name}.png"))

    page = tab.go("operators")
    for number in range(2):
        page.locator("main li").nth(number).get_by_role("button").nth(0).click()
        expect(page.locator("dialog .day strong")).to_have_count(7)
        page.locator("dialog .day").nth(3).get_by_role("button").last.click()
        look(f"shifts-{number}")
        page.keyboard.press("Escape")
        expect(page.locator("dialog[open]")).to_have_count(0)
    page = tab.go("sources")
    page.locator("section button").first.click()
    for topic in (1, 2):
        page.locator("section select").first.select_option(index=topic)
        look(f"weights-{topic}")
    page.locator("section button").last.click()
    page.locator("section button").nth(1).click()
    expect(page.locator("dialog textarea")).to_be_visible()
    look("settings")
    page.keyboard.press("Escape")
    page.locator("section button").last.click()
    expect(page.locator("dialog li")).to_have_count(2)
    page.locator("dialog input").fill("2030-06-01T09:00")
    page.locator("dialog select").select_option(index=1)
    expect(page.locator("dialog p").first).to_be_visible()
    look("candidates")
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    page = tab.go("contacts")
    expect(page.locator("main li")).to_have_count(2)
    look("contacts")
    page.locator("main li .link").first.click()
    expect(page.locator("dialog h3")).to_be_visible()
    look("contact")
    tab.check()
    assert found == []
