"""Who calls, and what a key of its role may do. Roles: README, "Security".

A handler that an operator may call gets its Caller and shows it no more than its own; all else is refused here.
"""

import hashlib
import ipaddress
import logging
import re
import secrets
import time
from asyncio import Task, create_task
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any, cast

import sqlalchemy
from fastapi import Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import APIKeyHeader
from sqlalchemy import bindparam, update
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, SQLModel, col
from sqlmodel.sql.sqltypes import UTCDateTime
from token_bucket import Limiter, MemoryStorage

from crm.db.base import Database
from crm.errors import DomainError, Forbidden, NotFound, TooManyRequests, Unauthorized
from crm.fields import Role, utcnow
from crm.models import Contact
from crm.web.sessions import COOKIE, LIFETIME, RENEW, SESSION, WrongTries, check_origin
from crm.web.tables import ApiKey

log = logging.getLogger(__name__)

HEADER = "X-API-Key"
SAFE = {"GET", "HEAD", "OPTIONS"}  # methods that change nothing
FORWARDING = {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via"}
USE_WRITTEN_EVERY = 60  # seconds
# What may be called by whom besides admins, by the name of the handler.
OPEN_TO: dict[str, tuple[Role, ...]] = {"create_contact": ("source",), "get_metrics": ("metrics",)}
OPEN_TO |= dict.fromkeys(("list_events", "stream_events"), ("source", "operator"))
OPEN_TO |= dict.fromkeys(
    (
        *("list_operators", "get_operator_detail", "update_operator", "get_operator_stats", "get_shifts"),
        *("list_contacts", "get_contact", "update_contact_status"),
        *("list_leads", "get_lead_detail", "list_lead_contacts"),
        *("get_session", "list_sessions", "delete_session"),
    ),
    ("operator",),
)
OPEN_TO_ALL = {"create_session", "end_session"}  # they look at keys and cookies by themselves


class Caller(SQLModel):
    """key_id is None for the key of the settings and for calls without keys; session_id for calls with a key."""

    role: Role = "admin"
    key_id: int | None = None
    key_hash: str = ""
    source_id: int | None = None
    operator_id: int | None = None
    session_id: int | None = None

    def own(self, statement: Any) -> Any:
        """Of a statement on contacts what the caller may see."""
        return statement if self.operator_id is None else statement.where(Contact.operator_id == self.operator_id)

    def must_be(self, operator_id: int) -> None:
        """Raises NotFound when an operator asks for another one."""
        if self.operator_id not in (None, operator_id):
            raise NotFound("operator", operator_id)

    def called(self, session: Session) -> str:
        """Who it is, for a record that outlives the key."""
        if self.key_id is None:
            return "CRM_ADMIN_KEY" if self.key_hash else "without a key"
        key = session.get(ApiKey, self.key_id)
        return f"key {self.key_id} ({key.name if key else 'revoked'})"


ADMIN = Caller()


class Callers:
    """The callers whose keys were seen."""

    def __init__(self, admin_key: str | None, rate: float) -> None:
        """admin_key: None serves only the same machine. rate: requests a second of each key; twice as many at once."""
        self.is_open = admin_key is None
        self._admin = Caller(key_hash=digest_of(admin_key or ""))
        self.wrong_tries = WrongTries()
        self._known: dict[str, Caller] = {}
        self._last_uses = LastUses()
        self._rate, self._buckets = rate, Limiter(rate, int(2 * rate), MemoryStorage())

    async def find(self, digest: str, route: str, database: Database) -> Caller:
        """Raises Unauthorized."""
        if secrets.compare_digest(digest, self._admin.key_hash):
            return self._admin
        caller = self._known.get(digest)
        # Whether a source's key still holds is looked up by the transaction that registers the contact.
        if caller is None or (caller.role, route) != ("source", "create_contact"):
            caller = await self.look_up(digest, database)
        self._last_uses.note(caller.key_id or 0, database)
        return caller

    async def look_up(self, digest: str, database: Database) -> Caller:
        """As the database has it now. Raises Unauthorized."""
        row = await _read_one(database, KEY, hash=digest)
        if row is None:
            self._known.pop(digest, None)
            raise Unauthorized("this key is not known, or no longer")
        self._known[digest] = Caller(**row._mapping)
        return self._known[digest]

    async def find_session(self, token: str, database: Database) -> Caller:
        """The caller of this session, who has the rights of its key. Raises Unauthorized."""
        row = await _read_one(database, SESSION, hash=digest_of(token), now=utcnow())
        if row is None or (row.key_id is None and not secrets.compare_digest(row.key_hash, self._admin.key_hash)):
            raise Unauthorized("this session has ended: sign in again")
        self._last_uses.renew(row, database)
        if row.key_id is None:
            return self._admin.model_copy(update={"session_id": row.id})
        self._last_uses.note(row.key_id, database)
        of_key = {"role": row.role, "key_id": row.key_id, "key_hash": row.key_hash, "operator_id": row.operator_id}
        return Caller(**of_key, session_id=row.id)

    def take_turn(self, digest: str) -> None:
        """Raises TooManyRequests when the bucket of this key is empty."""
        if not self._buckets.consume(digest):
            raise TooManyRequests(f"more than {self._rate:g} requests a second: wait")


class LastUses:
    """Writes when a key or a session was last used, at most once a minute, while the request goes on."""

    def __init__(self) -> None:
        self._written: dict[int, float] = {}  # by the id of the key
        self._tasks: dict[str, Task[None]] = {}  # by what they write; else they could be collected before they are done

    def note(self, key_id: int, database: Database) -> None:
        now = time.monotonic()
        if now - self._written.get(key_id, -USE_WRITTEN_EVERY) >= USE_WRITTEN_EVERY:
            self._written[key_id] = now
            use = {"key": key_id, "now": utcnow(), "before": utcnow() - timedelta(seconds=USE_WRITTEN_EVERY)}
            self._start(f"key {key_id}", NOTE_USE, use, database)

    def renew(self, session: Any, database: Database) -> None:
        """session: a row of SESSION, from whose last use all processes see whether it is time."""
        now = utcnow()
        if now - session.last_used_at >= timedelta(seconds=USE_WRITTEN_EVERY):
            use = {"session": session.id, "now": now, "end": now + LIFETIME}
            self._start(f"session {session.id}", RENEW, use, database)

    def _start(self, name: str, statement: Any, use: dict[str, Any], database: Database) -> None:
        if name not in self._tasks:
            self._tasks[name] = create_task(self._write(name, statement, use, database))
            self._tasks[name].add_done_callback(lambda _: self._tasks.pop(name))

    async def _write(self, name: str, statement: Any, use: dict[str, Any], database: Database) -> None:
        try:
            await database.execute(lambda connection: connection.execute(statement, use))
        except Exception as error:
            log.warning("the last use of %s was not written: %s", name, type(error).__name__)


NOTE_USE = (
    update(ApiKey)
    .where(col(ApiKey.id) == bindparam("key"))
    .where(col(ApiKey.last_used_at).is_(None) | (col(ApiKey.last_used_at) < bindparam("before", type_=UTCDateTime())))
    .values(last_used_at=bindparam("now", type_=UTCDateTime()))
)
KEY: Any = sqlalchemy.select(
    *(col(ApiKey.role), col(ApiKey.id).label("key_id"), col(ApiKey.hash).label("key_hash")),
    *(col(ApiKey.source_id), col(ApiKey.operator_id)),
).where(col(ApiKey.hash) == bindparam("hash"))


async def _read_one(database: Database, statement: Any, **parameters: Any) -> Any:
    async with database.read() as session:
        return await run_in_threadpool(lambda: session.connection().execute(statement, parameters).one_or_none())


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


class Authentication(APIKeyHeader):
    """Gives the Caller. Raises Unauthorized (no key and no session, or none that holds), Forbidden (not for this role,
    or sent by another site), TooManyRequests."""

    async def __call__(self, request: Request) -> Caller:  # type: ignore[override]
        callers: Callers = request.app.state.callers
        if callers.is_open:
            return local_caller(request)
        if "caller" in request.scope:  # asked for before, by a route that shares its answers
            return cast(Caller, request.scope["caller"])
        database, route = request.app.state.service.database, request.scope["route"].name
        if key := request.headers.get(HEADER):
            caller = await callers.find(digest_of(key), route, database)
        elif token := request.cookies.get(COOKIE):
            if request.method not in SAFE:
                check_origin(request)
            caller = await callers.find_session(token, database)
        else:
            raise Unauthorized(f"send a key in the header {HEADER}")
        callers.take_turn(caller.key_hash)
        if caller.role not in ("admin", *OPEN_TO.get(route, ())):
            raise Forbidden(f"a key of the role {caller.role} can't do this")
        request.scope["caller"] = caller
        return caller

    async def confirm(self, request: Request) -> None:
        """For a malformed request, which is refused before any transaction has looked whether a source's key holds.

        Raises as the call does.
        """
        if request.scope["route"].name in OPEN_TO_ALL:
            return
        caller = await self(request)
        if caller.role == "source":
            callers: Callers = request.app.state.callers
            await callers.look_up(caller.key_hash, request.app.state.service.database)

    async def still_holds(self, request: Request) -> bool:
        """Whether a call that goes on would be let in again: its key may have been revoked meanwhile."""
        request.scope.pop("caller", None)
        try:
            await self(request)
        except DomainError as error:
            return isinstance(error, TooManyRequests)
        except SQLAlchemyError:
            return True  # the database is away: nobody knows better, and it is asked again soon
        return True


@lru_cache(1024)
def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def local_caller(request: Request) -> Caller:
    headers = dict(request.scope["headers"])
    if not FORWARDING.isdisjoint(headers) or not _is_loopback(request.client.host if request.client else ""):
        raise Forbidden("without keys only calls to localhost are served, and none through a proxy: set CRM_ADMIN_KEY")
    # Else any page that a browser on this machine shows could call, by another name for it or from its own.
    host, origin = headers.get(b"host", b"").decode("latin-1"), headers.get(b"origin", b"").decode("latin-1")
    if not _is_loopback(_name(host)) or (origin and origin.partition("://")[2] != host):
        raise Forbidden("without keys only calls to localhost are served, none of other sites: set CRM_ADMIN_KEY")
    return ADMIN


def _name(host: str) -> str:
    """Without the port."""
    return re.sub(r":\d*$", "", host).strip("[]")


authenticate = Authentication(name=HEADER, description="Not needed while no CRM_ADMIN_KEY is set.")
CallerDep = Annotated[Caller, Security(authenticate)]
