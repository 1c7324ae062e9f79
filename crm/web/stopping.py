"""The signal to stop, heard before the server acts on it: it waits for open streams, which must end by themselves."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

GRACE = 2.0  # seconds for a stream's last piece


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
        if (getattr(connection, "scope", None) or {}).get("path", "").endswith("/events/stream"):
            connection.transport.abort()
