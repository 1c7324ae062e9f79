"""Which operator gets a contact: a draw by weight that never goes past a load limit (design.md, "Distribution").

Everything here runs under the write lock, so that no other contact comes between a count and what follows from it.
"""

import random
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import sqlalchemy
from sqlalchemy import Connection, bindparam, func
from sqlmodel import col, select

from crm.db.direct import run
from crm.fields import IS_OPEN, Obstacle
from crm.models import Contact, Operator, SourceOperator

ENTRY_COLUMNS: Any = (
    col(SourceOperator.operator_id),
    col(Operator.name).label("operator_name"),
    col(SourceOperator.weight),
    col(SourceOperator.topic),
    *(col(Operator.is_active), col(Operator.on_shift), col(Operator.shift_until)),
    col(Operator.max_load),
)
Entry: TypeAlias = Any  # an operator of a source, as the draw sees it: a row with these columns at least
ENTRIES: Any = (
    sqlalchemy.select(*ENTRY_COLUMNS)
    .select_from(SourceOperator)
    .join(Operator)
    .where(col(SourceOperator.source_id) == bindparam("source_id"))
    .order_by(col(SourceOperator.operator_id), col(SourceOperator.topic))
)
# The load of each Operator of the statement around it.
LOAD: Any = (
    select(func.count())
    .select_from(Contact)
    .where(col(Contact.operator_id) == col(Operator.id), IS_OPEN)
    .correlate(Operator)
    .scalar_subquery()
)
LOAD_OF_ONE: Any = (
    select(func.count().label("load"))
    .select_from(Contact)
    .where(col(Contact.operator_id) == bindparam("operator_id"), IS_OPEN)
)
LOADS_OF_SOURCE: Any = select(col(Operator.id), LOAD.label("load")).where(
    col(Operator.id).in_(
        select(col(SourceOperator.operator_id)).where(col(SourceOperator.source_id) == bindparam("source_id"))
    )
)


def draw(
    entries: Sequence[Entry],
    load_of: Callable[[int], int],
    rng: random.Random,
    excluded: Collection[int | None] = (),
    preferred: int | None = None,
) -> tuple[Entry | None, list[dict[str, Any]]]:
    """Draws one operator by weight, and again without it as long as the one drawn is at its limit.

    entries: as from `entries_for`. load_of: counts the open contacts of an operator, by its id. excluded: ids of those
    that are not to get it. preferred: the id of one that is tried before any draw (design.md, "Sticky").
    Returns the entry drawn, or None when nobody is eligible, and what was seen of each (models.Candidate).
    """
    seen = {entry.operator_id: unseen(entry, excluded) for entry in entries}
    candidates = [entry for entry in entries if seen[entry.operator_id]["outcome"] == "not_drawn"]
    while candidates:
        drawn = next((entry for entry in candidates if entry.operator_id == preferred), None)
        if drawn is None:
            [drawn] = rng.choices(candidates, weights=[entry.weight for entry in candidates], k=1)
        load = load_of(drawn.operator_id)
        has_room = load < drawn.max_load
        seen[drawn.operator_id] |= {
            "outcome": "chosen" if has_room else "full",
            "load": load,
            "max_load": drawn.max_load,
        }
        if has_room:
            return drawn, list(seen.values())
        candidates.remove(drawn)
    return None, list(seen.values())


def entries_for(topic: str, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Of all entries of a source those that a contact of this topic is drawn from: the topic's own, if any of them has
    a weight, else the plain ones (design.md, "Topics")."""
    own = [entry for entry in entries if entry.topic == topic] if topic else []
    return own if any(entry.weight for entry in own) else [entry for entry in entries if not entry.topic]


def obstacle(entry: Entry) -> Obstacle | None:
    """What keeps an operator from getting anything of the source, whatever its load; who has none may yet be "full"."""
    if entry.weight == 0:
        return "zero_weight"
    if not entry.is_active:
        return "inactive"
    return None if entry.on_shift else "off_shift"


def unseen(entry: Entry, excluded: Collection[int | None] = ()) -> dict[str, Any]:
    """What is seen of an operator before anybody is drawn (models.Candidate)."""
    outcome = "excluded" if entry.operator_id in excluded else obstacle(entry) or "not_drawn"
    return {"operator_id": entry.operator_id, "weight": entry.weight, "outcome": outcome}


def ratio(part: float, whole: float) -> float:
    """A share; 0 of nothing is 0 (design.md, "Statistics")."""
    return part / whole if whole else 0.0


def count_load(connection: Connection, operator_id: int) -> int:
    """How many contacts of the operator are new or in progress, over all sources."""
    return int(run(connection, LOAD_OF_ONE, {"operator_id": operator_id})[0][0])


def count_loads(connection: Connection, source_id: int) -> dict[int, int]:
    """The same of each operator of a source, by its id, in one statement."""
    return {row.id: row.load for row in run(connection, LOADS_OF_SOURCE, {"source_id": source_id})}
