"""POST /contacts/: a contact comes in, its lead is found, one operator gets it, and all is written at once."""

import random
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Self

import sqlalchemy
from fastapi import APIRouter, Request, Response
from pydantic import model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy import Connection, bindparam, case, exists, func, literal_column
from sqlmodel import Field, SQLModel, col, select

from crm.api.contacts import read_contact
from crm.day.due import FIRST_DUE, IsDue, in_time
from crm.db.base import is_alone, lock_operator
from crm.db.direct import run
from crm.db.sql import add_rows, next_id
from crm.distribution import ENTRY_COLUMNS, LOAD_OF_ONE, Entry, count_loads, draw, entries_for
from crm.errors import Forbidden, NotAlone, NotFound, Unauthorized, Unprocessable
from crm.events import note, note_assigned
from crm.fields import BIG, HAS_EVENT, BotId, ExternalId, Id, Moved, ShortText, Topic, utcnow
from crm.identity import KINDS, OWNERS, Claim
from crm.leads.duplicates import note_duplicates
from crm.models import (
    Assignment,
    Contact,
    ContactBase,
    ContactPublic,
    ContactReceipt,
    Input,
    Lead,
    LeadReceipt,
    Operator,
    OperatorRef,
    Source,
    SourceOperator,
    SourceRef,
)
from crm.queue import read_last_operator
from crm.web.answers import responses
from crm.web.auth import Caller, CallerDep
from crm.web.deps import Service
from crm.web.tables import ApiKey

router = APIRouter(prefix="/contacts", tags=["Contacts"])

REPEATED = (
    select(col(Contact.id))
    .where(col(Contact.source_id) == col(Source.id), col(Contact.event_id) == bindparam("event_id"), HAS_EVENT)
    .scalar_subquery()
)
HAS_KEY = exists().where(col(ApiKey.id) == bindparam("key_id"))
# All that a registration asks, in one statement: a row for each operator of the source, or one without.
ARRIVAL: Any = (
    sqlalchemy.select(
        *(col(Source.id), col(Source.name), col(Source.bot_id), col(Source.sticky), col(Source.accept_within)),
        REPEATED.label("repeated"),
        HAS_KEY.label("has_key"),
        FIRST_DUE.label("first_due"),
        *OWNERS,
        *ENTRY_COLUMNS,
    )
    .outerjoin(SourceOperator, col(SourceOperator.source_id) == col(Source.id))
    .outerjoin(Operator, col(Operator.id) == col(SourceOperator.operator_id))
    .order_by(col(SourceOperator.operator_id))
)
ARRIVAL_BY_ID = ARRIVAL.where(col(Source.id) == bindparam("key"))
ARRIVAL_BY_BOT = ARRIVAL.where(col(Source.bot_id) == bindparam("key"))
# The ids of the rows to come: of the contact, and of its lead if that is new.
CONTACT_ID = next_id(literal_column("contact"))
LEAD_ID: Any = func.coalesce(bindparam("lead_id", type_=BIG), next_id(literal_column("lead")))
NEW_IDS: Any = sqlalchemy.select(CONTACT_ID.label("contact_id"), LEAD_ID.label("lead_id"))


def _room() -> Any:
    """The load of an operator and, if that is below the limit, the ids: together they need one trip."""
    load = LOAD_OF_ONE.subquery("loaded").c.load
    has_room = load < bindparam("max_load", type_=BIG)
    ids = (case((has_room, CONTACT_ID)).label("contact_id"), case((has_room, LEAD_ID)).label("lead_id"))
    return sqlalchemy.select(load, *ids)


ROOM = _room()


class ContactCreate(ContactBase, Input):
    """Exactly one of source_id and source_bot_id (with a source's key not needed), and at least one identifier."""

    model_config = {
        "json_schema_extra": {
            "example": {
                "source_bot_id": "shop_bot",
                "lead_external_id": "tg:1001",
                "lead_phone": "8 (999) 123-45-67",
                "lead_name": "Ivan",
                "message": "Where is my order?",
                "event_id": "update-1",
            }
        }
    }
    source_id: Id | None = None
    source_bot_id: BotId | None = None
    lead_external_id: ExternalId | None = Field(
        default=None, description="The lead's id in its messenger. Shared by all sources: prefix private ids (tg:1001)."
    )
    lead_phone: ShortText | None = Field(default=None, description="Any usual spelling; compared in E.164.")
    lead_email: ShortText | None = Field(default=None, description="Compared without regard to case.")
    lead_name: ShortText | None = None
    topic: Topic | None = Field(default=None, description="What it is about: a source may have weights for it.")

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Self:
        if self.source_id is not None and self.source_bot_id is not None:
            raise PydanticCustomError("source", "give exactly one of source_id and source_bot_id")
        return self


