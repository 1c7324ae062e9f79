"""Sign-in: a key is given once, and a session in a cookie takes its place (`web.sessions`)."""

import secrets
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection, delete
from sqlmodel import Field, Session, SQLModel, col, select

from crm.db.base import get_row
from crm.errors import Conflict, Forbidden, NotFound
from crm.events import note
from crm.fields import ApiKeyText, Role, utcnow
from crm.models import Input, Operator, Record
from crm.web.answers import responses
from crm.web.auth import HEADER, Caller, CallerDep, Callers, digest_of, local_caller
from crm.web.deps import Paging, PathId, ServiceDep, SessionDep, Write, writes
from crm.web.sessions import COOKIE, LIFETIME, check_origin, set_cookie
from crm.web.tables import BrowserSession

sign_in = APIRouter(tags=["Sessions"])  # for who has no session yet, or none any more
router = APIRouter(tags=["Sessions"])


class SessionCreate(Input):
    model_config = {"json_schema_extra": {"example": {"key": "crm_Zx81..."}}}
    key: ApiKeyText = Field(description="Of an admin or an operator.")


class SessionPublic(Record):
    expires_at: datetime = Field(description="Twelve hours after the last use.")
    last_used_at: datetime = Field(description="To the minute.")
    user_agent: str | None = Field(description="What the browser called itself.")
    current: bool = Field(description="Whether this request was sent with it.")


class Identity(SQLModel):
    role: Role
    operator_id: int | None
    operator_name: str | None


class SessionCreated(Identity, SessionPublic):
    pass


class WhoCalls(Identity):
    session: SessionPublic | None = Field(description="null: called with a key, or without any.")
    needs_key: bool = Field(description="Whether keys are asked for.")


def _public(row: BrowserSession, session_id: int | None) -> SessionPublic:
    return SessionPublic(**row.model_dump(exclude={"hash", "key_hash"}), current=row.id == session_id)


def _identity(session: Session, caller: Caller) -> Identity:
    name = get_row(session, Operator, caller.operator_id).name if caller.operator_id is not None else None
    return Identity(role=caller.role, operator_id=caller.operator_id, operator_name=name)


def _end(connection: Connection, session_id: int) -> None:
    connection.execute(delete(BrowserSession).where(col(BrowserSession.id) == session_id))
    note(connection, "session ended", session_id=session_id)


@sign_in.post("/session", status_code=201, summary="Sign in", responses=responses(409))
async def create_session(
    body: SessionCreate, request: Request, response: Response, service: ServiceDep
) -> SessionCreated:
    """Sets the cookie `crm_session`, which then takes the place of the key, also in other tabs. For browsers: a program
    sends its key with each call.

    Ten wrong keys a minute from one address: 429, until that minute is over. 409: no keys are asked for.
    """
    check_origin(request, is_browser=False)
    callers: Callers = request.app.state.callers
    if callers.is_open:
        local_caller(request)
        raise Conflict("no keys are asked for: nobody needs to sign in")
    with callers.wrong_tries.watch(request.client.host if request.client else ""):
        caller = await callers.find(digest_of(body.key), "create_session", service.database)
    callers.take_turn(caller.key_hash)
    if caller.role not in ("admin", "operator"):
        raise Forbidden(f"a key of the role {caller.role} is for programs, which need no session")
    token, before = secrets.token_urlsafe(32), digest_of(request.cookies.get(COOKIE, ""))
    agent = "".join(filter(str.isprintable, request.headers.get("user-agent", "")))[:200] or None

    def begin(session: Session) -> SessionCreated:
        connection, now = session.connection(), utcnow()
        replaced = session.exec(select(BrowserSession.id).where(BrowserSession.hash == before)).one_or_none()
        if replaced is not None:
            _end(connection, replaced)
        connection.execute(delete(BrowserSession).where(col(BrowserSession.expires_at) <= now))
        row = BrowserSession(
            hash=digest_of(token), key_hash=caller.key_hash, user_agent=agent,
            created_at=now, last_used_at=now, expires_at=now + LIFETIME,
        )  # fmt: skip
        session.add(row)
        session.flush()
        note(connection, "session begun", session_id=row.id, key_id=caller.key_id)
        return SessionCreated(**dict(_identity(session, caller)), **dict(_public(row, row.id)))

    created = await service.database.write(begin)
    set_cookie(request, response, token)
    return created


@sign_in.delete("/session", status_code=204, summary="Sign out")
async def end_session(request: Request, response: Response, service: ServiceDep) -> None:
    """Ends the session of this browser and takes its cookie away; also if there is none, or none any more."""
    if token := request.cookies.get(COOKIE):
        if not request.headers.get(HEADER):
            check_origin(request)
        async with service.database.read() as session:
            row = session.exec(select(BrowserSession.id).where(BrowserSession.hash == digest_of(token))).one_or_none()
        if row is not None:
            await service.database.execute(lambda connection: _end(connection, row))
        set_cookie(request, response, "")


@router.get("/session", summary="Who calls")
def get_session(request: Request, session: SessionDep, caller: CallerDep) -> WhoCalls:
    """Whose key or session this request was sent with. While no keys are asked for, everybody is an admin."""
    row = session.get(BrowserSession, caller.session_id) if caller.session_id is not None else None
    present = _public(row, caller.session_id) if row else None
    callers: Callers = request.app.state.callers
    return WhoCalls(**dict(_identity(session, caller)), session=present, needs_key=not callers.is_open)


@router.get("/sessions/", summary="List one's own sessions")
def list_sessions(query: Annotated[Paging, Query()], session: SessionDep, caller: CallerDep) -> list[SessionPublic]:
    """Those that were begun with the same key, by id, the present one marked as `current`."""
    own = select(BrowserSession).where(
        BrowserSession.key_hash == caller.key_hash, col(BrowserSession.expires_at) > utcnow()
    )
    rows = session.exec(query.of(own.order_by(col(BrowserSession.id)))).all()
    return [_public(row, caller.session_id) for row in rows]


@router.delete("/sessions/{session_id}", status_code=204, summary="End a session", responses=responses(404))
@writes
def delete_session(write: Write, session_id: PathId, caller: CallerDep) -> None:
    """One of one's own; others are not there. From the next request on it is refused, in all processes."""
    row = write.session.get(BrowserSession, session_id)
    if row is None or row.key_hash != caller.key_hash:
        raise NotFound("session", session_id)
    _end(write.session.connection(), session_id)
