"""PostgreSQL: one server, and any number of processes and hosts that write.

The protocol that keeps the guarantees of design.md under READ COMMITTED: the first statement of every transaction that
writes takes one advisory lock. EXCLUSIVE, a transaction is alone, as on SQLite, and may do anything. But it keeps the
others out during all its round trips, so the two frequent events, registering and closing a contact, take it SHARED:

- What only EXCLUSIVE changes stands still meanwhile: limits, weights, who is active, what waits, whose a contact is.
- Loads do not. So they lock the row of the one operator whose load they change, and count in a statement of its own
  after that: the one that waited for the lock sees what was there before it waited.
- They lock no second operator and never go from SHARED to EXCLUSIVE, so that no two wait for each other. For the same
  reason all take their locks in one order: operator, identifiers (sorted), lead, event.
- A draw that hits anybody but an eligible operator, a contact that has to wait, and room for which somebody waits raise
  NotAlone. Who loses a race for an identifier or an event fails on its unique key. In both cases all is rolled back and
  run again EXCLUSIVE, where nobody else comes between.
"""

import asyncio
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session

from crm.database import Database, NotAlone, in_session
from crm.errors import StartupError, Unavailable

T = TypeVar("T")

READERS, WRITERS = 5, 10  # connections of each process
LOCK = 4_711_001  # the key of the advisory lock, in this database
ATTEMPTS = 5  # of a transaction that ended in a deadlock or a serialization failure
REPEATABLE = {"40P01", "40001"}  # their SQLSTATEs
READ_ONLY = "25006"
# Seconds (but for the milliseconds of tcp_user_timeout) in which a server that has gone is noticed.
AWAY: dict[str, int | str] = {
    "connect_timeout": 2,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
}
AWAY |= {"tcp_user_timeout": 4000, "application_name": "crm"}


def _leave_read_only_server(context: ExceptionContext) -> None:
    """After a failover: connections that still lead to the former primary are no use, even if it answers."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


def _execute(cursor: Any, statement: str, parameters: Any, context: ExecutionContext) -> bool:
    """In a pipeline, statements travel together until one comes whose rows are wanted: five round trips for ten."""
    options = context.execution_options
    if options.get("pipeline") is None:
        return False  # as usual
    cursor.execute(statement, parameters)
    if options.get("wait", statement.startswith("SELECT") or "RETURNING" in statement):
        options["pipeline"].sync()
    return True


class PostgreSQL(Database):
    """Raises StartupError when the driver is not installed."""

    def __init__(self, url: URL, name: str, busy_timeout: float) -> None:
        session: dict[str, object] = {
            "lock_timeout": f"{busy_timeout}s",
            "idle_in_transaction_session_timeout": f"{2 * busy_timeout}s",
            "timezone": "UTC",
        }
        options = "".join(f"-c {option}={value} " for option, value in session.items())
        own = AWAY | {"options": options + str(url.query.get("options", ""))}
        common = {
            "connect_args": {option: own[option] for option in own if option == "options" or option not in url.query},
            "isolation_level": "AUTOCOMMIT",  # each BEGIN is ours
            "max_overflow": 0,
        }
        try:
            readers = create_engine(url, pool_size=READERS, pool_pre_ping=True, **common)
            writer = create_engine(url, pool_size=WRITERS, **common)
        except ModuleNotFoundError:
            raise StartupError(f"DATABASE_URL {name} needs the driver: pip install 'mini-crm[postgres]'") from None
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        event.listen(readers, "checkout", lambda connection, *_: connection.execute(begin))
        event.listen(writer, "do_execute", _execute)
        event.listen(writer, "handle_error", _leave_read_only_server)
        super().__init__(name, readers, writer, busy_timeout)
        self._threads = ThreadPoolExecutor(WRITERS, "writer")
        # Threads hand the interpreter on at each round trip; to be interrupted besides only costs (6 % of the rate).
        sys.setswitchinterval(0.05)  # seconds
        self._free_writers = asyncio.Semaphore(WRITERS)

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        with self._transaction(shared=False) as connection:
            yield connection

    async def stop(self) -> None:
        self._threads.shutdown()
        await super().stop()

    async def write(self, work: Callable[[Session], T]) -> T:
        return await self._in_thread(in_session(work), False)

    async def execute(self, work: Callable[[Connection], T]) -> T:
        return await self._in_thread(work, True)

    async def _in_thread(self, work: Callable[[Connection], T], shared: bool) -> T:
        async with self._turn(self._free_writers):
            run = partial(self._run, work, shared)
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _run(self, work: Callable[[Connection], T], shared: bool) -> T:
        failures = 0
        while True:
            try:
                with self._transaction(shared) as connection:
                    return work(connection)
            except (NotAlone, IntegrityError):
                if not shared:
                    raise
                shared = False
            except DBAPIError as error:
                failures += 1
                was_broken = error.connection_invalidated and failures == 1  # since its last use; others may do
                is_repeatable = getattr(error.orig, "sqlstate", None) in REPEATABLE and failures < ATTEMPTS
                if not (was_broken or is_repeatable):
                    raise
                time.sleep(random.uniform(0, 0.02 * 2**failures))

    @contextmanager
    def _transaction(self, shared: bool) -> Iterator[Connection]:
        """Rolled back if the block raises. Sharing, it is a pipeline (see `_execute`)."""
        with self._writer.connect() as connection:
            driver: Any = connection.connection.driver_connection
            with driver.pipeline() if shared else nullcontext() as pipeline:
                connection.execution_options(shared=shared, pipeline=pipeline)
                for statement in ("BEGIN", f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}({LOCK})"):
                    connection.exec_driver_sql(statement, execution_options={"wait": False})
                yield connection
                try:
                    connection.exec_driver_sql("COMMIT", execution_options={"wait": True})
                except DBAPIError as error:
                    if not error.connection_invalidated:
                        raise
                    # It may have been done, so it must not be repeated here: with an event_id the bot can.
                    raise Unavailable("the database went away during the commit: it may be saved or not") from error
