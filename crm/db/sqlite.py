"""SQLite: one file, and one writer at a time.

Threads that fight for its lock wait in a busy handler that sleeps and is not fair, so all writes of a process stand in
one queue (see `batches`). Other processes on the same file are kept apart by BEGIN IMMEDIATE.
"""

import asyncio
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError

from crm.db.base import HIGHEST, Database, to_text
from crm.db.batches import Batches, Job
from crm.errors import StartupError

T = TypeVar("T")

READERS = 9  # connections; more would only wait for the interpreter
MAX_BATCH = 64  # requests that share a commit
LOOK_FOR_LOCK = 0.001  # seconds after which it is tried again, if another process has it


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
        # 16 MB until a checkpoint: pages that many requests write go to the file once (4 % of the rate).
        own = ("foreign_keys=ON", "secure_delete=ON", "cache_size=-32000", "wal_autocheckpoint=4000")
        writer = _engine(url, busy_timeout, 1, *own)
        super().__init__(name, readers, writer, busy_timeout)
        self._batches = Batches(self._commit, MAX_BATCH, patience=math.inf)
        self._thread = ThreadPoolExecutor(1, "writer")

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        with self._writer.connect() as connection:
            self._use_wal(connection)
            # Foreign keys are off, else rebuilding a table would clear the references to it.
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            self._begin(connection, time.monotonic() + self._busy_timeout)
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

    def _begin(self, connection: Connection, until: float) -> None:
        """Takes the write lock, or raises OperationalError. Looks for it more often than SQLite, whose sleep grows to
        0.1 s: meanwhile a process that has much to do takes it again and again.

        until: by the monotonic clock.
        """
        if not connection.in_transaction():
            connection.begin()  # for SQLAlchemy, which sends nothing
        driver: Any = connection.connection.driver_connection
        driver.execute("PRAGMA busy_timeout=0")
        try:
            while time.monotonic() < until:
                try:
                    driver.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                        break
                time.sleep(LOOK_FOR_LOCK)
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # a last time: raises what SQLAlchemy makes of it
        finally:
            driver.execute(f"PRAGMA busy_timeout={int(self._busy_timeout * 1000)}")

    async def settled(self, after: int | None) -> int:
        """One writer at a time: ids are committed in their order, and one that is missing will never be."""
        return max(after or 0, await self.look(lambda connection: connection.execute(HIGHEST).scalar_one()))

    async def stop(self) -> None:
        await self._batches.stop()
        self._thread.shutdown()
        await super().stop()

    async def _transact(self, work: Callable[[Connection], T], is_short: bool, about: int | str | None = None) -> T:  # noqa: ARG002
        # Short work in the event loop: handing the interpreter back and forth would take a fifth more time.
        return await self._batches.do(work, in_thread=not is_short)

    async def _commit(self, batch: list[Job]) -> None:
        run_in_thread = partial(asyncio.get_running_loop().run_in_executor, self._thread)
        with self._writer.connect() as connection:
            while True:
                until = min(job.since for job in batch) + self._busy_timeout
                try:
                    await run_in_thread(self._begin, connection, until)
                    break
                except OperationalError as error:
                    late = [job for job in batch if job.since + self._busy_timeout <= time.monotonic()]
                    if len(late) in (0, len(batch)):
                        raise  # it was not the lock; or nobody has time left
                    for job in late:
                        job.error = error
                        job.settle()
                    batch = [job for job in batch if job not in late]
            if not os.path.exists(self._path) or os.stat(self._path).st_ino != self._inode:
                # The open connection would go on writing to the old one, and all that would be lost.
                raise OperationalError(None, None, FileNotFoundError(f"{self._path} was deleted or replaced: restart"))
            for job in batch:
                # An OperationalError: the database itself failed, and may have rolled everything back.
                if job.in_thread:
                    await run_in_thread(job.run, connection, OperationalError)
                else:
                    job.run(connection, OperationalError)
            await run_in_thread(connection.exec_driver_sql, "COMMIT")
