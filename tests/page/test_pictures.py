"""The pictures of the page: what they say, by whatever way one asks, is what the API says."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.conftest import empty_file
from tests.page.browser import Tab
from tests.service import Service, serving

ZONE = "Asia/Yekaterinburg"  # five hours ahead: its days are not those of UTC
UGLY = "<b>Shop</b>" + "W" * 60
PICTURES = {"Contacts": "contacts", "Time to assignment": "assign_seconds", "Load": "load"}
SECONDS = {"minute": 60, "hour": 3_600, "day": 86_400}
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    path = tmp_path_factory.mktemp("pictures") / "crm.db"
    with serving(empty_file(path)) as service:
        fill(service, path)
        yield service


def fill(service: Service, path: Path) -> None:
    """Ten sources; over four weeks 80 contacts, of which many waited; the first source's are bent to one operator."""
    for name in ("Anna", "Boris"):
        service.call("POST", "/operators/", {"name": name, "max_load": 10})
    for number in range(1, 11):
        service.call("POST", "/sources/", {"name": UGLY if number == 1 else f"Bot {number}"})
        weights = [{"operator_id": 1, "weight": 1}, {"operator_id": 2, "weight": 3}]
        service.call("PUT", f"/sources/{number}/operators", weights)
    for number in range(80):
        source_id = 1 if number % 2 else number // 2 % 10 + 1
        service.call("POST", "/contacts/", {"source_id": source_id, "lead_external_id": f"tg:{number}"})
    for number in range(1, 61):
        service.call("PATCH", f"/contacts/{number}/status", {"status": "closed"})
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE contact SET operator_id = 1 WHERE source_id = 1 AND operator_id IS NOT NULL")
        contact = ("created_at", 0), ("assigned_at", "(assigned_at > created_at)"), ("closed_at", 1)
        for table, number, columns in (
            ("contact", "id", contact),
            ("assignment", "contact_id", [("created_at", "(reason = 'from_queue')")]),
        ):
            back = f"printf('-%d minutes', 200 + {number} * {number} % 39000)"
            wait = f"printf('+%d minutes', {{}} * ({number} % 9 * 10))"
            at = f"strftime('%Y-%m-%d %H:%M:%f', {{}}, {back}, {wait}) || '000'"
            changes = ", ".join(f"{column} = {at.format(column, waited)}" for column, waited in columns)
            connection.execute(f"UPDATE {table} SET {changes}")


@pytest.fixture
def tab(browser: Browser, service: Service) -> Iterator[Tab]:
    tab = Tab(browser, f"http://127.0.0.1:{service.port}", timezone_id=ZONE)
    try:
        yield tab
    finally:
        tab.context.close()
    tab.check()


def shows(tab: Tab, period: str) -> Page:
    """The pictures of a period."""
    page = tab.go("pictures")
    expect(page.locator(".picture canvas").first).to_be_visible()
    with page.expect_response(re.compile("measure=load&")):
        page.get_by_role("button", name=period, exact=True).click()
    expect(page.locator(".pictures")).to_have_attribute("aria-busy", "false")
    return page


def asked(tab: Tab, part: str) -> str:
    """The path that was read last."""
    return [url.removeprefix(tab.base) for url in tab.requests if part in url][-1]


def answered(tab: Tab, service: Service, title: str) -> dict[str, Any]:
    """What the API says to the question that the picture asked last."""
    answer: dict[str, Any] = service.call("GET", asked(tab, f"measure={PICTURES[title]}&"))
    return answer


def table(picture: Locator) -> list[list[str]]:
    """The rows of a picture's table, after its heads."""
    picture.locator("details:not([open]) summary").click()
    picture.locator("tr").first.wait_for()
    rows: list[list[str]] = picture.locator("tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].map(c => c.innerText))"
    )
    return rows


