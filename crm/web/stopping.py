"""The signal to stop, heard before the server acts on it: it waits for open streams, which must end by themselves."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def when_stopping(call: Callable[[], object]) -> Iterator[None]:
    """Calls it when the process is asked to end, besides what the server does then."""
    before = dict[signal.Signals, Any]()

    def handle(number: int, frame: Any) -> None:
        call()
        before[signal.Signals(number)](number, frame)

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
