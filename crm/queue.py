"""What waits, and what is moved: handed out from the queue, assigned by hand, released, passed on (design.md, "Queue").

Everything here runs under the write lock, like `distribution`.
"""

import heapq
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, bindparam, case, exists, func, insert, update
from sqlalchemy.orm import aliased
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from crm.db.base import is_alone
from crm.db.direct import run
from crm.db.sql import topics_of_queue
from crm.distribution import ENTRIES, LOAD, Entry, count_load, draw, entries_for, obstacle, unseen
from crm.errors import Conflict, NotAlone
from crm.events import note, note_assigned
from crm.fields import BIG, IS_OPEN, IS_PENDING, MAX_ID, Happened, Moved, utcnow
from crm.models import Assignment, Contact, Operator, Source, SourceOperator

ADD_ASSIGNMENT = insert(Assignment).inline()
CONTACTS: Any = sqlalchemy.select(
    *(col(Contact.id), col(Contact.lead_id), col(Contact.source_id), col(Contact.topic), col(Contact.operator_id)),
    *(col(Contact.priority), col(Contact.created_at), col(Contact.assigned_at)),
).order_by(col(Contact.priority).desc(), col(Contact.id))
QUEUE = CONTACTS.where(
    col(Contact.source_id) == bindparam("source_id"), col(Contact.topic) == bindparam("topic"), IS_PENDING
).limit(200)


def _existing(queues: Any, *conditions: Any) -> Any:
    return sqlalchemy.select(queues.c.source_id, queues.c.topic).where(queues.c.topic.is_not(None), *conditions)


ALL_QUEUES = _existing(topics_of_queue(sqlalchemy.select(col(Source.id).label("source_id"))))
QUEUES_OF_SOURCE = _existing(topics_of_queue(sqlalchemy.select(bindparam("source_id").label("source_id"))))


def _queues_of_operator() -> Any:
    mine = (col(SourceOperator.operator_id) == bindparam("operator_id"), col(SourceOperator.weight) > 0)
    queues = topics_of_queue(sqlalchemy.select(col(SourceOperator.source_id)).where(*mine).distinct())
    own = aliased(SourceOperator)
    here = (col(own.source_id) == queues.c.source_id, col(own.topic) == queues.c.topic)
    has_own = exists().where(*here, col(own.weight) > 0).correlate(queues)  # by itself it would not, from two levels up
    drawn_from = case((has_own, queues.c.topic), else_="")  # see entries_for
    serves = exists().where(
        *mine, col(SourceOperator.source_id) == queues.c.source_id, col(SourceOperator.topic) == drawn_from
    )
    has_room = exists().where(
        *(col(Operator.id) == bindparam("operator_id"), col(Operator.is_active), col(Operator.on_shift)),
        col(Operator.max_load) > LOAD - bindparam("leaving", type_=BIG),
    )
    return _existing(queues, serves, has_room)


QUEUES_OF_OPERATOR = _queues_of_operator()
OPEN_CONTACTS = CONTACTS.where(col(Contact.operator_id) == bindparam("operator_id"), IS_OPEN)
SETTINGS: Any = sqlalchemy.select(col(Source.sticky), col(Source.accept_within)).where(
    col(Source.id) == bindparam("source_id")
)
# Who had the lead's newest contact that anybody has, or had.
LAST_OPERATOR: Any = (
    sqlalchemy.select(col(Contact.id), col(Contact.operator_id))
    .where(col(Contact.lead_id) == bindparam("lead_id"), col(Contact.operator_id).is_not(None))
    .order_by(col(Contact.id).desc())
    .limit(1)
)
MOVE = (
    update(Contact)
    .where(col(Contact.id) == bindparam("contact"))
    .values(
        operator_id=bindparam("operator"),
        status=bindparam("new_status"),
        waits_since=bindparam("waits_since", type_=UTCDateTime()),
        due_at=bindparam("due_at", type_=UTCDateTime()),
        is_sticky=bindparam("is_sticky"),
        assigned_at=func.coalesce(col(Contact.assigned_at), bindparam("now", type_=UTCDateTime())),
    )
)


def line(contact_id: int, operator_id: int | None, reason: Happened, now: datetime) -> dict[str, Any]:
    """Of the history, for ADD_ASSIGNMENT: what happened to a contact besides that it was moved."""
    entry = {"contact_id": contact_id, "operator_id": operator_id, "reason": reason}
    return {**entry, "created_at": now, "candidates": []}


def read_last_operator(connection: Connection, lead_id: int) -> int | None:
    """Who has, or had, the newest of the lead's contacts that anybody did."""
    found = run(connection, LAST_OPERATOR, {"lead_id": lead_id})
    return int(found[0].operator_id) if found else None


