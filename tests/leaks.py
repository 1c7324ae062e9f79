"""Connections that a test leaves open: psycopg complains once one is collected, sqlite3 (before 3.13) never does."""

import sys
from types import FrameType
from typing import Any

from sqlalchemy import Pool, event

opened: dict[int, tuple[Any, str]] = {}
"""By id each connection that SQLAlchemy has opened and not closed, and where in our code that was."""


def _ours(frame: FrameType | None) -> str:
    """The callers that are files of this project, innermost first."""
    found = []
    while frame is not None:
        name = frame.f_code.co_filename
        if ("/crm/" in name or "/tests/" in name) and "site-packages" not in name and __file__ != name:
            found.append(f"{name.rpartition('/crm/')[1] or '/tests/'}{name.rpartition('/')[2]}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(found)


@event.listens_for(Pool, "connect")
def _note(connection: Any, _: object) -> None:
    opened[id(connection)] = connection, _ours(sys._getframe())


@event.listens_for(Pool, "close")
def _forget(connection: Any, _: object) -> None:
    opened.pop(id(connection), None)


@event.listens_for(Pool, "close_detached")
def _forget_detached(connection: Any) -> None:
    opened.pop(id(connection), None)


def close_all() -> list[str]:
    """Closes what is open, and says where each was opened."""
    left = list(opened.values())
    opened.clear()
    for connection, _ in left:
        connection.close()
    return [where or f"by a thread of a library: {connection}" for connection, where in left]
