"""Which lead wrote: identifiers made comparable, looked up all at once, and added (design.md, "Lead identity")."""

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, get_args

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from sqlalchemy import Connection, bindparam, insert, update
from sqlmodel import AutoString, col, select

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
ADD_LEAD = insert(Lead)
ADD_IDENTIFIER = insert(LeadIdentifier)
NAMELESS = (col(Lead.id) == bindparam("lead_id")) & col(Lead.name).is_(None)  # by now somebody may have named it
NAME_LEAD = update(Lead).where(NAMELESS).values(name=bindparam("new_name"))


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

    def find_or_create_lead(
        self, connection: Connection, owners: Mapping[IdentifierKind, int | None], name: str | None, now: datetime
    ) -> tuple[LeadPublic, str | None]:
        """The lead as it is from now on and the identity note; call it under the write lock.

        owners: the lead of each identifier that is known (OWNERS). Unknown ones and a missing name are added to the
        lead. Raises Unprocessable when nothing is usable.
        """
        if not self.values:
            missing = {kind: self.problems.get(kind, "is missing") for kind in KINDS}
            raise Unprocessable([(("body", f"lead_{kind}"), f"lead_{kind} {why}") for kind, why in missing.items()])
        known = {kind: lead_id for kind, lead_id in owners.items() if lead_id is not None}
        found = next((known[kind] for kind in KINDS if kind in known), None)
        lead_id = found or connection.execute(ADD_LEAD, {"name": name, "created_at": now}).inserted_primary_key[0]  # type: ignore[index]
        new = [(kind, value) for kind, value in self.values.items() if kind not in known]
        if new:
            add_identifiers(connection, lead_id, new)
        lead = read_leads(connection, [lead_id])[lead_id] if found else lead_public(lead_id, now, name, new)
        if lead.name is None and name is not None:
            connection.execute(NAME_LEAD, {"lead_id": lead_id, "new_name": name})
            lead = read_leads(connection, [lead_id])[lead_id]
        return lead, self._note({kind: owner for kind, owner in known.items() if owner != lead_id})

    def _note(self, others: Mapping[IdentifierKind, int]) -> str | None:
        notes = [f"lead_{kind} {self._texts[kind]!r} {why}" for kind, why in self.problems.items()]
        notes += [f"lead_{kind} {self.values[kind]!r} belongs to lead {lead_id}" for kind, lead_id in others.items()]
        return "; ".join(notes) or None


def add_identifiers(connection: Connection, lead_id: int, identifiers: Collection[tuple[IdentifierKind, str]]) -> None:
    """Gives the lead identifiers that nobody has."""
    rows: list[dict[str, Any]] = [{"kind": k, "value": v, "lead_id": lead_id} for k, v in sorted(identifiers)]
    connection.execute(ADD_IDENTIFIER, rows)


IDENTIFIERS_OF_LEADS = (
    select(_kind, _value, col(LeadIdentifier.lead_id))
    .where(col(LeadIdentifier.lead_id).in_(bindparam("lead_ids", expanding=True)))
    .order_by(col(LeadIdentifier.lead_id), _kind, _value)
)
LEADS = select(col(Lead.id), col(Lead.created_at), col(Lead.name)).where(
    col(Lead.id).in_(bindparam("lead_ids", expanding=True))
)


def read_leads(connection: Connection, lead_ids: Collection[int]) -> dict[int, LeadPublic]:
    """The leads with these ids (at most some thousands) and their identifiers, by id; unknown ids are left out."""
    ids = {"lead_ids": list(set(lead_ids))}
    identifiers = defaultdict(list)
    for kind, value, lead_id in connection.execute(IDENTIFIERS_OF_LEADS, ids):
        identifiers[lead_id].append((kind, value))
    return {row.id: lead_public(*row, identifiers[row.id]) for row in connection.execute(LEADS, ids)}


def lead_public(
    lead_id: int, created_at: datetime, name: str | None, identifiers: Iterable[tuple[str, str]]
) -> LeadPublic:
    values: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for kind, value in identifiers:
        values[kind].append(value)
    return LeadPublic(
        id=lead_id,
        created_at=created_at,
        name=name,
        external_ids=values["external_id"],
        phones=values["phone"],
        emails=values["email"],
    )
