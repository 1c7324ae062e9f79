"""The database: how it is opened, and how reads and writes share it.

SQLite takes one writer at a time. Threads that fight for its lock wait in a busy handler that sleeps and is not fair,
so here all writes of a process stand in one queue: a single thread takes whatever waits, runs each request's work in
a savepoint of its own, commits them together (one flush to the disk for all) and only then lets them answer.
Other processes on the same file are kept apart by BEGIN IMMEDIATE. Readers see a snapshot and take no lock.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlmodel import Session

from crm.errors import StartupError

T = TypeVar("T")
Work = Callable[[Session], T]

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


def _engine(url: str, begin: str, busy_timeout: float, pool_size: int, *pragmas: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": busy_timeout}, pool_size=pool_size, max_overflow=0)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver's own transactions begin too late to protect a count
        for pragma in ("journal_mode=WAL", "synchronous=FULL", *pragmas):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

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
        self.name = parsed.render_as_string(hide_password=True)
        if parsed.get_backend_name() != "sqlite":
            raise StartupError(f"DATABASE_URL {self.name}: only sqlite:///FILE is supported")
        if not parsed.database or ":memory:" in url or "mode=memory" in url:
            raise StartupError(f"DATABASE_URL {self.name}: a database in memory would lose contacts, name a file")
        self._url, self._busy_timeout = url, busy_timeout
        self._readers = _engine(url, "BEGIN", busy_timeout, READERS, "query_only=ON")
        self._writer = _engine(url, "BEGIN IMMEDIATE", busy_timeout, 1, "foreign_keys=ON", "cache_size=-32000")
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write_jobs, name="writer", daemon=True)

    def start(self) -> None:
        """Brings the schema up to date and begins to take writes; raises StartupError."""
        try:
            self._migrate()
        except CommandError as error:
            raise StartupError(f"the database {self.name} is not one of this version: {error}") from error
        except DatabaseError as error:
            raise StartupError(f"cannot open or write the database {self.name}: {error.orig}") from error
        self._thread.start()

    def stop(self) -> None:
        """Finishes the writes that wait, then closes."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
        self._readers.dispose()
        self._writer.dispose()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session on one snapshot of the database; anything it tries to write fails."""
        with Session(self._readers) as session:
            yield session

    async def write(self, work: Work[T]) -> T:
        """Runs `work` in the writer and returns its result once that is on the disk.

        Raises what `work` raises, and keeps nothing of it. OperationalError: the commit failed, nothing changed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(work, future))
        return await future

    def _migrate(self) -> None:
        # Foreign keys are off, else rebuilding a table would clear the references to it.
        engine = _engine(self._url, "BEGIN IMMEDIATE", self._busy_timeout, 1, "foreign_keys=OFF")
        config = Config()
        config.set_main_option("script_location", "crm:migrations")
        try:
            with engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        finally:
            engine.dispose()

    def _write_jobs(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, stopping = [job], False
            while len(batch) < MAX_BATCH and not stopping:
                try:
                    following = self._jobs.get_nowait()
                except Empty:
                    break
                if following is None:
                    stopping = True
                else:
                    batch.append(following)
            self._commit(batch)
            if stopping:
                return

    def _commit(self, batch: list["_Job"]) -> None:
        try:
            with self._writer.begin() as connection:
                for job in batch:
                    job.run(connection)
        except Exception as error:  # whatever it was, none of the batch is in the database: each of its callers is told
            for job in batch:
                job.result, job.error = None, error
        for job in batch:
            job.settle()


class _Job:
    """One request's work, its result, and the future that waits for it in the event loop."""

    def __init__(self, work: Work[Any], future: asyncio.Future[Any]) -> None:
        self.work, self.future = work, future
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, connection: Connection) -> None:
        try:
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                self.result = self.work(session)
                session.commit()
        except OperationalError:
            raise  # the database itself failed, and may have rolled everything back
        except Exception as error:
            self.error = error

    def settle(self) -> None:
        self.future.get_loop().call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)
