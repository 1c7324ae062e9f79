"""Which lead wrote: identifiers made comparable, looked up all at once, and added (design.md, "Lead identity")."""

import bisect
import unicodedata
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, get_args

import phonenumbers
import sqlalchemy
from email_validator import EmailNotValidError, validate_email
from sqlalchemy import Connection, bindparam, update
from sqlmodel import AutoString, SQLModel, col, select

from crm.db.direct import run
from crm.errors import Unprocessable
from crm.fields import IdentifierKind
from crm.models import Lead, LeadIdentifier, LeadPublic

KINDS: tuple[IdentifierKind, ...] = get_args(IdentifierKind)  # in the order in which they name the lead

_kind, _value = col(LeadIdentifier.kind), col(LeadIdentifier.value)
# Whose each identifier is, as columns for a statement that looks up other things too.
OWNERS = tuple(
    select(col(LeadIdentifier.lead_id))
    .where(_kind == kind, _value == bindparam(kind, type_=AutoString()))
    .scalar_subquery()
    .label(f"owner_of_{kind}")
    for kind in KINDS
)
NAMELESS = (col(Lead.id) == bindparam("lead_id")) & col(Lead.name).is_(None)  # by now somebody may have named it
NAME_LEAD = update(Lead).where(NAMELESS).values(name=bindparam("new_name"))
# All that an answer shows of a lead but its identifiers.
OF_LEAD: Any = tuple(column for column in Lead.__table__.c if column.name in LeadPublic.model_fields)  # type: ignore[attr-defined]
# A row for each identifier, and one of a lead that has none.
LEADS: Any = sqlalchemy.select(*OF_LEAD, _kind, _value).join(
    LeadIdentifier, col(LeadIdentifier.lead_id) == col(Lead.id), isouter=True
)
ONE_LEAD = LEADS.where(col(Lead.id) == bindparam("lead_id"))
THESE_LEADS = LEADS.where(col(Lead.id).in_(bindparam("lead_ids", expanding=True)))


def normalise(kind: IdentifierKind, text: str, region: str) -> str:
    """The form in which an identifier is stored and compared.

    region: of phones without a country code, such as RU. Raises ValueError, which says why there is none.
    """
    text = text.strip()
    if not text or "\x00" in text:
        raise ValueError("has a NUL" if text else "is blank")
    if kind == "phone":
        return _phone(text, region)
    if kind == "email":
        return _email(text)
    return text


def _phone(text: str, region: str) -> str:
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        number = None
    if number is None or not phonenumbers.is_valid_number(number):
        raise ValueError(f"is not a phone number (without + it is read as one of {region})")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def begin_of_phone(digits: str, region: str) -> str | None:
    """How the first digits of a phone are stored if they are told as at home: in Russia 8 912 is +7912."""
    prefix = phonenumbers.ndd_prefix_for_region(region, True)
    if not prefix or not digits.startswith(prefix):
        return None
    return f"+{phonenumbers.country_code_for_region(region)}{digits.removeprefix(prefix)}"


def _email(text: str) -> str:
    try:
        address = validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError:
        raise ValueError("is not an e-mail address") from None
    address = unicodedata.normalize("NFC", address.lower())  # lower-casing can undo the composed form
    if len(address) > 255:
        raise ValueError("is longer than 255 characters")
    return address


class Claim:
    """Who a contact says it is from: what could be normalised, and for the rest why not."""

    def __init__(self, texts: Mapping[IdentifierKind, str | None], region: str) -> None:
        self.values: dict[IdentifierKind, str] = {}
        self.problems: dict[IdentifierKind, str] = {}
        self._texts = texts
        for kind in KINDS:
            text = texts[kind]
            if text is not None:
                try:
                    self.values[kind] = normalise(kind, text, region)
                except ValueError as error:
                    self.problems[kind] = str(error)

    def find_lead(
        self,
        connection: Connection,
        owners: Mapping[IdentifierKind, int],
        lead_id: int,
        is_new: bool,
        name: str | None,
        now: datetime,
    ) -> tuple[LeadPublic, list[tuple[type[SQLModel], dict[str, Any]]], str | None]:
        """The lead as it is from now on, the rows that are to be added for it, and the identity note.

        owners: the lead of each identifier that is known. lead_id: the lead's; is_new: it is to be made.
        Identifiers that nobody has and a missing name are added to the lead. Call it under the write lock. Raises
        Unprocessable when nothing is usable.
        """
        if not self.values:
            missing = {kind: self.problems.get(kind, "is missing") for kind in KINDS}
            raise Unprocessable([(("body", f"lead_{kind}"), f"lead_{kind} {why}") for kind, why in missing.items()])
        rows: list[tuple[type[SQLModel], dict[str, Any]]] = []
        if is_new:
            columns = {"id": lead_id, "created_at": now, "name": name}
            lead = _with_empty_lists(columns)
            rows.append((Lead, columns))
        else:
            lead = read_leads(connection, [lead_id])[lead_id]
            if lead.name is None and name is not None:
                connection.execute(NAME_LEAD, {"lead_id": lead_id, "new_name": name})
                lead = read_leads(connection, [lead_id])[lead_id]
        for kind, value in sorted(self.values.items()):
            if kind not in owners:
                rows.append((LeadIdentifier, {"kind": kind, "value": value, "lead_id": lead_id}))
                bisect.insort(getattr(lead, f"{kind}s"), value)
        return lead, rows, self._note({kind: owner for kind, owner in owners.items() if owner != lead_id})

    def _note(self, others: Mapping[IdentifierKind, int]) -> str | None:
        notes = [f"lead_{kind} {self._texts[kind]!r} {why}" for kind, why in self.problems.items()]
        notes += [f"lead_{kind} {self.values[kind]!r} belongs to lead {lead_id}" for kind, lead_id in others.items()]
        return "; ".join(notes) or None


def read_leads(connection: Connection, lead_ids: Collection[int]) -> dict[int, LeadPublic]:
    """The leads with these ids (at most some thousands) and their identifiers, by id; unknown ids are left out."""
    found: Any
    if len(lead_ids) == 1:
        found = run(connection, ONE_LEAD, {"lead_id": next(iter(lead_ids))})
    else:
        found = connection.execute(THESE_LEADS, {"lead_ids": list(set(lead_ids))})
    leads: dict[int, LeadPublic] = {}
    for row in found:
        if row.id not in leads:
            leads[row.id] = _with_empty_lists({column.name: getattr(row, column.name) for column in OF_LEAD})
        if row.kind is not None:
            bisect.insort(getattr(leads[row.id], f"{row.kind}s"), row.value)
    return leads


def _with_empty_lists(columns: Mapping[str, Any]) -> LeadPublic:
    """Into which its identifiers then go. columns: a value for each of OF_LEAD."""
    lists: Any = {f"{kind}s": [] for kind in KINDS}
    return LeadPublic(**columns, **lists)
