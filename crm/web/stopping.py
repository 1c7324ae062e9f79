"""The signal to stop, heard before the server acts on it: it waits for open streams, which must end by themselves."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

IS_STREAM = "crm.is_stream"  # in the scope of a request
LAST_PIECE = 1.0  # seconds to take it when the service stops
GRACE = 2.0  # seconds until a connection is cut


@contextmanager
def when_stopping(call: Callable[[], object]) -> Iterator[None]:
    """Calls it when the process is asked to end, besides what the server does then."""
    before, loop = dict[signal.Signals, Any](), asyncio.get_running_loop()

    def handle(number: int, frame: Any) -> None:
        call()
        own = before[signal.Signals(number)]
        own(number, frame)
        loop.call_soon_threadsafe(loop.call_later, GRACE, _drop_streams, getattr(own, "__self__", None))

    if threading.current_thread() is threading.main_thread():  # no other may
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(own := signal.getsignal(number)):
                before[number] = own
                signal.signal(number, handle)
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


def _drop_streams(server: Any) -> None:
    """Whoever does not take the end of its stream: uvicorn would wait for it for ever."""
    state = getattr(server, "server_state", None)
    for connection in [*state.connections] if state else []:
        if IS_STREAM in (getattr(connection, "scope", None) or {}):
            connection.transport.abort()


class BrokenOff(Exception):
    """A stream can't go on, and whoever takes it must not think that it is whole."""


class Stream(StreamingResponse):
    """An answer that takes long, or for ever."""

    def __init__(self, pieces: AsyncIterator[bytes], closed: asyncio.Event, **options: Any) -> None:
        """pieces: may raise BrokenOff; they should end soon after `closed` is set."""
        super().__init__(pieces, **options)
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whoever takes nothing any more must not keep the service from stopping. An answer that is left without an end
        breaks the connection off."""
        scope[IS_STREAM] = True
        sending = asyncio.create_task(super().__call__(scope, receive, send))
        closed = asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait([sending, closed], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([sending], timeout=LAST_PIECE)
        finally:
            closed.cancel()
            sending.cancel()
            await asyncio.wait([sending])
        if not sending.cancelled():
            with suppress(BrokenOff):
                sending.result()
