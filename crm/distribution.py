"""Which operator gets a contact: a draw by weight that never goes past a load limit (design.md, "Distribution").

Everything here runs under the write lock, so that no other contact comes between a count and what follows from it. A
transaction that shares the lock (see `db.postgres`) first locks the one operator whose load it changes.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import sqlalchemy
from sqlalchemy import Connection, bindparam, func, literal_column
from sqlmodel import col, select

from crm.db.base import is_alone
from crm.db.sql import next_id
from crm.errors import NotAlone
from crm.fields import BIG, IS_OPEN
from crm.models import Contact, Operator, OperatorRef, SourceOperator

ENTRY_COLUMNS: Any = (
    col(SourceOperator.operator_id),
    col(Operator.name).label("operator_name"),
    col(SourceOperator.weight),
    col(Operator.is_active),
    col(Operator.max_load),
)
Entry: TypeAlias = Any  # an operator of a source, as the draw sees it: a row with these columns
ENTRIES: Any = (
    sqlalchemy.select(*ENTRY_COLUMNS)
    .select_from(SourceOperator)
    .join(Operator)
    .where(col(SourceOperator.source_id) == bindparam("source_id"))
    .order_by(col(SourceOperator.operator_id))
)
# The load of each Operator of the statement around it.
LOAD: Any = (
    select(func.count())
    .select_from(Contact)
    .where(col(Contact.operator_id) == col(Operator.id), IS_OPEN)
    .correlate(Operator)
    .scalar_subquery()
)
LOAD_OF_ONE = select(LOAD).select_from(Operator).where(col(Operator.id) == bindparam("operator_id"))
LOCK_OPERATOR = (
    select(Operator.id)
    .where(col(Operator.id) == bindparam("operator_id"))
    .with_for_update(key_share=True)
    .execution_options(wait=False)
)
NEW_IDS: Any = sqlalchemy.select(
    next_id(literal_column("contact")).label("contact_id"),
    func.coalesce(bindparam("lead_id", type_=BIG), next_id(literal_column("lead"))).label("lead_id"),
)
# Of an operator who is eligible at this source, its load; with the ids, taken only then, lest they need another trip.
ROOM: Any = (
    NEW_IDS.add_columns(LOAD.label("load"))
    .select_from(Operator)
    .join(SourceOperator)
    .where(col(SourceOperator.source_id) == bindparam("source_id"), col(SourceOperator.weight) > 0)
    .where(col(Operator.id) == bindparam("operator_id"), col(Operator.is_active))
    .where(Operator.max_load > LOAD)
)


def draw(
    entries: Sequence[Entry], count_load: Callable[[int], int], rng: random.Random, excluded: int | None = None
) -> tuple[Entry | None, list[dict[str, Any]]]:
    """Draws one operator by weight, and again without it as long as the one drawn is at its limit.

    count_load: the open contacts of an operator, by its id. excluded: the id of one that is not to get it.
    Returns the entry drawn, or None when nobody is eligible, and what was seen of each (models.Candidate).
    """
    seen = {entry.operator_id: _unseen(entry, excluded) for entry in entries}
    candidates = [entry for entry in entries if seen[entry.operator_id]["outcome"] == "not_drawn"]
    while candidates:
        [drawn] = rng.choices(candidates, weights=[entry.weight for entry in candidates], k=1)
        load = count_load(drawn.operator_id)
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


def obstacle(entry: Entry) -> Literal["zero_weight", "inactive"] | None:
    """Why the operator gets nothing from this source, whatever its load."""
    if entry.weight == 0:
        return "zero_weight"
    return None if entry.is_active else "inactive"


def _unseen(entry: Entry, excluded: int | None = None) -> dict[str, Any]:
    outcome = "excluded" if entry.operator_id == excluded else obstacle(entry) or "not_drawn"
    return {"operator_id": entry.operator_id, "weight": entry.weight, "outcome": outcome}


def count_load(connection: Connection, operator_id: int) -> int:
    """How many contacts of the operator are new or in progress, over all sources."""
    return int(connection.execute(LOAD_OF_ONE, {"operator_id": operator_id}).scalar_one())


def lock_operator(connection: Connection, operator_id: int | None) -> None:
    """Keeps others that share the write lock from changing this operator's load; alone there are no others.

    Only one in a transaction, else two could wait for each other. Raises NotAlone for nobody's contacts.
    """
    if not is_alone(connection):
        if operator_id is None:
            raise NotAlone
        connection.execute(LOCK_OPERATOR, {"operator_id": operator_id})


def choose_operator(
    connection: Connection, source_id: int, entries: Sequence[Entry], rng: random.Random, lead_id: int | None
) -> tuple[OperatorRef | None, list[dict[str, Any]], Any]:
    """Draws one of the operators of a source for a new contact, or None; and what was seen, as from `draw`.

    The third value has contact_id, and lead_id if that was None: the ids for a new contact and a new lead. Raises
    NotAlone if the first one drawn can't take it.
    """
    room: Any = None

    def count(operator_id: int) -> int:
        nonlocal room
        lock_operator(connection, operator_id)
        parameters = {"operator_id": operator_id, "source_id": source_id, "lead_id": lead_id}
        room = connection.execute(ROOM, parameters).one_or_none()
        if room is None and not is_alone(connection):
            raise NotAlone
        return int(room.load) if room else count_load(connection, operator_id)

    drawn, seen = draw(entries, count, rng)
    if drawn is None and not is_alone(connection):
        raise NotAlone
    ids = room or connection.execute(NEW_IDS, {"lead_id": lead_id}).one()
    return OperatorRef(id=drawn.operator_id, name=drawn.operator_name) if drawn else None, seen, ids
