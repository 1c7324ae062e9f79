"""The clock that tests set, and plans that say when somebody works."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from crm import fields

EIGHT = datetime(2026, 6, 1, 8, tzinfo=UTC)  # of a Monday
HOUR = timedelta(hours=1)
Span = tuple[float, float]  # hours from eight o'clock until


class Clock:
    """The service's in this process; it goes on from where it is set."""

    def set(self, hours: float) -> None:
        """To so many hours after eight o'clock."""
        fields.ahead = EIGHT + hours * HOUR - datetime.now(UTC)

    def tick(self, seconds: float) -> None:
        fields.ahead += timedelta(seconds=seconds)


@contextmanager
def set_clock() -> Iterator[Clock]:
    """At eight o'clock, for the length of a block."""
    clock = Clock()
    clock.set(0)
    try:
        yield clock
    finally:
        fields.ahead = timedelta()


def at(hours: float) -> str:
    """So many hours after eight, as the API writes it."""
    return f"{(EIGHT + hours * HOUR).isoformat().removesuffix('+00:00')}Z"


def only(*spans: Span) -> dict[str, Any]:
    """The body of a plan: works in these spans and at no other time."""
    exceptions = [{"begin": "2000-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z", "works": False}]
    exceptions += [{"begin": at(begin), "end": at(end), "works": True} for begin, end in spans]
    return {"exceptions": exceptions}
