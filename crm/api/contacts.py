"""Contacts after they came in: found, handed on, worked on and closed."""

import random
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import sqlalchemy
from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import Connection, bindparam, func, inspect, update
from sqlmodel import Field, SQLModel, col, select

from crm import models
from crm.day.due import IsDue, in_time, is_due
from crm.db.base import get_row, lock_operator
from crm.db.direct import run
from crm.errors import Conflict, NotFound, Unprocessable
from crm.fields import HAS_TOPIC, IS_OPEN, IS_PENDING, ContactStatus, Id, Topic, utcnow
from crm.identity import read_leads
from crm.leads.merging import survivor_of
from crm.models import Assignment, Contact, Operator, Source
from crm.queue import ADD_ASSIGNMENT, Distributor, line
from crm.web.answers import responses
from crm.web.auth import Caller, CallerDep
from crm.web.deps import Paging, PathId, Service, SessionDep, Write, writes
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
OPERATOR_OF = select(col(Contact.operator_id)).where(col(Contact.id) == bindparam("contact_id"))
WAS_THEIRS = select(col(Assignment.id)).where(
    col(Assignment.contact_id) == bindparam("contact_id"), col(Assignment.operator_id) == bindparam("operator_id")
)
STATUS = select(col(Contact.status)).where(col(Contact.id) == bindparam("contact_id"))
SET_STATUS = (
    update(Contact)
    .where(col(Contact.id) == bindparam("contact"))
    .values(status=bindparam("new_status"), closed_at=bindparam("new_closed_at"), due_at=None)
)


class StatusUpdate(models.Input):
    model_config = {"json_schema_extra": {"example": {"status": "in_progress"}}}
    status: ContactStatus
    operator_id: Id | None = Field(default=None, description="Whose it must be still: if it is another's, 409.")


class AssignmentCreate(models.Input):
    model_config = {"json_schema_extra": {"example": {"operator_id": 1}}}
    operator_id: Id | None = Field(default=None, description="Serving the source or not; null: drawn by weight.")
    force: bool = Field(default=False, description="Past the limit or inactivity; only with operator_id.")

    @model_validator(mode="after")
    def _force_somebody(self) -> Self:
        if self.force and self.operator_id is None:
            raise PydanticCustomError("force", "force needs an operator_id")
        return self


class ContactFilter(SQLModel):
    """Which contacts. An unknown query parameter is refused."""

    model_config = {"extra": "forbid"}
    lead_id: Id | None = None
    source_id: Id | None = None
    operator_id: Id | None = None
    status: ContactStatus | None = None
    topic: Topic | None = None

    def keep(self, statement: Any) -> Any:
        """Of a statement on contacts those that are wanted."""
        if self.lead_id is not None:
            statement = statement.where(col(Contact.lead_id) == survivor_of(self.lead_id))
        is_open = self.status in ("pending", "new", "in_progress")
        if self.source_id is not None:  # few are open: else all that the source ever had would be gone through for them
            source_id = func.coalesce(Contact.source_id, Contact.source_id) if is_open else col(Contact.source_id)
            statement = statement.where(source_id == self.source_id)
        if self.operator_id is not None:
            statement = statement.where(col(Contact.operator_id) == self.operator_id)
            if is_open and self.status != "pending":
                statement = statement.where(IS_OPEN)
        if self.status is not None:
            statement = statement.where(col(Contact.status) == self.status)
        return statement if self.topic is None else statement.where(HAS_TOPIC, col(Contact.topic) == self.topic)


class ContactQuery(ContactFilter, Paging):
    before_id: Id | None = Field(default=None, description="Only lower ids: the next page of a large table.")
    order: Literal["newest", "queue"] = Field("newest", description="queue: pending ones, in the order of handing out.")


class DistributeQuery(SQLModel):
    model_config = {"extra": "forbid"}
    source_id: Id | None = Field(default=None, description="Only what waits at this source.")


class DistributeResult(SQLModel):
    assigned: int = Field(description="Contacts that got an operator now.")
    pending: int = Field(description="Contacts that still wait.")


def read_contacts(connection: Connection, statement: Any) -> list[models.ContactPublic]:
    """What a statement derived from CONTACTS finds, with lead, source and operator."""
    return _public(connection, connection.execute(statement).all())


