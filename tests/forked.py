"""A service started by fork from a process that has imported its libraries: in 0.1 s of a core instead of one."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from typing import Any

import uvicorn

import crm.main  # with all that it imports

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


def _serve(options: Sequence[str], environment: Mapping[str, str]) -> None:
    os.setsid()  # as start_new_session does
    os.environ.clear()
    os.environ.update(environment)
    del sys.modules[crm.main.__name__]  # it makes the app, by the settings of its environment
    uvicorn.main(options)


class ForkedService:
    """What subprocess.Popen is, as far as the tests of the service ask for it."""

    def __init__(self, options: Sequence[str], environment: Mapping[str, str]) -> None:
        """options: of uvicorn. The process writes where this one does."""
        self._process: Any = FORKS.Process(target=_serve, args=(options, dict(environment)))
        self._process.start()
        self.pid = int(self._process.pid)

    def poll(self) -> int | None:
        return self._process.exitcode  # type: ignore[no-any-return]

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("uvicorn", timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)
