"""The database: what SQLite and PostgreSQL have in common. `sqlite` and `postgres` say how each of them writes.

All transactions that write exclude each other, so that what they counted stays true until they commit. Where that is
too slow, a transaction may share the lock with others of its kind: then it raises NotAlone as soon as it finds out that
it needs the lock for itself, and is run again that way. Readers see a snapshot and take no lock.
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import BigInteger, Connection, Engine, Float, bindparam, exc, insert, inspect, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import Session, SQLModel

from crm import events
from crm.errors import NotFound, StartupError, Unavailable

T = TypeVar("T")
Row = TypeVar("Row", bound=SQLModel)


FOR_TURN = 0.4  # of the busy time-out; the rest is for locks and answers


def is_alone(connection: Connection) -> bool:
    """Whether this transaction excludes all others that write."""
    return not connection.get_execution_options().get("shared", False)


def contains(session: Session, column: Any, part: str) -> Any:
    """A condition: the text column contains this part, in any case.

    Letter by letter, for SQLite's LIKE and lower() know only ASCII, and PostgreSQL's only the letters of its locale.
    """
    letters = [{char, *(other for other in (char.lower(), char.upper()) if len(other) == 1)} for char in part]
    if session.get_bind().dialect.name == "sqlite":
        return column.op("GLOB")(f"*{''.join(map(_glob_class, letters))}*")
    codes = ("".join(f"\\U{ord(char):08x}" for char in variants) for variants in letters)
    return column.op("~")("".join(f"[{variants}]" for variants in codes))


def _glob_class(variants: set[str]) -> str:
    """Matches one character: GLOB reads ] as itself when it comes first, and ^ when it does not."""
    single = sorted(variants, key="]^".find, reverse=True)
    return "^" if single == ["^"] else f"[{''.join(single)}]"


class seconds_between(FunctionElement[float]):
    """The time from the second moment back to the first, as an expression in seconds, exact to the microsecond."""

    type, inherit_cache = Float(), True


@compiles(seconds_between)
def _(element: Any, compiler: Any, **options: Any) -> str:
    later, earlier = (compiler.process(clause, **options) for clause in element.clauses)
    return f"CAST(extract(epoch FROM {later} - {earlier}) AS double precision)"


@compiles(seconds_between, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    # Its functions know milliseconds at best: the whole seconds, and then the digits after them, of the stored text.
    later, earlier = (compiler.process(clause, **options) for clause in element.clauses)
    whole, digits = "strftime('%s', substr({0}, 1, 19))", "substr({0}, 20)"
    return "(" + " + ".join(f"({part.format(later)} - {part.format(earlier)})" for part in (whole, digits)) + ")"


class next_id(FunctionElement[int]):
    """The id of the next row of a table, taken for it beforehand: so that other rows can name it in the same step."""

    type, inherit_cache = BigInteger(), True


@compiles(next_id)
def _(element: Any, compiler: Any, **options: Any) -> str:
    table = compiler.process(element.clauses, **options)
    return f"(SELECT nextval('{table}_id_seq'))"  # in a SELECT of its own it is evaluated once, not for each row


@compiles(next_id, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    table = compiler.process(element.clauses, **options)
    return f"(SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = '{table}')"  # noqa: S608


def add_rows(connection: Connection, *rows: tuple[type[SQLModel], dict[str, Any]]) -> None:
    """Inserts rows of several tables; on PostgreSQL in one statement, for what a statement costs is mostly its way."""
    if connection.dialect.name == "sqlite":
        for table, group in groupby(rows, itemgetter(0)):
            connection.execute(_insert(table), [values for _, values in group])
    else:
        statement = _inserts(*((table, *values) for table, values in rows))
        parameters = {f"{name}_{n}": value for n, (_, values) in enumerate(rows) for name, value in values.items()}
        connection.execute(statement, parameters)


@lru_cache
def _insert(table: Any) -> Any:
    return insert(table).inline()


@lru_cache
def _inserts(*shapes: tuple[Any, ...]) -> Any:
    """shapes: of each row the table and the names of its columns.

    The last is the main one, which PostgreSQL begins with, and has nothing unique: so that of the others, in whatever
    order it takes them, none comes before another here and after it there. Else two could wait for each other.
    """
    *others, last = (
        insert(table).inline().values({name: bindparam(f"{name}_{n}", type_=columns[name].type) for name in names})
        for n, (table, *names) in enumerate(shapes)
        for columns in [inspect(table).columns]
    )
    return last.add_cte(*(other.cte(f"insert_{n}") for n, other in enumerate(others)))


def get_row(session: Session, table: type[Row], row_id: int) -> Row:
    """The row with this id; raises NotFound."""
    row = session.get(table, row_id)
    if row is None:
        raise NotFound(str(table.__tablename__).removeprefix("api_"), row_id)
    return row


def migrations() -> Config:
    """Alembic's view of `crm/migrations`; give it the connection as attributes["connection"]."""
    config = Config()
    config.set_main_option("script_location", "crm:migrations")
    return config


