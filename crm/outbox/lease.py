"""Which process sends: the lease, by the database's clock, and what a process looks at before it asks for it."""

from typing import Any

from sqlalchemy import Connection, exists, insert, literal, or_, select, update
from sqlmodel import col

from crm.db.sql import now_seconds
from crm.outbox.tables import IS_WAITING, Delivery, Lease, Subscription

SECONDS = 30.0  # then another follows one that has died or is frozen
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
