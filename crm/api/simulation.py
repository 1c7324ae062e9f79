"""POST /sources/{source_id}/simulate: what new weights would do, before they do it."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from types import SimpleNamespace
from typing import Annotated

from fastapi import APIRouter
from pydantic import BeforeValidator
from sqlmodel import Field, Session, SQLModel, col, select

from crm.api.candidates import CandidatePublic, candidates_of
from crm.api.sources import SourceOperatorCreate, check_entries
from crm.db.base import get_row
from crm.distribution import ENTRIES, LOAD, Entry, entries_for, obstacle
from crm.fields import MaxLoad, PlainOrTopic, whole
from crm.models import Input, Operator, Source
from crm.web.answers import responses
from crm.web.deps import PathId, SessionDep

router = APIRouter(prefix="/sources", tags=["Sources"])

SEEDS = 2**32


class SimulatedEntry(SourceOperatorCreate):
    max_load: MaxLoad | None = Field(default=None, description="Another limit than the operator's own.")


class Simulation(Input):
    model_config = {
        "json_schema_extra": {"example": {"operators": [{"operator_id": 1, "weight": 30}], "contacts": 1000, "seed": 1}}
    }
    operators: list[SimulatedEntry] | None = Field(
        default=None, description="As PUT /sources/{source_id}/operators takes them; null: the source's own."
    )
    contacts: Annotated[int, Field(ge=1, le=10_000), BeforeValidator(whole)]
    topic: PlainOrTopic = Field(default="", description="Of the contacts.")
    seed: Annotated[int, Field(ge=0, lt=SEEDS), BeforeValidator(whole)] | None = Field(
        default=None, description="The same one gives the same answer, as long as nobody's load changes."
    )


class SimulatedOperator(CandidatePublic):
    """As the operator is before the first contact, and what it would get."""

    expected: float = Field(description="Contacts by its probability, as if no place were ever filled.")
    drawn: int = Field(description="Contacts that it got, with places filling up.")


class SimulationResult(SQLModel):
    contacts: int
    topic: str
    seed: int = Field(description="Give it again to repeat this.")
    pending: int = Field(description="Contacts that nobody had a place for: they would wait.")
    operators: list[SimulatedOperator]


@router.post("/{source_id}/simulate", summary="Try weights without saving them", responses=responses(404))
def simulate_source(source_id: PathId, body: Simulation, session: SessionDep) -> SimulationResult:
    """What each operator would get of so many contacts of new leads that come at once, and how many would wait.

    Drawn as real ones are, from loads, shifts and limits as they are now. It changes nothing, and leaves out what waits
    already and what would be closed meanwhile.
    """
    get_row(session, Source, source_id)
    seed = random.randrange(SEEDS) if body.seed is None else body.seed
    entries = entries_for(body.topic, _read_entries(session, source_id, body.operators))
    ids = [entry.operator_id for entry in entries]
    loads = dict(session.exec(select(Operator.id, LOAD).where(col(Operator.id).in_(ids))).all())
    drawn, pending = simulate(entries, loads, body.contacts, random.Random(seed))
    operators = [
        SimulatedOperator(
            **dict(candidate), expected=candidate.probability * body.contacts, drawn=drawn[candidate.operator_id]
        )
        for candidate in candidates_of(entries, loads)
    ]
    return SimulationResult(contacts=body.contacts, topic=body.topic, seed=seed, pending=pending, operators=operators)


def _read_entries(session: Session, source_id: int, body: Sequence[SimulatedEntry] | None) -> Sequence[Entry]:
    """Those of the source or, if there is a body, as they would be with that."""
    if body is None:
        return session.connection().execute(ENTRIES, {"source_id": source_id}).all()
    check_entries(session, body, "body", "operators")
    ids = {entry.operator_id for entry in body}
    operators = {row.id: row for row in session.exec(select(Operator).where(col(Operator.id).in_(ids)))}
    entries: list[Entry] = []
    for entry in sorted(body, key=lambda entry: entry.operator_id):
        operator = operators[entry.operator_id]
        state = {name: getattr(operator, name) for name in ("is_active", "on_shift")}
        max_load = operator.max_load if entry.max_load is None else entry.max_load
        fields = {"operator_name": operator.name, "topic": entry.topic, "weight": entry.weight, "max_load": max_load}
        entries.append(SimpleNamespace(operator_id=operator.id, **state, **fields))
    return entries


def simulate(
    entries: Sequence[Entry], loads: dict[int, int], contacts: int, rng: random.Random
) -> tuple[Counter[int], int]:
    """How many contacts each operator gets, and how many nobody.

    The same operators by the same numbers as from `distribution.draw`, but nothing is noted of those not drawn: with
    300 of them that would take half a minute. Places only fill up, so who is full is left out from then on.
    """
    drawn: Counter[int] = Counter()
    candidates = [entry for entry in entries if obstacle(entry) is None]
    totals, left = _totals(candidates), contacts
    while left and candidates:
        [chosen] = rng.choices(candidates, cum_weights=totals)
        if loads[chosen.operator_id] + drawn[chosen.operator_id] < chosen.max_load:
            drawn[chosen.operator_id] += 1
            left -= 1
        else:
            candidates.remove(chosen)
            totals = _totals(candidates)
    return drawn, left


def _totals(entries: Sequence[Entry]) -> list[float]:
    return list(accumulate(entry.weight for entry in entries))
