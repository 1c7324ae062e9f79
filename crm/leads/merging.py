"""Two leads become one, and two again (design.md, "A lead's data").

The one that is merged stays as an empty row that says into which (`merged_into`), never one that is merged itself: what
was merged into it before goes along. Its last act has what moved. All of this in a transaction that is alone.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import func, update
from sqlmodel import Session, col, select

from crm.db.base import get_row
from crm.errors import Conflict
from crm.leads.tables import Duplicate, LeadAct, family
from crm.models import Contact, Lead, LeadIdentifier

PAGE = 1_000  # rows of one statement: PostgreSQL has to answer each within a part of the busy time-out


def survivor_of(lead_id: int) -> Any:
    """In a statement: the id of the lead that it was merged into, else its own."""
    return func.coalesce(select(Lead.merged_into).where(Lead.id == lead_id).scalar_subquery(), lead_id)


def is_forgotten(session: Session, lead_id: int) -> bool:
    acts = select(LeadAct.id).where(LeadAct.lead_id == lead_id, LeadAct.act == "forgotten")
    return session.exec(acts).first() is not None


def get_living(session: Session, lead_id: int) -> Lead:
    """A lead whose data may be changed. Raises NotFound, and Conflict when it was merged or forgotten."""
    lead = get_row(session, Lead, lead_id)
    if lead.merged_into is not None:
        raise Conflict(f"lead {lead_id} was merged into lead {lead.merged_into}")
    if is_forgotten(session, lead_id):
        raise Conflict(f"lead {lead_id} was forgotten")
    return lead


def update_rows(session: Session, table: type[Contact] | type[Lead], ids: Sequence[int], **values: Any) -> None:
    """Writes these values by column into each."""
    for begin in range(0, len(ids), PAGE):
        page = col(table.id).in_(ids[begin : begin + PAGE])
        session.connection().execute(update(table).where(page).values(values))


def read_identifiers(session: Session, lead_id: int) -> list[tuple[str, str]]:
    """Each a kind and a value."""
    columns = select(LeadIdentifier.kind, LeadIdentifier.value)
    return [(kind, value) for kind, value in session.exec(columns.where(LeadIdentifier.lead_id == lead_id))]


def with_identifiers(
    table: type[LeadIdentifier] | type[Duplicate], identifiers: Collection[tuple[str, str]]
) -> Iterator[Any]:
    """Conditions, each true of the rows with a page of these."""
    for kind, of_kind in groupby(sorted(identifiers), lambda identifier: identifier[0]):
        values = [value for _, value in of_kind]
        for begin in range(0, len(values), PAGE):
            yield (col(table.kind) == kind) & col(table.value).in_(values[begin : begin + PAGE])


def check_has_identifier(session: Session, lead_id: int) -> None:
    """After some may have been taken away. Raises Conflict."""
    if session.exec(select(LeadIdentifier.kind).where(LeadIdentifier.lead_id == lead_id)).first() is None:
        raise Conflict(f"lead {lead_id} would be left without an identifier: nobody could find it again")


def rename(session: Session, lead: Lead, name: str | None) -> None:
    """By hand, so that no undone merge takes the name back, though it be the same."""
    lead.name = name
    for act in session.exec(select(LeadAct).where(LeadAct.other_id == lead.id, col(LeadAct.moved).is_not(None))):
        _mark_name(act, False)


def merge(session: Session, lead: Lead, into: Lead, who: str) -> LeadAct:
    """All of the first goes to the second, both living; the statistics of neither contacts nor leads change."""
    contacts = session.exec(select(Contact.id).where(Contact.lead_id == lead.id).order_by(col(Contact.id))).all()
    identifiers = read_identifiers(session, lead.id)
    earlier = session.exec(select(Lead.id).where(Lead.merged_into == lead.id).order_by(col(Lead.id))).all()
    update_rows(session, Contact, contacts, lead_id=into.id)
    _move_identifiers(session, identifiers, lead.id, into.id)
    update_rows(session, Lead, [lead.id, *earlier], merged_into=into.id)
    fills_name = into.name is None and lead.name is not None
    if fills_name:
        into.name = lead.name
    act = LeadAct(
        act="merged",
        lead_id=lead.id,
        other_id=into.id,
        who=who,
        contacts=len(contacts),
        identifiers=[list(identifier) for identifier in identifiers],
        moved={"contacts": list(contacts), "leads": list(earlier), "name": fills_name},
    )
    session.add(act)
    session.flush()
    return act


def unmerge(session: Session, lead: Lead, who: str) -> LeadAct:
    """It gets back what is still where it went.

    Raises Conflict when it is not merged, the other was forgotten, or would have no identifier any more.
    """
    survivor_id = lead.merged_into
    if survivor_id is None:
        raise Conflict(f"lead {lead.id} is not merged into another")
    if is_forgotten(session, survivor_id):
        raise Conflict(f"lead {lead.id} was merged into lead {survivor_id}, which was forgotten since")
    act = _last_merge(session, lead)
    moved, identifiers = act.moved or {}, {(kind, value) for kind, value in act.identifiers or []}
    act.moved = act.identifiers = None
    if moved["name"]:
        _take_back_name(session, act)
    there = {*session.exec(select(Contact.id).where(Contact.lead_id == survivor_id))}
    contacts = [contact_id for contact_id in moved["contacts"] if contact_id in there]
    merged_there = {*session.exec(select(Lead.id).where(Lead.merged_into == survivor_id))}
    along = [lead_id for lead_id in moved["leads"] if lead_id in merged_there]
    update_rows(session, Contact, contacts, lead_id=lead.id)
    _move_identifiers(session, identifiers, survivor_id, lead.id)
    update_rows(session, Lead, along, merged_into=lead.id)
    lead.merged_into = None
    if identifiers:
        check_has_identifier(session, survivor_id)
    _forgo(session, survivor_id, {*contacts}, identifiers, {lead.id, *along})
    undone = LeadAct(act="unmerged", lead_id=lead.id, other_id=survivor_id, who=who, contacts=len(contacts))
    session.add(undone)
    session.flush()
    return undone


def _move_identifiers(session: Session, identifiers: Collection[tuple[str, str]], from_id: int, to_id: int) -> None:
    """Those that are still there."""
    for page in with_identifiers(LeadIdentifier, identifiers):
        moving = update(LeadIdentifier).where(page, col(LeadIdentifier.lead_id) == from_id)
        session.connection().execute(moving.values(lead_id=to_id))


def _take_back_name(session: Session, act: LeadAct) -> None:
    """Of a merge that is undone, and had filled a missing name: the oldest one that is left fills it now.

    If the lead that it is taken from was merged itself, and filled the missing name of the next, from that one too.
    """
    fills_name = True
    while fills_name:
        other = session.get_one(Lead, act.other_id)
        merges = select(LeadAct, Lead).join(Lead, col(Lead.id) == col(LeadAct.lead_id)).order_by(col(LeadAct.id))
        left = merges.where(LeadAct.other_id == other.id, col(LeadAct.moved).is_not(None), col(Lead.name).is_not(None))
        other.name = None
        if first := session.exec(left.limit(1)).first():
            other.name = first[1].name
            _mark_name(first[0], True)
        if other.merged_into is None:
            return
        act = _last_merge(session, other)
        fills_name = _mark_name(act, False)


def _mark_name(act: LeadAct, fills_name: bool) -> bool:
    """Whether what the act has merged gave its name to the other; returns what was said before."""
    moved = act.moved or {}
    act.moved = {**moved, "name": fills_name}
    return bool(moved["name"])


def _forgo(
    session: Session, survivor_id: int, contacts: set[int], identifiers: set[tuple[str, str]], leads: set[int]
) -> None:
    """What has been given back is no longer what another took along, into which it had been merged before."""
    acts = select(LeadAct).where(col(LeadAct.lead_id).in_(family(survivor_id)), col(LeadAct.moved).is_not(None))
    for act in session.exec(acts):
        moved = dict(act.moved or {})
        for kind, gone in (("contacts", contacts), ("leads", leads)):
            moved[kind] = [id_ for id_ in moved[kind] if id_ not in gone]
        act.moved, act.identifiers = moved, [each for each in act.identifiers or [] if tuple(each) not in identifiers]


def _last_merge(session: Session, lead: Lead) -> LeadAct:
    acts = select(LeadAct).where(LeadAct.lead_id == lead.id, LeadAct.act == "merged")
    return session.exec(acts.order_by(col(LeadAct.id).desc()).limit(1)).one()
