"""Who is on shift, and until when: against a plain table of each minute, at both changes of daylight saving."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm.day.shifts import Plan

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
BEFORE, LENGTH = 20 * DAY, 60 * DAY  # of the table, around the change of the clocks
CHANGES = [  # the local date on which, or in the night before which, the clocks change
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("Australia/Lord_Howe", date(2026, 10, 4)),  # by half an hour
    ("Australia/Lord_Howe", date(2026, 4, 5)),
    ("Africa/Cairo", date(2026, 4, 24)),  # there is no midnight
    ("Africa/Cairo", date(2026, 10, 30)),  # the hour before midnight comes twice
    ("America/Sao_Paulo", date(2018, 11, 4)),
    ("America/St_Johns", date(2010, 11, 7)),  # at a minute past midnight: Sunday begins twice
    ("Asia/Almaty", date(2024, 3, 1)),  # another offset for good
    ("Pacific/Apia", date(2011, 12, 30)),  # there is no such day
    ("UTC", date(2026, 1, 1)),
]


class Case(NamedTuple):
    plan: Plan
    first: datetime  # of the table
    moment: datetime


def utc(day: date, clock: time, zone: ZoneInfo) -> datetime:
    """A local time that comes twice is the first of them; one that is skipped is read as if the clock had not been."""
    offset = datetime.combine(day, clock, zone).replace(fold=0).utcoffset()
    assert offset is not None
    return (datetime.combine(day, clock) - offset).replace(tzinfo=UTC)


def table(case: Case) -> bytearray:
    """Of each minute from `first` on whether it is one of work."""

    def write(begin: datetime, end: datetime, works: bool) -> None:
        last = LENGTH // MINUTE
        low, high = (min(max((bound - case.first) // MINUTE, 0), last) for bound in (begin, end))
        minutes[low:high] = bytes([works]) * (high - low)

    plan = case.plan
    minutes = bytearray([not plan.hours]) * (LENGTH // MINUTE)
    for number in range(-3, LENGTH.days + 3):
        day = case.first.date() + number * DAY
        for weekday, begin, end in plan.hours:
            if day.weekday() == weekday:
                until = day if end > begin else day + DAY
                write(utc(day, begin, plan.zone), utc(until, end, plan.zone), True)
    for begins, ends, works in plan.exceptions:
        write(begins, ends, works)
    return minutes


def clocks() -> st.SearchStrategy[time]:
    """Any, but mostly near those at which the clocks change."""
    near = st.sampled_from([0, 1, 30, 60, 90, 105, 119, 120, 121, 135, 150, 179, 180, 181, 210, 1380, 1410, 1439])
    return (near | st.integers(0, 1439)).map(lambda minute: time(minute // 60, minute % 60))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    name, day = draw(st.sampled_from(CHANGES))
    zone, change = ZoneInfo(name), datetime.combine(day, time(), UTC)

    def moments(days: int) -> st.SearchStrategy[datetime]:
        return st.integers(-days * 1440, days * 1440).map(lambda minutes: change + minutes * MINUTE)

    weekdays = st.sampled_from([(day.weekday() + n) % 7 for n in (-2, -1, 0, 1)]) | st.integers(0, 6)
    hours = draw(st.lists(st.tuples(weekdays, clocks(), clocks()), max_size=6))
    if draw(st.booleans()):  # the same on most days, as people work
        hours = [(weekday, begin, end) for _, begin, end in hours[:2] for weekday in range(draw(st.integers(5, 7)))]
    lengths = st.integers(1, 300) | st.integers(1, 12 * 1440)
    begins = st.tuples(moments(10), lengths, st.booleans())
    exceptions = [
        (begin, begin + minutes * MINUTE, works) for begin, minutes, works in draw(st.lists(begins, max_size=4))
    ]
    moment = draw(moments(3)) + timedelta(seconds=draw(st.sampled_from([0, 0, 59.9])))
    return Case(Plan(zone, hours, exceptions), change - BEFORE, moment)


@given(cases())
def test_who_is_on_shift_and_until_when_is_what_a_table_of_each_minute_says(case: Case) -> None:
    minutes = table(case)
    now = (case.moment - case.first) // MINUTE
    change = minutes.find(not minutes[now], now)
    until = None if change == -1 else case.first + change * MINUTE
    assert case.plan.state(case.moment) == (bool(minutes[now]), until)


@given(cases())
def test_who_follows_the_changes_passes_over_none_and_is_switched_at_each(case: Case) -> None:
    """As the service does: it computes the next change when the one before has come."""
    minutes = table(case)
    last = (case.moment + 17 * DAY - case.first) // MINUTE
    numbers = range((case.moment - case.first) // MINUTE, last)
    changes = [case.first + after * MINUTE for before, after in pairwise(numbers) if minutes[before] != minutes[after]]
    found: list[datetime] = []
    is_on, until = case.plan.state(case.moment)
    while until and until < case.first + last * MINUTE:
        found.append(until)
        (was_on, _), (is_on, until) = (is_on, until), case.plan.state(until)
        assert is_on != was_on
    assert found == changes


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("day", "hours"),
    [
        pytest.param(date(2026, 3, 28), 7, id="an hour is skipped"),
        pytest.param(date(2026, 10, 24), 9, id="an hour comes twice"),
        pytest.param(date(2026, 7, 4), 8, id="as ever"),
    ],
)
def test_a_shift_over_the_night_in_which_the_clocks_change_ends_by_the_clock(day: date, hours: int) -> None:
    plan = Plan(BERLIN, [(5, time(22), time(6))], [])
    begin = utc(day, time(22), BERLIN)
    assert plan.state(begin - MINUTE) == (False, begin)
    assert plan.state(begin) == (True, begin + timedelta(hours=hours))


def test_an_exception_that_ends_where_a_shift_goes_on_is_a_change_and_one_within_free_time_is_none() -> None:
    monday = utc(date(2026, 6, 1), time(9), BERLIN)
    plan = Plan(BERLIN, [(0, time(9), time(18))], [(monday, monday + timedelta(hours=2), False)])
    assert plan.state(monday - DAY) == (False, monday + timedelta(hours=2))
    assert plan.state(monday + timedelta(hours=2)) == (True, monday + timedelta(hours=9))


def test_without_hours_it_is_always_on_but_for_absences_and_of_two_exceptions_the_later_wins() -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    absent, back = (now, now + 14 * DAY, False), (now + 3 * DAY, now + 4 * DAY, True)
    assert Plan(BERLIN, [], []).state(now) == (True, None)
    assert Plan(BERLIN, [], [absent]).state(now) == (False, now + 14 * DAY)
    assert Plan(BERLIN, [], [absent, back]).state(now) == (False, now + 3 * DAY)
    assert Plan(BERLIN, [], [back, absent]).state(now) == (False, now + 14 * DAY)
    assert Plan(BERLIN, [], [absent, back]).state(now + 20 * DAY) == (True, None)


@pytest.mark.parametrize("days", [7 * 4, 7 * 52 - 1])
def test_an_absence_of_many_weeks_ends_at_the_first_shift_after_it(days: int) -> None:
    monday = utc(date(2026, 6, 1), time(9), BERLIN)
    weeks = (days + 6) // 7 * 7
    first = utc(date(2026, 6, 1) + weeks * DAY, time(9), BERLIN)
    plan = Plan(BERLIN, [(0, time(9), time(18))], [(monday - DAY, monday + days * DAY, False)])
    assert plan.state(monday) == (False, first)
