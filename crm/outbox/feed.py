"""What happened to contacts, for whoever reads on from a cursor (design.md, "Events").

The history is the outbox: written in the transaction of what it tells, never changed, and its ids are the cursor. One
task in each process finds out up to which id nothing can come any more, and reads what is new once for all who follow.

An event is the same whenever it is read, for it is made of its line of the history and of what a contact never changes.
Three things are as they are now: the name of the operator, whose contact it is if two leads were made one (or two
again), and whether it is then the first of that lead (`new`).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from itertools import takewhile
from typing import Any, NamedTuple, get_args

import sqlalchemy
from fastapi.sse import format_sse_event
from sqlalchemy import Connection, bindparam, case, exists, func
from sqlalchemy.orm import aliased
from sqlmodel import Field, SQLModel, col

from crm.db.base import Database, in_thread
from crm.db.direct import run
from crm.fields import ContactStatus, EventType, Happened, Reason
from crm.models import Assignment, Contact, Operator, OperatorRef

EVERY = 0.2  # seconds: a look for what other processes wrote, while somebody follows
PAUSE = 0.05  # seconds after a look: what comes meanwhile is read together
RECENT = 1000  # events that are kept for all
WINDOW = 20_000  # ids that one statement goes through, however few of them are wanted
log = logging.getLogger(__name__)

STATUSES: dict[EventType, ContactStatus] = {
    "contact.assigned": "new",
    "contact.queued": "pending",
    "contact.started": "in_progress",
    "contact.closed": "closed",
    "contact.overdue": "pending",
    "contact.unaccepted": "new",
}
TYPE = case(
    *((col(Assignment.reason) == reason, f"contact.{reason}") for reason in get_args(Happened)),
    (col(Assignment.operator_id).is_not(None), "contact.assigned"),
    else_="contact.queued",
)
Earlier = aliased(Contact)
EVENTS: Any = (
    sqlalchemy.select(
        *(col(Assignment.id), col(Assignment.created_at), col(Assignment.contact_id), col(Assignment.reason)),
        TYPE.label("type"),
        *(col(Assignment.operator_id), col(Operator.name).label("operator_name")),
        *(col(Contact.event_id), col(Contact.source_id), col(Contact.lead_id)),
        (~exists().where(col(Earlier.lead_id) == col(Contact.lead_id), col(Earlier.id) < col(Contact.id))).label("new"),
    )
    .select_from(Assignment)
    .outerjoin(Contact, col(Contact.id) == col(Assignment.contact_id))  # outer, lest SQLite begin with the contacts
    .outerjoin(Operator, col(Operator.id) == col(Assignment.operator_id))
    .where(col(Assignment.id) > bindparam("after"), col(Assignment.id) <= bindparam("last"))
    .order_by(col(Assignment.id))
    .limit(bindparam("limit"))
)


class ContactEventData(SQLModel):
    contact_id: int
    event_id: str | None = Field(description="What the bot called the event of this contact.")
    source_id: int
    lead_id: int
    operator: OperatorRef | None = Field(description="Who has it now; null: nobody.")
    status: ContactStatus
    reason: Reason = Field(description="As in the contact's history.")
    new: bool = Field(description="Whether it is the first contact of its lead.")


class ContactEvent(SQLModel):
    """Something that happened to a contact; without anything that the lead said or is known by."""

    id: int = Field(description="The cursor: `after` it come the later ones.")
    type: EventType
    timestamp: datetime
    data: ContactEventData

    @cached_property
    def json_text(self) -> str:
        """Made once for all who get it."""
        return self.model_dump_json()

    @cached_property
    def sse(self) -> bytes:
        """As a server-sent event."""
        return format_sse_event(id=str(self.id), event=self.type, data_str=self.json_text)


def event_of(row: Any) -> ContactEvent:
    operator = None if row.operator_id is None else OperatorRef(id=row.operator_id, name=row.operator_name)
    data = ContactEventData.model_construct(
        **{name: getattr(row, name) for name in ("contact_id", "event_id", "source_id", "lead_id", "reason", "new")},
        operator=operator,
        status=STATUSES[row.type],
    )
    return ContactEvent.model_construct(id=row.id, type=row.type, timestamp=row.created_at, data=data)


class Wanted(NamedTuple):
    """Which events a reader asks for; None: all."""

    types: frozenset[EventType] | None = None
    source_id: int | None = None
    operator_id: int | None = None

    def has(self, event: ContactEvent) -> bool:
        operator = event.data.operator
        return (
            (self.types is None or event.type in self.types)
            and self.source_id in (None, event.data.source_id)
            and (self.operator_id is None or (operator is not None and operator.id == self.operator_id))
        )

    def of(self, statement: Any) -> Any:
        if self.types is not None:
            statement = statement.where(TYPE.in_(sorted(self.types)))
        if self.source_id is not None:
            source_id = func.coalesce(Contact.source_id, Contact.source_id)  # in no index: see EVENTS
            statement = statement.where(source_id == self.source_id)
        if self.operator_id is not None:
            statement = statement.where(col(Assignment.operator_id) == self.operator_id)
        return statement


ALL = Wanted()


def read_events(
    connection: Connection, after: int, last: int, wanted: Wanted = ALL, limit: int = RECENT
) -> list[ContactEvent]:
    """Those with ids above `after` and up to `last`, oldest first."""
    bounds = {"after": after, "last": last, "limit": limit}
    rows = run(connection, EVENTS, bounds) if wanted == ALL else connection.execute(wanted.of(EVENTS), bounds)
    return [event_of(row) for row in rows]


class Feed:
    """One for each process. Nothing of it is done while nobody reads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._head: int | None = None  # as from Database.settled
        self._recent: list[ContactEvent] = []
        self._recent_after = 0  # all from here to the head are in it
        self._followers = 0
        self.closed = asyncio.Event()

    def start(self) -> None:
        """In the event loop."""
        self._loop, self._wanted = asyncio.get_running_loop(), asyncio.Event()
        self._next: asyncio.Future[None] = self._loop.create_future()  # of the look that begins next
        self._seen: asyncio.Future[None] = self._loop.create_future()  # of whichever look ends next
        self._task = asyncio.create_task(self._run())
        self._database.after_commit = self._look_if_followed

    def close(self) -> None:
        """Ends everybody's following, for the service is to stop. From any thread, or from within a signal."""

        def end() -> None:
            self.closed.set()
            self._task.cancel()

        self._loop.call_soon_threadsafe(end)

    async def stop(self) -> None:
        self.close()
        await asyncio.wait([self._task])

    async def head(self) -> int:
        """The id up to which all is there to be read: what was committed before this call is.

        Raises OperationalError when the database is away.
        """
        look = self._next
        self._wanted.set()
        await asyncio.wait([look])
        if look.cancelled():  # closed
            return self._head or 0
        look.result()
        return self._head or 0

    async def follow(
        self, after: int, wanted: Wanted = ALL, limit: int = 100, idle: float = 15
    ) -> AsyncGenerator[tuple[list[ContactEvent], int]]:
        """Pages of events as they come, each with the cursor to read on from; after `idle` seconds without any, none.

        The cursor moves on over what is not wanted too. A page is read when it is asked for, so who is slow costs
        nothing. Ends when the service stops. Raises OperationalError when the database is away.
        """
        await self.head()
        deadline, is_follower = self._loop.time() + idle, False
        try:
            while not self.closed.is_set():
                events, after = await self.read(after, wanted, limit)
                is_all = after >= (self._head or 0)
                if events or (is_all and self._loop.time() >= deadline):
                    yield events, after
                    deadline = self._loop.time() + idle
                elif is_all:
                    if not is_follower:
                        self._followers, is_follower = self._followers + 1, True
                        self._wanted.set()  # from now on again and again
                    await asyncio.wait([self._seen], timeout=deadline - self._loop.time())
        finally:
            self._followers -= is_follower

    async def read(self, after: int, wanted: Wanted, limit: int) -> tuple[list[ContactEvent], int]:
        """A page, and the cursor. An empty one need not be the last: one statement reads only so many ids."""
        head = self._head or 0
        if after >= head:
            return [], after
        if after >= self._recent_after:
            new = takewhile(lambda event: event.id > after, reversed(self._recent))
            events = [event for event in new if wanted.has(event)][: -limit - 1 : -1]
        else:
            head = min(head, after + WINDOW)
            async with self._database.read() as session:
                events = await in_thread(lambda: read_events(session.connection(), after, head, wanted, limit))
        return events, (events[-1].id if len(events) == limit else head)

    def _look_if_followed(self) -> None:
        if self._followers:
            self._wanted.set()

    async def _run(self) -> None:
        look, is_well = self._next, True
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY if self._followers else None):
                        await self._wanted.wait()
                self._wanted.clear()
                look, self._next = self._next, self._loop.create_future()
                try:
                    await self._look()
                    look.set_result(None)
                    self._seen.set_result(None)
                    self._seen = self._loop.create_future()
                    is_well = True
                except Exception as error:  # who waits for it is told, who follows waits on
                    if is_well:
                        log.warning("events can't be read for now: %s", type(error).__name__)
                    is_well = False
                    look.set_exception(error)
                    look.exception()  # it may be that nobody waits
                await asyncio.sleep(PAUSE if self._followers else 0)
        finally:
            look.cancel()
            self._next.cancel()
            self._seen.cancel()

    async def _look(self) -> None:
        before, head = self._head, await self._database.settled(self._head)
        if before is None or not self._followers:
            self._recent, self._recent_after = [], head
        elif head > before:
            begin = max(before, head - RECENT)
            new = await self._database.look(lambda connection: read_events(connection, begin, head))
            if begin > before:  # what is between is too much to keep
                self._recent, self._recent_after = [], begin
            kept = self._recent + new
            if len(kept) > RECENT:
                self._recent_after = kept[-RECENT - 1].id
            self._recent = kept[-RECENT:]
        self._head = head
