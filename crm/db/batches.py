"""Writes of several requests in one transaction: they share its commit, and the flush to the disk."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, exc

T = TypeVar("T")

TURNS = 4  # of the event loop before each batch, so that requests which have already arrived come into it too


class Job:
    """One request's work, its result, and the future with which the request waits for it."""

    def __init__(self, work: Callable[[Connection], Any], since: float, in_thread: bool) -> None:
        self.work, self.since, self.in_thread = work, since, in_thread
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, connection: Connection, fatal: type[Exception]) -> None:
        """In a savepoint, so that what it raises undoes nothing of the others; but what is fatal ends all of them."""
        driver: Any = connection.connection.driver_connection  # SQLAlchemy's own savepoints take 20 times as long
        savepoint = driver.execute
        savepoint("SAVEPOINT job")
        self.error = None
        try:
            self.result = self.work(connection)
        except fatal:
            raise
        except Exception as error:
            self.error = error
            savepoint("ROLLBACK TO job")
        savepoint("RELEASE job")

    def settle(self) -> None:
        if self.future.done():  # settled, or its caller has hung up
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Batches:
    """Takes whatever jobs wait, as long as any do, and lets them answer when they are committed together."""

    def __init__(self, commit: Callable[[list[Job]], Awaitable[None]], size: int, patience: float) -> None:
        """commit: runs these jobs, so many at most; what it raises is each one's error. patience: seconds that a job
        may wait."""
        self._commit, self._size, self._patience = commit, size, patience
        self._jobs: list[Job] = []
        self._task: asyncio.Task[None] | None = None  # works while jobs wait

    async def do(self, work: Callable[[Connection], T], since: float | None = None, in_thread: bool = False) -> T:
        """The result of the work, or what it raises. TimeoutError of SQLAlchemy: it did not begin in time.

        since: when it began to wait, by the monotonic clock, if before. in_thread: for `commit`, it takes long.
        """
        job = Job(work, since or time.monotonic(), in_thread)
        self._jobs.append(job)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())
        result: T = await job.future
        return result

    async def stop(self) -> None:
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        while self._jobs:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            batch, self._jobs = self._jobs[: self._size], self._jobs[self._size :]
            await self._run(batch)
            for job in batch:
                job.settle()

    async def _run(self, batch: list[Job]) -> None:
        since = time.monotonic() - self._patience
        in_time = [job for job in batch if job.since >= since]
        for job in batch:
            if job.since < since:
                job.error = exc.TimeoutError("the database was busy for too long")
        try:
            if in_time:
                await self._commit(in_time)
        except Exception as error:  # all are undone, unless it says that they may be saved (Unavailable)
            for job in in_time:
                job.error = error
