"""Counts that are kept, so that statistics of all time need not read a long history (design.md, "Statistics").

What is closed never changes again in what is counted: source, operator, topic and times stay, also when its lead is
merged or forgotten. So each contact is in one of three places: it was closed when its turn came, and is counted in
`contact_count`; it was open, and stands in `uncounted_contact` until it is closed and counted too; or its turn has not
come (`counted_up_to`). The last two are counted from their rows by whoever asks. So the sum is exact in each snapshot,
and who registers or closes a contact writes nothing here.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import Connection, case, cast, delete, func, insert, literal, union_all
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, SQLModel, col, select

from crm import fields
from crm.db.sql import seconds_between
from crm.fields import BIG, HAS_WAITED
from crm.models import Contact

log = logging.getLogger(__name__)

LIVE = 5_000  # the newest contacts, most of which are yet to be closed
BLOCK = 1_000  # contacts that are counted in one transaction, during which others wait


class ContactCount(SQLModel, table=True):
    __tablename__ = "contact_count"
    __table_args__ = ({"sqlite_with_rowid": False},)
    source_id: int = Field(primary_key=True, foreign_key="source.id", sa_type=fields.BIG)
    operator_id: int = Field(primary_key=True, sa_type=fields.BIG)  # 0: nobody's
    topic: str = Field(primary_key=True, max_length=100)
    is_sticky: bool = Field(primary_key=True)
    contacts: int = Field(sa_type=fields.BIG)
    assigned: int = Field(sa_type=fields.BIG)  # of these: who ever had an operator
    waited: int = Field(sa_type=fields.BIG)  # microseconds until then, of all together


class CountedUpTo(SQLModel, table=True):
    """One row, or none before anything is counted: the last contact whose turn has come."""

    __tablename__ = "counted_up_to"
    id: int = Field(primary_key=True, sa_type=fields.BIG)
    contact_id: int = Field(foreign_key="contact.id", sa_type=fields.BIG)


class UncountedContact(SQLModel, table=True):
    __tablename__ = "uncounted_contact"
    contact_id: int = Field(primary_key=True, foreign_key="contact.id", sa_type=fields.BIG)


class Count(NamedTuple):
    source_id: int
    operator_id: int | None
    topic: str
    is_sticky: bool
    contacts: int
    assigned: int
    waited: int


class Block(NamedTuple):
    """Whose turn it is: contacts with ids above `after`, up to `last`, and some that were left open and are closed."""

    after: int
    last: int
    closed: Sequence[int]


COUNTS: Any = tuple(ContactCount.__table__.c)  # type: ignore[attr-defined]
UP_TO = func.coalesce(func.max(CountedUpTo.contact_id), 0)
IS_LEFT_OPEN = col(Contact.id).in_(select(UncountedContact.contact_id))
IS_CLOSED = col(Contact.status) == "closed"
MICROSECONDS = func.round(seconds_between(col(Contact.assigned_at), col(Contact.created_at)) * 1_000_000)
FIGURES = (
    func.count(),
    func.count(col(Contact.assigned_at)),
    func.sum(cast(case((HAS_WAITED, MICROSECONDS), else_=0), BIG)),
)
SUMS = ("contacts", "assigned", "waited")
OPERATOR_ID = func.coalesce(Contact.operator_id, 0)
KEY: Any = (Contact.source_id, OPERATOR_ID, Contact.topic, Contact.is_sticky)
UPSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def read_counts(connection: Connection, of: Mapping[str, int], with_topic: bool = False) -> list[Count]:
    """The contacts of all time, in groups; several may be of one kind.

    of: only this source_id, or operator_id. with_topic: only those that have a topic, by topic, of which there may be
    very many; else all, and topic is "".
    """
    up_to = connection.execute(select(UP_TO)).scalar_one()  # not within, for PostgreSQL plans by its value

    def groups(table: Any, operator_id: Any, figures: Sequence[Any], *conditions: Any) -> Any:
        topic = [table.topic] if with_topic else []
        mine = [*([col(table.topic) != ""] if with_topic else []), *(getattr(table, name) == of[name] for name in of)]
        shown = (table.source_id, operator_id, *(topic or [literal("")]), table.is_sticky, *figures)
        grouped = (table.source_id, operator_id, *topic, table.is_sticky)
        return sqlalchemy.select(*shown).where(*mine, *conditions).group_by(*grouped)

    sums = [cast(func.sum(getattr(ContactCount, name)), BIG) for name in SUMS]
    kept = groups(ContactCount, ContactCount.operator_id, sums)
    live = (groups(Contact, OPERATOR_ID, FIGURES, each) for each in (col(Contact.id) > up_to, IS_LEFT_OPEN))
    return [
        Count(source_id, operator_id or None, topic, bool(is_sticky), contacts, assigned, waited)
        for source_id, operator_id, topic, is_sticky, contacts, assigned, waited in connection.execute(
            union_all(kept, *live)
        )
    ]


def next_block(connection: Connection, most: int = BLOCK) -> Block | None:
    """What is to be counted next, if there is enough of it. most: contacts."""
    after, highest = connection.execute(select(UP_TO, select(func.max(Contact.id)).scalar_subquery())).one()
    if (highest or 0) - LIVE - after < BLOCK:
        return None
    ids = select(Contact.id).where(col(Contact.id) > after, col(Contact.id) <= highest - LIVE)
    block = ids.order_by(col(Contact.id)).limit(most).subquery()
    last = connection.execute(select(func.max(block.c.id))).scalar()
    if last is None:  # a gap in the ids
        return None
    closed = select(Contact.id).where(IS_LEFT_OPEN, IS_CLOSED).limit(BLOCK)
    return Block(after, last, connection.execute(closed).scalars().all())


def count_block(connection: Connection, block: Block) -> None:
    """Alone: so no contact with a lower id can come any more, and none of them is just being closed."""
    if connection.execute(select(UP_TO)).scalar_one() != block.after:
        return  # another process has counted it
    in_turn = col(Contact.id) > block.after, col(Contact.id) <= block.last
    _add(connection, *in_turn)
    connection.execute(
        insert(UncountedContact).from_select(["contact_id"], select(Contact.id).where(*in_turn, ~IS_CLOSED))
    )
    if block.closed:
        _add(connection, col(Contact.id).in_(block.closed))
        connection.execute(delete(UncountedContact).where(col(UncountedContact.contact_id).in_(block.closed)))
    up_to: Any = UPSERTS[connection.dialect.name](CountedUpTo).values(id=1, contact_id=block.last)
    connection.execute(up_to.on_conflict_do_update(index_elements=["id"], set_={"contact_id": block.last}))


def _add(connection: Connection, *which: Any) -> None:
    """Adds the closed ones of these contacts."""
    groups = sqlalchemy.select(*KEY, *FIGURES).where(IS_CLOSED, *which).group_by(*KEY)
    add = UPSERTS[connection.dialect.name](ContactCount).from_select([column.name for column in COUNTS], groups)
    sums = {name: getattr(ContactCount, name) + add.excluded[name] for name in SUMS}
    key = [column for column in COUNTS if column.primary_key]
    connection.execute(add.on_conflict_do_update(index_elements=key, set_=sums))


def count_all(connection: Connection) -> None:
    """After a migration, alone: what an older version, or somebody past the service, has left; a long history once."""
    while block := next_block(connection, 50 * BLOCK):
        if block.after // 1_000_000 < block.last // 1_000_000:
            log.info("%s contacts of the history are counted", f"{block.last:,}")
        count_block(connection, block)
