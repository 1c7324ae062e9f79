"""The types of the fields: what a name, an id, a weight may be, and the words that design.md fixes."""

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    AllowInfNan,
    AwareDatetime,
    BeforeValidator,
    Strict,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError
from sqlalchemy import BigInteger, CheckConstraint, Integer, false, text, true
from sqlmodel import Field

MAX_ID = 2**63 - 1
BIG = BigInteger().with_variant(Integer(), "sqlite")  # SQLite's INTEGER is 64-bit, and only it can AUTOINCREMENT
# Patterns for the OpenAPI document. Spelled out, for \s is not the same to all; this is what str.strip takes away.
SPACE = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
NO_NUL = r"^[^\x00]*$"
NOT_BLANK = rf"^[^\x00]*[^\x00{SPACE}][^\x00]*$"

# Predicates of the partial indexes. Queries use these very objects: SQLite takes such an index only for the same text.
IS_OPEN = text("status IN ('new', 'in_progress')")  # what counts as load
IS_PENDING = text("status = 'pending'")
HAS_WAITED = text("assigned_at > created_at")
IS_NOT_OVERDUE_YET = text("status = 'pending' AND waits_since IS NOT NULL")
HAS_EVENT = text("event_id IS NOT NULL")
IS_CLOSED = text("closed_at IS NOT NULL")
# Lines of the history after which another has the contact, or nobody; without those of most contacts, assigned at once.
# A reason that takes one out of the queue, or into it, must be here. (For IN, SQLite would make a list at each insert.)
IS_MOVE = text(
    "(reason = 'queued' OR reason = 'from_queue' OR reason = 'manual' OR reason = 'forced' OR reason = 'released'"
    " OR reason = 'sticky' OR reason = 'silent')"
)
HAS_SHIFTS = text("shift_until IS NOT NULL")
HAS_DUE_AT = text("due_at IS NOT NULL")
HAS_TOPIC = text("topic <> ''")
IS_STICKY = text("is_sticky")
HAS_NOTE = text("identity_note IS NOT NULL")
IS_MERGED = text("merged_into IS NOT NULL")

ContactStatus = Literal["pending", "new", "in_progress", "closed"]
# A line of the history: who got the contact or, without an operator, that it waits; then what else happened to it.
Moved = Literal["distributed", "queued", "from_queue", "manual", "forced", "released", "sticky", "silent"]
Happened = Literal["started", "closed", "overdue", "unaccepted"]
Reason = Literal[Moved, Happened]
EventType = Literal[
    "contact.assigned", "contact.queued", "contact.started", "contact.closed", "contact.overdue", "contact.unaccepted"
]
Obstacle = Literal["zero_weight", "inactive", "off_shift", "full"]  # why somebody gets nothing, in the order of telling
Outcome = Literal["chosen", "not_drawn", Obstacle, "excluded"]
Sticky = Literal["off", "prefer"]
IdentifierKind = Literal["external_id", "phone", "email"]
Role = Literal["admin", "source", "operator", "metrics"]
Language = Literal["en", "ru"]  # of messages to people
DeliveryKind = Literal["events", "test", "notice"]
DeliveryOutcome = Literal["waiting", "delivered", "failed", "passed_over", "skipped"]


ahead = timedelta()  # how far this process's clock goes ahead: only tests set it


def utcnow() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC) + ahead


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("time", "is out of range in UTC") from None


def _iso_8601(text: object) -> object:
    if not re.match(r"\d{4}-\d\d-\d\d[Tt ]", str(text)):  # else pydantic takes numbers for seconds since 1970
        raise PydanticCustomError("time", "must be a time in ISO 8601, such as 2026-01-31T09:00:00Z")
    return text


