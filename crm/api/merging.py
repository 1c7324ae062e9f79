"""Two leads that are one person: who may be, made one, and made two again (design.md, "A lead's data")."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from sqlmodel import Field, SQLModel

from crm.api.leads import LeadDetail, LeadListed, read_detail, read_listed
from crm.db.base import get_row
from crm.errors import NotFound, Unprocessable
from crm.events import note
from crm.fields import Id
from crm.identity import read_leads
from crm.leads.duplicates import PAIRS, read_pairs, tell_apart
from crm.leads.merging import get_living, merge, unmerge
from crm.leads.tables import Evidence
from crm.models import Input, Lead
from crm.web.answers import responses
from crm.web.auth import ADMIN, CallerDep
from crm.web.deps import Paging, PathId, SessionDep, Write, writes

router = APIRouter(prefix="/leads", tags=["Leads"])


class MergeCreate(Input):
    model_config = {"json_schema_extra": {"example": {"into": 2}}}
    into: Id = Field(description="The lead that stays.")


class EvidencePublic(Evidence):
    created_at: datetime


class DuplicatePublic(SQLModel):
    lead: LeadListed = Field(description="The one with the lower id.")
    other: LeadListed
    evidence: list[EvidencePublic] = Field(description="Identifiers of one with which a contact of the other came.")


@router.get("/duplicates", summary="List leads that may be one person")
def list_duplicates(query: Annotated[Paging, Query()], session: SessionDep) -> list[DuplicatePublic]:
    """Pairs about which nobody has decided yet, newest first, each with what speaks for it."""
    pairs = read_pairs(session.connection(), query.of(PAIRS))
    found = read_leads(session.connection(), {lead_id for pair in pairs for lead_id in pair})
    leads = {lead.id: lead for lead in read_listed(session, list(found.values()), ADMIN)}
    return [
        DuplicatePublic(
            lead=leads[lead_id],
            other=leads[other_id],
            evidence=[EvidencePublic.model_validate(row) for row in evidence],
        )
        for (lead_id, other_id), evidence in pairs.items()
    ]


@router.patch("/duplicates", include_in_schema=False)
async def refuse_to_change_duplicates() -> None:
    """Else it would be a lead with the id `duplicates`."""
    raise HTTPException(405)


@router.delete(
    "/{lead_id}/duplicates/{other_id}",
    status_code=204,
    summary="Say that two leads are two people",
    responses=responses(404, 409),
)
@writes
def tell_leads_apart(write: Write, lead_id: PathId, other_id: PathId, caller: CallerDep) -> None:
    """Closes the pair for good, in whichever order the two are named."""
    lead, other = (get_living(write.session, each) for each in (lead_id, other_id))
    if not tell_apart(write.session, lead.id, other.id, caller.called(write.session)):
        raise NotFound(f"lead {lead_id}: possible duplicate", other_id)
    note(write.session.connection(), "leads told apart", lead_id=lead.id, other_id=other.id, key_id=caller.key_id)


@router.post("/{lead_id}/merge", summary="Merge a lead into another", responses=responses(404, 409))
@writes
def merge_lead(write: Write, lead_id: PathId, body: MergeCreate, caller: CallerDep) -> LeadDetail:
    """Identifiers and contacts go over, and a missing name is filled. The old id leads to the other lead from now on.

    `unmerge` undoes it.
    """
    if body.into == lead_id:
        raise Unprocessable([(("body", "into"), f"lead {lead_id} can't be merged into itself")])
    lead, into = (get_living(write.session, each) for each in (lead_id, body.into))
    act = merge(write.session, lead, into, caller.called(write.session))
    fields = {"lead_id": lead.id, "other_id": into.id, "contacts": act.contacts, "key_id": caller.key_id}
    note(write.session.connection(), "leads merged", **fields)
    return read_detail(write.session, into.id)


@router.post("/{lead_id}/unmerge", summary="Undo the merging of a lead", responses=responses(404, 409))
@writes
def unmerge_lead(write: Write, lead_id: PathId, caller: CallerDep) -> LeadDetail:
    """It is a lead of its own again, with those of its identifiers and contacts that are still where they went."""
    act = unmerge(write.session, get_row(write.session, Lead, lead_id), caller.called(write.session))
    fields = {"lead_id": lead_id, "other_id": act.other_id, "contacts": act.contacts, "key_id": caller.key_id}
    note(write.session.connection(), "leads unmerged", **fields)
    return read_detail(write.session, lead_id)
