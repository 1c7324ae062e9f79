"""A service started by fork from a process that has imported its libraries: in 0.1 s of a core instead of 1.5.

So are its workers, which uvicorn starts anew.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn import _subprocess

from crm.web.logs import set_up_logs

ROOT = Path(__file__).parents[1]
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload([__name__, "crm.main"])
_load = uvicorn.Config.load


def _serve(options: Sequence[str], environment: Mapping[str, str], folder: Path, log: str | None) -> None:
    os.setsid()  # as start_new_session does
    if log:
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    uvicorn.Config.load = _load_with_logs  # type: ignore[method-assign]
    _subprocess.spawn = get_context("fork")  # type: ignore[assignment]
    os.register_at_fork(after_in_child=_forget_signals)
    uvicorn.main(options)


def _load_with_logs(config: uvicorn.Config) -> None:
    """What crm.main does first when it is imported, which it was before the fork."""
    set_up_logs()
    _load(config)


def _forget_signals() -> None:
    """A worker that is asked to end before it serves would note it as its parent does, and go on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


class ForkedService:
    """What subprocess.Popen is, as far as the tests of the service ask for it."""

    def __init__(self, options: Sequence[str], environment: Mapping[str, str], log: str | None = None) -> None:
        """options: of uvicorn. log: the file to which stderr is added; else the process writes where this one does."""
        self._process: Any = FORKS.Process(target=_serve, args=(options, dict(environment), Path.cwd(), log))
        with chdir(ROOT):  # where the first of all imports what the others begin with
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
