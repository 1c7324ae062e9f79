"""Statistics: always counted from the rows, so that they can't drift from them (design.md, "Statistics")."""

from collections import Counter, defaultdict
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query
from sqlalchemy import func
from sqlmodel import Session, SQLModel, col, select

from crm.database import seconds_between
from crm.deps import PathId, Period, SessionDep
from crm.errors import responses
from crm.fields import HAS_WAITED, IS_OPEN, IS_PENDING, ContactStatus, utcnow
from crm.models import Contact, Lead, Operator, SourceOperator
from crm.models import Source as SourceTable
from crm.operators import get_operator
from crm.sources import get_source, ratio

router = APIRouter(tags=["Statistics"], responses=responses(503))

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


class SourceStats(SQLModel):
    source_id: int
    source_name: str
    total_contacts: int
    pending: int
    unassigned_share: float
    operators: list[SourceOperatorStats]


class Count(NamedTuple):
    """How many contacts of the period have this source, operator and status."""

    source_id: int
    operator_id: int | None
    status: ContactStatus
    contacts: int


def _counts(session: Session, period: Period, *conditions: Any) -> list[Count]:
    """All statistics are sums over this, which one pass over a covering index gives in its order."""
    groups = (col(Contact.source_id), col(Contact.operator_id), col(Contact.status))
    statement = select(*groups, func.count()).where(*period.on(col(Contact.created_at)), *conditions).group_by(*groups)
    return [Count(*row) for row in session.exec(statement)]


def _loads(session: Session) -> dict[int | None, int]:
    statement = select(Contact.operator_id, func.count()).where(IS_OPEN).group_by(col(Contact.operator_id))
    return dict(session.exec(statement).all())


def _mean_assign_seconds(session: Session, period: Period) -> float | None:
    """Most contacts are assigned as they come; only the others, in an index of their own, add to the sum."""
    created_at, assigned_at = col(Contact.created_at), col(Contact.assigned_at)
    waited = select(func.sum(seconds_between(assigned_at, created_at))).where(HAS_WAITED, *period.on(created_at))
    assigned = select(func.count()).where(assigned_at.is_not(None), *period.on(created_at))
    count = session.exec(assigned).one()
    return (session.exec(waited).one() or 0.0) / count if count else None


@router.get("/stats/", summary="Totals")
def get_totals(period: PeriodQuery, session: SessionDep) -> Totals:
    """`since` and `until` bound contacts, leads, unassigned_share and mean_assign_seconds; all else is as of now."""
    counts = _counts(session, period)
    contacts = sum(count.contacts for count in counts)
    unassigned = sum(count.contacts for count in counts if count.operator_id is None)
    operators = session.exec(select(Operator)).all()
    loads = _loads(session)
    capacity = sum(operator.max_load for operator in operators if operator.is_active)
    active_load = sum(loads.get(operator.id, 0) for operator in operators if operator.is_active)
    pending, oldest = session.exec(select(func.count(), func.min(Contact.created_at)).where(IS_PENDING)).one()
    return Totals(
        contacts=contacts,
        leads=session.exec(select(func.count()).select_from(Lead).where(*period.on(col(Lead.created_at)))).one(),
        operators=len(operators),
        active_operators=sum(operator.is_active for operator in operators),
        load=sum(loads.values()),
        capacity=capacity,
        utilization=ratio(active_load, capacity),
        pending=pending,
        unassigned_share=ratio(unassigned, contacts),
        oldest_pending_seconds=(utcnow() - oldest).total_seconds() if oldest else None,
        mean_assign_seconds=_mean_assign_seconds(session, period),
    )


def _operator_stats(operator: Operator, load: int, counts: list[Count]) -> OperatorStats:
    by_status: Counter[str] = Counter()
    for count in counts:
        by_status[count.status] += count.contacts
    return OperatorStats(
        operator_id=operator.id,
        operator_name=operator.name,
        is_active=operator.is_active,
        max_load=operator.max_load,
        load=load,
        available=max(0, operator.max_load - load),
        utilization=ratio(load, operator.max_load),
        total_contacts=by_status.total(),
        by_status=ByStatus(**by_status),
    )


@router.get("/stats/operators", summary="Statistics of all operators")
def list_operator_stats(period: PeriodQuery, session: SessionDep) -> list[OperatorStats]:
    """By operator id. `since` and `until` bound total_contacts and by_status; the load is as of now."""
    counts = defaultdict(list)
    for count in _counts(session, period):
        counts[count.operator_id].append(count)
    loads = _loads(session)
    operators = session.exec(select(Operator).order_by(col(Operator.id))).all()
    return [_operator_stats(operator, loads.get(operator.id, 0), counts[operator.id]) for operator in operators]


@router.get("/operators/{operator_id}/stats", summary="Statistics of an operator", responses=responses(404))
def get_operator_stats(operator_id: PathId, period: PeriodQuery, session: SessionDep) -> OperatorStats:
    """Its row of /stats/operators."""
    operator = get_operator(session, operator_id)
    is_its = col(Contact.operator_id) == operator_id
    load = session.exec(select(func.count()).where(is_its, IS_OPEN)).one()
    return _operator_stats(operator, load, _counts(session, period, is_its))


def _source_stats(session: Session, sources: list[SourceTable], counts: list[Count]) -> list[SourceStats]:
    names = dict(session.exec(select(Operator.id, Operator.name)).all())
    pending = dict(
        session.exec(select(Contact.source_id, func.count()).where(IS_PENDING).group_by(col(Contact.source_id))).all()
    )
    weights: dict[int, dict[int, float]] = defaultdict(dict)
    for entry in session.exec(select(SourceOperator)):
        weights[entry.source_id][entry.operator_id] = entry.weight
    contacts: dict[int, Counter[int | None]] = defaultdict(Counter)
    for count in counts:
        contacts[count.source_id][count.operator_id] += count.contacts
    return [
        _one_source(source, names, weights[source.id], contacts[source.id], pending.get(source.id, 0))
        for source in sources
    ]


def _one_source(
    source: SourceTable, names: dict[int, str], weights: dict[int, float], contacts: Counter[int | None], pending: int
) -> SourceStats:
    total, total_weight = contacts.total(), sum(weights.values())
    assigned = total - contacts[None]
    return SourceStats(
        source_id=source.id,
        source_name=source.name,
        total_contacts=total,
        pending=pending,
        unassigned_share=ratio(contacts[None], total),
        operators=[
            SourceOperatorStats(
                operator_id=operator_id,
                operator_name=names[operator_id],
                weight=weights.get(operator_id, 0),
                target_share=ratio(weights.get(operator_id, 0), total_weight),
                contacts=contacts[operator_id],
                actual_share=ratio(contacts[operator_id], assigned),
            )
            for operator_id in sorted(weights.keys() | {served for served in contacts if served is not None})
        ],
    )


@router.get("/stats/sources", summary="Statistics of all sources")
def list_source_stats(period: PeriodQuery, session: SessionDep) -> list[SourceStats]:
    """By source id: how far the shares of the contacts follow the weights. Pending is as of now."""
    sources = session.exec(select(SourceTable).order_by(col(SourceTable.id))).all()
    return _source_stats(session, list(sources), _counts(session, period))


@router.get("/stats/sources/{source_id}", summary="Statistics of a source", responses=responses(404))
def get_source_stats(source_id: PathId, period: PeriodQuery, session: SessionDep) -> SourceStats:
    """Its row of /stats/sources."""
    source = get_source(session, source_id)
    return _source_stats(session, [source], _counts(session, period, col(Contact.source_id) == source_id))[0]
