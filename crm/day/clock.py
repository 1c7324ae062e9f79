"""What is due by time, and not by a call; then what the search and the statistics keep.

Each process looks once a second, and does it under the write lock.

Done twice it changes nothing, so that no process has to be the one that does it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from crm.day.due import catch_up, is_any_overdue, is_due, tell_overdue
from crm.db import search_index
from crm.db.base import Database
from crm.db.counts import count_block, next_block
from crm.errors import Unavailable
from crm.fields import utcnow

EVERY = 1.0  # seconds
AFTER_ERROR = 10.0
NOT_DONE = "what is due was not done"  # or the database is away, for all
NOT_INDEXED = "what has changed did not get into the index of the search"
NOT_COUNTED = "what the statistics keep was not counted"
Step = Callable[[Session], object]
log = logging.getLogger(__name__)


async def keep_time(database: Database, rng: random.Random, overdue_after: timedelta) -> None:
    """Until it is cancelled. overdue_after: how long a contact may wait; nothing: for ever."""

    def next_due(connection: Connection) -> Step | None:
        now = utcnow()
        is_one = is_due(connection, now) or (bool(overdue_after) and is_any_overdue(connection, now - overdue_after))
        return do_due if is_one else None

    def do_due(session: Session) -> None:
        catch_up(session.connection(), rng)
        if overdue_after:
            tell_overdue(session.connection(), utcnow() - overdue_after)

    kinds = {NOT_DONE: next_due, NOT_INDEXED: _next_indexing, NOT_COUNTED: _next_counting}
    kind, paused_until = NOT_DONE, dict[str, float]()

    def next_step(connection: Connection) -> Step | None:
        """One of them at a time, so that what is due does not wait for what only makes reading faster."""
        nonlocal kind
        for kind, look in kinds.items():
            if time.monotonic() >= paused_until.get(kind, 0) and (step := look(connection)):
                return step
        return None

    while True:
        await asyncio.sleep(EVERY)
        kind = NOT_DONE
        try:
            while step := await database.look(next_step):
                await database.write(step)
                kind = NOT_DONE
        except search_index.Unreadable as error:
            log.warning("%s: %s", kind, error)
        except (SQLAlchemyError, Unavailable) as error:  # the database is away: it will be due later too
            log.warning("%s: %s", kind, type(error).__name__)
        except Exception:  # a fault of ours: told with its place, and what is due later is done all the same
            log.exception(kind)
        else:
            continue
        if kind == NOT_DONE:
            await asyncio.sleep(AFTER_ERROR)
        else:  # what is due does not wait for that
            paused_until[kind] = time.monotonic() + AFTER_ERROR


def _next_indexing(connection: Connection) -> Step | None:
    return search_index.catch_up if search_index.is_behind(connection) else None


def _next_counting(connection: Connection) -> Step | None:
    block = next_block(connection)
    return block and (lambda session: count_block(session.connection(), block))