def register(
    connection: Connection, body: ContactCreate, claim: Claim, rng: random.Random, caller: Caller, is_caught_up: bool
) -> tuple[ContactPublic, bool]:
    """Finds the lead and the operator of a new contact; True: it is new, False: a repeat, and nothing changed.

    Raises IsDue, NotFound (no such source) and Unprocessable (no usable identifier); for a source's key Forbidden (not
    that source) and Unauthorized (revoked).
    """
    arrival, entries = look_up(connection, body, claim, caller)
    now, name = utcnow(), (body.lead_name or "").strip() or None  # now, for it may have waited for the lock
    if arrival.repeated is not None:
        note(connection, "contact repeated", contact_id=arrival.repeated, source_id=arrival.id)
        return read_contact(connection, arrival.repeated), False
    due = (arrival.first_due, *(entry.shift_until for entry in entries))
    if not is_caught_up and any(moment is not None and moment <= now for moment in due):
        raise IsDue
    owners = {kind: owner for kind in KINDS if (owner := getattr(arrival, f"owner_of_{kind}")) is not None}
    lead_id = next(iter(owners.values()), None)
    preferred = read_last_operator(connection, lead_id) if lead_id and arrival.sticky == "prefer" else None
    entries = entries_for(body.topic or "", entries)
    operator, candidates, ids = choose_operator(connection, arrival.id, entries, rng, lead_id, preferred)
    lead, lead_rows, identity_note = claim.find_lead(connection, owners, ids.lead_id, lead_id is None, name, now)
    contact: dict[str, Any] = {
        "id": ids.contact_id,
        "message": body.message,
        "topic": body.topic or "",
        "priority": body.priority,
        "event_id": body.event_id,
        "created_at": now,
        "lead_id": lead.id,
        "source_id": arrival.id,
        "operator_id": operator.id if operator else None,
        "status": "new" if operator else "pending",
        "identity_note": identity_note,
        "assigned_at": now if operator else None,
        "closed_at": None,
        "waits_since": None if operator else now,
        "due_at": now + timedelta(seconds=arrival.accept_within) if operator and arrival.accept_within else None,
        "is_sticky": operator is not None and operator.id == preferred,
    }
    save(connection, contact, candidates, lead_rows)
    others = {kind: (claim.values[kind], owner) for kind, owner in owners.items() if owner != lead.id}
    if others:
        note_duplicates(connection, lead.id, others, contact["id"], now)
    source = SourceRef.model_construct(id=arrival.id, name=arrival.name, bot_id=arrival.bot_id)
    return ContactPublic.model_construct(**contact, lead=lead, source=source, operator=operator), True


def look_up(connection: Connection, body: ContactCreate, claim: Claim, caller: Caller) -> tuple[Any, Sequence[Entry]]:
    """What is known of the source, the event, the key and the identifiers (a row of ARRIVAL) and who serves it.

    Raises as `register` does for the source and the key.
    """
    source_id = caller.source_id or body.source_id
    by_id = source_id is not None
    key = source_id if by_id else body.source_bot_id
    identifiers: dict[str, Any] = {kind: claim.values.get(kind) for kind in KINDS}
    parameters = {**identifiers, "key": key, "event_id": body.event_id, "key_id": caller.key_id}
    rows = run(connection, ARRIVAL_BY_ID if by_id else ARRIVAL_BY_BOT, parameters)
    if caller.source_id is not None:
        if not rows or not rows[0].has_key:
            raise Unauthorized("this key is not known, or no longer")
        if body.source_id not in (None, caller.source_id) or body.source_bot_id not in (None, rows[0].bot_id):
            raise Forbidden(f"this key is for source {caller.source_id} only")
    if not rows:
        raise NotFound("source" if by_id else "source with bot_id", key)
    return rows[0], rows if rows[0].operator_id is not None else []


