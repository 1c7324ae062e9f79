"""What is due by time (design.md, "A team's day"): shifts that begin or end, contacts that nobody has accepted, and
those that have waited for too long.

The first two come before every draw that they matter to, under the same lock: with a timer alone, contacts would go to
people in the second after their shift. `clock` does all three when nothing comes in. Done twice it changes nothing.
"""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Connection, bindparam, exists, func, or_, update
from sqlmodel import Session, col, select
from sqlmodel.sql.sqltypes import UTCDateTime

from crm.day.shifts import ENDS, switch_shifts
from crm.db.base import Database
from crm.events import note
from crm.fields import HAS_DUE_AT, IS_NOT_OVERDUE_YET, utcnow
from crm.models import Assignment, Contact, Operator, Source
from crm.queue import ADD_ASSIGNMENT, CONTACTS, Distributor, line

T = TypeVar("T")

IS_SILENT = col(Contact.due_at) <= bindparam("now", type_=UTCDateTime())
# Not "exists", for which PostgreSQL, as long as it has no statistics, reads the whole table.
FIRST_DUE: Any = select(func.min(col(Contact.due_at))).where(HAS_DUE_AT).scalar_subquery()
# Whether there is something for `catch_up`.
IS_DUE = or_(exists().where(ENDS), func.coalesce(bindparam("now", type_=UTCDateTime()) >= FIRST_DUE, False))
SILENT: Any = (
    CONTACTS.add_columns(col(Source.accept_within), col(Source.silence_pauses))
    .join(Source, col(Source.id) == col(Contact.source_id))
    .where(IS_SILENT)
    .order_by(None)
    .order_by(col(Contact.due_at), col(Contact.id))
    .limit(500)
)
HAD = select(col(Assignment.operator_id)).where(
    col(Assignment.contact_id) == bindparam("contact_id"), col(Assignment.operator_id).is_not(None)
)
SET_DUE = (
    update(Contact).where(col(Contact.id) == bindparam("contact")).values(due_at=bindparam("due", type_=UTCDateTime()))
)
PAUSE = (
    update(Operator)
    .where(col(Operator.id) == bindparam("operator"), col(Operator.is_active), col(Operator.on_shift))
    .values(is_active=False)
)
WAS_OVERDUE = exists().where(col(Assignment.contact_id) == col(Contact.id), col(Assignment.reason) == "overdue")
OVERDUE: Any = (
    sqlalchemy.select(col(Contact.id), WAS_OVERDUE.label("was_overdue"))
    .where(col(Contact.waits_since) < bindparam("before", type_=UTCDateTime()), IS_NOT_OVERDUE_YET)
    .order_by(col(Contact.waits_since))
    .limit(500)
)
SEEN = update(Contact).where(col(Contact.id).in_(bindparam("ids", expanding=True))).values(waits_since=None)


class IsDue(Exception):
    """Something is due by time, and comes before the draw that this was to be."""


async def in_time(
    database: Database, rng: random.Random, work: Callable[[Connection, bool], T], about: int | str | None = None
) -> T:
    """`Database.execute` of work that may raise IsDue, unless it is told that what is due has been done: then both are
    done in one transaction, in a thread, for it may take long."""

    def catch_up_and_work(session: Session) -> T:
        catch_up(session.connection(), rng)
        return work(session.connection(), True)

    try:
        return await database.execute(lambda connection: work(connection, False), about)
    except IsDue:
        return await database.write(catch_up_and_work)


def is_due(connection: Connection, now: datetime) -> bool:
    """Whether there is something for `catch_up`."""
    return bool(connection.execute(sqlalchemy.select(IS_DUE), {"now": now}).scalar_one())


def catch_up(connection: Connection, rng: random.Random) -> None:
    """Switches shifts, hands out what waits for who came, and passes on what was not accepted; alone. Of that the first
    500, so that others can write in between."""
    now = utcnow()
    if not is_due(connection, now):
        return
    if switch_shifts(connection, now):
        Distributor(connection, rng).hand_out()
    distributor, has_room = Distributor(connection, rng), False
    for contact in connection.execute(SILENT, {"now": now}).all():
        if pass_on(connection, distributor, contact, now):
            has_room = True
            if contact.silence_pauses and distributor.can_do_without(contact.operator_id, contact):
                pause(connection, contact)
                distributor = Distributor(connection, rng)  # the other has read that the operator is active
    if has_room:
        Distributor(connection, rng).hand_out()


def pass_on(connection: Connection, distributor: Distributor, contact: Any, now: datetime) -> bool:
    """Draws a contact that was not accepted in time among those who never had it (design.md, "Acceptance").

    Returns whether it went to another, so that who had it has room.
    """
    due = None
    if contact.accept_within is not None:  # else it is off by now
        had = set(connection.execute(HAD, {"contact_id": contact.id}).scalars())
        if distributor.pass_on(contact, had):
            return True
        if distributor.serve(contact) - had:  # somebody may come, or get room
            due = now + timedelta(seconds=contact.accept_within)
        else:
            connection.execute(ADD_ASSIGNMENT, line(contact.id, contact.operator_id, "unaccepted", now))
    connection.execute(SET_DUE, {"contact": contact.id, "due": due})
    return False


def pause(connection: Connection, contact: Any) -> None:
    """Who let the contact pass: unless it is off shift by now, when it could not have started it."""
    if connection.execute(PAUSE, {"operator": contact.operator_id}).rowcount:
        note(connection, "operator paused", operator_id=contact.operator_id, contact_id=contact.id)


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