def whole(value: object) -> object:
    """In JSON 10.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text_of_integer(value: object) -> object:
    value = whole(value)
    return str(value) if type(value) is int else value


@cache
def _zones() -> set[str]:
    """Without those that are another one on each machine."""
    return available_timezones() - {"localtime", "Factory"}


def _known_zone(name: str) -> str:
    if name not in _zones():
        raise PydanticCustomError("time_zone", "must be a time zone such as Europe/Berlin")
    return name


class BeyondAll(int):
    """A number that no row has: to the database the highest there can be, but shown as it was sent."""

    sent: int

    def __new__(cls, sent: int) -> Self:
        number = super().__new__(cls, MAX_ID)
        number.sent = sent
        return number

    def __repr__(self) -> str:
        return repr(self.sent)


def within_64_bits(value: int) -> int:
    return value if value <= MAX_ID else BeyondAll(value)


def _without_nul(value: str) -> str:
    if "\x00" in value:
        raise PydanticCustomError("nul", "must not contain a NUL character")
    return value


def _stripped(value: str) -> str:
    return _without_nul(value).strip()


def _trimmed(value: str) -> str:
    value = _stripped(value)
    if not value:
        raise PydanticCustomError("blank", "must not be blank")
    return value


def _string(max_length: int, pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "maxLength": max_length, "pattern": pattern})


def _string_or_integer(max_length: int, pattern: str) -> WithJsonSchema:
    string = {"type": "string", "maxLength": max_length, "pattern": pattern}
    return WithJsonSchema({"anyOf": [string, {"type": "integer"}]})


def one_of(column: str, values: Any) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values.__args__)})", name=column)


# What the rows that are there have in a column that comes later.
YES, NO, EMPTY = ({"server_default": value} for value in (true(), false(), text("''")))


def where(predicate: Any) -> dict[str, Any]:
    return {"sqlite_where": predicate, "postgresql_where": predicate}


# Nothing has a higher id than the highest: what asks for one finds nothing, and a page up to there is whole.
Id = Annotated[int, Field(ge=1), AfterValidator(within_64_bits), BeforeValidator(whole)]
Cursor = Annotated[int, Field(ge=0), AfterValidator(within_64_bits), BeforeValidator(whole)]
MaxLoad = Annotated[int, Field(ge=0, le=100_000), BeforeValidator(whole)]
Priority = Annotated[int, Field(ge=0, le=9), BeforeValidator(whole)]
ANY, TRIMMED, OR_INTEGER = AfterValidator(_without_nul), AfterValidator(_trimmed), BeforeValidator(_text_of_integer)
Name = Annotated[str, StringConstraints(max_length=100), TRIMMED, _string(100, NOT_BLANK)]
LeadName = Annotated[str, StringConstraints(max_length=255), TRIMMED, _string(255, NOT_BLANK)]
# What bots call things: JSON strings or integers (Telegram's ids are integers), trimmed, kept as text.
BotId = Annotated[str, StringConstraints(max_length=100), TRIMMED, OR_INTEGER, _string_or_integer(100, NOT_BLANK)]
Key = Annotated[str, StringConstraints(max_length=255), TRIMMED, OR_INTEGER, _string_or_integer(255, NOT_BLANK)]
# Identifiers as they come: what is blank or does not normalise is no error but a note (design.md, "Lead identity").
ExternalId = Annotated[str, StringConstraints(max_length=255), ANY, OR_INTEGER, _string_or_integer(255, NO_NUL)]
ShortText = Annotated[str, StringConstraints(max_length=255), ANY, _string(255, NO_NUL)]
Description = Annotated[str, StringConstraints(max_length=1000), ANY, _string(1000, NO_NUL)]
Target = Annotated[str, StringConstraints(max_length=2000), TRIMMED, _string(2000, NOT_BLANK)]
Message = Annotated[str, StringConstraints(max_length=10_000), ANY, _string(10_000, NO_NUL)]
ApiKeyText = Annotated[str, StringConstraints(max_length=4096), TRIMMED, _string(4096, NOT_BLANK)]
Topic = Annotated[str, StringConstraints(max_length=100), TRIMMED, _string(100, NOT_BLANK)]
PlainOrTopic = Annotated[str, StringConstraints(max_length=100), AfterValidator(_stripped), _string(100, NO_NUL)]
Moment = Annotated[AwareDatetime, Strict(False), AfterValidator(_in_utc), BeforeValidator(_iso_8601)]
TimeZone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_known_zone)]
Weekday = Annotated[int, Field(ge=0, le=6), BeforeValidator(whole)]
AcceptWithin = Annotated[int, Field(ge=1, le=30 * 86_400), BeforeValidator(whole)]
Weight = Annotated[float, Field(ge=0, le=1_000_000), AllowInfNan(False)]
