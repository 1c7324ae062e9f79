"""Who is on shift, and until when (design.md, "A team's day").

A plan is weekly hours in a time zone, with exceptions. What follows from it now is stored with the operator, `on_shift`
and `shift_until`, the moment of the next change: so that the draw reads it like any other column, and hosts whose
clocks differ agree. What is stored changes when that moment has come, when the plan does, and at the start.
"""

import bisect
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, NamedTuple, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import sqlalchemy
from sqlalchemy import JSON, Connection, bindparam, update
from sqlmodel import Field, SQLModel, col
from sqlmodel.sql.sqltypes import UTCDateTime

from crm import fields
from crm.models import Operator

log = logging.getLogger(__name__)

DAY = timedelta(days=1)
AHEAD = 15  # days: two weeks, for a span may be gone in the hour that daylight saving skips; and one day, for zones
FIRST, LAST = 3, date.max.toordinal() - 2  # days that have others beside them
SKEW = timedelta(minutes=1)  # how far the clocks of two hosts may be apart


class ShiftPlan(SQLModel, table=True):
    """When an operator works; without a row always. `zone`: its own time zone, or that of the settings."""

    __tablename__ = "shift_plan"
    operator_id: int = Field(primary_key=True, foreign_key="operator.id", ondelete="CASCADE", sa_type=fields.BIG)
    time_zone: str | None = Field(max_length=64)
    zone: str = Field(max_length=64)
    hours: list[dict[str, Any]] = Field(sa_type=JSON)
    exceptions: list[dict[str, Any]] = Field(sa_type=JSON)


PLANS: Any = sqlalchemy.select(
    *(col(Operator.id), col(Operator.on_shift), col(Operator.shift_until)),
    *(col(ShiftPlan.zone), col(ShiftPlan.hours), col(ShiftPlan.exceptions)),
).outerjoin(ShiftPlan, col(ShiftPlan.operator_id) == col(Operator.id))
ENDS = col(Operator.shift_until) <= bindparam("now", type_=UTCDateTime())
SWITCH = (
    update(Operator)
    .where(col(Operator.id) == bindparam("operator"))
    .values(on_shift=bindparam("is_on"), shift_until=bindparam("until", type_=UTCDateTime()))
)
SET_ZONE = update(ShiftPlan).where(col(ShiftPlan.time_zone).is_(None)).values(zone=bindparam("default_zone"))

Period = tuple[datetime, datetime]  # from begin until before end, in UTC


class Plan(NamedTuple):
    """When somebody works; hours: weekday (0 = Monday), begin and end by the local clock."""

    zone: ZoneInfo
    hours: Collection[tuple[int, time, time]]
    exceptions: Collection[tuple[datetime, datetime, bool]]  # in UTC; the later one wins

    @classmethod
    def of(cls, row: Any) -> Self:
        """From what is stored: columns zone, hours, exceptions, or null. Raises ZoneInfoNotFoundError."""
        if row.zone is None:
            return cls(zone("UTC"), [], [])
        hours = [(each["weekday"], clock(each["begin"]), clock(each["end"])) for each in row.hours]
        moments = datetime.fromisoformat
        exceptions = [(moments(each["begin"]), moments(each["end"]), each["works"]) for each in row.exceptions]
        return cls(zone(row.zone), hours, exceptions)

    def is_on(self, moment: datetime) -> bool:
        return self._is_on(moment, _merged(self._spans([moment], 1)))

    def state(self, moment: datetime) -> tuple[bool, datetime | None]:
        """Whether it is a time of work, and when that changes next; None: never. In UTC."""
        # A change may be where an exception begins or ends, or hours do: those after the moment or after an exception.
        bounds = {bound for begin, end, _ in self.exceptions for bound in (begin, end)}
        spans = _merged(self._spans([moment, *(end for _, end, _ in self.exceptions if end > moment)], AHEAD))
        is_on = self._is_on(moment, spans)
        changes = (at for at in sorted(bounds.union(*spans)) if at > moment and self._is_on(at, spans) != is_on)
        return is_on, next((at for at in changes if self.is_on(at) != is_on), None)  # not where the days read just end

    def _is_on(self, moment: datetime, spans: Sequence[Period]) -> bool:
        for begin, end, works in reversed([*self.exceptions]):
            if begin <= moment < end:
                return works
        nth = bisect.bisect_right(spans, moment, key=itemgetter(0)) - 1
        return not self.hours or (nth >= 0 and moment < spans[nth][1])

    def _spans(self, firsts: Iterable[datetime], days: int) -> Iterator[Period]:
        """The hours of so many days from each of these moments in UTC on, and of those around it: the local date is
        another one at times, and a day may be skipped. What daylight saving skips or repeats is read as with fold 0."""
        numbers = {first.toordinal() + n for first in firsts for n in range(-2, days + 1)}
        for day in (date.fromordinal(number) for number in numbers if FIRST <= number < LAST):
            for weekday, begin, end in self.hours:
                if weekday == day.weekday():
                    last = day + DAY if end <= begin else day
                    yield self._utc(day, begin), self._utc(last, end)

    def _utc(self, day: date, clock: time) -> datetime:
        return datetime.combine(day, clock, self.zone).astimezone(UTC)


