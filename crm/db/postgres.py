"""PostgreSQL: one server, and any number of processes and hosts that write.

The protocol that keeps the guarantees of design.md under READ COMMITTED: the first statement of every transaction that
writes takes one advisory lock. EXCLUSIVE, a transaction is alone, as on SQLite, and may do anything. But it keeps the
others out during all its round trips, so the two frequent events, registering and closing a contact, take it SHARED:

- What only EXCLUSIVE changes stands still meanwhile: limits, weights, who is active, what waits, whose a contact is.
- Loads do not. So they lock the row of the one operator whose load they change, and count in a statement of its own
  after that: the one that waited for the lock sees what was there before it waited.
- They lock no second operator and never go from SHARED to EXCLUSIVE, so that no two wait for each other. For the same
  reason all take their locks in one order: operator, lead, then what is unique in the order of `add_rows`.
- A draw that hits anybody but an eligible operator, a contact that has to wait, and room for which somebody waits raise
  NotAlone, before anything is written. Who loses a race for an identifier or an event fails on its unique key, and is
  rolled back. Both are run again EXCLUSIVE, where nobody else comes between; so that it is not held for one alone, all
  that a process has for it share a transaction, and what follows about the same source does not try to share first.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import psycopg
import sqlalchemy
from psycopg.errors import PipelineAborted
from sqlalchemy import URL, Connection, Engine, bindparam, create_engine, event, func
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlmodel import col

from crm.db.base import HIGHEST, Database, to_text
from crm.db.batches import Batches, Job
from crm.errors import NotAlone, StartupError, Unavailable
from crm.fields import MAX_ID
from crm.models import Assignment

T = TypeVar("T")

READERS, WRITERS = 6, 6  # connections of each process; more threads fight for the interpreter (540 for 690 contacts/s)
LOCK = 4_711_001  # the key of the advisory lock, in this database
ATTEMPTS = 5  # of a transaction that ended in a deadlock or a serialization failure
REPEATABLE = {"40P01", "40001"}  # their SQLSTATEs
READ_ONLY = "25006"
# Parts of the busy time-out, for what a call may have to wait for besides its turn (in `base`): a lock, an answer.
FOR_LOCK, FOR_ANSWER = 0.5, 0.55
# Seconds (but for the milliseconds of tcp_user_timeout) in which a host that has gone is noticed.
AWAY: dict[str, Any] = {"connect_timeout": 2, "keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 1}
AWAY |= {"tcp_user_timeout": 2500, "application_name": "crm"}
ALONE_FOR = 0.1  # seconds, after one that had to be alone: else each would be run twice
LINE = 32  # of those that share; who comes when it is full shares a transaction with the next ones instead
MAX_BATCH = 16  # requests that share a commit: all other writers wait meanwhile
FOR_GAP = 0.05  # seconds that a missing id may take to come, before all writers are kept out
COUNT: Any = sqlalchemy.select(func.count(), func.max(col(Assignment.id))).where(
    col(Assignment.id) > bindparam("after"), col(Assignment.id) <= bindparam("last")
)


def _gaps(after: int, last: int, connection: Connection) -> tuple[int, int]:
    """The highest id between these two, and how many are missing below it."""
    count, highest = connection.execute(COUNT, {"after": after, "last": last}).one()
    return (highest, highest - after - count) if count else (after, 0)


class Driver(psycopg.Connection[Any]):
    """Gives up on a server that is silent: it may be frozen, while the kernel of its host answers for it."""

    patience: float | None = None  # seconds for one answer

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, timeout or self.patience)
        except psycopg.OperationalError as error:
            if error.sqlstate is None and not isinstance(error, PipelineAborted):  # not an answer, but none
                self.pgconn.finish()
            raise


def _leave_read_only_server(context: ExceptionContext) -> None:
    """After a failover: connections that still lead to the former primary are no use, even if it answers."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _execute(cursor: Any, statement: str, parameters: Any, context: ExecutionContext) -> bool:
    """In a pipeline, statements travel together until one comes whose rows are wanted: of a registration that has no
    other beside it, seven in three round trips."""
    options = context.execution_options
    if options.get("pipeline") is None:
        return False  # as usual
    cursor.execute(statement, parameters)
    if options.get("wait", statement.startswith(("SELECT", "WITH RECURSIVE")) or "RETURNING" in statement):
        options["pipeline"].sync()
    return True


