"""Statistics: counted from the rows, but for what never changes again (design.md, "Statistics"; `counted`)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import String, cast, func
from sqlmodel import Field, Session, SQLModel, col, select

from crm.api.counted import Counted
from crm.api.topics import Topics, TopicStats
from crm.db.base import get_row
from crm.distribution import ratio
from crm.fields import IS_OPEN, IS_PENDING, utcnow
from crm.models import Contact, Lead, Operator, Source, SourceOperator
from crm.web.answers import responses
from crm.web.auth import CallerDep
from crm.web.deps import PathId, Period, SessionDep
from crm.web.shared import Shared

router = APIRouter(tags=["Statistics"], route_class=Shared)

PeriodQuery = Annotated[Period, Query()]


class Totals(SQLModel):
    contacts: int
    leads: int
    operators: int
    active_operators: int
    load: int
    capacity: int
    utilization: float
    pending: int
    unassigned_share: float
    oldest_pending_seconds: float | None
    mean_assign_seconds: float | None


class ByStatus(SQLModel):
    pending: int = 0
    new: int = 0
    in_progress: int = 0
    closed: int = 0


class OperatorStats(SQLModel):
    operator_id: int
    operator_name: str
    is_active: bool
    on_shift: bool
    shift_until: datetime | None
    max_load: int
    load: int
    available: int
    utilization: float
    total_contacts: int
    by_status: ByStatus


class SourceOperatorStats(SQLModel):
    operator_id: int
    operator_name: str
    weight: float
    target_share: float
    contacts: int
    actual_share: float
    sticky: int = Field(description="Of the contacts those that it has because it had the lead before.")
    of_topics: int = Field(description="Of the others those of a topic that has weights now.")


class SourceStats(SQLModel):
    source_id: int
    source_name: str
    total_contacts: int
    pending: int
    unassigned_share: float
    operators: list[SourceOperatorStats]
    topics: list[TopicStats] = Field(description="By name: those with weights, and those with most contacts.")


class Minute(SQLModel):
    minute: datetime = Field(description="Its begin.")
    contacts: int


class TimelineQuery(SQLModel):
    model_config = {"extra": "forbid"}
    minutes: int = Field(default=60, ge=1, le=1440, description="How many, up to the present one.")


def _open(session: Session, *conditions: Any) -> dict[int | None, Counter[str]]:
    """The open contacts of each operator by status; an index holds just the open ones."""
    groups = (col(Contact.operator_id), col(Contact.status))
    counters: dict[int | None, Counter[str]] = defaultdict(Counter)
    for operator_id, status, contacts in session.exec(
        select(*groups, func.count()).where(IS_OPEN, *conditions).group_by(*groups)
    ):
        counters[operator_id][status] = contacts
    return counters


@router.get("/stats/", summary="Totals")
def get_totals(period: PeriodQuery, session: SessionDep) -> Totals:
    """`since` and `until` bound contacts, leads, unassigned_share and mean_assign_seconds; all else is as of now."""
    counted = Counted(session, period)
    counts = counted.contacts
    contacts = counts.total()
    unassigned = sum(n for (_, operator_id), n in counts.items() if operator_id is None)
    leads = select(func.count()).select_from(Lead)
    operators = session.exec(select(Operator)).all()
    loads = {operator_id: statuses.total() for operator_id, statuses in _open(session).items()}
    works = [operator for operator in operators if operator.is_active and operator.on_shift]
    capacity = sum(operator.max_load for operator in works)
    active_load = sum(loads.get(operator.id, 0) for operator in works)
    pending, oldest = session.exec(select(func.count(), func.min(Contact.created_at)).where(IS_PENDING)).one()
    return Totals(
        contacts=contacts,
        leads=session.exec(leads if period.is_all_time else leads.where(*period.by_time(col(Lead.created_at)))).one(),
        operators=len(operators),
        active_operators=sum(operator.is_active for operator in operators),
        load=sum(loads.values()),
        capacity=capacity,
        utilization=ratio(active_load, capacity),
        pending=pending,
        unassigned_share=ratio(unassigned, contacts),
        oldest_pending_seconds=(utcnow() - oldest).total_seconds() if oldest else None,
        mean_assign_seconds=counted.mean_assign_seconds(),
    )


@router.get("/stats/timeline", summary="Contacts per minute")
def list_minutes(query: Annotated[TimelineQuery, Query()], session: SessionDep) -> list[Minute]:
    """Oldest first, with those that had none; the last one is the present one, and not over yet."""
    last = utcnow().replace(second=0, microsecond=0)
    minutes = [last - timedelta(minutes=ago) for ago in reversed(range(query.minutes))]
    minute = func.substr(cast(col(Contact.created_at), String), 1, 16)  # both engines write 2026-01-31 09:00:00...
    counts = dict(
        session.exec(select(minute, func.count()).where(Contact.created_at >= minutes[0]).group_by(minute)).all()
    )
    return [Minute(minute=begin, contacts=counts.get(f"{begin:%Y-%m-%d %H:%M}", 0)) for begin in minutes]


def _operator_stats(session: Session, operators: Sequence[Operator], period: Period) -> list[OperatorStats]:
    of = {"operator_id": operators[0].id} if len(operators) == 1 else {}
    conditions = [col(Contact.operator_id) == operator_id for operator_id in of.values()]
    totals: Counter[int | None] = Counter()
    for (_, operator_id), contacts in Counted(session, period, **of).contacts.items():
        totals[operator_id] += contacts
    loads = {operator_id: statuses.total() for operator_id, statuses in _open(session, *conditions).items()}
    still_open = _open(session, *conditions, *period.on(col(Contact.created_at)))
    answer = []
    for operator in operators:
        load, total, statuses = loads.get(operator.id, 0), totals[operator.id], still_open[operator.id]
        answer.append(
            OperatorStats(
                operator_id=operator.id,
                operator_name=operator.name,
                is_active=operator.is_active,
                on_shift=operator.on_shift,
                shift_until=operator.shift_until,
                max_load=operator.max_load,
                load=load,
                available=max(0, operator.max_load - load),
                utilization=ratio(load, operator.max_load),
                total_contacts=total,
                by_status=ByStatus(closed=total - statuses.total(), **statuses),
            )
        )
    return answer


@router.get("/stats/operators", summary="Statistics of all operators")
def list_operator_stats(period: PeriodQuery, session: SessionDep) -> list[OperatorStats]:
    """By operator id. `since` and `until` bound total_contacts and by_status; the load is as of now."""
    return _operator_stats(session, session.exec(select(Operator).order_by(col(Operator.id))).all(), period)


@router.get("/operators/{operator_id}/stats", summary="Statistics of an operator", responses=responses(404))
def get_operator_stats(
    operator_id: PathId, period: PeriodQuery, session: SessionDep, caller: CallerDep
) -> OperatorStats:
    """Its row of /stats/operators."""
    caller.must_be(operator_id)
    return _operator_stats(session, [get_row(session, Operator, operator_id)], period)[0]


def _source_stats(session: Session, sources: Sequence[Source], period: Period) -> list[SourceStats]:
    of = {"source_id": sources[0].id} if len(sources) == 1 else {}
    names = dict(session.exec(select(Operator.id, Operator.name)).all())
    group = col(Contact.source_id)
    pending = dict(session.exec(select(group, func.count()).where(IS_PENDING).group_by(group)).all())
    weights: dict[int, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for entry in session.exec(select(SourceOperator)):
        weights[entry.source_id][entry.topic][entry.operator_id] = entry.weight
    counted = Counted(session, period, **of)
    counts, sticky = counted.contacts, counted.sticky()
    topics = Topics(session, counted, weights, **of)
    answer = []
    for source in sources:
        weight = weights[source.id][""]
        contacts = {operator: n for (source_id, operator), n in counts.items() if source_id == source.id}
        unassigned = contacts.pop(None, 0)
        assigned, total_weight = sum(contacts.values()), sum(weight.values())
        operators = [
            SourceOperatorStats(
                operator_id=operator_id,
                operator_name=names[operator_id],
                weight=weight.get(operator_id, 0),
                target_share=ratio(weight.get(operator_id, 0), total_weight),
                contacts=contacts.get(operator_id, 0),
                actual_share=ratio(contacts.get(operator_id, 0), assigned),
                sticky=sticky.get((source.id, operator_id), 0),
                of_topics=topics.drawn[source.id, operator_id],
            )
            for operator_id in sorted({*weight, *filter(None, contacts)})
        ]
        answer.append(
            SourceStats(
                source_id=source.id,
                source_name=source.name,
                total_contacts=assigned + unassigned,
                pending=pending.get(source.id, 0),
                unassigned_share=ratio(unassigned, assigned + unassigned),
                operators=operators,
                topics=topics.of(source.id),
            )
        )
    return answer


@router.get("/stats/sources", summary="Statistics of all sources")
def list_source_stats(period: PeriodQuery, session: SessionDep) -> list[SourceStats]:
    """By source id: how far the shares of the contacts follow the weights. Pending is as of now."""
    sources = session.exec(select(Source).order_by(col(Source.id))).all()
    return _source_stats(session, sources, period)


@router.get("/stats/sources/{source_id}", summary="Statistics of a source", responses=responses(404))
def get_source_stats(source_id: PathId, period: PeriodQuery, session: SessionDep) -> SourceStats:
    """Its row of /stats/sources."""
    source = get_row(session, Source, source_id)
    return _source_stats(session, [source], period)[0]
