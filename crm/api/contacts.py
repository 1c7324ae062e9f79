"""Contacts: one comes in, its lead is found, one operator gets it; later it is worked on and closed."""

import random
import re
from typing import Annotated, Any, Literal

import sqlalchemy
from fastapi import APIRouter, HTTPException, Query, Response
from sqlalchemy import Connection, bindparam, exists, func, inspect, update
from sqlmodel import Field, SQLModel, col, select

from crm import distribution, models
from crm.db.base import get_row
from crm.db.sql import add_rows
from crm.errors import Conflict, Forbidden, NotFound, Unauthorized, Unprocessable
from crm.events import note, note_assigned
from crm.fields import HAS_EVENT, IS_PENDING, ContactStatus, Id, utcnow
from crm.identity import KINDS, OWNERS, Claim, read_leads
from crm.models import ApiKey, Assignment, Contact, Operator, Source, SourceOperator
from crm.queue import Distributor
from crm.web.answers import responses
from crm.web.auth import Caller, CallerDep
from crm.web.deps import Page, PathId, ServiceDep, SessionDep, Write, writes
from crm.web.shared import Shared

router = APIRouter(prefix="/contacts", tags=["Contacts"], route_class=Shared)

COLUMNS = inspect(Contact).columns
CONTACTS: Any = (
    sqlalchemy.select(
        *COLUMNS,
        col(Source.name).label("source_name"),
        col(Source.bot_id).label("source_bot_id"),
        col(Operator.name).label("operator_name"),
    )
    .select_from(Contact)
    .outerjoin(Source, col(Source.id) == col(Contact.source_id))  # outer, lest SQLite begin with the sources and sort
    .outerjoin(Operator, col(Operator.id) == col(Contact.operator_id))
)
CONTACT = CONTACTS.where(col(Contact.id) == bindparam("contact_id"))
REPEATED = (
    select(col(Contact.id))
    .where(col(Contact.source_id) == col(Source.id), col(Contact.event_id) == bindparam("event_id"), HAS_EVENT)
    .scalar_subquery()
)
HAS_KEY = exists().where(col(ApiKey.id) == bindparam("key_id"))
# All that a registration asks, in one statement: a row for each operator of the source, or one without.
ARRIVAL: Any = (
    sqlalchemy.select(
        *(col(Source.id), col(Source.name), col(Source.bot_id)),
        REPEATED.label("repeated"),
        HAS_KEY.label("has_key"),
        *OWNERS,
        *distribution.ENTRY_COLUMNS,
    )
    .outerjoin(SourceOperator, col(SourceOperator.source_id) == col(Source.id))
    .outerjoin(Operator, col(Operator.id) == col(SourceOperator.operator_id))
    .order_by(col(SourceOperator.operator_id))
)
ARRIVAL_BY_ID = ARRIVAL.where(col(Source.id) == bindparam("key"))
ARRIVAL_BY_BOT = ARRIVAL.where(col(Source.bot_id) == bindparam("key"))
OPERATOR_OF = select(col(Contact.operator_id)).where(col(Contact.id) == bindparam("contact_id"))
STATUS = select(col(Contact.status)).where(col(Contact.id) == bindparam("contact_id"))
SET_STATUS = (
    update(Contact)
    .where(col(Contact.id) == bindparam("contact"))
    .values(status=bindparam("new_status"), closed_at=bindparam("new_closed_at"))
)


class ContactQuery(Page):
    lead_id: Id | None = None
    source_id: Id | None = None
    operator_id: Id | None = None
    status: ContactStatus | None = None
    before_id: Id | None = Field(default=None, description="Only lower ids: the next page of a large table.")
    order: Literal["newest", "queue"] = Field("newest", description="queue: pending ones, in the order of handing out.")


class DistributeQuery(SQLModel):
    model_config = {"extra": "forbid"}
    source_id: Id | None = Field(default=None, description="Only what waits at this source.")


class DistributeResult(SQLModel):
    assigned: int = Field(description="Contacts that got an operator now.")
    pending: int = Field(description="Contacts that still wait.")


def read_contacts(
    connection: Connection, statement: Any, parameters: dict[str, Any] | None = None
) -> list[models.ContactPublic]:
    """What a statement derived from CONTACTS finds, with lead, source and operator."""
    rows = connection.execute(statement, parameters or {}).all()
    leads = read_leads(connection, [row.lead_id for row in rows])
    return [
        models.ContactPublic(
            **{column.name: getattr(row, column.name) for column in COLUMNS},
            lead=leads[row.lead_id],
            source=models.SourceRef(id=row.source_id, name=row.source_name, bot_id=row.source_bot_id),
            operator=row.operator_id and models.OperatorRef(id=row.operator_id, name=row.operator_name),
        )
        for row in rows
    ]


def read_contact(connection: Connection, contact_id: int) -> models.ContactPublic:
    """Raises NotFound."""
    contacts = read_contacts(connection, CONTACT, {"contact_id": contact_id})
    if not contacts:
        raise NotFound("contact", contact_id)
    return contacts[0]