def check_schema(connection: Connection) -> None:
    """Raises StartupError unless the tables are those of this version."""
    has = MigrationContext.configure(connection).get_current_revision()
    wants = ScriptDirectory.from_config(migrations()).get_current_head()
    if has != wants:
        raise StartupError(
            f"the tables of the database are of version {has}, not {wants}: DATABASE_URL=... python -m crm migrate"
        )


class Database(ABC):
    """One database, opened by `start` and closed by `stop`."""

    def __init__(self, name: str, readers: Engine, writer: Engine, busy_timeout: float) -> None:
        """busy_timeout: seconds that a call waits for a lock or a connection before it fails (503)."""
        self.name, self._readers, self._writer, self._busy_timeout = name, readers, writer, busy_timeout
        self._free_readers = asyncio.Semaphore(readers.pool.size())  # type: ignore[attr-defined]

    def start(self, then: Callable[[Connection], object], migrate: bool = True) -> None:
        """Brings the schema up to date, or only checks that it is; in the same transaction does `then`.

        Raises StartupError when the database can't be used.
        """
        try:
            with self.alone() as connection:
                if migrate:
                    config = migrations()
                    config.attributes["connection"] = connection
                    command.upgrade(config, "head")
                check_schema(connection)
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

    @abstractmethod
    def alone(self) -> AbstractContextManager[Connection]:
        """A transaction that excludes all others and may change the schema; committed at the end of the block."""

    async def write(self, work: Callable[[Session], T]) -> T:
        """Runs `work` in a thread and a transaction, alone, and returns its result once that is on the disk.

        Raises what `work` raises, and keeps nothing of it. OperationalError: nothing changed.
        """
        return await self._told(in_session(work), False)

    async def execute(self, work: Callable[[Connection], T]) -> T:
        """Like `write`, for work of a few statements. It may share the lock: if it raises NotAlone, it is run again."""
        return await self._told(work, True)

    async def _told(self, work: Callable[[Connection], T], is_short: bool) -> T:
        noted: list[events.Event] = []

        def run(connection: Connection) -> T:
            noted.clear()  # what was noted before has been rolled back
            connection.info["events"] = noted
            return work(connection)

        result = await self._transact(run, is_short)
        if len(noted) > 100:
            await asyncio.to_thread(events.tell, noted)  # others want to be served meanwhile
        else:
            events.tell(noted)
        return result

    @abstractmethod
    async def _transact(self, work: Callable[[Connection], T], is_short: bool) -> T: ...

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


def _end(session: Session) -> None:
    with suppress(exc.DBAPIError):  # all is read
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


def open_database(url: str, busy_timeout: float) -> Database:
    """Raises StartupError when the URL is none of a SQLite file or a PostgreSQL database, or its driver is missing."""
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        masked = re.sub(r"(?<=:)[^:@/]+(?=@)", "***", url)
        raise StartupError(f"{masked!r} is not a database URL such as sqlite:///crm.db") from None
    has_password = parsed.password is not None or "password" in parsed.query
    name = parsed.difference_update_query(["password"]).render_as_string() if has_password else url
    try:
        match parsed.drivername:  # both modules build on this one
            case "sqlite":
                from crm.sqlite import SQLite

                return SQLite(parsed, name, busy_timeout)
            case "postgresql" | "postgresql+psycopg":
                from crm.postgres import PostgreSQL

                return PostgreSQL(parsed, name, busy_timeout)
    except ModuleNotFoundError:
        raise StartupError(f"database {name} needs a driver: pip install -e '.[postgres]'") from None
    except (exc.ArgumentError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise StartupError(f"database {name} can't be opened: {reason}") from error
    raise StartupError(f"database {name}: only sqlite:///FILE and postgresql://... are supported")
