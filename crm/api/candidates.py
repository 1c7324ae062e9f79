"""GET /sources/{source_id}/candidates: who could get the next contact, and why not the others."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlmodel import Field, SQLModel

from crm.day.shifts import by_shifts_at
from crm.db.base import get_row
from crm.distribution import ENTRIES, Entry, count_loads, entries_for, obstacle, ratio
from crm.fields import Id, Moment, Obstacle, PlainOrTopic
from crm.models import Lead, Source
from crm.queue import read_last_operator
from crm.web.answers import responses
from crm.web.deps import PathId, SessionDep
from crm.web.shared import Shared

router = APIRouter(prefix="/sources", tags=["Sources"], route_class=Shared)


class CandidatePublic(SQLModel):
    operator_id: int
    operator_name: str
    weight: float
    load: int
    max_load: int
    eligible: bool
    reason: Obstacle | None = Field(description="Why it is not eligible.")
    probability: float = Field(description="weight / sum of the weights of the eligible; 1: it is asked first.")


class CandidatesQuery(SQLModel):
    model_config = {"extra": "forbid"}
    topic: PlainOrTopic = Field(default="", description="Of a contact of this topic.")
    lead_id: Id | None = Field(default=None, description="Of a contact of this lead, which may have an operator here.")
    at: Moment | None = Field(default=None, description="By the shifts of then, with offset; loads are as of now.")


@router.get("/{source_id}/candidates", summary="Who could get the next contact?", responses=responses(404))
def list_candidates(
    source_id: PathId, query: Annotated[CandidatesQuery, Query()], session: SessionDep
) -> list[CandidatePublic]:
    """Each operator of the source, and why not if not. An empty list: the source has no operators.

    Who would get it on Saturday at nine? `at=2026-11-28T08:00:00Z`.
    """
    source = get_row(session, Source, source_id)
    lead = get_row(session, Lead, query.lead_id) if query.lead_id is not None else None
    rows: Sequence[Any] = session.connection().execute(ENTRIES, {"source_id": source_id}).all()
    entries = entries_for(query.topic, by_shifts_at(session.connection(), rows, query.at))
    candidates = candidates_of(entries, count_loads(session.connection(), source_id))
    if lead is not None and source.sticky == "prefer":
        preferred = read_last_operator(session.connection(), lead.merged_into or lead.id)
        if any(candidate.eligible and candidate.operator_id == preferred for candidate in candidates):
            for candidate in candidates:
                candidate.probability = float(candidate.operator_id == preferred)
    return candidates


def candidates_of(entries: Sequence[Entry], loads: Mapping[int, int]) -> list[CandidatePublic]:
    """How the draw would see each before the next contact. entries: as from `entries_for`; loads: by operator id."""
    reasons: dict[int, Obstacle | None] = {
        entry.operator_id: obstacle(entry) or ("full" if loads[entry.operator_id] >= entry.max_load else None)
        for entry in entries
    }
    total = sum(entry.weight for entry in entries if reasons[entry.operator_id] is None)
    return [
        CandidatePublic(
            operator_id=entry.operator_id,
            operator_name=entry.operator_name,
            weight=entry.weight,
            load=loads[entry.operator_id],
            max_load=entry.max_load,
            eligible=reasons[entry.operator_id] is None,
            reason=reasons[entry.operator_id],
            probability=0 if reasons[entry.operator_id] else ratio(entry.weight, total),
        )
        for entry in entries
    ]