def _public(connection: Connection, rows: Sequence[Any]) -> list[models.ContactPublic]:
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
    contacts = _public(connection, run(connection, CONTACT, {"contact_id": contact_id}))
    if not contacts:
        raise NotFound("contact", contact_id)
    return contacts[0]


def change_status(
    connection: Connection,
    contact_id: int,
    change: StatusUpdate,
    rng: random.Random,
    caller: Caller,
    is_caught_up: bool,
) -> models.ContactPublic:
    """Raises NotFound, IsDue, and Conflict: the life of a contact has no such step (design.md), or it is another's."""
    status = change.status
    owners = run(connection, OPERATOR_OF, {"contact_id": contact_id})
    if not owners:
        raise NotFound("contact", contact_id)
    [owner] = owners
    if caller.operator_id not in (None, owner.operator_id):
        had = connection.execute(WAS_THEIRS, {"contact_id": contact_id, "operator_id": caller.operator_id}).first()
        if had is None or change.operator_id != caller.operator_id:
            raise NotFound("contact", contact_id)
        raise Conflict(f"contact {contact_id} is another's by now")
    lock_operator(connection, owner.operator_id)
    if change.operator_id not in (None, owner.operator_id):
        has_it = f"operator {owner.operator_id}'s" if owner.operator_id else "nobody's"
        raise Conflict(f"contact {contact_id} is {has_it} by now, not operator {change.operator_id}'s")
    [(before,)] = run(connection, STATUS, {"contact_id": contact_id})
    if status != before:
        if before == "closed" or (status != "closed" and (before, status) != ("new", "in_progress")):
            raise Conflict(f"contact {contact_id} is {before}: it can't become {status}")
        now, distributor = utcnow(), Distributor(connection, rng)
        is_left = status == "closed" and owner.operator_id is not None
        queues = distributor.waiting_for(owner.operator_id, leaving=1) if is_left else []
        if queues and not is_caught_up and is_due(connection, now):
            raise IsDue
        closed_at = now if status == "closed" else None
        run(connection, SET_STATUS, {"contact": contact_id, "new_status": status, "new_closed_at": closed_at})
        if closed_at:
            distributor.close(contact_id, owner.operator_id, queues)
        else:
            run(connection, ADD_ASSIGNMENT, line(contact_id, owner.operator_id, "started", now))
    return read_contact(connection, contact_id)


@router.get("/", summary="List contacts")
def list_contacts(
    query: Annotated[ContactQuery, Query()], session: SessionDep, caller: CallerDep
) -> list[models.ContactPublic]:
    """Newest first, or with `order=queue` the waiting ones in the order of handing out. Filters combine with AND."""
    if query.order == "queue" and query.before_id is not None:
        raise Unprocessable([(("query", "before_id"), "the queue is not in the order of ids: page it with skip")])
    statement = query.keep(caller.own(CONTACTS))
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


@router.patch(
    "/{contact_id}/status",
    response_model=models.ContactPublic,
    summary="Start or close a contact",
    responses=responses(404, 409),
)
async def update_contact_status(
    contact_id: PathId, body: StatusUpdate, request: Request, caller: CallerDep
) -> Response:
    """new -> in_progress, and anything -> closed, which is final. The status that it has already changes nothing."""
    service: Service = request.app.state.service
    contact = await in_time(
        service.database,
        service.rng,
        lambda connection, is_caught_up: change_status(connection, contact_id, body, service.rng, caller, is_caught_up),
    )
    return Response(contact.model_dump_json(), media_type="application/json")


@router.post("/{contact_id}/assign", summary="Assign a contact by hand", responses=responses(404, 409))
@writes
def assign_contact(write: Write, contact_id: PathId, body: AssignmentCreate) -> models.ContactPublic:
    """To this operator, or without `operator_id` to one drawn by weight among the others. It becomes `new` again.

    `force` goes past the limit or inactivity. What waits for the former operator gets the place that it leaves.
    """
    contact = get_row(write.session, Contact, contact_id)
    operator = get_row(write.session, Operator, body.operator_id) if body.operator_id is not None else None
    write.distributor.assign(contact, operator, body.force)
    return read_contact(write.session.connection(), contact_id)
