"""Leads: the customers, and by which identifiers each is known."""

import re
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import WithJsonSchema
from sqlalchemy import delete, func
from sqlmodel import Field, Session, col, select, tuple_

from crm.api.contacts import CONTACTS, read_contacts
from crm.db import search
from crm.db.base import get_row
from crm.errors import Conflict, DomainError, NotFound, Unprocessable
from crm.fields import Id, IdentifierKind, Key, LeadName, ShortText
from crm.identity import KINDS, begin_of_phone, normalise, read_leads
from crm.leads.merging import check_has_identifier, get_living, rename
from crm.leads.tables import LeadAct, LeadActBase, about
from crm.models import Contact, ContactPublic, Input, Lead, LeadIdentifier, LeadPublic, Record
from crm.web.answers import ErrorMessage, responses
from crm.web.auth import ADMIN, Caller, CallerDep
from crm.web.deps import Paging, PathId, ServiceDep, SessionDep

router = APIRouter(prefix="/leads", tags=["Leads"])
PHONE = re.compile(r"\+?[\d\s().-]+")


class LeadUpdate(Input):
    model_config = {"json_schema_extra": {"example": {"name": "Ivan Petrov", "phones": ["+7 999 123-45-67"]}}}
    name: LeadName | None = None
    external_ids: list[Key] = Field(default=None, max_length=100)
    phones: list[Annotated[ShortText, WithJsonSchema({"type": "string", "format": "phone"})]] = Field(
        default=None, max_length=100
    )
    emails: list[Annotated[ShortText, WithJsonSchema({"type": "string", "format": "email"})]] = Field(
        default=None, max_length=100
    )


class LeadListed(LeadPublic):
    contacts_count: int


class LeadActPublic(LeadActBase, Record):
    pass


class LeadDetail(LeadListed):
    is_forgotten: bool
    acts: list[LeadActPublic] = Field(description="What was done with its data, oldest first; for admins only.")
    contacts: list[ContactPublic] = Field(description="The newest 100.")


class LeadQuery(Paging):
    external_id: str | None = Field(default=None, max_length=255)
    phone: str | None = Field(default=None, max_length=255, description="In any usual spelling (+ is %2B in a URL).")
    email: str | None = Field(default=None, max_length=255)
    q: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="Part of an identifier or of the name, in any case; if it has one letter or two, the begin of an"
        " identifier or of a word of the name. Also a phone, or a part of one, however it is written.",
    )
    after_id: Id | None = Field(default=None, description="Only higher ids: the next page of a large table.")


class LeadContactQuery(Paging):
    before_id: Id | None = Field(default=None, description="Only lower ids: the next page of a large table.")


class WasMerged(DomainError):
    """The lead that is asked for is another's part by now: the answer leads to the same of that one."""

    status_code = 308

    def __init__(self, lead: Lead, request: Request) -> None:
        super().__init__(f"lead {lead.id} was merged into lead {lead.merged_into}")
        _, _, rest = request.scope["route"].path.partition("{lead_id}")
        # Relative, so that it is right under whatever path a proxy serves this.
        path = f"../{lead.merged_into}{rest}" if rest else str(lead.merged_into)
        self.headers = {"Location": f"{path}?{request.url.query}" if request.url.query else path}


MERGED: dict[int | str, dict[str, Any]] = {
    308: {"model": ErrorMessage, "description": "It was merged: `Location` leads to the same of the other lead."}
}


def read_listed(session: Session, leads: list[LeadPublic], caller: Caller) -> list[LeadListed]:
    ids = [lead.id for lead in leads]
    statement = select(Contact.lead_id, func.count()).where(col(Contact.lead_id).in_(ids))
    counts = dict(session.exec(caller.own(statement).group_by(col(Contact.lead_id))).all())
    return [LeadListed(**dict(lead), contacts_count=counts.get(lead.id, 0)) for lead in leads]


def read_detail(session: Session, lead_id: int, caller: Caller = ADMIN) -> LeadDetail:
    [lead] = read_listed(session, [read_leads(session.connection(), [lead_id])[lead_id]], caller)
    columns: Any = [getattr(LeadAct, name) for name in LeadActPublic.model_fields]  # not what moved, which is long
    rows = session.exec(select(*columns).where(col(LeadAct.id).in_(about(LeadAct, lead_id))).order_by(col(LeadAct.id)))
    acts = [LeadActPublic.model_validate(row) for row in rows]
    return LeadDetail(
        **dict(lead),
        is_forgotten=any(act.act == "forgotten" for act in acts),
        acts=acts if caller.role == "admin" else [],
        contacts=_contacts(session, lead_id, LeadContactQuery(), caller),
    )


def check_shown(session: Session, lead_id: int, caller: Caller, request: Request) -> None:
    """Raises NotFound, for an operator also when it has no contact of this lead, and WasMerged."""
    lead = get_row(session, Lead, lead_id)
    own = caller.own(select(Contact.id).where(Contact.lead_id == (lead.merged_into or lead_id))).limit(1)
    if caller.operator_id is not None and session.exec(own).first() is None:
        raise NotFound("lead", lead_id)
    if lead.merged_into is not None:
        raise WasMerged(lead, request)


def _contacts(session: Session, lead_id: int, query: LeadContactQuery, caller: Caller) -> list[ContactPublic]:
    statement = caller.own(CONTACTS).where(col(Contact.lead_id) == lead_id).order_by(col(Contact.id).desc())
    if query.before_id is not None:
        statement = statement.where(col(Contact.id) < query.before_id)
    return read_contacts(session.connection(), query.of(statement))


