"""Which operator gets a contact: a draw by weight that never goes past a load limit (design.md, "Distribution").

Everything here runs under the write lock, so that no other contact comes between a count and what follows from it.
"""

import random
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, func, insert
from sqlmodel import col, select

from crm.fields import IS_OPEN, Reason
from crm.models import Assignment, Contact, Operator, OperatorRef, SourceOperator


class Entry(Protocol):
    """An operator of a source, as the draw sees it. weight is relative to those of the others."""

    operator_id: int
    operator_name: str
    weight: float
    is_active: bool
    max_load: int


ENTRY_COLUMNS: Any = (
    col(SourceOperator.operator_id),
    col(Operator.name).label("operator_name"),
    col(SourceOperator.weight),
    col(Operator.is_active),
    col(Operator.max_load),
)
LOAD = select(func.count()).select_from(Contact).where(col(Contact.operator_id) == bindparam("operator_id"), IS_OPEN)
ADD_ASSIGNMENT = insert(Assignment)


def draw(
    entries: Sequence[Entry], count_load: Callable[[int], int], rng: random.Random, excluded: int | None = None
) -> tuple[Entry | None, list[dict[str, Any]]]:
    """Draws one operator by weight, and again without it as long as the one drawn is at its limit.

    count_load: the open contacts of an operator, by its id. excluded: the id of one that is not to get it.
    Returns the entry drawn, or None when nobody is eligible, and what was seen of each (models.Candidate).
    """
    seen = {entry.operator_id: _barred(entry, excluded) for entry in entries}
    candidates = [entry for entry in entries if seen[entry.operator_id]["outcome"] == "not_drawn"]
    while candidates:
        [drawn] = rng.choices(candidates, weights=[entry.weight for entry in candidates], k=1)
        load = count_load(drawn.operator_id)
        has_room = load < drawn.max_load
        outcome = "chosen" if has_room else "full"
        seen[drawn.operator_id] |= {"outcome": outcome, "load": load, "max_load": drawn.max_load}
        if has_room:
            return drawn, list(seen.values())
        candidates.remove(drawn)
    return None, list(seen.values())


def _barred(entry: Entry, excluded: int | None) -> dict[str, Any]:
    if entry.operator_id == excluded:
        outcome = "excluded"
    elif entry.weight == 0:
        outcome = "zero_weight"
    elif not entry.is_active:
        outcome = "inactive"
    else:
        outcome = "not_drawn"
    return {"operator_id": entry.operator_id, "weight": entry.weight, "outcome": outcome}


def count_load(connection: Connection, operator_id: int) -> int:
    """How many contacts of the operator are new or in progress, over all sources."""
    return int(connection.execute(LOAD, {"operator_id": operator_id}).scalar_one())


def choose_operator(
    connection: Connection, entries: Sequence[Entry], rng: random.Random
) -> tuple[OperatorRef | None, list[dict[str, Any]]]:
    """Draws one of the operators of a source for a contact, or None; and what was seen, as from `draw`."""
    drawn, seen = draw(entries, lambda operator_id: count_load(connection, operator_id), rng)
    return OperatorRef(id=drawn.operator_id, name=drawn.operator_name) if drawn else None, seen


def record(
    connection: Connection,
    contact_id: int,
    operator_id: int | None,
    reason: Reason,
    candidates: list[dict[str, Any]],
    now: datetime,
) -> None:
    """Appends to the contact's history."""
    connection.execute(
        ADD_ASSIGNMENT,
        {
            "contact_id": contact_id,
            "operator_id": operator_id,
            "reason": reason,
            "candidates": candidates,
            "created_at": now,
        },
    )
