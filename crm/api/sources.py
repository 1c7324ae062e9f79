"""Sources: the channels contacts come from, and the weight of each operator at each."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Query
from sqlalchemy import delete
from sqlmodel import Field, Session, SQLModel, col, select

from crm.api.keys import note_revoked
from crm.db.base import get_row
from crm.distribution import ratio
from crm.errors import Conflict, NotFound, Unprocessable
from crm.fields import AcceptWithin, BotId, Description, Id, Name, PlainOrTopic, Sticky, Weight
from crm.models import Contact, Input, Operator, Record, Source, SourceBase, SourceOperator
from crm.web.answers import responses
from crm.web.deps import Paging, PathId, SessionDep, Write, writes
from crm.web.shared import Shared

router = APIRouter(prefix="/sources", tags=["Sources"], route_class=Shared)


class SourceCreate(SourceBase, Input):
    model_config = {"json_schema_extra": {"example": {"name": "Telegram shop", "bot_id": "shop_bot"}}}


class SourceUpdate(Input):
    model_config = {"json_schema_extra": {"example": {"description": "Orders and returns"}}}
    name: Name = Field(default=None)
    bot_id: BotId | None = None
    description: Description | None = None
    sticky: Sticky = Field(default=None)
    accept_within: AcceptWithin | None = None
    silence_pauses: bool = Field(default=None)


class SourceOperatorCreate(Input):
    model_config = {"json_schema_extra": {"example": {"operator_id": 1, "weight": 10}}}
    operator_id: Id
    topic: PlainOrTopic = Field(default="", description="Contacts of this topic only; empty: of no topic with weights.")
    weight: Weight = Field(default=1, description="Relative: 10 beside 30 means 25 %. 0 gets nothing.")


class SourceOperatorUpdate(Input):
    model_config = {"json_schema_extra": {"example": {"weight": 30}}}
    weight: Weight


class EntryQuery(SQLModel):
    model_config = {"extra": "forbid"}
    topic: PlainOrTopic = Field(default="", description="Whether of this topic, or a plain one.")


class SourceOperatorPublic(SQLModel):
    operator_id: int
    operator_name: str
    topic: str
    weight: float
    share: float = Field(description="weight / sum of the weights of the source and topic, active or not.")


class SourcePublic(SourceBase, Record):
    operators: list[SourceOperatorPublic]


class SourceQuery(Paging):
    bot_id: str | None = Field(default=None, description="Only the source of this bot.")


def _public(session: Session, sources: Sequence[Source]) -> list[SourcePublic]:
    entries: dict[int | None, list[tuple[SourceOperator, str]]] = {source.id: [] for source in sources}
    for entry, name in session.exec(
        select(SourceOperator, Operator.name)
        .join(Operator)
        .where(col(SourceOperator.source_id).in_(entries))
        .order_by(col(SourceOperator.topic), col(SourceOperator.operator_id))
    ):
        entries[entry.source_id].append((entry, name))
    answer = []
    for source in sources:
        totals: Counter[str] = Counter()
        for entry, _ in entries[source.id]:
            totals[entry.topic] += entry.weight  # type: ignore[assignment]
        operators = [
            SourceOperatorPublic(
                **entry.model_dump(), operator_name=name, share=ratio(entry.weight, totals[entry.topic])
            )
            for entry, name in entries[source.id]
        ]
        answer.append(SourcePublic(**source.model_dump(), operators=operators))
    return answer


def _entry_public(session: Session, entry: SourceOperator) -> SourceOperatorPublic:
    [source] = _public(session, [get_row(session, Source, entry.source_id)])
    return next(each for each in source.operators if (each.topic, each.operator_id) == (entry.topic, entry.operator_id))


def _name(source_id: int, topic: str) -> str:
    return f"source {source_id}, topic {topic!r}," if topic else f"source {source_id}"


def _get_entry(session: Session, source_id: int, topic: str, operator_id: int) -> SourceOperator:
    entry = session.get(SourceOperator, (get_row(session, Source, source_id).id, topic, operator_id))
    if entry is None:
        raise NotFound(f"{_name(source_id, topic)}: operator", operator_id)
    return entry


def check_entries(session: Session, entries: Sequence[SourceOperatorCreate], *where: str) -> None:
    """Raises Unprocessable (an operator is there twice; where: in the request), NotFound (an operator)."""
    seen: set[tuple[str, int]] = set()
    for index, entry in enumerate(entries):
        if (entry.topic, entry.operator_id) in seen:
            problem = f"operator {entry.operator_id} is there twice"
            raise Unprocessable([((*where, index, "operator_id"), problem)])
        seen.add((entry.topic, entry.operator_id))
    unknown = {operator_id for _, operator_id in seen}.difference(session.exec(select(Operator.id)).all())
    if unknown:
        raise NotFound("operator", min(unknown))


def _check_unique(session: Session, source: Source) -> None:
    """Under the write lock, so that nobody can take the name between this look and the write."""
    for field in ("name", "bot_id"):
        value = getattr(source, field)
        other = session.exec(select(Source.id).where(getattr(Source, field) == value, Source.id != source.id)).first()
        if value is not None and other is not None:
            raise Conflict(f"source {other} already has the {field} {value!r}")


@router.post("/", status_code=201, summary="Add a source", responses=responses(409))
@writes
def create_source(write: Write, body: SourceCreate) -> SourcePublic:
    """One for each bot. Its contacts wait until it has operators with weights."""
    source = Source.model_validate(body)
    _check_unique(write.session, source)
    write.session.add(source)
    write.session.flush()
    return _public(write.session, [source])[0]


@router.get("/", summary="List sources")
def list_sources(query: Annotated[SourceQuery, Query()], session: SessionDep) -> list[SourcePublic]:
    """By id, each with its operators, their weights and shares."""
    statement = select(Source).order_by(col(Source.id))
    if query.bot_id is not None:
        statement = statement.where(Source.bot_id == query.bot_id.strip().replace("\x00", "\ufffd"))  # nobody's
    return _public(session, session.exec(query.of(statement)).all())


@router.get("/{source_id}", summary="Get a source", responses=responses(404))
def get_source_detail(source_id: PathId, session: SessionDep) -> SourcePublic:
    """With its operators, their weights and shares."""
    return _public(session, [get_row(session, Source, source_id)])[0]


@router.patch("/{source_id}", summary="Change a source", responses=responses(404, 409))
@writes
def update_source(write: Write, source_id: PathId, body: SourceUpdate) -> SourcePublic:
    """Only what is sent changes; null takes bot_id, description or accept_within away."""
    source = get_row(write.session, Source, source_id)
    with write.session.no_autoflush:
        source.sqlmodel_update(body.model_dump(exclude_unset=True))
        _check_unique(write.session, source)
    write.session.flush()
    return _public(write.session, [source])[0]


@router.delete("/{source_id}", status_code=204, summary="Delete a source", responses=responses(404, 409))
@writes
def delete_source(write: Write, source_id: PathId) -> None:
    """Its weights go along. One that ever had a contact stays: remove its operators instead."""
    source = get_row(write.session, Source, source_id)
    had = write.session.exec(select(Contact.id).where(Contact.source_id == source_id).limit(1)).first()
    if had:
        raise Conflict(f"source {source_id} has contacts, such as contact {had}: remove its operators instead")
    note_revoked(write.session, source_id=source_id)
    write.session.delete(source)


@router.post(
    "/{source_id}/operators", status_code=201, summary="Add an operator to a source", responses=responses(404, 409)
)
@writes
def add_source_operator(write: Write, source_id: PathId, body: SourceOperatorCreate) -> SourceOperatorPublic:
    """From now on it gets contacts of this source, by its weight relative to those of the others."""
    get_row(write.session, Source, source_id)
    get_row(write.session, Operator, body.operator_id)
    if write.session.get(SourceOperator, (source_id, body.topic, body.operator_id)) is not None:
        raise Conflict(f"operator {body.operator_id} serves {_name(source_id, body.topic)} already: change its weight")
    entry = SourceOperator(source_id=source_id, **body.model_dump())
    write.session.add(entry)
    write.session.flush()
    write.distributor.hand_out(source_id)
    return _entry_public(write.session, entry)


@router.put("/{source_id}/operators", summary="Replace all weights of a source", responses=responses(404))
@writes
def replace_source_operators(
    write: Write,
    source_id: PathId,
    body: Annotated[list[SourceOperatorCreate], Body(examples=[[{"operator_id": 1, "weight": 10}]])],
) -> SourcePublic:
    """The whole distribution at once: who is not in the list no longer serves the source."""
    source = get_row(write.session, Source, source_id)
    check_entries(write.session, body, "body")
    write.session.exec(delete(SourceOperator).where(col(SourceOperator.source_id) == source_id))
    write.session.add_all(SourceOperator(source_id=source_id, **entry.model_dump()) for entry in body)
    write.session.flush()
    write.distributor.hand_out(source_id)
    return _public(write.session, [source])[0]


@router.patch("/{source_id}/operators/{operator_id}", summary="Change a weight", responses=responses(404))
@writes
def update_source_operator(
    write: Write,
    source_id: PathId,
    operator_id: PathId,
    body: SourceOperatorUpdate,
    query: Annotated[EntryQuery, Query()],
) -> SourceOperatorPublic:
    """0 keeps the operator in the list, but it gets nothing from this source."""
    entry = _get_entry(write.session, source_id, query.topic, operator_id)
    entry.weight = body.weight
    write.session.flush()
    write.distributor.hand_out(source_id)
    return _entry_public(write.session, entry)


@router.delete(
    "/{source_id}/operators/{operator_id}",
    status_code=204,
    summary="Remove an operator from a source",
    responses=responses(404),
)
@writes
def remove_source_operator(
    write: Write, source_id: PathId, operator_id: PathId, query: Annotated[EntryQuery, Query()]
) -> None:
    """Contacts that it has already stay with it. What waits for a topic that has no weights any more is drawn from the
    plain ones at once."""
    write.session.delete(_get_entry(write.session, source_id, query.topic, operator_id))
    write.session.flush()
    write.distributor.hand_out(source_id)
