"""Which two leads may be one person: noted when a contact names both, until somebody decides."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, bindparam, case, delete, func, insert, union
from sqlalchemy.orm import aliased
from sqlmodel import AutoString, Session, col
from sqlmodel.sql.sqltypes import UTCDateTime

from crm.fields import BIG, IdentifierKind
from crm.leads.tables import Duplicate, LeadAct, about, between
from crm.models import Lead

_lead, _other, _contact = (bindparam(name, type_=BIG) for name in ("lead", "other", "contact"))
_kind, _value = (bindparam(name, type_=AutoString()) for name in ("evidence_kind", "evidence_value"))
_is_known = (col(Duplicate.kind) == _kind, col(Duplicate.value) == _value)
IS_DECIDED = col(LeadAct.act).in_(("merged", "told_apart"))
ADD = insert(Duplicate).from_select(
    ["created_at", "lead_id", "other_id", "kind", "value", "contact_id"],
    sqlalchemy.select(bindparam("now", type_=UTCDateTime()), _lead, _other, _kind, _value, _contact).where(
        ~between(Duplicate, _lead, _other, *_is_known).exists(), ~between(LeadAct, _lead, _other, IS_DECIDED).exists()
    ),
    include_defaults=False,
)

One, Other = aliased(Lead), aliased(Lead)
_ids = [func.coalesce(lead.merged_into, lead.id) for lead in (One, Other)]
_in_order = _ids[0] < _ids[1]
LOWER, HIGHER = case((_in_order, _ids[0]), else_=_ids[1]), case((_in_order, _ids[1]), else_=_ids[0])


def _evidence(*columns: Any) -> Any:
    """Of each row of `duplicate` the two leads that it speaks of now, and these columns."""
    return (
        sqlalchemy.select(LOWER.label("lower"), HIGHER.label("higher"), *columns)
        .select_from(Duplicate)
        .join(One, col(One.id) == col(Duplicate.lead_id))
        .join(Other, col(Other.id) == col(Duplicate.other_id))
    )


PAIRS = _evidence(func.max(Duplicate.id).label("newest")).group_by(LOWER, HIGHER).order_by(sqlalchemy.desc("newest"))


def note_duplicates(
    connection: Connection,
    lead_id: int,
    others: Mapping[IdentifierKind, tuple[str, int]],
    contact_id: int,
    now: datetime,
) -> None:
    """Of a contact whose identifiers name more than one lead. others: by kind each value and whose it is.

    Writes nothing twice, and nothing about a pair that was decided. Under the write lock, which may be shared: who
    writes the same at once fails on its unique key.
    """
    for kind, (value, other_id) in sorted(others.items()):
        evidence = {"evidence_kind": kind, "evidence_value": value, "contact": contact_id, "now": now}
        connection.execute(ADD, {"lead": lead_id, "other": other_id, **evidence})


def read_pairs(connection: Connection, page: Any) -> dict[tuple[int, int], list[Any]]:
    """The ids of two leads each, and what speaks for them, newest first. page: a part of PAIRS."""
    pairs = page.subquery()
    columns = (col(Duplicate.kind), col(Duplicate.value), col(Duplicate.contact_id), col(Duplicate.created_at))
    found: dict[tuple[int, int], list[Any]] = {}
    for row in connection.execute(
        _evidence(*columns)
        .join(pairs, (pairs.c.lower == LOWER) & (pairs.c.higher == HIGHER))
        .order_by(pairs.c.newest.desc(), col(Duplicate.id).desc())
    ):
        found.setdefault((row.lower, row.higher), []).append(row)
    return found


def tell_apart(session: Session, lead_id: int, other_id: int, who: str) -> bool:
    """Closes the pair of these two, for good; False: there is none."""
    is_closed = _close_pair(session, lead_id, other_id)
    if is_closed:
        session.add(LeadAct(act="told_apart", lead_id=lead_id, other_id=other_id, who=who, contacts=0))
        session.flush()
    return is_closed


def _close_pair(session: Session, lead_id: int, other_id: int) -> bool:
    """Whether there was one. That it stays closed, an act says that is written with it."""
    ids = between(Duplicate, lead_id, other_id)
    return session.connection().execute(delete(Duplicate).where(col(Duplicate.id).in_(ids))).rowcount > 0


def close_decided(session: Session, lead_id: int) -> None:
    """After another was merged into it: what was decided about either holds for both, and they are one."""
    acts = (col(LeadAct.id).in_(about(LeadAct, lead_id)), IS_DECIDED)
    sides = (col(LeadAct.lead_id), col(LeadAct.other_id))
    named = union(*(sqlalchemy.select(side).where(*acts) for side in sides))
    others = sqlalchemy.select(func.coalesce(col(Lead.merged_into), col(Lead.id))).where(col(Lead.id).in_(named))
    for other_id in session.connection().execute(others.distinct()).scalars().all():
        _close_pair(session, lead_id, other_id)