def choose_operator(
    connection: Connection,
    source_id: int,
    entries: Sequence[Entry],
    rng: random.Random,
    lead_id: int | None,
    preferred: int | None,
) -> tuple[OperatorRef | None, list[dict[str, Any]], Any]:
    """Draws one of these operators of the source, or None; what was seen, as from `draw`; and the new ids.

    The ids are a row with contact_id, and lead_id if that was None. Raises NotAlone if the first drawn is full, or
    nobody can be drawn.
    """
    limits = {entry.operator_id: entry.max_load for entry in entries}
    ids: Any = None
    loads: dict[int, int] | None = None

    def check_load(operator_id: int) -> int:
        nonlocal ids, loads
        if ids is None:
            lock_operator(connection, operator_id)
            of_one = {"operator_id": operator_id, "max_load": limits[operator_id], "lead_id": lead_id}
            [ids] = run(connection, ROOM, of_one)
            if ids.contact_id is None and not is_alone(connection):
                raise NotAlone
            return int(ids.load)
        if loads is None:  # of all the others at once: they may be full too, and each would be a trip
            loads = count_loads(connection, source_id)
        return loads[operator_id]

    drawn, seen = draw(entries, check_load, rng, preferred=preferred)
    if drawn is None and not is_alone(connection):
        raise NotAlone
    if ids is None or ids.contact_id is None:
        [ids] = run(connection, NEW_IDS, {"lead_id": lead_id})
    return OperatorRef(id=drawn.operator_id, name=drawn.operator_name) if drawn else None, seen, ids


def save(
    connection: Connection,
    contact: dict[str, Any],
    candidates: list[dict[str, Any]],
    lead_rows: Sequence[tuple[type[SQLModel], dict[str, Any]]],
) -> None:
    """Writes the contact with the first line of its history and what is new of its lead, and notes what happened.

    contact: by column. candidates, lead_rows: as from `draw` and `find_lead`.
    """
    given: Moved = "sticky" if contact["is_sticky"] else "distributed"
    reason = "queued" if contact["operator_id"] is None else given
    entry = {"contact_id": contact["id"], "operator_id": contact["operator_id"], "reason": reason}
    history = {**entry, "created_at": contact["created_at"], "candidates": candidates}
    add_rows(connection, *lead_rows, (Contact, contact), (Assignment, history))
    for table, row in lead_rows:
        if table is Lead:
            note(connection, "lead created", lead_id=row["id"])
    waited = None if contact["operator_id"] is None else 0.0
    note_assigned(connection, candidates, **entry, source_id=contact["source_id"], waited=waited)


@router.post(
    "/",
    status_code=201,
    response_model=ContactPublic | ContactReceipt,
    summary="Register a contact",
    openapi_extra={"security": [{"SessionCookie": []}]},  # here without the dependency that tells it of other routes
    responses={
        **responses(404),
        200: {
            "model": ContactPublic | ContactReceipt,
            "description": "A repeat of this event_id: the first contact, as it is now.",
        },
    },
)
async def create_contact(body: ContactCreate, request: Request, caller: CallerDep) -> Response:
    """Finds or creates the lead by its identifiers, and draws an operator by weight among those with room.

    Nobody eligible: the contact waits as `pending`, and that is a success too. With an `event_id` it is safe to repeat.
    """
    service: Service = request.app.state.service
    claim = Claim({kind: getattr(body, f"lead_{kind}") for kind in KINDS}, service.settings.default_region)
    if caller.source_id is None and body.source_id is None and body.source_bot_id is None:
        raise Unprocessable([(("body",), "give exactly one of source_id and source_bot_id")])
    contact, is_new = await in_time(
        service.database,
        service.rng,
        lambda connection, is_caught_up: register(connection, body, claim, service.rng, caller, is_caught_up),
        about=caller.source_id or body.source_id or body.source_bot_id,
    )
    answer = contact if caller.source_id is None else receipt(contact, body, claim)
    return Response(answer.model_dump_json(), 201 if is_new else 200, media_type="application/json")


def receipt(contact: ContactPublic, body: ContactCreate, claim: Claim) -> ContactReceipt:
    """What a bot may know of a contact: of the lead nothing that other bots said."""
    lists: Any = {f"{kind}s": [claim.values[kind]] if kind in claim.values else [] for kind in KINDS}
    lead = LeadReceipt.model_construct(id=contact.lead_id, name=(body.lead_name or "").strip() or None, **lists)
    said = contact.identity_note and re.sub(r"belongs to lead \d+", "belongs to another lead", contact.identity_note)
    return ContactReceipt.model_construct(**{**contact.__dict__, "lead": lead, "identity_note": said})
