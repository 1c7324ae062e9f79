"""What waits, and what is moved: handed out from the queue, assigned by hand, released (design.md, "Queue").

Everything here runs under the write lock, like `distribution`.
"""

import heapq
import random
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, bindparam, exists, func, insert, update
from sqlmodel import col, select
from sqlmodel.sql.sqltypes import UTCDateTime

from crm.db.base import is_alone
from crm.distribution import ENTRIES, LOAD, Entry, count_load, draw, unseen
from crm.errors import Conflict, NotAlone
from crm.events import note, note_assigned
from crm.fields import IS_NOT_OVERDUE_YET, IS_OPEN, IS_PENDING, Happened, Moved, utcnow
from crm.models import Assignment, Contact, Operator, Source, SourceOperator

ADD_ASSIGNMENT = insert(Assignment).inline()
CONTACTS: Any = sqlalchemy.select(
    col(Contact.id), col(Contact.source_id), col(Contact.priority), col(Contact.created_at), col(Contact.assigned_at)
).order_by(col(Contact.priority).desc(), col(Contact.id))
QUEUE = CONTACTS.where(col(Contact.source_id) == bindparam("source_id"), IS_PENDING).limit(200)
HAS_QUEUE = exists().where(col(Contact.source_id) == col(Source.id), IS_PENDING)
SOURCES_WITH_QUEUE = select(col(Source.id)).where(HAS_QUEUE)
QUEUES_OF_OPERATOR = (
    SOURCES_WITH_QUEUE.join(SourceOperator, col(SourceOperator.source_id) == col(Source.id))
    .join(Operator, col(Operator.id) == col(SourceOperator.operator_id))
    .where(col(Operator.id) == bindparam("operator_id"), col(Operator.is_active), col(SourceOperator.weight) > 0)
    .where(col(Operator.max_load) > LOAD)
)
OPEN_CONTACTS = CONTACTS.where(col(Contact.operator_id) == bindparam("operator_id"), IS_OPEN)
MOVE = (
    update(Contact)
    .where(col(Contact.id) == bindparam("contact"))
    .values(
        operator_id=bindparam("operator"),
        status=bindparam("new_status"),
        waits_since=bindparam("waits_since", type_=UTCDateTime()),
        assigned_at=func.coalesce(col(Contact.assigned_at), bindparam("now", type_=UTCDateTime())),
    )
)

WAS_OVERDUE = exists().where(col(Assignment.contact_id) == col(Contact.id), col(Assignment.reason) == "overdue")
OVERDUE: Any = (
    sqlalchemy.select(col(Contact.id), WAS_OVERDUE.label("was_overdue"))
    .where(col(Contact.waits_since) < bindparam("before", type_=UTCDateTime()), IS_NOT_OVERDUE_YET)
    .order_by(col(Contact.waits_since))
    .limit(500)
)
SEEN = update(Contact).where(col(Contact.id).in_(bindparam("ids", expanding=True))).values(waits_since=None)


def line(contact_id: int, operator_id: int | None, reason: Happened, now: datetime) -> dict[str, Any]:
    """Of the history, for ADD_ASSIGNMENT: what happened to a contact besides that it was moved."""
    entry = {"contact_id": contact_id, "operator_id": operator_id, "reason": reason}
    return {**entry, "created_at": now, "candidates": []}


def is_any_overdue(connection: Connection, before: datetime) -> bool:
    return connection.execute(OVERDUE, {"before": before}).first() is not None


def tell_overdue(connection: Connection, before: datetime) -> None:
    """Writes into the history which contacts have waited since before that moment, once for each contact: of the first
    500, so that others can write in between."""
    now = utcnow()
    overdue = connection.execute(OVERDUE, {"before": before}).all()
    if lines := [line(contact.id, None, "overdue", now) for contact in overdue if not contact.was_overdue]:
        connection.execute(ADD_ASSIGNMENT, lines)
    connection.execute(SEEN, {"ids": [contact.id for contact in overdue]})


