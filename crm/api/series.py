"""What the pictures show: values for each step of a period, counted in the database (README, "The API")."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import sqlalchemy
from fastapi import APIRouter, Query
from sqlalchemy import Integer, case, func, literal_column
from sqlalchemy.orm import aliased
from sqlmodel import Field, Session, SQLModel, col, select

from crm.db.base import get_row
from crm.db.sql import seconds_between, step_of
from crm.errors import Unprocessable
from crm.fields import HAS_WAITED, IS_CLOSED, IS_MOVE, IS_OPEN, Id, utcnow
from crm.models import Assignment, Contact, Operator, Source
from crm.web.answers import responses
from crm.web.deps import FOREVER, Moment, SessionDep
from crm.web.shared import Shared

router = APIRouter(tags=["Statistics"], route_class=Shared)

Measure = Literal["contacts", "assign_seconds", "load"]
Step = Literal["minute", "hour", "day"]
SECONDS: dict[Step, int] = {"minute": 60, "hour": 3_600, "day": 86_400}
MOST_STEPS = 1_500
Value = int | float | None


class SeriesQuery(SQLModel):
    model_config = {"extra": "forbid"}
    measure: Measure
    step: Step = Field(description="60, 3,600 or 86,400 seconds, counted from `since`.")
    since: Moment = Field(description="ISO 8601 with an offset: where the first step begins.")
    until: Moment | None = Field(default=None, description="The end, not included; by default now.")
    source_id: Id | None = Field(default=None, description="Only contacts of this source.")


class Series(SQLModel):
    name: str
    source_id: int | None
    values: list[Value] = Field(description="One for each step; null: there is none.")


class SeriesAnswer(SQLModel):
    measure: Measure
    step: Step
    since: datetime
    until: datetime
    begins: list[datetime] = Field(description="When each step begins; the last may be cut off by `until`.")
    series: list[Series]
    capacity: int | None = Field(description="For the load of all sources: how many contacts the active may have, now.")


class Steps:
    """The steps of a query, and the conditions and expressions for them."""

    def __init__(self, query: SeriesQuery, now: datetime) -> None:
        """Raises Unprocessable: too many."""
        self.since, self.until, self.now, self.source_id = query.since, query.until or now, now, query.source_id
        self.length = timedelta(seconds=SECONDS[query.step])
        self.count = max(0, -((self.since - self.until) // self.length))
        if self.count > MOST_STEPS:
            problem = f"{self.count} steps, and at most {MOST_STEPS}: take a longer step or a shorter period"
            raise Unprocessable([(("query", field), problem) for field in ("step", "since", "until")])
        self.begins = [self.since + nth * self.length for nth in range(self.count)]

    def of(self, column: Any) -> Any:
        """In which step this moment is; a column named `step`."""
        since = sqlalchemy.literal(self.since, column.type)
        return step_of(column, since, literal_column(f"{self.length.total_seconds():.0f}")).label("step")

    def of_or_later(self, column: Any) -> Any:
        """The same for moments after the period too: they are in the step after the last."""
        return case((column >= self.until, self.count), else_=self.of(column).element).label("step")

    def within(self, column: Any, until: datetime | None = None) -> list[Any]:
        """The conditions that keep the moments of the period, or up to another end, of contacts of the source."""
        return [column >= self.since, column < (until or self.until), *self.of_source()]

    def of_source(self) -> list[Any]:
        return [] if self.source_id is None else [col(Contact.source_id) == self.source_id]

    def moves(self, step: Any, value: Any, *conditions: Any) -> Any:
        """A statement: for each step the sum of a value over lines of the history that say who has a contact now."""
        statement = sqlalchemy.select(step, func.sum(value)).where(IS_MOVE, *conditions).group_by("step")
        if self.source_id is None:
            return statement
        return statement.join(Contact, col(Contact.id) == col(Assignment.contact_id))

    def values(self, found: Mapping[int, Value]) -> list[Value]:
        """By step; 0 where nothing was found."""
        return [found.get(nth, 0) for nth in range(self.count)]


def count_contacts(session: Session, steps: Steps) -> list[Series]:
    connection, created_at, source = session.connection(), col(Contact.created_at), col(Contact.source_id)
    statement = sqlalchemy.select(source, steps.of(created_at), func.count()).where(*steps.within(created_at))
    by_source: dict[int, dict[int, Value]] = defaultdict(dict)
    for source_id, nth, contacts in connection.execute(statement.group_by(source, "step")):
        by_source[source_id][nth] = contacts
    queued_at, nobody = col(Assignment.created_at), col(Assignment.operator_id).is_(None)
    waited = steps.moves(steps.of(queued_at), 1, nobody, col(Assignment.reason) == "queued", *steps.within(queued_at))
    found: Any = connection.execute(waited).all()
    series = [
        Series(name=name, source_id=source_id, values=steps.values(by_source[source_id]))
        for source_id, name in session.exec(select(Source.id, Source.name).order_by(col(Source.id)))
        if source_id in by_source
    ]
    return [*series, Series(name="waited", source_id=None, values=steps.values(dict(found)))]


def rank_waits(session: Session, steps: Steps) -> list[Series]:
    """Most are assigned as they come, after 0 seconds: all are counted, but only those that waited are ranked."""
    created_at, assigned_at = col(Contact.created_at), col(Contact.assigned_at)
    step, within, nobody = steps.of(created_at), steps.within(created_at), col(Contact.operator_id).is_(None)
    counted = [  # apart, for only who has nobody now must be read to know whether it ever had
        sqlalchemy.select(step, func.count().label("contacts")).where(*within, condition).group_by("step")
        for condition in (~nobody, nobody & assigned_at.is_not(None))
    ]
    both = sqlalchemy.union_all(*counted).subquery()
    contacts = sqlalchemy.cast(func.sum(both.c.contacts), Integer).label("contacts")
    counts = sqlalchemy.select(both.c.step, contacts).group_by(both.c.step).subquery()
    seconds = seconds_between(assigned_at, created_at).label("seconds")
    waits = sqlalchemy.select(step, seconds).where(HAS_WAITED, *within).subquery()
    place = func.row_number().over(partition_by=waits.c.step, order_by=waits.c.seconds.desc()).label("place")
    ranked = sqlalchemy.select(waits.c.step, waits.c.seconds, place).subquery()
    # So many of n contacts were assigned later than their half, or than 95 % of them.
    places = {name: counts.c.contacts // part + 1 for name, part in (("p50", 2), ("p95", 20))}
    wanted = (ranked.c.step == counts.c.step) & ranked.c.place.in_(places.values())
    columns = (counts.c.step, ranked.c.seconds, *(ranked.c.place == places[name] for name in places))
    values: dict[str, list[Value]] = {name: [None] * steps.count for name in places}
    statement = sqlalchemy.select(*columns).outerjoin_from(counts, ranked, wanted)
    for nth, wait, *hits in session.connection().execute(statement):
        for name, is_hit in zip(places, hits, strict=True):
            values[name][nth] = wait if is_hit else values[name][nth] or 0
    return [Series(name=name, source_id=None, values=values[name]) for name in places]


def count_load(session: Session, steps: Steps) -> list[Series]:
    """Back from the present load, by what has changed it since then."""
    created_at, closed_at, moved_at = col(Contact.created_at), col(Contact.closed_at), col(Assignment.created_at)
    had_operator: list[Any] = [IS_CLOSED, col(Contact.operator_id).is_not(None)]
    before = aliased(Assignment)
    had_nobody = (
        sqlalchemy.select(col(before.operator_id).is_(None))
        .where(col(before.contact_id) == col(Assignment.contact_id), col(before.id) < col(Assignment.id))
        .order_by(col(before.id).desc())
        .limit(1)
        .scalar_subquery()
    )
    came, went = (
        sqlalchemy.select(steps.of_or_later(at), func.count()).where(*of, *steps.within(at, FOREVER)).group_by("step")
        for at, of in ((created_at, []), (closed_at, had_operator))
    )
    # Out of the queue, or into it; who comes and waits has been counted as one who came.
    change = case((col(Assignment.operator_id).is_(None), -1), (had_nobody, 1), else_=0)
    moved = steps.moves(steps.of_or_later(moved_at), change, *steps.within(moved_at, FOREVER))
    changes: Counter[int] = Counter()
    for sign, statement in ((1, came), (-1, went), (1, moved)):
        for nth, number in session.connection().execute(statement):
            changes[nth] += sign * number
    load = session.exec(select(func.count()).select_from(Contact).where(IS_OPEN, *steps.of_source())).one()
    values: list[Value] = []
    for nth in reversed(range(steps.count)):
        load -= changes[nth + 1]
        values.append(load if steps.begins[nth] <= steps.now else None)
    return [Series(name="load", source_id=None, values=values[::-1])]


MEASURES = {"contacts": count_contacts, "assign_seconds": rank_waits, "load": count_load}


@router.get("/stats/series", summary="Values over time", responses=responses(404))
def get_series(query: Annotated[SeriesQuery, Query()], session: SessionDep) -> SeriesAnswer:
    """For each step from `since` on (60, 3,600 or 86,400 seconds, so that days may begin at local midnight) until
    `until`, at most 1,500 of them.

    - `contacts`: by the time of creation, one series for each source that had any, and last `waited`: those that nobody
      could take at once.
    - `assign_seconds`: `p50` and `p95` of the time to the first assignment, 0 if at once, over the contacts created in
      the step that have been assigned; by nearest rank: the shortest time in which at least 50 or 95 % of them were.
    - `load`: open contacts that had an operator at the end of the step, for the step under way now. `capacity` is the
      present one of who is active, for what it was before is not kept; of one source there is none.
    """
    steps = Steps(query, utcnow())
    if query.source_id is not None:
        get_row(session, Source, query.source_id)
    capacity = None
    if query.measure == "load" and query.source_id is None:
        capacity = session.exec(select(func.sum(Operator.max_load)).where(col(Operator.is_active))).one() or 0
    return SeriesAnswer(
        measure=query.measure,
        step=query.step,
        since=steps.since,
        until=steps.until,
        begins=steps.begins,
        series=MEASURES[query.measure](session, steps),
        capacity=capacity,
    )
