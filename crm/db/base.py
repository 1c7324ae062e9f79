"""What SQLite and PostgreSQL have in common: a snapshot to read, a transaction to write, the tables brought up to date.

All transactions that write exclude each other, so that what they counted stays true until they commit. Where that is
too slow, a transaction may share the lock with others of its kind: then it raises NotAlone as soon as it finds out that
it needs the lock for itself, and is run again that way. Readers see a snapshot and take no lock.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from pydantic_core import to_json
from sqlalchemy import Connection, Engine, bindparam, exc, func
from sqlmodel import Session, SQLModel, col, select

from crm import events
from crm.db import search_index
from crm.db.counts import count_all
from crm.db.direct import run
from crm.errors import NotAlone, NotFound, StartupError, Unavailable
from crm.models import Assignment, Operator

T = TypeVar("T")
log = logging.getLogger(__name__)
Row = TypeVar("Row", bound=SQLModel)


FOR_TURN = 0.8  # of the busy time-out; a lock and an answer have times of their own
HIGHEST = select(func.coalesce(func.max(Assignment.id), 0))


def is_alone(connection: Connection) -> bool:
    """Whether this transaction excludes all others that write."""
    return not connection.get_execution_options().get("shared", False)


LOCK_OPERATOR = (
    select(Operator.id)
    .where(col(Operator.id) == bindparam("operator_id"))
    .with_for_update(key_share=True)
    .execution_options(wait=False)
)


def lock_operator(connection: Connection, operator_id: int | None) -> None:
    """Before a load is counted: keeps others that share the write lock from changing it; alone there are no others.

    Only one in a transaction, else two could wait for each other. Raises NotAlone for nobody's contacts.
    """
    if not is_alone(connection):
        if operator_id is None:
            raise NotAlone
        run(connection, LOCK_OPERATOR, {"operator_id": operator_id})


def get_row(session: Session, table: type[Row], row_id: int) -> Row:
    """The row with this id; raises NotFound."""
    row = session.get(table, row_id)
    if row is None:
        raise NotFound(str(table.__tablename__).removeprefix("api_"), row_id)
    return row


def to_text(value: Any) -> str:
    """JSON as it is stored: without spaces, which would be a tenth of a line of the history."""
    return to_json(value).decode()


def migrations() -> Config:
    """Alembic's view of `crm/db/migrations`; give it the connection as attributes["connection"]."""
    config = Config()
    config.set_main_option("script_location", "crm.db:migrations")
    return config


def _revisions(connection: Connection) -> tuple[str | None, str | None]:
    """That of the tables, and that of this version."""
    has = MigrationContext.configure(connection).get_current_revision()
    return has, ScriptDirectory.from_config(migrations()).get_current_head()


def check_schema(connection: Connection) -> None:
    """Raises StartupError unless the tables are those of this version."""
    has, wants = _revisions(connection)
    if has != wants:
        raise StartupError(
            f"the tables of the database are of version {has}, not {wants}: DATABASE_URL=... python -m crm migrate"
        )