@router.get("/", summary="List and search leads")
def list_leads(
    query: Annotated[LeadQuery, Query()], session: SessionDep, service: ServiceDep, caller: CallerDep
) -> list[LeadListed]:
    """By id. `external_id`, `phone` and `email` find the one lead that has exactly this; `q` searches in all."""
    owners: list[Any] = []
    for kind in KINDS:
        text = getattr(query, kind)
        if text is not None:
            try:
                value = normalise(kind, text, service.settings.default_region)
            except ValueError:  # what is no identifier is nobody's
                return []
            owner = select(LeadIdentifier.lead_id).where(LeadIdentifier.kind == kind, LeadIdentifier.value == value)
            owners.append(owner.scalar_subquery())

    def is_meant(lead_id: Any) -> list[Any]:
        exact = [lead_id == owner for owner in owners]
        if caller.operator_id is not None:
            exact.append(lead_id.in_(caller.own(select(Contact.lead_id))))
        return exact

    after = query.after_id or 0
    if query.q is None:
        is_listed = (col(Lead.id) > after, col(Lead.merged_into).is_(None), *is_meant(col(Lead.id)))
        ids = session.exec(query.of(select(Lead.id).where(*is_listed).order_by(col(Lead.id)))).all()
    else:
        parts = _spelled(query.q, service.settings.default_region)
        ids = search.find(session, parts, is_meant, after, query.skip, query.limit)
    leads = read_leads(session.connection(), ids)
    return read_listed(session, [leads[lead_id] for lead_id in ids], caller)


def _spelled(text: str, region: str) -> list[str]:
    """What is searched for and, if it may be a phone or a part of one, how that is stored: the digits of any, and the
    whole or the begin of one of this region, which may be told otherwise at home.
    """
    if not PHONE.fullmatch(text):
        return [text]
    spelled = [digits := re.sub(r"\D", "", text)]
    with suppress(ValueError):
        spelled.append(normalise("phone", text, region))
    if begin := begin_of_phone(digits, region):
        spelled.append(begin)
    return [text, *(phone for phone in dict.fromkeys(spelled) if len(phone) > 2 and phone not in text)]


@router.get("/{lead_id}", summary="Get a lead", responses={**responses(404), **MERGED})
def get_lead_detail(lead_id: PathId, session: SessionDep, caller: CallerDep, request: Request) -> LeadDetail:
    """With its newest 100 contacts, whatever source they came from."""
    check_shown(session, lead_id, caller, request)
    return read_detail(session, lead_id, caller)


@router.get("/{lead_id}/contacts", summary="List the contacts of a lead", responses={**responses(404), **MERGED})
def list_lead_contacts(
    lead_id: PathId,
    query: Annotated[LeadContactQuery, Query()],
    session: SessionDep,
    caller: CallerDep,
    request: Request,
) -> list[ContactPublic]:
    """Newest first, over all sources."""
    check_shown(session, lead_id, caller, request)
    return _contacts(session, lead_id, query, caller)


@router.patch("/{lead_id}", summary="Change a lead", responses=responses(404, 409))
async def update_lead(lead_id: PathId, body: LeadUpdate, service: ServiceDep) -> LeadDetail:
    """Only what is sent changes; each list is the whole new one of its kind. One identifier at least must remain."""
    wanted = _normalised(body, service.settings.default_region)

    def work(session: Session) -> LeadDetail:
        lead = get_living(session, lead_id)
        if "name" in body.model_fields_set:
            rename(session, lead, body.name)
        session.flush()
        if wanted:
            _replace_identifiers(session, lead_id, wanted)
        return read_detail(session, lead_id)

    return await service.database.write(work)


def _normalised(body: LeadUpdate, region: str) -> dict[IdentifierKind, set[str]]:
    wanted: dict[IdentifierKind, set[str]] = {}
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for kind in KINDS:
        field = f"{kind}s"
        if field in body.model_fields_set:
            wanted[kind] = set()
            for index, text in enumerate(getattr(body, field)):
                try:
                    wanted[kind].add(normalise(kind, text, region))
                except ValueError as error:
                    problems.append((("body", field, index), f"{text!r} {error}"))
    if problems:
        raise Unprocessable(problems)
    return wanted


def _replace_identifiers(session: Session, lead_id: int, wanted: dict[IdentifierKind, set[str]]) -> None:
    pairs = [(kind, value) for kind, values in wanted.items() for value in values]
    key = tuple_(col(LeadIdentifier.kind), col(LeadIdentifier.value))
    taken = session.exec(
        select(LeadIdentifier)
        .where(key.in_(pairs), LeadIdentifier.lead_id != lead_id)
        .order_by(col(LeadIdentifier.value))
    ).first()
    if taken is not None:
        raise Conflict(f"{taken.kind} {taken.value!r} belongs to lead {taken.lead_id}")
    session.exec(
        delete(LeadIdentifier).where(col(LeadIdentifier.lead_id) == lead_id, col(LeadIdentifier.kind).in_(wanted))
    )
    session.add_all(LeadIdentifier(kind=kind, value=value, lead_id=lead_id) for kind, value in pairs)
    session.flush()
    if not pairs:
        check_has_identifier(session, lead_id)
