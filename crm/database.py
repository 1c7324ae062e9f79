"""The database: how it is opened, and how reads and writes share it.

SQLite takes one writer at a time. Threads that fight for its lock wait in a busy handler that sleeps and is not fair,
so here all writes of a process stand in one queue. A single task takes whatever waits, runs each request's work in a
savepoint of its own, commits them together (one flush to the disk for all) and only then lets them answer.
Other processes on the same file are kept apart by BEGIN IMMEDIATE. Readers see a snapshot and take no lock.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlmodel import Session, SQLModel

from crm.errors import NotFound, StartupError

T = TypeVar("T")
Row = TypeVar("Row", bound=SQLModel)

READERS = 8  # connections; more would only wait for the interpreter
MAX_BATCH = 64  # requests that share a commit


def contains(column: Any, part: str) -> Any:
    """A condition: the text column contains this part, in any case. SQLite's LIKE and lower() know only ASCII."""
    pattern = "".join(_glob_class({char, char.lower(), char.upper()}) for char in part)
    return column.op("GLOB")(f"*{pattern}*")


def _glob_class(variants: set[str]) -> str:
    """Matches one character: GLOB reads ] as itself when it comes first, and ^ when it does not."""
    single = sorted((char for char in variants if len(char) == 1), key="]^".find, reverse=True)
    return single[0] if single == ["^"] else f"[{''.join(single)}]"


def seconds_between(later: Any, earlier: Any) -> Any:
    """The time from one moment to another, as an expression in seconds."""
    return (func.julianday(later) - func.julianday(earlier)) * 86_400


def get_row(session: Session, table: type[Row], row_id: int) -> Row:
    """The row with this id; raises NotFound."""
    row = session.get(table, row_id)
    if row is None:
        raise NotFound(str(table.__tablename__), row_id)
    return row


def _engine(url: str, busy_timeout: float, pool_size: int, *pragmas: str) -> Engine:
    # AUTOCOMMIT: each BEGIN is ours. SQLAlchemy's begin event could send them too, but listening slows every statement.
    engine = create_engine(
        url,
        connect_args={"timeout": busy_timeout},
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=busy_timeout,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver's own transactions begin too late to protect a count
        for pragma in ("journal_mode=WAL", "synchronous=FULL", *pragmas):
            connection.execute(f"PRAGMA {pragma}")

    return engine


class Database:
    """One database file, opened by `start` and closed by `stop`.

    Raises StartupError when the URL is not one of a SQLite file.
    """

    def __init__(self, url: str, busy_timeout: float) -> None:
        """busy_timeout: seconds that a write waits for another process's lock before it fails (503)."""
        try:
            parsed = make_url(url)
        except ArgumentError:
            raise StartupError("DATABASE_URL is not a database URL such as sqlite:///crm.db") from None
        self.name = url if parsed.password is None else parsed.render_as_string()
        if parsed.get_backend_name() != "sqlite":
            raise StartupError(f"DATABASE_URL {self.name}: only sqlite:///FILE is supported")
        if not parsed.database or ":memory:" in url or "mode=memory" in url:
            raise StartupError(f"DATABASE_URL {self.name}: a database in memory would lose contacts, name a file")
        self._readers = _engine(url, busy_timeout, READERS, "query_only=ON")
        event.listen(self._readers, "checkout", lambda connection, *_: connection.execute("BEGIN"))
        self._writer = _engine(url, busy_timeout, 1, "foreign_keys=ON", "cache_size=-32000")
        self._free_readers = asyncio.Semaphore(READERS)
        self._jobs: list[_Job] = []
        self._task: asyncio.Task[None] | None = None  # works while jobs wait
        self._thread = ThreadPoolExecutor(1, "writer")

    def start(self, then: Callable[[Connection], object]) -> None:
        """Brings the schema up to date and, in the same transaction, does `then`; raises StartupError."""
        try:
            self._migrate(then)
        except CommandError as error:
            raise StartupError(f"DATABASE_URL {self.name} is not one of this version: {error}") from error
        except DatabaseError as error:
            raise StartupError(f"DATABASE_URL {self.name} can't be opened or written: {error.orig}") from error

    async def stop(self) -> None:
        """Finishes the writes that wait, then closes."""
        if self._task is not None:
            await self._task
        self._thread.shutdown()
        self._readers.dispose()
        self._writer.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Session]:
        """A session that sees one snapshot from its first statement on; what it tries to write fails.

        Whoever finds no connection waits here: in a thread it would keep those from finishing that have one.
        """
        async with self._free_readers:
            with Session(self._readers) as session:
                yield session

    async def write(self, work: Callable[[Session], T]) -> T:
        """Runs `work` in the writer and returns its result once that is on the disk.

        Raises what `work` raises, and keeps nothing of it. OperationalError: the commit failed, nothing changed.
        """

        def in_session(connection: Connection) -> T:
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                result = work(session)
                session.commit()
                return result

        return await self._enqueue(in_session, True)

    async def execute(self, work: Callable[[Connection], T]) -> T:
        """Like `write`, for work of a few statements that needs no session.

        It runs in the event loop: handing the interpreter back and forth would take a fifth more time.
        """
        return await self._enqueue(work, False)

    def _enqueue(self, work: Callable[[Connection], T], in_thread: bool) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.append(_Job(work, in_thread, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._write_jobs())
        return future

    def _migrate(self, then: Callable[[Connection], object]) -> None:
        config = Config()
        config.set_main_option("script_location", "crm:migrations")
        with self._writer.connect() as connection:
            # Foreign keys are off, else rebuilding a table would clear the references to it.
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            then(connection)
            connection.exec_driver_sql("COMMIT")
        self._writer.dispose()

    async def _write_jobs(self) -> None:
        while self._jobs:
            batch, self._jobs = self._jobs[:MAX_BATCH], self._jobs[MAX_BATCH:]
            try:
                await self._commit(batch)
            except Exception as error:  # whatever it was, none of the batch is in the database: each caller is told
                for job in batch:
                    job.error = error
            for job in batch:
                job.settle()

    async def _commit(self, batch: list["_Job"]) -> None:
        run_in_thread = partial(asyncio.get_running_loop().run_in_executor, self._thread)
        with self._writer.connect() as connection:
            await run_in_thread(connection.exec_driver_sql, "BEGIN IMMEDIATE")
            for job in batch:
                if job.in_thread:
                    await run_in_thread(job.run, connection)
                else:
                    job.run(connection)
            await run_in_thread(connection.exec_driver_sql, "COMMIT")


class _Job:
    """One request's work, its result, and the future with which the request waits for it."""

    def __init__(self, work: Callable[[Connection], Any], in_thread: bool, future: asyncio.Future[Any]) -> None:
        self.work, self.in_thread, self.future = work, in_thread, future
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, connection: Connection) -> None:
        savepoint = connection.connection.cursor().execute  # of the driver: SQLAlchemy's own takes 20 times as long
        savepoint("SAVEPOINT job")
        try:
            self.result = self.work(connection)
        except OperationalError:
            raise  # the database itself failed, and may have rolled everything back
        except Exception as error:
            self.error = error
            savepoint("ROLLBACK TO job")
        savepoint("RELEASE job")

    def settle(self) -> None:
        if self.future.cancelled():  # its caller has hung up
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)
