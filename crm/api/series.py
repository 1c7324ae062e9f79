"""What the pictures show: values for each step of a period, counted in the database (README, "The API")."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal

import sqlalchemy
from fastapi import APIRouter, Query
from sqlalchemy import Connection, FromClause, Integer, case, func
from sqlalchemy.orm import aliased
from sqlmodel import Field, SQLModel, col, select

from crm.db.base import get_row
from crm.db.sql import seconds_between, span_table
from crm.errors import Unprocessable
from crm.fields import HAS_WAITED, IS_CLOSED, IS_MOVE, IS_OPEN, Id, Moment, utcnow
from crm.models import Assignment, Contact, Operator, Source
from crm.web.answers import responses
from crm.web.deps import FOREVER, SessionDep
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
    """The steps of a query, and what they have to do with the rows."""

    def __init__(self, query: SeriesQuery, now: datetime) -> None:
        """Raises Unprocessable: too many."""
        self.since, self.until, self.now, self.source_id = query.since, query.until or now, now, query.source_id
        length = timedelta(seconds=SECONDS[query.step])
        count = max(0, -((self.since - self.until) // length))
        if count > MOST_STEPS:
            problem = f"{count} steps, and at most {MOST_STEPS}: take a longer step or a shorter period"
            raise Unprocessable([(("query", field), problem) for field in ("step", "since", "until")])
        self.begins = [self.since + nth * length for nth in range(count)]
        self.spans = list(pairwise([*self.begins, self.until])) if count else []

    def of_source(self) -> list[Any]:
        return [] if self.source_id is None else [col(Contact.source_id) == self.source_id]

    def moves(self, *columns: Any) -> Any:
        """A select of lines of the history that say who has a contact from then on, or that nobody does."""
        statement = sqlalchemy.select(*columns).select_from(Assignment).where(IS_MOVE)
        if self.source_id is None:
            return statement
        # Looked up for each line: as a join, PostgreSQL would read all contacts of the source anew for each step.
        source = sqlalchemy.select(col(Contact.source_id)).where(col(Contact.id) == col(Assignment.contact_id))
        return statement.where(source.correlate(Assignment).scalar_subquery() == self.source_id)


def _in(spans: FromClause, moment: Any) -> Any:
    """The condition that a moment is in a span."""
    return (moment >= spans.c.since) & (moment < spans.c.until)


def _sum(spans: FromClause, moment: Any, statement: Any) -> Any:
    """What a statement counts in each span, for a select of spans."""
    return func.coalesce(statement.where(_in(spans, moment)).correlate(spans).scalar_subquery(), 0)


def count_contacts(connection: Connection, steps: Steps) -> list[Series]:
    spans, source = span_table(connection, steps.spans), col(Contact.source_id)
    by_source: dict[int, list[Value]] = {}
    if steps.source_id is None:
        statement = sqlalchemy.select(spans.c.nth, source, func.count()).group_by("nth", source)
        statement = statement.join(Contact, _in(spans, col(Contact.created_at)))
    else:  # as a join, PostgreSQL would compare each contact of the source with each step
        contacts = sqlalchemy.select(func.count()).select_from(Contact).where(*steps.of_source())
        counted = _sum(spans, col(Contact.created_at), contacts)
        statement = sqlalchemy.select(spans.c.nth, sqlalchemy.literal(steps.source_id), counted)
    for nth, source_id, found in connection.execute(statement):
        if found:
            by_source.setdefault(source_id, [0] * len(steps.spans))[nth] = found
    names = connection.execute(sqlalchemy.select(col(Source.id), col(Source.name)).order_by(col(Source.id)))
    series = [Series(name=name, source_id=key, values=by_source[key]) for key, name in names if key in by_source]
    queued = steps.moves(func.count()).where(col(Assignment.operator_id).is_(None), col(Assignment.reason) == "queued")
    waited = sqlalchemy.select(_sum(spans, col(Assignment.created_at), queued)).select_from(spans).order_by(spans.c.nth)
    return [*series, Series(name="waited", source_id=None, values=[*connection.execute(waited).scalars()])]


def rank_waits(connection: Connection, steps: Steps) -> list[Series]:
    """Most are assigned as they come, after 0 seconds: all are counted, but only those that waited are ranked."""
    spans, nobody = span_table(connection, steps.spans), col(Contact.operator_id).is_(None)
    created_at, assigned_at = col(Contact.created_at), col(Contact.assigned_at)
    contacts = sqlalchemy.select(func.count()).select_from(Contact).where(*steps.of_source())
    had_one = contacts.where(nobody, assigned_at.is_not(None))  # apart, for only their rows must be read
    assigned = _sum(spans, created_at, contacts.where(~nobody)) + _sum(spans, created_at, had_one)
    counted = sqlalchemy.select(spans, sqlalchemy.cast(assigned, Integer).label("contacts"))
    counts = counted.limit(MOST_STEPS).subquery()  # without the limit SQLite would count anew at each mention
    seconds = seconds_between(assigned_at, created_at).label("seconds")
    place = func.row_number().over(partition_by=counts.c.nth, order_by=seconds.element.desc()).label("place")
    waited = sqlalchemy.and_(_in(counts, created_at), HAS_WAITED, *steps.of_source())
    ranked = sqlalchemy.select(counts, seconds, place).outerjoin(Contact, waited).subquery()
    # So many of n contacts, or one less, waited longer than their half, or than 95 % of them.
    places = [ranked.c.contacts // 2 + 1, ranked.c.contacts // 20 + 1]
    found = sqlalchemy.select(ranked.c.nth, ranked.c.seconds, *(ranked.c.place == place for place in places))
    found = found.where(ranked.c.contacts > 0, ranked.c.place.in_([1, *places]))  # 1: each step is in it
    values: list[list[Value]] = [[None] * len(steps.spans) for _ in places]
    for nth, wait, *is_hit in connection.execute(found):
        for of, hit in zip(values, is_hit, strict=True):
            of[nth] = (wait if hit else of[nth]) or 0
    return [Series(name=name, source_id=None, values=of) for name, of in zip(("p50", "p95"), values, strict=True)]


def count_load(connection: Connection, steps: Steps) -> list[Series]:
    """Back from the present load, by what has changed it since then."""
    spans = span_table(connection, [*steps.spans, (steps.until, FOREVER)])
    contacts = sqlalchemy.select(func.count()).select_from(Contact).where(*steps.of_source())
    closed = contacts.where(IS_CLOSED, col(Contact.operator_id).is_not(None))
    before = aliased(Assignment)
    had_nobody = (
        sqlalchemy.select(col(before.operator_id).is_(None))
        .where(col(before.contact_id) == col(Assignment.contact_id), col(before.id) < col(Assignment.id))
        .order_by(col(before.id).desc())
        .limit(1)
        .scalar_subquery()
    )
    # Into the queue, or out of it; who comes and waits has been counted among those who came.
    moved = steps.moves(func.sum(case((col(Assignment.operator_id).is_(None), -1), (had_nobody, 1), else_=0)))
    changes = (
        _sum(spans, col(Contact.created_at), contacts)
        - _sum(spans, col(Contact.closed_at), closed)
        + _sum(spans, col(Assignment.created_at), moved)
    )
    load = connection.execute(contacts.where(IS_OPEN)).scalar_one()
    values: list[Value] = []
    latest_first = connection.execute(
        sqlalchemy.select(changes).select_from(spans).order_by(spans.c.nth.desc())
    ).scalars()
    for begin, change in zip(reversed(steps.begins), latest_first, strict=False):
        load -= change
        values.append(load if begin <= steps.now else None)
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
        works = select(func.sum(Operator.max_load)).where(col(Operator.is_active), col(Operator.on_shift))
        capacity = session.exec(works).one() or 0
    return SeriesAnswer(
        measure=query.measure,
        step=query.step,
        since=steps.since,
        until=steps.until,
        begins=steps.begins,
        series=MEASURES[query.measure](session.connection(), steps),
        capacity=capacity,
    )
