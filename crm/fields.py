"""The types of the fields: what a name, an id, a weight may be, and the words that design.md fixes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, BeforeValidator, StringConstraints, WithJsonSchema
from sqlalchemy import BigInteger, CheckConstraint, Integer, text
from sqlmodel import Field

MAX_ID = 2**63 - 1
BIG = BigInteger().with_variant(Integer(), "sqlite")  # SQLite's INTEGER is 64-bit, and only it can AUTOINCREMENT
NO_NUL = r"^[^\x00]*$"
NOT_BLANK = r"^[^\x00]*[^\s\x00][^\x00]*$"

# Predicates of the partial indexes. Queries use these very objects: SQLite takes such an index only for the same text.
IS_OPEN = text("status IN ('new', 'in_progress')")  # what counts as load
IS_PENDING = text("status = 'pending'")
HAS_WAITED = text("assigned_at > created_at")
HAS_EVENT = text("event_id IS NOT NULL")

ContactStatus = Literal["pending", "new", "in_progress", "closed"]
Reason = Literal["distributed", "queued", "from_queue", "manual", "forced", "released"]
Outcome = Literal["chosen", "not_drawn", "full", "inactive", "zero_weight", "excluded"]
IdentifierKind = Literal["external_id", "phone", "email"]


def utcnow() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


def _text_of_integer(value: object) -> object:
    return str(value) if type(value) is int else value


def _string_or_integer(max_length: int, pattern: str) -> WithJsonSchema:
    string = {"type": "string", "maxLength": max_length, "pattern": pattern}
    return WithJsonSchema({"anyOf": [string, {"type": "integer", "minimum": -MAX_ID, "maximum": MAX_ID}]})


def one_of(column: str, values: Any) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values.__args__)})", name=column)


def where(predicate: Any) -> dict[str, Any]:
    return {"sqlite_where": predicate, "postgresql_where": predicate}


Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=NOT_BLANK)]
LeadName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255, pattern=NOT_BLANK)]
# What bots call things: JSON strings or integers (Telegram's ids are integers), trimmed, kept as text.
BotId = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=NO_NUL),
    BeforeValidator(_text_of_integer),
    _string_or_integer(100, NOT_BLANK),
]
Key = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=255, pattern=NO_NUL),
    BeforeValidator(_text_of_integer),
    _string_or_integer(255, NOT_BLANK),
]
ExternalId = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=255, pattern=NO_NUL),
    BeforeValidator(_text_of_integer),
    _string_or_integer(255, NO_NUL),
]
LooseText = Annotated[str, StringConstraints(max_length=255, pattern=NO_NUL)]
Weight = Annotated[float, Field(ge=0, le=1_000_000), AllowInfNan(False)]
