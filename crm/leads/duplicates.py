"""Which two leads may be one person: noted when a contact names both, and listed until somebody decides.

What was noted stays when that happens: the acts say what was decided, and of whom both speak is looked up. So a merge
that is undone leaves all other pairs as they were.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, bindparam, case, func, insert, union_all
from sqlalchemy.orm import aliased
from sqlmodel import AutoString, Session, col
from sqlmodel.sql.sqltypes import UTCDateTime

from crm.fields import BIG, IdentifierKind
from crm.leads.tables import Duplicate, LeadAct, between
from crm.models import Lead

_lead, _other, _contact = (bindparam(name, type_=BIG) for name in ("lead", "other", "contact"))
_kind, _value = (bindparam(name, type_=AutoString()) for name in ("evidence_kind", "evidence_value"))
_known = sqlalchemy.select(col(Duplicate.id)).where(
    *(col(Duplicate.kind) == _kind, col(Duplicate.value) == _value),
    *(col(Duplicate.lead_id) == _lead, col(Duplicate.other_id) == _other),
)
ADD = insert(Duplicate).from_select(
    ["created_at", "lead_id", "other_id", "kind", "value", "contact_id"],
    sqlalchemy.select(bindparam("now", type_=UTCDateTime()), _lead, _other, _kind, _value, _contact).where(
        ~_known.exists()
    ),
    include_defaults=False,
)

One, Other = aliased(Lead), aliased(Lead)


def _in_order(one: Any, other: Any) -> tuple[Any, Any]:
    return case((one < other, one), else_=other), case((one < other, other), else_=one)


LOWER, HIGHER = _in_order(*(func.coalesce(lead.merged_into, lead.id) for lead in (One, Other)))


def _pairs_of(table: type[Duplicate] | type[LeadAct], *columns: Any) -> Any:
    """Of each row about two leads those that it speaks of now, and these columns."""
    return (
        sqlalchemy.select(LOWER.label("lower"), HIGHER.label("higher"), *columns)
        .select_from(table)
        .join(One, col(One.id) == col(table.lead_id))
        .join(Other, col(Other.id) == col(table.other_id))
    )


# That two are two people holds for all that is merged into either. That a merge was undone is about these two only.
_merged = _in_order(col(LeadAct.lead_id), col(LeadAct.other_id))
_decided = union_all(
    _pairs_of(LeadAct).where(col(LeadAct.act) == "told_apart"),
    sqlalchemy.select(*_merged).where(col(LeadAct.act) == "merged"),
).subquery()
PAIRS = (
    _pairs_of(Duplicate, func.max(Duplicate.id).label("newest"))
    .outerjoin(_decided, (_decided.c.lower == LOWER) & (_decided.c.higher == HIGHER))
    .where(LOWER < HIGHER, _decided.c.lower.is_(None))
    .group_by(LOWER, HIGHER)
    .order_by(sqlalchemy.desc("newest"))
)


def note_duplicates(
    connection: Connection,
    lead_id: int,
    others: Mapping[IdentifierKind, tuple[str, int]],
    contact_id: int,
    now: datetime,
) -> None:
    """Of a contact whose identifiers name more than one lead. others: by kind each value and whose it is.

    Writes nothing twice. Under the write lock, which may be shared: who writes the same at once fails on its key.
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
        _pairs_of(Duplicate, *columns)
        .join(pairs, (pairs.c.lower == LOWER) & (pairs.c.higher == HIGHER))
        .order_by(pairs.c.newest.desc(), col(Duplicate.id).desc())
    ):
        found.setdefault((row.lower, row.higher), []).append(row)
    return found


def tell_apart(session: Session, lead_id: int, other_id: int, who: str) -> bool:
    """Closes the pair of these two, for good; False: there is none."""
    pair = PAIRS.where(col(Duplicate.id).in_(between(Duplicate, lead_id, other_id)))
    is_open = session.connection().execute(pair).first() is not None
    if is_open:
        session.add(LeadAct(act="told_apart", lead_id=lead_id, other_id=other_id, who=who, contacts=0))
        session.flush()
    return is_open