def register(
    connection: Connection, body: models.ContactCreate, claim: Claim, rng: random.Random, caller: Caller
) -> tuple[models.ContactPublic, bool]:
    """Finds the lead and the operator of a new contact; True: it is new, False: a repeat, and nothing changed.

    Raises NotFound (no such source) and Unprocessable (no usable identifier); for a source's key Forbidden (not that
    source) and Unauthorized (revoked).
    """
    source_id = caller.source_id or body.source_id
    by_id = source_id is not None
    key = source_id if by_id else body.source_bot_id
    arrival = ARRIVAL_BY_ID if by_id else ARRIVAL_BY_BOT
    identifiers: dict[str, Any] = {kind: claim.values.get(kind) for kind in KINDS}
    parameters = {**identifiers, "key": key, "event_id": body.event_id, "key_id": caller.key_id}
    rows = connection.execute(arrival, parameters).all()
    if caller.source_id is not None:
        if not rows or not rows[0].has_key:
            raise Unauthorized("this key is not known, or no longer")
        if body.source_id not in (None, caller.source_id) or body.source_bot_id not in (None, rows[0].bot_id):
            raise Forbidden(f"this key is for source {caller.source_id} only")
    if not rows:
        raise NotFound("source" if by_id else "source with bot_id", key)
    source = rows[0]
    if source.repeated is not None:
        note(connection, "contact repeated", contact_id=source.repeated, source_id=source.id)
        return read_contact(connection, source.repeated), False
    owners = {kind: owner for kind in KINDS if (owner := getattr(source, f"owner_of_{kind}")) is not None}
    entries, lead_id = rows if source.operator_id is not None else [], next(iter(owners.values()), None)
    operator, candidates, ids = distribution.choose_operator(connection, source.id, entries, rng, lead_id)
    operator_id, now = operator.id if operator else None, utcnow()
    name = (body.lead_name or "").strip() or None
    lead, lead_rows, identity_note = claim.find_lead(connection, owners, ids.lead_id, name, now)
    values: dict[str, Any] = {
        "id": ids.contact_id,
        "message": body.message,
        "priority": body.priority,
        "event_id": body.event_id,
        "created_at": now,
        "lead_id": lead.id,
        "source_id": source.id,
        "operator_id": operator_id,
        "status": "new" if operator else "pending",
        "identity_note": identity_note,
        "assigned_at": now if operator else None,
        "closed_at": None,
    }
    reason = "distributed" if operator else "queued"
    entry = {"contact_id": ids.contact_id, "operator_id": operator_id, "reason": reason}
    history = {**entry, "created_at": now, "candidates": candidates}
    add_rows(connection, *lead_rows, (Contact, values), (Assignment, history))
    if lead_id is None:
        note(connection, "lead created", lead_id=lead.id)
    note_assigned(connection, candidates, **entry, source_id=source.id, waited=0.0 if operator else None)
    source_ref = models.SourceRef(id=source.id, name=source.name, bot_id=source.bot_id)
    return models.ContactPublic(**values, lead=lead, source=source_ref, operator=operator), True


def change_status(
    connection: Connection, contact_id: int, status: ContactStatus, rng: random.Random, caller: Caller
) -> models.ContactPublic:
    """Raises NotFound, and Conflict for a step that the life of a contact doesn't have (design.md)."""
    owner = connection.execute(OPERATOR_OF, {"contact_id": contact_id}).one_or_none()
    if owner is None or caller.operator_id not in (None, owner.operator_id):
        raise NotFound("contact", contact_id)
    distribution.lock_operator(connection, owner.operator_id)
    before = connection.execute(STATUS, {"contact_id": contact_id}).scalar_one()
    if status != before:
        if before == "closed" or (status != "closed" and (before, status) != ("new", "in_progress")):
            raise Conflict(f"contact {contact_id} is {before}: it can't become {status}")
        closed_at = utcnow() if status == "closed" else None
        connection.execute(SET_STATUS, {"contact": contact_id, "new_status": status, "new_closed_at": closed_at})
        if closed_at and owner.operator_id is not None:
            Distributor(connection, rng).hand_out_to(owner.operator_id)
    return read_contact(connection, contact_id)


@router.post(
    "/",
    status_code=201,
    response_model=models.ContactPublic | models.ContactReceipt,
    summary="Register a contact",
    responses={
        **responses(404),
        200: {
            "model": models.ContactPublic | models.ContactReceipt,
            "description": "A repeat of this event_id: the first contact, as it is now.",
        },
    },
)
async def create_contact(body: models.ContactCreate, service: ServiceDep, caller: CallerDep) -> Response:
    """Finds or creates the lead by its identifiers, and draws an operator by weight among those with room.

    Nobody eligible: the contact waits as `pending`, and that is a success too. With an `event_id` it is safe to repeat.
    """
    claim = Claim({kind: getattr(body, f"lead_{kind}") for kind in KINDS}, service.settings.default_region)
    if caller.source_id is None and body.source_id is None and body.source_bot_id is None:
        raise Unprocessable([(("body",), "give exactly one of source_id and source_bot_id")])
    contact, is_new = await service.database.execute(
        lambda connection: register(connection, body, claim, service.rng, caller)
    )
    answer = contact if caller.source_id is None else receipt(contact, body, claim)
    return Response(answer.model_dump_json(), 201 if is_new else 200, media_type="application/json")


