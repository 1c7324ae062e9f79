"""Operators: who handles contacts, and how many at once."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from sqlmodel import Field, Session, SQLModel, col, select

from crm.api.keys import note_revoked
from crm.db.base import get_row
from crm.distribution import LOAD, count_load
from crm.errors import Conflict, Forbidden
from crm.fields import MaxLoad, Name
from crm.models import Assignment, Contact, Input, Operator, OperatorBase, Record, Source, SourceOperator
from crm.web.answers import responses
from crm.web.auth import CallerDep
from crm.web.deps import Paging, PathId, SessionDep, Write, writes

router = APIRouter(prefix="/operators", tags=["Operators"])


class OperatorCreate(OperatorBase, Input):
    model_config = {"json_schema_extra": {"example": {"name": "Anna", "max_load": 20}}}


class OperatorUpdate(Input):
    # The default is never used (only fields that were sent count); it makes them omittable but not nullable.
    model_config = {"json_schema_extra": {"example": {"max_load": 30}}}
    name: Name = Field(default=None)
    is_active: bool = Field(default=None)
    max_load: MaxLoad = Field(default=None)


class OperatorPublic(OperatorBase, Record):
    load: int = Field(description="Contacts that are new or in progress, over all sources.")
    on_shift: bool = Field(description="Whether it is in its hours now; off shift it gets nothing automatically.")
    shift_until: datetime | None = Field(description="When that changes; null: never, such as without hours.")


class OperatorSource(SQLModel):
    source_id: int
    source_name: str
    topic: str
    weight: float


class OperatorDetail(OperatorPublic):
    sources: list[OperatorSource]


class OperatorQuery(Paging):
    is_active: bool | None = Field(default=None, description="Only active, or only inactive ones.")


class ReleaseResult(SQLModel):
    released: int = Field(description="Contacts taken from it: reassigned + pending.")
    reassigned: int
    pending: int


def _detail(session: Session, operator: Operator) -> OperatorDetail:
    rows = session.exec(
        select(Source.id, Source.name, SourceOperator.topic, SourceOperator.weight)
        .join(SourceOperator)
        .where(SourceOperator.operator_id == operator.id)
        .order_by(col(Source.id), col(SourceOperator.topic))
    ).all()
    sources = [OperatorSource(source_id=row[0], source_name=row[1], topic=row[2], weight=row[3]) for row in rows]
    load = count_load(session.connection(), operator.id)
    return OperatorDetail(**operator.model_dump(), load=load, sources=sources)


@router.post("/", status_code=201, summary="Add an operator")
@writes
def create_operator(write: Write, body: OperatorCreate) -> OperatorPublic:
    """A new operator gets nothing until a source has a weight for it."""
    operator = Operator.model_validate(body)
    write.session.add(operator)
    write.session.flush()
    return OperatorPublic(**operator.model_dump(), load=0)


@router.get("/", summary="List operators")
def list_operators(
    query: Annotated[OperatorQuery, Query()], session: SessionDep, caller: CallerDep
) -> list[OperatorPublic]:
    """By id, each with its present load."""
    statement = select(Operator, LOAD).order_by(col(Operator.id))
    if caller.operator_id is not None:
        statement = statement.where(Operator.id == caller.operator_id)
    if query.is_active is not None:
        statement = statement.where(Operator.is_active == query.is_active)
    return [OperatorPublic(**operator.model_dump(), load=load) for operator, load in session.exec(query.of(statement))]


@router.get("/{operator_id}", summary="Get an operator", responses=responses(404))
def get_operator_detail(operator_id: PathId, session: SessionDep, caller: CallerDep) -> OperatorDetail:
    """With its load, and the sources it serves with its weight at each."""
    caller.must_be(operator_id)
    return _detail(session, get_row(session, Operator, operator_id))


@router.patch("/{operator_id}", summary="Change an operator", responses=responses(404))
@writes
def update_operator(write: Write, operator_id: PathId, body: OperatorUpdate, caller: CallerDep) -> OperatorDetail:
    """Only what is sent changes. Open contacts stay with it, also when it is deactivated or its limit is lowered.

    Activated, or with a higher limit, it gets at once what waits for it. An operator's key may set only `is_active`.
    """
    caller.must_be(operator_id)
    if caller.operator_id is not None and body.model_fields_set - {"is_active"}:
        raise Forbidden("an operator's key may set nothing but is_active")
    operator = get_row(write.session, Operator, operator_id)
    operator.sqlmodel_update(body.model_dump(exclude_unset=True))
    write.session.flush()
    write.distributor.hand_out_to(operator_id)
    return _detail(write.session, operator)


@router.post("/{operator_id}/release", summary="Release an operator", responses=responses(404))
@writes
def release_operator(write: Write, operator_id: PathId) -> ReleaseResult:
    """Deactivates it, and draws its open contacts to others by weight, or returns them to their place in the queue."""
    get_row(write.session, Operator, operator_id).is_active = False
    write.session.flush()
    reassigned, pending = write.distributor.release(operator_id)
    return ReleaseResult(released=reassigned + pending, reassigned=reassigned, pending=pending)


@router.delete("/{operator_id}", status_code=204, summary="Delete an operator", responses=responses(404, 409))
@writes
def delete_operator(write: Write, operator_id: PathId) -> None:
    """Its weights go along. One that ever had a contact stays: deactivate it instead.

    What waits for a topic that has no weights any more is drawn from the plain ones at once.
    """
    operator = get_row(write.session, Operator, operator_id)
    for contact_id in (Contact.id, Assignment.contact_id):
        had = write.session.exec(select(contact_id).filter_by(operator_id=operator_id).limit(1)).first()
        if had:
            raise Conflict(f"operator {operator_id} has had contacts, such as contact {had}: deactivate it instead")
    note_revoked(write.session, operator_id=operator_id)
    write.session.delete(operator)
    write.session.flush()
    write.distributor.hand_out()