def _merged(spans: Iterable[Period]) -> list[Period]:
    """In order, and apart from each other."""
    merged: list[Period] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        elif begin < end:
            merged.append((begin, end))
    return merged


clock = cache(time.fromisoformat)
zone = cache(ZoneInfo)


def switch_shifts(connection: Connection, now: datetime) -> bool:
    """Stores what has changed by now for those whose time has come; returns whether somebody is on shift since. In a
    transaction that is alone. Who does it again finds nothing."""
    return _store(connection, connection.execute(PLANS.where(ENDS), {"now": now}), now)


def recompute_shifts(connection: Connection, now: datetime, default_zone: str) -> None:
    """At the start all is computed anew: hours may have passed, and the package of the time zones be another one."""
    connection.execute(SET_ZONE, {"default_zone": default_zone})
    _store(connection, connection.execute(PLANS), now)


def follow_plan(connection: Connection, operator_id: int, now: datetime) -> None:
    """Stores what follows from a plan that has just been written."""
    _store(connection, connection.execute(PLANS.where(col(Operator.id) == operator_id)), now, by_skew=False)


def _store(connection: Connection, rows: Iterable[Any], now: datetime, by_skew: bool = True) -> bool:
    has_come = False
    for row in rows:
        stored, plan = (row.on_shift, row.shift_until), _read(row)
        is_on, until = plan.state(now) if plan else (row.on_shift, now + DAY)
        # Another host, whose clock is ahead, has done already what comes next: it is not taken back.
        is_ahead = by_skew and plan and until is not None and until - now < SKEW and plan.state(until) == stored
        if (is_on, until) != stored and not is_ahead:
            connection.execute(SWITCH, {"operator": row.id, "is_on": is_on, "until": until})
            has_come |= is_on and not row.on_shift
    return has_come


def _read(row: Any) -> Plan | None:
    """None: its zone is known only to the host that stored it, which has a newer tzdata; the state stays as it is."""
    try:
        return Plan.of(row)
    except ZoneInfoNotFoundError:
        log.error("operator %s: the time zone %s is not known here", row.id, row.zone)
        return None


def by_shifts_at(connection: Connection, entries: Iterable[Any], moment: datetime | None) -> list[Any]:
    """The entries (as of distribution.ENTRIES), with `on_shift` as it will be, or was, at another moment than now."""
    plans = {row.id: _read(row) for row in connection.execute(PLANS)} if moment else {}
    copies = [SimpleNamespace(**entry._mapping) for entry in entries]
    for entry in copies:
        if moment and (plan := plans.get(entry.operator_id)):
            entry.on_shift = plan.is_on(moment)
    return copies
