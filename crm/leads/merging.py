"""Two leads become one, and two again (design.md, "A lead's data").

The one that is merged stays as an empty row that says into which (`merged_into`), never one that is merged itself: what
was merged into it before goes along. Its last act has what moved. All of this in a transaction that is alone.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, func, update
from sqlmodel import Session, col, select

from crm.db.base import get_row
from crm.errors import Conflict
from crm.leads.duplicates import close_decided
from crm.leads.tables import LeadAct, family
from crm.models import Contact, Lead, LeadIdentifier

PAGE = 1_000  # contacts of one statement: PostgreSQL has to answer each within a part of the busy time-out
_to: Any = bindparam("to")
_from: Any = bindparam("from")
MOVE_IDENTIFIER = (
    update(LeadIdentifier)
    .where(col(LeadIdentifier.kind) == bindparam("its_kind"), col(LeadIdentifier.value) == bindparam("its_value"))
    .where(col(LeadIdentifier.lead_id) == _from)
    .values(lead_id=_to)
)
MOVE_LEAD = (
    update(Lead).where(col(Lead.id) == bindparam("lead"), col(Lead.merged_into) == _from).values(merged_into=_to)
)


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


def update_contacts(session: Session, contact_ids: Sequence[int], **values: Any) -> None:
    """Writes these values by column into each."""
    for begin in range(0, len(contact_ids), PAGE):
        page = col(Contact.id).in_(contact_ids[begin : begin + PAGE])
        session.connection().execute(update(Contact).where(page).values(values))


def merge(session: Session, lead: Lead, into: Lead, who: str) -> LeadAct:
    """All of the first goes to the second, both living; the statistics of neither contacts nor leads change."""
    contacts = session.exec(select(Contact.id).where(Contact.lead_id == lead.id).order_by(col(Contact.id))).all()
    identifiers = session.exec(
        select(LeadIdentifier.kind, LeadIdentifier.value).where(LeadIdentifier.lead_id == lead.id)
    ).all()
    earlier = session.exec(select(Lead).where(Lead.merged_into == lead.id)).all()
    update_contacts(session, contacts, lead_id=into.id)
    moving = update(LeadIdentifier).where(col(LeadIdentifier.lead_id) == lead.id)
    session.connection().execute(moving.values(lead_id=into.id))
    fills_name = into.name is None and lead.name is not None
    if fills_name:
        into.name = lead.name
    for each in (lead, *earlier):
        each.merged_into = into.id
    act = LeadAct(
        act="merged",
        lead_id=lead.id,
        other_id=into.id,
        who=who,
        contacts=len(contacts),
        identifiers=[list(identifier) for identifier in identifiers],
        moved={"contacts": list(contacts), "leads": [each.id for each in earlier], "name": fills_name},
    )
    session.add(act)
    session.flush()
    close_decided(session, into.id)
    return act


def unmerge(session: Session, lead: Lead, who: str) -> LeadAct:
    """It gets back what is still where it went. Raises Conflict when it is not merged, or the other was forgotten."""
    survivor_id = lead.merged_into
    if survivor_id is None:
        raise Conflict(f"lead {lead.id} is not merged into another")
    if is_forgotten(session, survivor_id):
        raise Conflict(f"lead {lead.id} was merged into lead {survivor_id}, which was forgotten since")
    act = _last_merge(session, lead)
    moved, identifiers = act.moved or {}, act.identifiers or []
    _take_back_name(session, lead.name, act)
    act.moved = act.identifiers = None
    there = set(session.exec(select(Contact.id).where(Contact.lead_id == survivor_id)).all())
    contacts = [contact_id for contact_id in moved["contacts"] if contact_id in there]
    way = {"from": survivor_id, "to": lead.id}
    update_contacts(session, contacts, lead_id=lead.id)
    _move(session, MOVE_IDENTIFIER, ({"its_kind": kind, "its_value": value, **way} for kind, value in identifiers))
    _move(session, MOVE_LEAD, ({"lead": lead_id, **way} for lead_id in moved["leads"]))
    lead.merged_into = None
    _forgo(session, survivor_id, {*contacts}, identifiers, {lead.id, *moved["leads"]})
    undone = LeadAct(act="unmerged", lead_id=lead.id, other_id=survivor_id, who=who, contacts=len(contacts))
    session.add(undone)
    session.flush()
    return undone


def _take_back_name(session: Session, name: str | None, act: LeadAct | None) -> None:
    """From all whose missing name it has filled: when the first of them was merged itself, that of the next, too."""
    while act is not None and act.moved and act.moved["name"]:
        other = session.get_one(Lead, act.other_id)
        if other.name != name:  # it was changed since
            return
        other.name = None
        act = _last_merge(session, other) if other.merged_into is not None else None


def _forgo(
    session: Session, survivor_id: int, contacts: set[int], identifiers: list[list[str]], leads: set[int]
) -> None:
    """What has been given back is no longer what another took along, into which it had been merged before."""
    acts = select(LeadAct).where(col(LeadAct.lead_id).in_(family(survivor_id)), col(LeadAct.moved).is_not(None))
    for act in session.exec(acts):
        moved = dict(act.moved or {})
        for kind, gone in (("contacts", contacts), ("leads", leads)):
            moved[kind] = [id_ for id_ in moved[kind] if id_ not in gone]
        act.moved, act.identifiers = moved, [each for each in act.identifiers or [] if each not in identifiers]


def _last_merge(session: Session, lead: Lead) -> LeadAct:
    acts = select(LeadAct).where(LeadAct.lead_id == lead.id, LeadAct.act == "merged")
    return session.exec(acts.order_by(col(LeadAct.id).desc()).limit(1)).one()


def _move(session: Session, statement: Any, rows: Iterable[dict[str, Any]]) -> None:
    if parameters := list(rows):
        session.connection().execute(statement, parameters)