class Distributor:
    """Hands on contacts that exist already: from the queue, by hand, or away from an operator who leaves.

    Works under the write lock. What others can't change meanwhile is read once: the entries of a source, and the load
    of an operator, which then follows each assignment. So 10,000 waiting contacts need no 10,000 counts, and what
    happens to them is written in pages.
    """

    def __init__(self, connection: Connection, rng: random.Random) -> None:
        self._connection, self._rng, self._now = connection, rng, utcnow()
        self._entries: dict[int, Sequence[Entry]] = {}
        self._loads: dict[int, int] = {}
        self._moves: list[dict[str, Any]] = []  # not written yet
        self._history: list[dict[str, Any]] = []

    def hand_out(self, source_id: int | None = None) -> int:
        """Hands out what waits at this source, or at all; returns how many contacts got an operator."""
        sources = [source_id] if source_id else self._connection.execute(SOURCES_WITH_QUEUE).scalars().all()
        return self._from_queue(sources)

    def hand_out_to(self, operator_id: int) -> int:
        """The same after an operator may have got more room: only what waits where it is eligible can be affected.

        Raises NotAlone if there is anything.
        """
        return self._from_queue(self._waiting_for(operator_id))

    def close(self, contact_id: int, operator_id: int | None) -> None:
        """Writes into the history that the contact, which is closed by now, is that, and hands out the place.

        Raises NotAlone if somebody waits for it: before the line is written, else the id that it took would be missing.
        """
        sources = self._waiting_for(operator_id) if operator_id is not None else []
        self._connection.execute(ADD_ASSIGNMENT, line(contact_id, operator_id, "closed", self._now))
        self._from_queue(sources)

    def assign(self, contact: Contact, operator: Operator | None, force: bool) -> None:
        """Gives an open contact to this operator or, if None, to one drawn among the eligible others.

        force goes past limit and inactivity. Raises Conflict: closed, inactive, full, or nobody else is eligible.
        """
        before = contact.operator_id
        if contact.status == "closed":
            raise Conflict(f"contact {contact.id} is closed: it can't be assigned")
        if operator is None:
            drawn, seen = self._draw(contact.source_id, excluded=before)
            if drawn is None:
                raise Conflict(f"no other operator of source {contact.source_id} can take contact {contact.id} now")
            self._give(contact, drawn.operator_id, "manual", seen)
        elif operator.id != before:
            load = self._load(operator.id)
            is_full = load >= operator.max_load
            if (is_full or not operator.is_active) and not force:
                why = f"full: {load} of {operator.max_load}" if operator.is_active else "inactive"
                raise Conflict(f"operator {operator.id} is {why}")
            reason: Moved = "forced" if is_full or not operator.is_active else "manual"
            self._give(contact, operator.id, reason, self._seen_by_hand(contact.source_id, operator, load))
        self._write()
        if before is not None and (operator is None or operator.id != before):
            self._loads.pop(before, None)
            self.hand_out_to(before)

    def release(self, operator_id: int) -> tuple[int, int]:
        """Takes the open contacts of an operator, who must be inactive by now: highest priority first, then oldest.

        Returns how many were drawn to others, and how many went back to the queue.
        """
        outcomes = []
        for contact in self._connection.execute(OPEN_CONTACTS, {"operator_id": operator_id}).all():
            drawn, seen = self._draw(contact.source_id, excluded=operator_id)
            self._give(contact, drawn.operator_id if drawn else None, "released", seen)
            outcomes.append(drawn is not None)
        self._write()
        return sum(outcomes), len(outcomes) - sum(outcomes)

    def _waiting_for(self, operator_id: int) -> Sequence[int]:
        """The sources with contacts that this operator could take. Raises NotAlone if there are any."""
        sources = self._connection.execute(QUEUES_OF_OPERATOR, {"operator_id": operator_id}).scalars().all()
        if sources and not is_alone(self._connection):
            raise NotAlone
        return sources

    def _from_queue(self, source_ids: Iterable[int]) -> int:
        """Highest priority first, then oldest. Room only shrinks meanwhile, so that a source for which nobody is
        eligible is done, and never holds up the others (design.md, "Queue")."""
        done: set[int] = set()
        assigned = 0
        for _, _, contact in heapq.merge(*(self._queue(source_id, done) for source_id in source_ids)):
            drawn, seen = self._draw(contact.source_id)
            if drawn is None:
                done.add(contact.source_id)
            else:
                self._give(contact, drawn.operator_id, "from_queue", seen)
                assigned += 1
        self._write()
        if assigned:
            note(self._connection, "queue handed out", assigned=assigned)
        return assigned

    def _queue(self, source_id: int, done: set[int]) -> Iterator[tuple[int, int, Any]]:
        """What waits at a source, a page at a time, in a form that sorts by the order of handing out.

        What was taken is no longer pending when the next page is read, so that each page is the first.
        """
        while page := self._connection.execute(QUEUE, {"source_id": source_id}).all():
            for contact in page:
                if source_id in done:
                    return
                yield -contact.priority, contact.id, contact
            self._write()

    def _draw(self, source_id: int, excluded: int | None = None) -> tuple[Entry | None, list[dict[str, Any]]]:
        return draw(self._read_entries(source_id), self._load, self._rng, excluded)

    def _read_entries(self, source_id: int) -> Sequence[Entry]:
        if source_id not in self._entries:
            self._entries[source_id] = self._connection.execute(ENTRIES, {"source_id": source_id}).all()
        return self._entries[source_id]

    def _load(self, operator_id: int) -> int:
        if operator_id not in self._loads:
            self._loads[operator_id] = count_load(self._connection, operator_id)
        return self._loads[operator_id]

    def _seen_by_hand(self, source_id: int, operator: Operator, load: int) -> list[dict[str, Any]]:
        """What a draw would have stored, had it drawn this operator; one who doesn't serve the source has weight 0."""
        seen = {entry.operator_id: unseen(entry) for entry in self._read_entries(source_id)}
        chosen = seen.setdefault(operator.id, {"operator_id": operator.id, "weight": 0})
        chosen |= {"outcome": "chosen", "load": load, "max_load": operator.max_load}
        return list(seen.values())

    def _give(self, contact: Any, operator_id: int | None, reason: Moved, seen: list[dict[str, Any]]) -> None:
        """Makes it the operator's as `new`, or nobody's as `pending`, and says so in the history. Checks no limit."""
        if operator_id in self._loads:
            self._loads[operator_id] += 1
        status, now = ("pending", None) if operator_id is None else ("new", self._now)
        move = {"contact": contact.id, "operator": operator_id, "new_status": status, "now": now}
        self._moves.append({**move, "waits_since": None if operator_id else self._now})
        entry = {"contact_id": contact.id, "operator_id": operator_id, "reason": reason}
        self._history.append({**entry, "created_at": self._now, "candidates": seen})
        is_first = operator_id is not None and contact.assigned_at is None
        waited = (self._now - contact.created_at).total_seconds() if is_first else None
        note_assigned(self._connection, seen, **entry, source_id=contact.source_id, waited=waited)

    def _write(self) -> None:
        if self._moves:
            self._connection.execute(MOVE, self._moves)
            self._connection.execute(ADD_ASSIGNMENT, self._history)
            self._moves, self._history = [], []
