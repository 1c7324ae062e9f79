"""A lead is forgotten: what it said and is known by goes, what was done stays (design.md, "A lead's data").

Its contacts, their history and `event_id` stay, so that no count changes and a repeat does not bring the person back.
"""

import re

from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from crm.errors import Conflict
from crm.fields import HAS_NOTE
from crm.leads.merging import read_identifiers, update_rows, with_identifiers
from crm.leads.tables import Duplicate, LeadAct, about, family
from crm.models import Contact, Lead, LeadIdentifier

# A value as an identity note quotes it (repr), and whose the note says it is.
QUOTED = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?= belongs to lead (\d+))?""")


def forget(session: Session, lead: Lead, who: str) -> LeadAct:
    """A living one, with all that was merged into it. Raises Conflict while it has open contacts."""
    connection = session.connection()
    contacts = session.exec(select(Contact.id, Contact.status).where(Contact.lead_id == lead.id)).all()
    still_open = [contact_id for contact_id, status in contacts if status != "closed"]
    if still_open:
        some = f"{len(still_open)} open contacts, such as" if len(still_open) > 1 else "1 open contact,"
        raise Conflict(f"lead {lead.id} has {some} contact {min(still_open)}: close them first")
    leads = session.exec(family(lead.id)).all()
    identifiers = {*read_identifiers(session, lead.id)}
    update_rows(session, Contact, [contact_id for contact_id, _ in contacts], message=None, identity_note=None)
    for page in with_identifiers(LeadIdentifier, identifiers):
        connection.execute(delete(LeadIdentifier).where(page))
    connection.execute(delete(Duplicate).where(col(Duplicate.id).in_(about(Duplicate, lead.id))))
    connection.execute(
        update(LeadAct).where(col(LeadAct.lead_id).in_(family(lead.id))).values(identifiers=None, moved=None)
    )
    connection.execute(update(Lead).where(col(Lead.id).in_(family(lead.id))).values(name=None))
    _forget_in_others(session, {*leads}, identifiers)
    act = LeadAct(act="forgotten", lead_id=lead.id, other_id=None, who=who, contacts=len(contacts))
    session.add(act)
    session.flush()
    return act


def _forget_in_others(session: Session, leads: set[int], identifiers: set[tuple[str, str]]) -> None:
    """An identifier may have been another's before, or have come with another's contact."""
    connection = session.connection()
    quoted = {repr(value) for _, value in identifiers}

    def forget_value(match: re.Match[str]) -> str:
        return "(forgotten)" if match[1] in quoted or int(match[2] or 0) in leads else match[0]

    notes = [
        (row.id, note)
        for row in connection.execute(select(Contact.id, Contact.identity_note).where(HAS_NOTE))
        if (note := QUOTED.sub(forget_value, row.identity_note)) != row.identity_note
    ]
    for contact_id, note in notes:
        connection.execute(update(Contact).where(col(Contact.id) == contact_id).values(identity_note=note))
    for page in with_identifiers(Duplicate, identifiers):
        connection.execute(delete(Duplicate).where(page))
    for act in connection.execute(select(LeadAct.id, LeadAct.identifiers).where(col(LeadAct.identifiers).is_not(None))):
        left = [each for each in act.identifiers if tuple(each) not in identifiers]
        if left != act.identifiers:
            connection.execute(update(LeadAct).where(col(LeadAct.id) == act.id).values(identifiers=left))
