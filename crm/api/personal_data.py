"""The data of one person: given out, and forgotten (design.md, "A lead's data")."""

from collections import defaultdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlmodel import Field, SQLModel, col, select

from crm.api.leads import MERGED, LeadActPublic, LeadDetail, check_shown, read_detail
from crm.events import note, tell
from crm.identity import read_leads
from crm.leads.forgetting import forget
from crm.leads.merging import get_living
from crm.leads.tables import Duplicate, Evidence, LeadAct, about
from crm.models import Assignment, AssignmentPublic, Contact, ContactRecord, Input, Lead, LeadPublic, Record
from crm.web.answers import responses
from crm.web.auth import CallerDep
from crm.web.deps import PathId, SessionDep, Write, writes

router = APIRouter(prefix="/leads", tags=["Leads"])


class NoParameters(Input):
    """Of a call that can't be undone: a `dry_run`, say, is refused, not ignored."""


class LeadMerged(Record):
    name: str | None


class ContactStored(ContactRecord, Record):
    waits_since: datetime | None
    is_sticky: bool
    history: list[AssignmentPublic]


class DuplicateStored(Evidence, Record):
    lead_id: int
    other_id: int


class LeadActStored(LeadActPublic):
    identifiers: list[list[str]] | None = Field(description="Of what was merged: each a kind and a value.")
    moved: dict[str, Any] | None = Field(description="Of what was merged: the ids of contacts and leads.")


class LeadExport(SQLModel):
    lead: LeadPublic
    merged: list[LeadMerged] = Field(description="The leads that were merged into it.")
    contacts: list[ContactStored] = Field(description="All, oldest first.")
    duplicates: list[DuplicateStored] = Field(description="What speaks for another lead being the same person.")
    acts: list[LeadActStored]


@router.get(
    "/{lead_id}/export", response_model=LeadExport, summary="Export a lead", responses={**responses(404), **MERGED}
)
def export_lead(lead_id: PathId, session: SessionDep, caller: CallerDep, request: Request) -> Response:
    """All that is stored of one person, with the histories of all contacts, as one document."""
    check_shown(session, lead_id, caller, request)
    connection = session.connection()
    history: dict[int, list[AssignmentPublic]] = defaultdict(list)
    lines = select(Assignment).join(Contact).where(Contact.lead_id == lead_id).order_by(col(Assignment.id))
    for line in connection.execute(lines):  # as rows, not objects: there may be many
        history[line.contact_id].append(AssignmentPublic.model_validate(line))
    contacts = select(Contact).where(Contact.lead_id == lead_id).order_by(col(Contact.id))
    merged = session.exec(select(Lead).where(Lead.merged_into == lead_id).order_by(col(Lead.id))).all()
    duplicates = select(Duplicate).where(col(Duplicate.id).in_(about(Duplicate, lead_id))).order_by(col(Duplicate.id))
    acts = select(LeadAct).where(col(LeadAct.id).in_(about(LeadAct, lead_id))).order_by(col(LeadAct.id))
    document = LeadExport(
        lead=read_leads(connection, [lead_id])[lead_id],
        merged=[LeadMerged.model_validate(each) for each in merged],
        contacts=[ContactStored(**each._mapping, history=history[each.id]) for each in connection.execute(contacts)],
        duplicates=[DuplicateStored.model_validate(each) for each in session.exec(duplicates)],
        acts=[LeadActStored.model_validate(each) for each in session.exec(acts)],
    )
    tell([("lead exported", {"lead_id": lead_id, "key_id": caller.key_id})])
    # In this thread: the event loop, on which others wait, would make the text of it else.
    return Response(document.model_dump_json(), media_type="application/json")


@router.post("/{lead_id}/forget", summary="Forget a lead", responses=responses(404, 409))
@writes
def forget_lead(
    write: Write,
    lead_id: PathId,
    caller: CallerDep,
    query: Annotated[NoParameters, Query()],  # noqa: ARG001
) -> LeadDetail:
    """Its name, identifiers, messages and notes are gone for good; its contacts stay, all of which must be closed.

    So is what was merged into it, and what notes of other contacts quote of it. Who did it is kept.
    """
    act = forget(write.session, get_living(write.session, lead_id), caller.called(write.session))
    note(write.session.connection(), "lead forgotten", lead_id=lead_id, contacts=act.contacts, key_id=caller.key_id)
    return read_detail(write.session, lead_id)
