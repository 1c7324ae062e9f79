"""The types of the fields: what a name, an id, a weight may be, and the words that design.md fixes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AllowInfNan, BeforeValidator, StringConstraints, WithJsonSchema
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


def _whole(value: object) -> object:
    """In JSON 10.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text_of_integer(value: object) -> object:
    value = _whole(value)
    return str(value) if type(value) is int else value


def within_64_bits(value: int) -> int:
    return min(value, MAX_ID)


def _string_or_integer(max_length: int, pattern: str) -> WithJsonSchema:
    string = {"type": "string", "maxLength": max_length, "pattern": pattern}
    return WithJsonSchema({"anyOf": [string, {"type": "integer"}]})


def one_of(column: str, values: Any) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values.__args__)})", name=column)


def where(predicate: Any) -> dict[str, Any]:
    return {"sqlite_where": predicate, "postgresql_where": predicate}


# Nothing has a higher id than the highest: what asks for one finds nothing, and a page up to there is whole.
Id = Annotated[int, Field(ge=1), AfterValidator(within_64_bits), BeforeValidator(_whole)]
MaxLoad = Annotated[int, Field(ge=0, le=100_000), BeforeValidator(_whole)]
Priority = Annotated[int, Field(ge=0, le=9), BeforeValidator(_whole)]
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