def legend(picture: Locator) -> list[str]:
    """The values above a picture."""
    return picture.locator(".legend strong").all_inner_texts()


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes = int(seconds // 60)
    return f"{int(seconds)} s" if minutes < 1 else f"{minutes} min" if minutes < 60 else f"1 h {minutes - 60} min"


def column(answer: dict[str, Any], name: str) -> list[Any]:
    values: list[Any] = next(one["values"] for one in answer["series"] if one["name"] == name)
    return values


def test_what_the_tables_say_is_what_the_api_says(tab: Tab, service: Service) -> None:
    page = shows(tab, "30 days")
    rows = table(page.get_by_role("region", name="Contacts"))
    answer = answered(tab, service, "Contacts")
    named = [one for one in answer["series"] if one["source_id"]]
    assert len(named) == 10
    assert rows[0] == ["When", *(name for name in rows[0][1:8]), "3 others", "Of these had to wait"]
    own = [one for one in named if one["name"] in rows[0]]
    most = sorted((sum(one["values"]) for one in named), reverse=True)
    assert sorted((sum(one["values"]) for one in own), reverse=True) == most[:7]
    assert [one["name"] for one in own] == rows[0][1:8]
    for position, row in enumerate(rows[1:]):
        others = sum(one["values"][position] for one in named if one not in own)
        values = [*(one["values"][position] for one in own), others, column(answer, "waited")[position]]
        assert row[1:] == [str(value) for value in values]
    assert sum(column(answer, "waited")) > 20
    local = [datetime.fromisoformat(begin).astimezone(ZoneInfo(ZONE)) for begin in answer["begins"]]
    assert [row[0] for row in rows[1:]] == [
        f"{begin:%a} {begin.day} {begin:%b}".replace("Sep", "Sept") for begin in local
    ]

    rows, answer = table(page.get_by_role("region", name="Time to")), answered(tab, service, "Time to assignment")
    assert rows[0] == ["When", "95 of 100", "half"]
    found = [list(map(duration, pair)) for pair in zip(column(answer, "p95"), column(answer, "p50"), strict=True)]
    assert [row[1:] for row in rows[1:]] == found
    assert any("min" in long for long, _ in found)

    rows, answer = table(page.get_by_role("region", name="Load")), answered(tab, service, "Load")
    assert rows[0] == ["When", "Load", "Capacity, as it is now"]
    assert [row[1:] for row in rows[1:]] == [[str(load), "20"] for load in column(answer, "load")]
    assert rows[-1][1] == str(service.call("GET", "/stats/")["load"])


def test_the_values_of_a_step_are_read_by_pointer_and_by_keyboard_in_all_pictures_at_once(tab: Tab) -> None:
    page = shows(tab, "30 days")
    contacts, seconds = page.get_by_role("region", name="Contacts"), page.get_by_role("region", name="Time to")
    rows, times = table(contacts), table(seconds)
    totals = [str(sum(int(row[place]) for row in rows[1:])) for place in range(1, len(rows[0]))]
    expect(contacts.locator(".when")).to_have_text("In the whole period")
    assert legend(contacts) == totals
    assert legend(seconds) == times[-1][1:]

    plot = contacts.locator(".u-over")
    for step in (0, 12, 29):
        plot.hover(position={"x": plot.evaluate("plot => plot.clientWidth") * (step + 0.5) / 30, "y": 50})
        expect(contacts.locator(".when")).to_have_text(rows[1 + step][0])
        expect(seconds.locator(".when")).to_have_text(rows[1 + step][0])
        assert legend(contacts) == rows[1 + step][1:]
        assert legend(seconds) == times[1 + step][1:]
    contacts.get_by_role("heading").hover()
    expect(contacts.locator(".when")).to_have_text("In the whole period")
    assert legend(contacts) == totals

    slider = contacts.get_by_role("slider", name="Contacts: when")
    slider.focus()
    for key, step in (("ArrowLeft", 28), ("ArrowLeft", 27), ("ArrowRight", 28), ("Home", 0), ("End", 29)):
        page.keyboard.press(key)
        row = rows[1 + step]
        said = ", ".join(f"{name} {value}" for name, value in zip(rows[0][1:], row[1:], strict=True))
        expect(slider).to_have_attribute("aria-valuetext", f"{row[0]}: {said}")
        expect(seconds.locator(".when")).to_have_text(row[0])
        assert legend(contacts) == row[1:]
    slider.blur()
    expect(contacts.locator(".when")).to_have_text("In the whole period")


def test_a_person_chooses_the_period_and_the_source(tab: Tab, service: Service) -> None:
    page = shows(tab, "Today")
    zone = ZoneInfo(ZONE)

    def bounds(part: str) -> tuple[datetime, datetime | None, str]:
        query = dict(re.findall(r"[?&](\w+)=([^&]*)", asked(tab, part).replace("%3A", ":")))
        until = query.get("until")
        since = datetime.fromisoformat(query["since"]).astimezone(zone)
        return since, datetime.fromisoformat(until).astimezone(zone) if until else None, query.get("step", "")

    for period, days, step, load_step in (
        ("Today", 0, "hour", "hour"),
        ("7 days", 6, "hour", "hour"),
        ("30 days", 29, "day", "hour"),
    ):
        shows(tab, period)
        midnight = datetime.now(zone).replace(hour=0, minute=0, second=0, microsecond=0)
        assert bounds("measure=contacts&") == (midnight - timedelta(days=days), None, step)
        assert bounds("measure=load&") == (midnight - timedelta(days=days), None, load_step)
        assert bounds("/stats/sources?") == (midnight - timedelta(days=days), None, "")
    page.get_by_role("button", name="Hour").click()
    expect(page.get_by_role("region", name="Contacts")).to_contain_text("per minute")
    since, until, step = bounds("measure=contacts&")
    assert (until, step) == (None, "minute")
    assert timedelta(minutes=58) < datetime.now(zone) - since < timedelta(minutes=61)

    page.get_by_role("button", name="From … to …").click()
    page.get_by_label("Last day").fill("2024-03-08")
    page.get_by_label("First day").fill("2024-03-07")
    contacts = page.get_by_role("region", name="Contacts")
    expect(contacts).to_contain_text("No contacts in this period.")
    expect(page.get_by_role("region", name="Time to")).to_contain_text("Nothing was assigned in this period.")
    expect(page.get_by_role("region", name="Shares")).to_contain_text("No contacts in this period.")
    own = datetime(2024, 3, 7, tzinfo=zone), datetime(2024, 3, 9, tzinfo=zone)
    assert bounds("measure=contacts&") == (*own, "hour")
    tab.settle()
    read = asked(tab, "measure=contacts&")
    page.get_by_label("Last day").fill("2999-01-01")  # nothing is known of it: the browser says so
    assert page.get_by_label("Last day").evaluate("input => !input.checkValidity()")
    assert asked(tab, "measure=contacts&") == read
    page.get_by_label("First day").fill("2000-01-01")  # too long for the API: cut at its begin
    page.get_by_label("Last day").fill(f"{midnight:%Y-%m-%d}")
    expect(contacts.locator(".legend")).to_contain_text("3 others")
    assert bounds("measure=contacts&") == (midnight - timedelta(days=1499), None, "day")
    expect(page.get_by_role("alert")).to_be_empty()

    page.get_by_role("combobox", name="Source").select_option("Bot 2")
    expect(contacts.locator("bdi")).to_have_text(["Bot 2", "Of these had to wait"])
    assert legend(contacts)[0] == str(service.call("GET", "/stats/sources/2")["total_contacts"])
    expect(page.locator("table.shares caption bdi")).to_have_text(["Bot 2"])


def test_shares_outside_of_what_chance_allows_are_marked_as_in_the_view_of_sources(tab: Tab, service: Service) -> None:
    tab.page.set_viewport_size({"width": 1280, "height": 3500})  # what is out of sight is not kept up
    page = shows(tab, "30 days")
    expect(page.locator("table.shares")).to_have_count(10)
    rows: list[list[str]] = page.locator("table.shares tbody tr").evaluate_all(
        "rows => rows.map(r => [r.cells[0].innerText, r.querySelector('[role=img]').ariaLabel,"
        " r.cells[2].innerText, r.cells[3].innerText])"
    )
    names = page.locator("table.shares caption bdi").all_inner_texts()
    by_name = {one["source_name"]: one["operators"] for one in service.call("GET", asked(tab, "/stats/sources?"))}
    assert names[0] == UGLY  # it is the only one that is bent
    assert sorted(names) == sorted(by_name)
    expected = []
    for name in names:
        contacts = sum(one["contacts"] for one in by_name[name])
        for one in by_name[name]:
            target, actual = one["target_share"], one["actual_share"]
            chance = 3 * (target * (1 - target) / contacts) ** 0.5 + 1 / contacts
            mark = "" if abs(actual - target) <= chance else "▼ " if actual < target else "▲ "
            low, high = percent(max(0, target - chance)), percent(min(1, target + chance))
            expected.append(
                [one["operator_name"], f"chance allows {low} to {high}", percent(target), mark + percent(actual)]
            )
    assert rows == expected
    tab.go("sources")
    page.get_by_label("Shares of contacts").select_option("of all time")
    expect(page.locator("section", has_text=UGLY).locator(".mark.warn")).to_have_count(2)
    expect(page.locator(".mark.warn")).to_have_count(2)


def percent(part: float) -> str:
    return f"{100 * part:.1f}".removesuffix(".0") + "%"


def test_what_draws_is_fetched_once_and_only_for_a_picture(tab: Tab) -> None:
    page = tab.go("operators")
    expect(page.locator("main li")).to_have_count(2)
    tab.settle()
    drawing = re.compile("uPlot|chart|pictures")
    assert not list(filter(drawing.search, tab.requests))
    for view in ("pictures", "operators", "pictures"):
        page.goto(f"{tab.base}/#{view}")
        if view == "pictures":
            expect(page.locator(".picture canvas").first).to_be_visible()
    files = [url for url in tab.requests if drawing.search(url)]
    assert len(files) == len(set(files)) == 5, files


def test_a_long_period_is_not_read_at_each_poll(tab: Tab) -> None:
    tab.deafen()  # it polls every two seconds then
    shows(tab, "30 days")
    tab.settle()
    before = sum("/stats/series" in url for url in tab.requests)
    polls = sum("/stats/?" in url for url in tab.requests)
    while sum("/stats/?" in url for url in tab.requests) < polls + 2:
        tab.page.wait_for_timeout(100)
    tab.settle()
    assert sum("/stats/series" in url for url in tab.requests) == before


def test_a_picture_that_can_not_be_drawn_says_so_and_still_has_its_values(tab: Tab) -> None:
    tab.expected = ("ERR_FAILED",)
    tab.context.route(re.compile("uPlot.*js"), lambda route: route.abort())
    page = tab.go("pictures")
    page.get_by_role("button", name="30 days").click()
    contacts = page.get_by_role("region", name="Contacts")
    expect(contacts).to_contain_text("per day")
    expect(contacts).to_contain_text("The picture could not be loaded.")
    assert len(table(contacts)) == 31


@pytest.mark.parametrize(("width", "scheme", "locale"), [(1280, "light", "ru-RU"), (390, "dark", "en-US")])
def test_pictures_fit_are_accessible_and_have_the_colours_of_the_scheme(
    browser: Browser, service: Service, width: int, scheme: Any, locale: str
) -> None:
    options: Any = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "locale": locale}
    tab = Tab(browser, f"http://127.0.0.1:{service.port}", timezone_id=ZONE, **options)
    tab.expected = ("getImageData",)  # Chromium's advice for who reads often
    page = shows(tab, "30 days" if locale == "en-US" else "30 дней")
    contacts = page.locator(".picture").first
    expect(contacts).to_contain_text("per day" if locale == "en-US" else "в день")
    rows = table(contacts)
    expect(contacts.locator("tbody tr")).to_have_count(30)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("main b").count() == 0  # a name is text
    assert tab.axe() == []

    step = max(range(30), key=lambda step: int(rows[1 + step][1]))
    for each in (scheme, {"light": "dark", "dark": "light"}[scheme]):
        page.emulate_media(color_scheme=each)
        swatch = contacts.locator(".legend i").first.evaluate("i => getComputedStyle(i).backgroundColor")
        box, over = (contacts.locator(name).bounding_box() for name in ("canvas", ".u-over"))
        assert box
        assert over
        left = over["x"] - box["x"] + over["width"] * (step + 0.175) / 30  # in the bar, beside the narrow one in it
        part = [int(left), round(over["y"] - box["y"] + over["height"] - 3)]
        page.wait_for_function(
            "([canvas, part, swatch]) => swatch === "
            "`rgb(${[...canvas.getContext('2d').getImageData(...part, 1, 1).data].slice(0, 3).join(', ')})`",
            arg=[contacts.locator("canvas").element_handle(), part, swatch],
        )
    tab.check()
