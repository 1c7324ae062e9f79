"""Events: read on from a cursor, page by page, or followed as they come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import format_sse_event
from sqlmodel import Field, SQLModel

from crm.errors import Forbidden
from crm.fields import Cursor, EventType, Id
from crm.outbox.feed import ContactEvent, Feed, Wanted
from crm.web.auth import Caller, CallerDep, authenticate
from crm.web.deps import ServiceDep
from crm.web.stopping import Stream

router = APIRouter(prefix="/events", tags=["Events"])

PING = 5.0  # seconds without an event
CHECK = 1.0  # seconds for which it is taken for granted that the key still holds


class EventFilter(SQLModel):
    """Which events. An unknown query parameter is refused."""

    model_config = {"extra": "forbid"}
    after: Cursor | None = Field(default=None, description="The cursor: only events with higher ids.")
    type: list[EventType] | None = Field(default=None, description="Only these; give it once for each.")
    source_id: Id | None = None

    def of(self, caller: Caller) -> Wanted:
        """Of what the caller may see: an operator what it has or had then, a source its own. Raises Forbidden."""
        if caller.source_id is not None and self.source_id not in (None, caller.source_id):
            raise Forbidden(f"this key is for source {caller.source_id} only")
        types = None if self.type is None else frozenset(self.type)
        return Wanted(types, caller.source_id or self.source_id, caller.operator_id)


class EventQuery(EventFilter):
    limit: int = Field(default=100, ge=1, le=1000, description="How many at most.")
    wait: float = Field(default=0, ge=0, le=30, description="Seconds to wait for one, if there is none yet.")


CURSOR: dict[str, Any] = {
    "X-Cursor": {
        "description": "The `after` to go on with. It moves on over what the filters leave out too.",
        "schema": {"type": "integer", "minimum": 0},
    }
}
STREAM = {
    "description": "Each event with its `id`, its `event` (the type) and, as `data`, the JSON that the list has of it. "
    "After some seconds without any a comment, with the `id` to go on with.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


@router.get("/", summary="List events", response_model=list[ContactEvent], responses={200: {"headers": CURSOR}})
async def list_events(query: Annotated[EventQuery, Query()], service: ServiceDep, caller: CallerDep) -> Response:
    """What happened to contacts, oldest first; without `after` from the beginning.

    Give the `X-Cursor` of each answer as `after` of the next call: then you get each event once, none is left out, and
    those of one contact are in their order. `wait` answers as soon as there is one, so that you need not ask often.
    """
    events, cursor = list[ContactEvent](), query.after or 0
    async with aclosing(service.feed.follow(cursor, query.of(caller), query.limit, query.wait)) as pages:
        async for events, cursor in pages:  # noqa: B007  (the first page, or none when the service stops)
            break
    body = f"[{','.join(event.json_text for event in events)}]"
    return Response(body, headers={"X-Cursor": str(cursor)}, media_type="application/json")


@router.get("/stream", summary="Follow events", response_class=Response, responses={200: STREAM})
async def stream_events(
    query: Annotated[EventFilter, Query()],
    request: Request,
    service: ServiceDep,
    caller: CallerDep,
    last_event_id: Annotated[Cursor | None, Header(description="Goes before `after`: a browser sends it.")] = None,
) -> Response:
    """The same as server-sent events, without end: what comes after the cursor, or without one from now on.

    Cut off, go on with the last `id` that came, as `Last-Event-ID` or `after`: nothing is lost. It ends when the key is
    revoked, and when the service stops.
    """
    wanted, head = query.of(caller), await service.feed.head()
    after = next((cursor for cursor in (last_event_id, query.after) if cursor is not None), head)
    lines = _lines(request, service.feed, after, wanted)
    headers = {"X-Accel-Buffering": "no"}  # a proxy would hold events back
    return Stream(lines, service.feed.closed, media_type="text/event-stream", headers=headers)


async def _lines(request: Request, feed: Feed, after: int, wanted: Wanted) -> AsyncIterator[bytes]:
    """Many events in one piece, for each costs its way through the server; FastAPI's own way sends each by itself."""
    loop = asyncio.get_running_loop()
    checked = loop.time()
    yield format_sse_event(id=str(after), retry=1000)
    async with aclosing(feed.follow(after, wanted, idle=PING)) as pages:
        async for events, cursor in pages:
            if loop.time() - checked > CHECK:
                if not await authenticate.still_holds(request):
                    return
                checked = loop.time()
            yield b"".join(event.sse for event in events) or format_sse_event(id=str(cursor), comment="ping")
