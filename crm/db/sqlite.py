"""SQLite: one file, and one writer at a time.

Threads that fight for its lock wait in a busy handler that sleeps and is not fair, so all writes of a process stand in
one queue. A single task takes whatever waits, runs each request's work in a savepoint of its own, commits them together
(one flush to the disk for all) and only then lets them answer. Other processes on the same file are kept apart by
BEGIN IMMEDIATE.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError

from crm.db.base import HIGHEST, Database, to_text
from crm.errors import StartupError

T = TypeVar("T")

READERS = 9  # connections; more would only wait for the interpreter
MAX_BATCH = 64  # requests that share a commit
TURNS = 4  # of the event loop before each: in them what the socket has of other requests comes as far, and shares it


def _engine(url: URL, busy_timeout: float, pool_size: int, *pragmas: str) -> Engine:
    # AUTOCOMMIT: each BEGIN is ours. SQLAlchemy's begin event could send them too, but listening slows every statement.
    engine = create_engine(
        url,
        connect_args={"timeout": busy_timeout},
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=busy_timeout,
        hide_parameters=True,
        json_serializer=to_text,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver's own transactions begin too late to protect a count
        for pragma in ("synchronous=FULL", *pragmas):
            connection.execute(f"PRAGMA {pragma}")

    return engine


class SQLite(Database):
    """Raises StartupError when the URL names no file."""

    def __init__(self, url: URL, name: str, busy_timeout: float) -> None:
        if not url.database or ":memory:" in url.database or "memory" in url.query.get("mode", ""):
            raise StartupError(f"database {name}: in memory it would lose contacts, name a file")
        readers = _engine(url, busy_timeout, READERS, "query_only=ON")
        event.listen(readers, "checkout", lambda connection, *_: connection.execute("BEGIN"))
        writer = _engine(url, busy_timeout, 1, "foreign_keys=ON", "secure_delete=ON", "cache_size=-32000")
        super().__init__(name, readers, writer, busy_timeout)
        self._jobs: list[_Job] = []
        self._task: asyncio.Task[None] | None = None  # works while jobs wait
        self._thread = ThreadPoolExecutor(1, "writer")

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        with self._writer.connect() as connection:
            self._use_wal(connection)
            # Foreign keys are off, else rebuilding a table would clear the references to it.
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            before = connection.exec_driver_sql("PRAGMA schema_version").scalar()
            yield connection
            has_changed = before != connection.exec_driver_sql("PRAGMA schema_version").scalar()
            # With a long history this takes seconds.
            if has_changed and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
                raise DatabaseError(None, None, ValueError(f"a reference of table {broken[0]} leads nowhere"))
            connection.exec_driver_sql("COMMIT")
            self._path: str = connection.exec_driver_sql("PRAGMA database_list").all()[0][2]
            self._inode = os.stat(self._path).st_ino

    def _use_wal(self, connection: Connection) -> None:
        """The file keeps the mode. Several processes that make a file at once must wait here by themselves."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                return
            except OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    async def settled(self, after: int | None) -> int:
        """One writer at a time: ids are committed in their order, and one that is missing will never be."""
        return max(after or 0, await self.look(lambda connection: connection.execute(HIGHEST).scalar_one()))

    async def stop(self) -> None:
        if self._task is not None:
            await self._task
        self._thread.shutdown()
        await super().stop()

    async def _transact(self, work: Callable[[Connection], T], is_short: bool) -> T:
        # Short work in the event loop: handing the interpreter back and forth would take a fifth more time.
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.append(_Job(work, not is_short, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._write_jobs())
        return await future

    async def _write_jobs(self) -> None:
        while self._jobs:
            for _ in range(TURNS):
                await asyncio.sleep(0)
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
            if not os.path.exists(self._path) or os.stat(self._path).st_ino != self._inode:
                # The open connection would go on writing to the old one, and all that would be lost.
                raise OperationalError(None, None, FileNotFoundError(f"{self._path} was deleted or replaced: restart"))
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
        driver: Any = connection.connection.driver_connection  # SQLAlchemy's own savepoints take 20 times as long
        savepoint = driver.execute
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
