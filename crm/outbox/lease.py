"""Which process sends: the lease, by the database's clock, and what a process looks at before it asks for it."""

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, exists, insert, literal, or_, select, update
from sqlmodel import col

from crm.db.base import Database
from crm.db.sql import now_seconds
from crm.outbox.tables import IS_WAITING, Delivery, Lease, Subscription

SECONDS = 30.0  # then another follows one that has died or is frozen
WRITES = 2  # at once: PostgreSQL begins one while it does the other, SQLite commits them together
MOST = 100  # tests and notices at once
SUBSCRIPTION: Any = tuple(Subscription.__table__.c)  # type: ignore[attr-defined]
DELIVERY: Any = tuple(Delivery.__table__.c)  # type: ignore[attr-defined]


class LeaseLost(Exception):
    """Another process sends by now."""


def take_lease(connection: Connection, holder: str, is_held: bool) -> bool:
    """Whether it is the holder's for the time to come: is_held: only if it still was."""
    mine = col(Lease.holder) == holder
    free = mine if is_held else or_(mine, col(Lease.until) < now_seconds())
    until = now_seconds() + SECONDS
    if connection.execute(update(Lease).where(free).values(holder=holder, until=until).returning(col(Lease.id))).all():
        return True
    first = select(literal(1), literal(holder), until).where(~exists(select(Lease)))
    add = insert(Lease).from_select(["id", "holder", "until"], first).returning(col(Lease.id))
    return not is_held and bool(connection.execute(add).all())


class Holder:
    """This process, as one that may hold the lease. Made in the event loop."""

    def __init__(self, database: Database) -> None:
        self.name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._database, self._writing = database, asyncio.Semaphore(WRITES)
        self._until = self._let_go_at = 0.0  # of the monotonic clock

    def is_held(self) -> bool:
        return time.monotonic() < self._until

    def is_to_be_renewed(self) -> bool:
        return time.monotonic() > self._until - SECONDS * 2 / 3

    def let_go(self) -> None:
        """Nothing is sent again before the lease could be written."""
        self._until, self._let_go_at = 0, time.monotonic()

    async def write(self, work: Callable[[Connection], Any], is_held: bool = True) -> Any:
        """In one transaction with the lease; is_held: as of `take_lease`. Raises LeaseLost."""

        def write(connection: Connection) -> Any:
            if not take_lease(connection, self.name, is_held):
                raise LeaseLost
            return work(connection)

        async with self._writing:  # the others would wait for the lease's row, each on a connection of the few
            begin = time.monotonic()
            result = await self._database.execute(write)
            if begin > self._let_go_at:  # else what was found out meanwhile is newer
                self._until = begin + SECONDS
            return result

    async def give_back(self) -> None:
        """So that another need not wait for its end."""
        if self.is_held():
            with suppress(Exception):  # else it ends by itself
                end = update(Lease).where(col(Lease.holder) == self.name).values(until=0)
                await self._database.execute(lambda connection: connection.execute(end))


class State:
    """What a look of one process sees."""

    def __init__(self, connection: Connection, holder: str) -> None:
        subscriptions = connection.execute(select(*SUBSCRIPTION)).all()
        self.active = [row for row in subscriptions if row.is_active]
        self.waiting: list[Any] = []
        self.is_free = True
        if subscriptions:
            by_id = {row.id: row for row in subscriptions}
            waiting = connection.execute(select(*DELIVERY).where(IS_WAITING).order_by(col(Delivery.id)).limit(MOST))
            self.waiting = [(row, by_id[row.subscription_id]) for row in waiting]
            lease = connection.execute(select(col(Lease.holder), col(Lease.until) - now_seconds())).one_or_none()
            self.is_free = lease is None or lease[0] == holder or lease[1] < 0