class Distributor:
    """Hands on contacts that exist already: from the queue, by hand, or away from an operator who leaves or is silent.

    Works under the write lock. What others can't change meanwhile is read once: the settings and entries of a source,
    and the load of an operator, which then follows each assignment. So 10,000 waiting contacts need no 10,000 counts,
    and what happens to them is written in pages.
    """

    def __init__(self, connection: Connection, rng: random.Random) -> None:
        self._connection, self._rng, self._now = connection, rng, utcnow()
        self._settings: dict[int, Any] = {}
        self._entries: dict[int, Sequence[Entry]] = {}
        self._loads: dict[int, int] = {}
        self._last_operators: dict[int, tuple[int, int]] = {}  # by lead: of its newest contact that has one
        self._moves: list[dict[str, Any]] = []  # not written yet
        self._history: list[dict[str, Any]] = []

    def hand_out(self, source_id: int | None = None) -> int:
        """Hands out what waits at this source, or at all; returns how many contacts got an operator."""
        queues, of = (QUEUES_OF_SOURCE, {"source_id": source_id}) if source_id else (ALL_QUEUES, {})
        return self._from_queue(self._connection.execute(queues, of).all())

    def hand_out_to(self, operator_id: int) -> int:
        """The same after an operator may have got more room: only what waits where it is eligible can be affected.

        Raises NotAlone if there is anything.
        """
        return self._from_queue(self.waiting_for(operator_id))

    def waiting_for(self, operator_id: int, leaving: int = 0) -> Sequence[Any]:
        """The queues with contacts that this operator could take, when so many of its own have left it.

        Raises NotAlone if there are any.
        """
        queues = run(self._connection, QUEUES_OF_OPERATOR, {"operator_id": operator_id, "leaving": leaving})
        if queues and not is_alone(self._connection):
            raise NotAlone
        return queues

    def close(self, contact_id: int, operator_id: int | None, queues: Sequence[Any]) -> None:
        """Writes into the history that the contact, which is closed by now, is that, and gives its place to these."""
        run(self._connection, ADD_ASSIGNMENT, line(contact_id, operator_id, "closed", self._now))
        self._from_queue(queues)

    def assign(self, contact: Contact, operator: Operator | None, force: bool) -> None:
        """Gives an open contact to this operator or, if None, to one drawn among the eligible others.

        force goes past limit and inactivity. Raises Conflict: closed, inactive, full, or nobody else is eligible.
        """
        before = contact.operator_id
        if contact.status == "closed":
            raise Conflict(f"contact {contact.id} is closed: it can't be assigned")
        if operator is None:
            drawn, seen = self._draw(contact, excluded=[before])
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
            self._give(contact, operator.id, reason, self._seen_by_hand(contact, operator, load))
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
            drawn, seen = self._draw(contact, excluded=[operator_id])
            self._give(contact, drawn.operator_id if drawn else None, "released", seen)
            outcomes.append(drawn is not None)
        self._write()
        return sum(outcomes), len(outcomes) - sum(outcomes)

    def pass_on(self, contact: Any, had: Collection[int | None]) -> bool:
        """Draws a contact among others than these, with the reason `silent`; whether there is one."""
        drawn, seen = self._draw(contact, excluded=had)
        if drawn is not None:
            self._give(contact, drawn.operator_id, "silent", seen)
            self._write()
            self._loads.pop(contact.operator_id, None)
        return drawn is not None

    def serve(self, contact: Any) -> set[int]:
        """The operators with a weight for it, by id; eligible now or not."""
        return {entry.operator_id for entry in self._read_entries(contact) if entry.weight}

    def can_do_without(self, operator_id: int, contact: Any) -> bool:
        """Whether somebody else is eligible for what comes next, of this topic and of all that the operator serves."""
        entries = self._read_source(contact.source_id)
        topics = {entry.topic for entry in entries if entry.operator_id == operator_id and entry.weight}

        def could_take(entry: Entry) -> bool:
            is_other = entry.operator_id != operator_id
            return is_other and not obstacle(entry) and self._load(entry.operator_id) < entry.max_load

        return all(any(map(could_take, entries_for(topic, entries))) for topic in (contact.topic, *topics))

    def _from_queue(self, queues: Iterable[Any]) -> int:
        """Highest priority first, then oldest. Room only shrinks meanwhile, so that a queue for which nobody is
        eligible is done, and never holds up the others (design.md, "Queue").

        queues: each a source_id and a topic.
        """
        done: set[tuple[int, str]] = set()
        assigned = 0
        for _, _, contact in heapq.merge(*(self._queue(queue.source_id, queue.topic, done) for queue in queues)):
            preferred = self._last_operator(contact)
            drawn, seen = self._draw(contact, preferred=preferred)
            if drawn is None:
                done.add((contact.source_id, contact.topic))
            else:
                is_sticky = drawn.operator_id == preferred
                self._give(contact, drawn.operator_id, "sticky" if is_sticky else "from_queue", seen)
                assigned += 1
        self._write()
        if assigned:
            note(self._connection, "queue handed out", assigned=assigned)
        return assigned

    def _queue(self, source_id: int, topic: str, done: set[tuple[int, str]]) -> Iterator[tuple[int, int, Any]]:
        """What waits there, a page at a time, in a form that sorts by the order of handing out.

        What was taken is no longer pending when the next page is read, so that each page is the first.
        """
        while page := self._connection.execute(QUEUE, {"source_id": source_id, "topic": topic}).all():
            for contact in page:
                if (source_id, topic) in done:
                    return
                yield -contact.priority, contact.id, contact
            self._write()

    def _draw(
        self, contact: Any, excluded: Collection[int | None] = (), preferred: int | None = None
    ) -> tuple[Entry | None, list[dict[str, Any]]]:
        return draw(self._read_entries(contact), self._load, self._rng, excluded, preferred)

    def _read_source(self, source_id: int) -> Sequence[Entry]:
        if source_id not in self._entries:
            self._entries[source_id] = self._connection.execute(ENTRIES, {"source_id": source_id}).all()
        return self._entries[source_id]

    def _read_entries(self, contact: Any) -> Sequence[Entry]:
        return entries_for(contact.topic, self._read_source(contact.source_id))

    def _read_settings(self, source_id: int) -> Any:
        if source_id not in self._settings:
            self._settings[source_id] = self._connection.execute(SETTINGS, {"source_id": source_id}).one()
        return self._settings[source_id]

    def _load(self, operator_id: int) -> int:
        if operator_id not in self._loads:
            self._loads[operator_id] = count_load(self._connection, operator_id)
        return self._loads[operator_id]

    def _last_operator(self, contact: Any) -> int | None:
        """Who is asked first, if the source is sticky."""
        if self._read_settings(contact.source_id).sticky == "off":
            return None
        if contact.lead_id not in self._last_operators:
            self._write()  # it may be one of those
            found = self._connection.execute(LAST_OPERATOR, {"lead_id": contact.lead_id}).one_or_none()
            self._last_operators[contact.lead_id] = tuple(found) if found else (0, 0)
        return self._last_operators[contact.lead_id][1]

    def _seen_by_hand(self, contact: Any, operator: Operator, load: int) -> list[dict[str, Any]]:
        """What a draw would have stored, had it drawn this operator; one who doesn't serve the source has weight 0."""
        seen = {entry.operator_id: unseen(entry) for entry in self._read_entries(contact)}
        chosen = seen.setdefault(operator.id, {"operator_id": operator.id, "weight": 0})
        chosen |= {"outcome": "chosen", "load": load, "max_load": operator.max_load}
        return list(seen.values())

    def _give(self, contact: Any, operator_id: int | None, reason: Moved, seen: list[dict[str, Any]]) -> None:
        """Makes it the operator's as `new`, or nobody's as `pending`, and says so in the history. Checks no limit."""
        if operator_id in self._loads:
            self._loads[operator_id] += 1
        status, now = ("pending", None) if operator_id is None else ("new", self._now)
        accept_within = self._read_settings(contact.source_id).accept_within
        is_automatic = operator_id is not None and reason not in ("manual", "forced")
        due_at = self._now + timedelta(seconds=accept_within) if accept_within and is_automatic else None
        move = {"contact": contact.id, "operator": operator_id, "new_status": status, "now": now, "due_at": due_at}
        waits_since = None if operator_id else self._now
        self._moves.append({**move, "waits_since": waits_since, "is_sticky": reason == "sticky"})
        entry = {"contact_id": contact.id, "operator_id": operator_id, "reason": reason}
        self._history.append({**entry, "created_at": self._now, "candidates": seen})
        is_first = operator_id is not None and contact.assigned_at is None
        waited = (self._now - contact.created_at).total_seconds() if is_first else None
        note_assigned(self._connection, seen, **entry, source_id=contact.source_id, waited=waited)
        newest, _ = self._last_operators.get(contact.lead_id, (MAX_ID, 0))
        if operator_id is not None and contact.id > newest:
            self._last_operators[contact.lead_id] = contact.id, operator_id

    def _write(self) -> None:
        if self._moves:
            self._connection.execute(MOVE, self._moves)
            self._connection.execute(ADD_ASSIGNMENT, self._history)
            self._moves, self._history = [], []
