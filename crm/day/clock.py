"""What is due by time, and not by a call; then what the search and the statistics keep.

Each process looks once a second, and does it under the write lock.

Done twice it changes nothing, so that no process has to be the one that does it.
"""

import asyncio
import logging
import random
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
log = logging.getLogger(__name__)


async def keep_time(database: Database, rng: random.Random, overdue_after: timedelta) -> None:
    """Until it is cancelled. overdue_after: how long a contact may wait; nothing: for ever."""

    def is_anything_due(connection: Connection) -> bool:
        now = utcnow()
        return is_due(connection, now) or (bool(overdue_after) and is_any_overdue(connection, now - overdue_after))

    def do(session: Session) -> None:
        catch_up(session.connection(), rng)
        if overdue_after:
            tell_overdue(session.connection(), utcnow() - overdue_after)

    def next_step(connection: Connection) -> Callable[[Session], object] | None:
        """One of them at a time, so that what is due does not wait for what only makes reading faster."""
        if is_anything_due(connection):
            return do
        if search_index.is_behind(connection):
            return search_index.catch_up
        block = next_block(connection)
        return block and (lambda session: count_block(session.connection(), block))

    while True:
        await asyncio.sleep(EVERY)
        try:
            while step := await database.look(next_step):
                await database.write(step)
        except (SQLAlchemyError, Unavailable) as error:  # the database is away: it will be due later too
            log.warning("what is due was not done: %s", type(error).__name__)
            await asyncio.sleep(AFTER_ERROR)
        except Exception:  # a fault of ours: told with its place, and what is due later is done all the same
            log.exception("what is due was not done")
            await asyncio.sleep(AFTER_ERROR)
