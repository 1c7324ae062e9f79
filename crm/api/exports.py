"""GET /contacts/export: all contacts that are wanted, as a file, read on a little at a time.

Each page is a short read of its own: one that lasted as long as the export would keep SQLite from shortening its
write-ahead log. So each contact is as it was when its page was read, and none that came after the begin is there.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

import sqlalchemy
from fastapi import APIRouter, Query, Response
from pydantic_core import to_json
from sqlalchemy import bindparam, func
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Field, Session, col, select

from crm.api.contacts import CONTACTS, ContactFilter
from crm.db.base import in_thread
from crm.events import tell
from crm.fields import utcnow
from crm.identity import KINDS, OF_LEAD
from crm.models import Contact, ContactRecord, Lead, LeadIdentifier
from crm.web.auth import CallerDep
from crm.web.cells import BOM, csv_text
from crm.web.deps import Period, Service, ServiceDep
from crm.web.stopping import BrokenOff, Stream

router = APIRouter(prefix="/contacts", tags=["Contacts"])
log = logging.getLogger(__name__)

PAGE = 250  # contacts
WINDOW = 20_000  # ids that one statement goes through, however few of them are wanted
GIVE_WAY = 8  # times as long as a page had the interpreter, others have it before the next

OF_ITS_LEAD = {column.name: f"lead_{column.name}" for column in OF_LEAD}  # lead_id is one of the contact's own
HIGHEST = select(func.coalesce(func.max(Contact.id), 0))
PAGES: Any = (
    CONTACTS.add_columns(*(column.label(OF_ITS_LEAD[column.name]) for column in OF_LEAD if column.name != "id"))
    .outerjoin(Lead, col(Lead.id) == col(Contact.lead_id))
    .where(col(Contact.id) > bindparam("after"), col(Contact.id) <= bindparam("last"))
    .order_by(col(Contact.id))
    .limit(PAGE)
)
IDENTIFIERS: Any = sqlalchemy.select(
    col(LeadIdentifier.lead_id), col(LeadIdentifier.kind), col(LeadIdentifier.value)
).where(col(LeadIdentifier.lead_id).in_(bindparam("lead_ids", expanding=True)))

Row: TypeAlias = dict[str, Any]  # a contact as GET /contacts/ has it


class ExportQuery(ContactFilter, Period):
    format: Literal["csv", "jsonl"] = Field(default="csv", description="jsonl: one JSON object a line.")

    def of(self, statement: Any) -> Any:
        created_at = func.coalesce(Contact.created_at, Contact.created_at)  # in no index: the pages go by id
        return self.keep(statement).where(*self.on(created_at))


def read_page(session: Session, statement: Any, after: int, last: int) -> tuple[list[Row], int]:
    """Contacts with ids above `after`, and the id to go on after. Without models, which take three times as long."""
    connection, last = session.connection(), min(last, after + WINDOW)
    found = connection.execute(statement, {"after": after, "last": last}).mappings().all()
    identifiers: dict[int, dict[str, list[str]]] = {row["lead_id"]: {kind: [] for kind in KINDS} for row in found}
    for lead_id, kind, value in connection.execute(IDENTIFIERS, {"lead_ids": list(identifiers)}):
        identifiers[lead_id][kind].append(value)
    rows = [_contact(row, identifiers[row["lead_id"]]) for row in found]
    return rows, (rows[-1]["id"] if len(rows) == PAGE else last)


def _contact(row: Any, identifiers: dict[str, list[str]]) -> Row:
    lists = {f"{kind}s": sorted(identifiers[kind]) for kind in KINDS}
    has_operator = row["operator_id"] is not None
    return {
        **{name: row[name] for name in ("id", "created_at", *ContactRecord.model_fields)},
        "lead": {**{name: row[label] for name, label in OF_ITS_LEAD.items()}, **lists},
        "source": {"id": row["source_id"], "name": row["source_name"], "bot_id": row["source_bot_id"]},
        "operator": {"id": row["operator_id"], "name": row["operator_name"]} if has_operator else None,
    }


def _moment(moment: datetime | None) -> str | None:
    return f"{moment.isoformat()[:-6]}Z" if moment else None  # as in JSON


COLUMNS = (
    *("id", "created_at", "source_id", "source_name"),
    *("lead_id", "lead_name", "lead_external_ids", "lead_phones", "lead_emails"),
    *("operator_id", "operator_name", "status", "priority", "topic", "message", "event_id", "identity_note"),
    *("assigned_at", "closed_at"),
)


def _cells(row: Row) -> list[Any]:
    """In the order of COLUMNS."""
    source, lead, operator = row["source"], row["lead"], row["operator"] or {}
    return [
        *(row["id"], _moment(row["created_at"]), source["id"], source["name"]),
        *(lead["id"], lead["name"], *("; ".join(lead[f"{kind}s"]) for kind in KINDS)),
        *(operator.get("id"), operator.get("name"), row["status"], row["priority"], row["topic"], row["message"]),
        *(row["event_id"], row["identity_note"], _moment(row["assigned_at"]), _moment(row["closed_at"])),
    ]


def write_csv(rows: Sequence[Row]) -> bytes:
    return csv_text(map(_cells, rows)).encode()


def write_jsonl(rows: Sequence[Row]) -> bytes:
    return b"".join(to_json(row) + b"\n" for row in rows)


FILE = {
    "description": "A file, oldest first. A connection that breaks off before its end means that it is not whole.",
    "content": {media: {"schema": {"type": "string"}} for media in ("text/csv", "application/jsonl")},
}


@router.get("/export", summary="Export contacts", response_class=Response, responses={200: FILE})
async def export_contacts(query: Annotated[ExportQuery, Query()], service: ServiceDep, caller: CallerDep) -> Response:
    """As a file for spreadsheets (CSV) or programs (JSON lines, as in the list), oldest first; filters are combined.

    The columns of the CSV: id, created_at, source_id, source_name, lead_id, lead_name, lead_external_ids, lead_phones,
    lead_emails (what a lead has several of is joined by `; `), operator_id, operator_name, status, priority, topic,
    message, event_id, identity_note, assigned_at, closed_at. A cell that a spreadsheet would run as a formula begins
    with an apostrophe. It leaves room for all other calls, and takes some minutes for 1,000,000 contacts.
    """
    last = await service.database.look(lambda connection: int(connection.execute(HIGHEST).scalar_one()))
    tell([("contacts exported", {"format": query.format, "key_id": caller.key_id})])
    name = f"contacts-{utcnow():%Y-%m-%d}.{query.format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Accel-Buffering": "no"}
    if query.format == "csv":
        head = f"{BOM}{csv_text([COLUMNS])}".encode()
        pieces, media_type = _pieces(service, query, last, head, write_csv), "text/csv"
    else:
        pieces, media_type = _pieces(service, query, last, b"", write_jsonl), "application/jsonl"
    return Stream(pieces, service.feed.closed, media_type=media_type, headers=headers)


async def _pieces(
    service: Service, query: ExportQuery, last: int, head: bytes, write: Callable[[Sequence[Row]], bytes]
) -> AsyncIterator[bytes]:
    statement, after = query.of(PAGES), 0

    def read_and_write(session: Session, after: int) -> tuple[bytes, int, float]:
        begin = time.thread_time()
        rows, after = read_page(session, statement, after, last)
        return write(rows), after, time.thread_time() - begin

    yield head
    while after < last:
        if service.feed.closed.is_set():
            raise BrokenOff
        try:
            async with service.database.read() as session:
                piece, after, took = await in_thread(partial(read_and_write, session, after))
        except SQLAlchemyError as error:
            log.warning("an export was broken off: %s", " ".join(str(getattr(error, "orig", error)).split()))
            raise BrokenOff from error
        yield piece
        await asyncio.sleep(GIVE_WAY * took)