class PostgreSQL(Database):
    """Raises StartupError when it connects to a database that can't hold all letters."""

    def __init__(self, url: URL, name: str, busy_timeout: float) -> None:
        milliseconds = max(1, int(busy_timeout * 1000 * FOR_LOCK))
        options = f"-c lock_timeout={milliseconds} -c idle_in_transaction_session_timeout={10 * milliseconds}"
        # To count in an index of an SSD takes one process 60 ms for 1,000,000 contacts, three that read the table 80.
        options += " -c timezone=UTC -c random_page_cost=1.1 -c max_parallel_workers_per_gather=0"
        own = {**AWAY, "options": f"{options} {url.query.get('options', '')}"}
        arguments = {key: value for key, value in own.items() if key == "options" or key not in url.query}

        def connect(_: object, __: object, args: Any, parameters: Any) -> Driver:
            driver = Driver.connect(*args, **parameters)
            encoding = driver.info.parameter_status("server_encoding")
            if encoding not in ("UTF8", None):  # None: something between does not tell
                driver.close()
                raise StartupError(f"database {name} has the encoding {encoding}, which lacks letters: it must be UTF8")
            driver.patience = busy_timeout * FOR_ANSWER
            return driver

        def engine(isolation_level: str, pool_size: int, **more: Any) -> Engine:
            more |= {
                "connect_args": arguments,
                "isolation_level": isolation_level,
                "max_overflow": 0,
                "hide_parameters": True,
                "json_serializer": to_text,
            }
            engine = create_engine(url, pool_size=pool_size, **more)
            event.listen(engine, "do_connect", connect)
            return engine

        readers = engine("REPEATABLE READ", READERS, pool_pre_ping=True)
        event.listen(readers, "connect", lambda driver, _: driver.set_read_only(True))
        writer = engine("AUTOCOMMIT", WRITERS + 1)  # each BEGIN is ours; 1: for batches
        event.listen(writer, "do_execute", _execute)
        event.listen(writer, "handle_error", _leave_read_only_server)
        super().__init__(name, readers, writer, busy_timeout)
        self._threads = ThreadPoolExecutor(WRITERS + 1, "writer")
        # Threads hand the interpreter on at each round trip; to be interrupted besides only costs (6 % of the rate).
        sys.setswitchinterval(0.05)  # seconds
        self._free_writers = asyncio.Semaphore(WRITERS)
        self._in_line = 0  # how many share, or wait for their turn to
        self._waiting = Counter[int | str | None]()  # of those that have to be alone, by what they are about
        self._alone_until: dict[int | str | None, float] = {}  # by the monotonic clock
        self._batches = Batches(self._commit, MAX_BATCH, patience=busy_timeout)

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        with self._transaction(shared=False, patient=True) as connection:
            yield connection

    async def settled(self, after: int | None) -> int:
        """Ids are given out in order, but committed in any. As long as one is missing it may still come, from a writer
        that is not done; but no longer when all writers have been kept out, for each has the lock before it has an id.
        """
        if after is not None:
            highest, missing = await self.look(partial(_gaps, after, MAX_ID))
            if missing:
                await asyncio.sleep(FOR_GAP)
                _, missing = await self.look(partial(_gaps, after, highest))
            if not missing:
                return highest
        return await self._transact(lambda connection: int(connection.execute(HIGHEST).scalar_one()), False)

    async def stop(self) -> None:
        await self._batches.stop()
        self._threads.shutdown()
        await super().stop()

    async def _transact(self, work: Callable[[Connection], T], is_short: bool, about: int | str | None = None) -> T:
        if not is_short:
            async with self._turn(self._free_writers):
                return await self._in_thread(work, False, False)
        since = time.monotonic()
        if self._in_line < LINE and self._may_share(about):
            try:
                return await self._share(work, about)
            except IntegrityError:
                pass  # it lost a race; alone there is none
            except NotAlone:
                with self._kept_alone(about):
                    return await self._batches.do(work, since)
        return await self._batches.do(work, since)

    async def _share(self, work: Callable[[Connection], T], about: int | str | None) -> T:
        """Raises NotAlone if the work does, or what is about the same did while this waited for its turn."""
        self._in_line += 1
        try:
            async with self._turn(self._free_writers):
                if not self._may_share(about):
                    raise NotAlone
                return await self._in_thread(work, True, True)
        finally:
            self._in_line -= 1

    def _may_share(self, about: int | str | None) -> bool:
        return about is None or not (self._waiting[about] or time.monotonic() < self._alone_until.get(about, 0))

    @contextmanager
    def _kept_alone(self, about: int | str | None) -> Iterator[None]:
        """What is about the same has to be alone meanwhile, and for a moment after it."""
        self._waiting[about] += 1
        try:
            yield
        finally:
            self._waiting[about] -= 1
            self._alone_until[about] = time.monotonic() + ALONE_FOR

    async def _commit(self, batch: list[Job]) -> None:
        """Alone, and together; but if the database refuses something of one of them, each by itself."""

        def run_all(connection: Connection) -> None:
            try:
                for job in batch:
                    job.run(connection, DBAPIError)
            except psycopg.Error as error:  # at a savepoint, which doesn't go through SQLAlchemy
                connection._handle_dbapi_exception(error, None, None, None, None)  # raises, as `execute` does

        try:
            await self._in_thread(run_all, False, True)
        except OperationalError:
            raise  # the database itself failed
        except DBAPIError:
            for nth, job in enumerate(batch):
                job.error = None
                try:
                    job.result = await self._in_thread(job.work, False, True)
                except OperationalError as error:  # the others would only find out the same
                    for left in batch[nth:]:
                        left.error = error
                    return
                except Exception as error:
                    job.error = error
                job.settle()

    async def _in_thread(self, work: Callable[[Connection], T], shared: bool, in_pipeline: bool) -> T:
        run = partial(self._run, work, shared, in_pipeline)
        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _run(self, work: Callable[[Connection], T], shared: bool, in_pipeline: bool) -> T:
        attempt, was_broken, begin = 1, False, time.monotonic()
        not_alone: NotAlone | None = None
        while not_alone is None:
            try:
                with self._transaction(shared, in_pipeline) as connection:
                    try:
                        return work(connection)
                    except NotAlone as error:
                        # Nothing is written yet, so it ends with a COMMIT, which needs no flush: of a rollback psycopg
                        # makes a reason to forget all that it has prepared.
                        not_alone = error
                        unflushed = "SET LOCAL synchronous_commit = off"
                        connection.exec_driver_sql(unflushed, execution_options={"wait": False})
            except Unavailable:
                if not_alone is None:
                    raise
            except DBAPIError as error:  # before the commit: nothing is there yet
                if not_alone is not None:
                    break
                if getattr(error.orig, "sqlstate", None) in REPEATABLE and attempt < ATTEMPTS:
                    time.sleep(random.uniform(0, 0.02 * 2**attempt))
                    attempt += 1
                elif error.connection_invalidated and not was_broken and time.monotonic() - begin < 1:
                    was_broken = True  # since its last use, which shows at once; the pool has dropped all of its age
                else:
                    raise
        raise not_alone

    @contextmanager
    def _transaction(self, shared: bool, in_pipeline: bool = False, patient: bool = False) -> Iterator[Connection]:
        """Rolled back if the block raises. in_pipeline: see `_execute`. patient: for long statements, and after those
        of others.

        Raises Unavailable if the commit was not answered. It may have been done, so it must not be repeated here.
        """
        connection = self._writer.connect()
        driver: Any = connection.connection.driver_connection
        try:
            if patient:
                driver.patience = None
            with ExitStack() as stack:
                pipeline = stack.enter_context(driver.pipeline()) if in_pipeline else None
                connection.execution_options(shared=shared, pipeline=pipeline)
                # Another copy may be at its start too, or bring the tables up to date.
                wait = ("SET LOCAL lock_timeout = '60s'",) if patient else ()
                for statement in ("BEGIN", *wait, f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}({LOCK})"):
                    connection.exec_driver_sql(statement, execution_options={"wait": False})
                yield connection
                try:
                    driver.execute("COMMIT")
                    stack.close()  # the end of a pipeline waits for all answers
                except psycopg.Error as error:
                    if driver.closed:
                        raise Unavailable("the database went away during the commit: it may be saved or not") from error
                    raise DBAPIError.instance("COMMIT", None, error, psycopg.Error) from error  # it was refused
        finally:
            with suppress(DBAPIError):  # what fails now changes nothing any more
                connection.close()