class Database(ABC):
    """One database, opened by `start` and closed by `stop`."""

    def __init__(self, name: str, readers: Engine, writer: Engine, busy_timeout: float) -> None:
        """busy_timeout: seconds that a call waits for a lock or a connection before it fails (503)."""
        self.name, self._readers, self._writer, self._busy_timeout = name, readers, writer, busy_timeout
        self._free_readers = asyncio.Semaphore(readers.pool.size() - 1)  # type: ignore[attr-defined]  # 1: see `look`
        self.after_commit: Callable[[], object] = lambda: None  # called in the event loop, after each of our writes

    def start(self, then: Callable[[Connection], object], migrate: bool = True) -> None:
        """Brings the schema up to date, or only checks that it is; in the same transaction does `then`.

        Raises StartupError when the database can't be used.
        """
        try:
            with self.alone() as connection:
                if not migrate:
                    check_schema(connection)
                else:
                    has, wants = _revisions(connection)
                    if has != wants:
                        config = migrations()
                        config.attributes["connection"] = connection
                        command.upgrade(config, "head")
                    search_index.prepare(connection)
                    count_all(connection)
                search_index.warn(connection)
                noted = connection.info["events"] = list[events.Event]()
                then(connection)
            events.tell(noted)
        except CommandError as error:
            raise StartupError(f"database {self.name} is not one of this version: {error}") from error
        except (exc.SQLAlchemyError, ValueError, Unavailable) as error:
            reason = " ".join(str(getattr(error, "orig", error)).split())
            raise StartupError(f"database {self.name} can't be opened or written: {reason}") from error
        finally:
            self._writer.dispose()

    async def stop(self) -> None:
        """Call it when no call is under way any more."""
        self._readers.dispose()
        self._writer.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Session]:
        """A session that sees one snapshot from its first statement on; what it tries to write fails.

        Whoever finds no connection waits here: in a thread it would keep those from finishing that have one.
        """
        async with self._turn(self._free_readers):
            session = Session(self._readers)
            try:
                yield session
            finally:  # in a thread, for it may be a round trip
                await asyncio.get_running_loop().run_in_executor(None, _end, session)

    def snapshot(self) -> AbstractContextManager[Connection]:
        """The same for a thread of its own: a connection that only reads."""
        return self._readers.connect()

    async def look(self, work: Callable[[Connection], T]) -> T:
        """Reads a little, in a thread, on the connection that is kept for this: it waits for none of the others."""

        def run() -> T:
            with self.snapshot() as connection:
                result = work(connection)
                connection.commit()  # as in `_end`
                return result

        return await in_thread(run)

    @abstractmethod
    async def settled(self, after: int | None) -> int:
        """The highest id of the history below which nothing can come any more: all ids up to there are committed, or
        will never be. What was committed before the call is at or below it.

        after: what it returned before; None: nothing did.
        """

    @abstractmethod
    def alone(self) -> AbstractContextManager[Connection]:
        """A transaction that excludes all others and may change the schema; committed at the end of the block."""

    async def write(self, work: Callable[[Session], T]) -> T:
        """Runs `work` in a thread and a transaction, alone, and returns its result once that is on the disk.

        Raises what `work` raises, and keeps nothing of it. OperationalError: nothing changed.
        """
        return await self._write_and_tell(in_session(work), False)

    async def execute(self, work: Callable[[Connection], T], about: int | str | None = None) -> T:
        """Like `write`, for work of a few statements. It may share the lock: if it raises NotAlone, which it must do
        before it writes anything, it is run again.

        about: something, such as a source; what is about the same does not try to share for a moment after that.
        """
        return await self._write_and_tell(work, True, about)

    async def _write_and_tell(
        self, work: Callable[[Connection], T], is_short: bool, about: int | str | None = None
    ) -> T:
        noted: list[events.Event] = []

        def run(connection: Connection) -> T:
            noted.clear()  # of an attempt before, of which nothing is left
            connection.info["events"] = noted
            return work(connection)

        result = await self._transact(run, is_short, about)
        self.after_commit()
        if len(noted) > 100:
            await asyncio.to_thread(events.tell, noted)  # others want to be served meanwhile
        else:
            events.tell(noted)
        return result

    @abstractmethod
    async def _transact(self, work: Callable[[Connection], T], is_short: bool, about: int | str | None = None) -> T: ...

    @asynccontextmanager
    async def _turn(self, free: asyncio.Semaphore) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._busy_timeout * FOR_TURN):
                await free.acquire()
        except TimeoutError:
            raise exc.TimeoutError("no connection became free in time") from None
        try:
            yield
        finally:
            free.release()


async def in_thread(work: Callable[[], T]) -> T:
    """Like asyncio.to_thread, but who is cancelled waits until the thread is done: it works on a connection."""
    done = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(done)
    finally:
        await asyncio.wait([done])
        done.exception()  # told by the line above, or to nobody


def _end(session: Session) -> None:
    with suppress(exc.SQLAlchemyError):  # all is read, or the error that ended it was raised where it came up
        session.commit()  # after a rollback psycopg would prepare its statements again
    session.close()


def in_session(work: Callable[[Session], T]) -> Callable[[Connection], T]:
    """Makes work on a session one on a connection whose transaction is begun and committed elsewhere."""

    def run(connection: Connection) -> T:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            result = work(session)
            session.commit()
            return result

    return run
