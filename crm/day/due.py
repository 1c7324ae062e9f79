"""What is due by time (design.md, "A team's day"): shifts that begin or end, contacts that nobody has accepted, and
those that have waited for too long.

The first two come before every draw, under the same lock: with a timer alone, contacts would go to people in the second
after their shift. `clock` does all three when nothing comes in. Done twice it changes nothing.
"""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Connection, bindparam, exists, or_, update
from sqlmodel import col, select
from sqlmodel.sql.sqltypes import UTCDateTime

from crm.day.shifts import ENDS, switch_shifts
from crm.db.base import Database
from crm.events import note
from crm.fields import IS_NOT_OVERDUE_YET, utcnow
from crm.models import Assignment, Contact, Operator, Source
from crm.queue import ADD_ASSIGNMENT, CONTACTS, Distributor, line

T = TypeVar("T")

IS_SILENT = col(Contact.due_at) <= bindparam("now", type_=UTCDateTime())
IS_DUE = or_(exists().where(ENDS), exists().where(IS_SILENT))  # whether there is something for `catch_up`
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
PAUSE = update(Operator).where(col(Operator.id) == bindparam("operator")).values(is_active=False)
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


async def in_time(database: Database, rng: random.Random, work: Callable[[Connection], T]) -> T:
    """`Database.execute` of work that may raise IsDue: then that is done first, which may take longer."""
    while True:
        try:
            return await database.execute(work)
        except IsDue:
            await database.write(lambda session: catch_up(session.connection(), rng))


def is_due(connection: Connection, now: datetime) -> bool:
    """Whether there is something for `catch_up`."""
    return bool(connection.execute(sqlalchemy.select(IS_DUE), {"now": now}).scalar_one())


def catch_up(connection: Connection, rng: random.Random) -> None:
    """Switches shifts, passes on what was not accepted, and hands out the room that this makes; alone."""
    now = utcnow()
    if not is_due(connection, now):
        return
    has_room = bool(switch_shifts(connection, now))
    for contact in connection.execute(SILENT, {"now": now}).all():
        has_room |= pass_on(connection, contact, rng, now)
    if has_room:
        Distributor(connection, rng).hand_out()


def pass_on(connection: Connection, contact: Any, rng: random.Random, now: datetime) -> bool:
    """Draws a contact that was not accepted in time among those who never had it (design.md, "Acceptance").

    Returns whether it went to another, so that who had it has room.
    """
    distributor, silent = Distributor(connection, rng), contact.operator_id
    due = None
    if contact.accept_within is not None:  # else it is off by now
        had = set(connection.execute(HAD, {"contact_id": contact.id}).scalars())
        if distributor.pass_on(contact, had):
            if contact.silence_pauses and distributor.can_do_without(silent, contact):
                connection.execute(PAUSE, {"operator": silent})
                note(connection, "operator paused", operator_id=silent, contact_id=contact.id)
            return True
        if distributor.serve(contact) - had:  # somebody may come, or get room
            due = now + timedelta(seconds=contact.accept_within)
        else:
            connection.execute(ADD_ASSIGNMENT, line(contact.id, silent, "unaccepted", now))
    connection.execute(SET_DUE, {"contact": contact.id, "due": due})
    return False


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