def receipt(contact: models.ContactPublic, body: models.ContactCreate, claim: Claim) -> models.ContactReceipt:
    """What a bot may know of a contact: of the lead nothing that other bots said."""
    lists: Any = {f"{kind}s": [claim.values[kind]] if kind in claim.values else [] for kind in KINDS}
    lead = models.LeadReceipt.model_construct(id=contact.lead_id, name=(body.lead_name or "").strip() or None, **lists)
    said = contact.identity_note and re.sub(r"belongs to lead \d+", "belongs to another lead", contact.identity_note)
    return models.ContactReceipt.model_construct(**{**contact.__dict__, "lead": lead, "identity_note": said})


@router.get("/", summary="List contacts")
def list_contacts(
    query: Annotated[ContactQuery, Query()], session: SessionDep, caller: CallerDep
) -> list[models.ContactPublic]:
    """Newest first, or with `order=queue` the waiting ones in the order of handing out. Filters combine with AND."""
    statement = caller.own(CONTACTS)
    for field in ("lead_id", "source_id", "operator_id", "status"):
        value = getattr(query, field)
        if value is not None:
            statement = statement.where(getattr(Contact, field) == value)
    if query.before_id is not None:
        statement = statement.where(col(Contact.id) < query.before_id)
    if query.order == "queue":
        statement = statement.where(IS_PENDING).order_by(col(Contact.priority).desc(), col(Contact.id))
    else:
        statement = statement.order_by(col(Contact.id).desc())
    return read_contacts(session.connection(), query.of(statement))


@router.get("/distribute", include_in_schema=False)
async def refuse_to_get_distribute() -> None:
    """Else it would be a contact with the id `distribute`."""
    raise HTTPException(405)


@router.post("/distribute", summary="Hand out the queue", responses=responses(404))
@writes
def distribute_contacts(write: Write, query: Annotated[DistributeQuery, Query()]) -> DistributeResult:
    """Tries what waits, at one source or at all.

    It happens by itself whenever room appears: this call finds nothing to do, unless rows were changed past the API.
    """
    if query.source_id is not None:
        get_row(write.session, Source, query.source_id)
    assigned = write.distributor.hand_out(query.source_id)
    pending = select(func.count()).select_from(Contact).where(IS_PENDING)
    if query.source_id is not None:
        pending = pending.where(Contact.source_id == query.source_id)
    return DistributeResult(assigned=assigned, pending=write.session.exec(pending).one())


@router.get("/{contact_id}", summary="Get a contact", responses=responses(404))
def get_contact(contact_id: PathId, session: SessionDep, caller: CallerDep) -> models.ContactDetail:
    """With its history: who got it, why, and what each draw saw."""
    contact = read_contact(session.connection(), contact_id)
    if caller.operator_id not in (None, contact.operator_id):
        raise NotFound("contact", contact_id)
    entries = session.exec(select(Assignment).where(Assignment.contact_id == contact_id).order_by(col(Assignment.id)))
    history = [models.AssignmentPublic.model_validate(entry) for entry in entries]
    if caller.operator_id is not None:
        history = [entry for entry in history if entry.operator_id == caller.operator_id]
        for entry in history:
            entry.candidates = [seen for seen in entry.candidates if seen.operator_id == caller.operator_id]
    return models.ContactDetail(**dict(contact), history=history)


@router.patch("/{contact_id}/status", summary="Start or close a contact", responses=responses(404, 409))
async def update_contact_status(
    contact_id: PathId, body: models.StatusUpdate, service: ServiceDep, caller: CallerDep
) -> models.ContactPublic:
    """new -> in_progress, and anything -> closed, which is final. The status that it has already changes nothing."""
    return await service.database.execute(
        lambda connection: change_status(connection, contact_id, body.status, service.rng, caller)
    )


@router.post("/{contact_id}/assign", summary="Assign a contact by hand", responses=responses(404, 409))
@writes
def assign_contact(write: Write, contact_id: PathId, body: models.AssignmentCreate) -> models.ContactPublic:
    """To this operator, or without `operator_id` to one drawn by weight among the others. It becomes `new` again.

    `force` goes past the limit or inactivity. What waits for the former operator gets the place that it leaves.
    """
    contact = get_row(write.session, Contact, contact_id)
    operator = get_row(write.session, Operator, body.operator_id) if body.operator_id is not None else None
    write.distributor.assign(contact, operator, body.force)
    return read_contact(write.session.connection(), contact_id)
