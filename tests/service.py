"""The service as a user starts it: processes of its own, reached over HTTP. For tests that one process can't show."""

import http.client
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from click.testing import CliRunner
from fastapi import FastAPI

from crm.__main__ import main as cli
from crm.main import create_app
from crm.settings import Settings
from tests.forked import ForkedService


class Service:
    """Copies of `uvicorn APP`, each on a free port, with one database; started when all answer."""

    def __init__(
        self,
        url: str,
        app: str = "crm.main:app",
        workers: int = 1,
        copies: int = 1,
        log: Any = None,
        options: Sequence[str] = (),
        is_anew: bool = False,
        **environment: str,
    ) -> None:
        """log: a file for its log lines, which it does not write else. options: further ones of uvicorn.

        is_anew: it imports all, as `python -m uvicorn` does; the others are forked.
        """
        self.url, self.log, self.options, self.is_anew = url, log, options, is_anew
        self.headers: dict[str, str] = {}  # of all requests
        self.environment = {**os.environ, "DATABASE_URL": url, **environment}
        self.app, self.workers = app, workers
        self.ports = [free_port() for _ in range(copies)]
        self.processes: list[subprocess.Popen[bytes] | ForkedService] = []
        self._next, self._over = itertools.count(), set[int]()
        deadline = time.monotonic() + 120
        try:
            self.processes += map(self._start, self.ports)
            for nth in range(copies):
                while not self.answers(nth):
                    if time.monotonic() > deadline or self.processes[nth].poll() is not None:
                        raise RuntimeError(f"{app} did not start")
                    time.sleep(0.02)
        except BaseException:
            self.kill()
            raise

    def _start(self, port: int) -> "subprocess.Popen[bytes] | ForkedService":
        options = [self.app, "--port", str(port), "--workers", str(self.workers), *self.options]
        if self.log is None:
            options += ["--log-level", "warning", "--no-access-log"]
        if not self.is_anew:
            return ForkedService(options, self.environment, self.log and self.log.name)
        command = [sys.executable, "-m", "uvicorn", *options]
        return subprocess.Popen(command, env=self.environment, start_new_session=True, stderr=self.log)

    def answers(self, nth: int = 0) -> bool:
        """Whether this copy serves."""
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.ports[nth], timeout=60)) as connection:
                connection.request("GET", "/-")  # there is no such route: whatever is answered will do
                connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        return True

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def process(self) -> "subprocess.Popen[bytes] | ForkedService":
        return self.processes[0]

    def connect(self) -> http.client.HTTPConnection:
        """A connection, to each copy in turn; a thread needs its own."""
        port = self.ports[next(self._next) % len(self.ports)]
        return http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        over: http.client.HTTPConnection | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """The status and the JSON of the answer; over: a connection to keep."""
        connection = over or self.connect()
        content = None if body is None else json.dumps(body)
        try:
            connection.request(
                method, path, content, {"Content-Type": "application/json", **self.headers, **(headers or {})}
            )
            answer = connection.getresponse()
            text = answer.read()
        finally:
            if over is None:
                connection.close()
        return answer.status, json.loads(text) if text else None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that must be a success."""
        status, answer = self.request(method, path, body)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return answer

    def restart(self) -> None:
        """Starts the first copy again, which has ended, on its port; it may take a while to answer."""
        self.processes[0] = self._start(self.port)

    def stop(self) -> None:
        """Asks all to finish, and waits; whatever does not, or is left of a group, is killed."""
        for process in self.processes:
            process.terminate()
        try:
            for process in self.processes:
                process.wait(60)
        finally:
            self.kill()

    def kill(self, copies: slice = slice(None)) -> None:
        """`kill -9` of these copies and their workers, which may outlive the process that started them."""
        for process in self.processes[copies]:
            if process.pid not in self._over:  # else the number may be another's by now
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(60)
                self._over.add(process.pid)


@contextmanager
def at_a_terminal(
    command: Sequence[str], stdout: int = subprocess.PIPE, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process that SIGINT stops, and that has ended after the block, whatever happens in it.

    In the background a shell ignores that signal, and all that it starts do so too.
    """
    process = subprocess.Popen(
        command, stdout=stdout, text=True, preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        **options,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    """One below those that the system gives to clients, any of which could take it before the service does."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def serving(
    url: str, app: str = "crm.main:app", workers: int = 1, copies: int = 1, log: Any = None, **more: Any
) -> Iterator[Service]:
    """A service for the length of a block."""
    service = Service(url, app, workers, copies, log, **more)
    try:
        yield service
    finally:
        service.stop()


class Thread(Service):
    """A service in a thread of this process, which starts at once; for those who only want one to talk to."""

    def __init__(self, url: str, app: FastAPI) -> None:
        super().__init__(url, copies=0)
        self.headers = {}
        self._app = app
        config = uvicorn.Config(self._app, port=0, log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        self._socket = config.bind_socket()
        self.ports = [int(self._socket.getsockname()[1])]
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.005)

    def stop(self) -> None:
        self._app.state.service.feed.close()  # as the signal does, which only a process gets
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


@contextmanager
def threaded(url: str, **settings: Any) -> Iterator[Service]:
    """Such a service for the length of a block."""
    service = Thread(url, create_app(Settings(DATABASE_URL=url, **settings)))
    try:
        yield service
    finally:
        service.stop()


def start(url: str, **environment: str) -> tuple[int, str]:
    """Runs the service until it gives up, for it must not be able to start: its exit code, and what it said."""
    with tempfile.NamedTemporaryFile("r") as log:
        options = ["crm.main:app", "--port", "0"]
        process = ForkedService(options, {**os.environ, "DATABASE_URL": url, **environment}, log.name)
        try:
            return process.wait(120), log.read()
        finally:
            process.send_signal(signal.SIGKILL)


def run(*arguments: str, expect: int = 0, **environment: str) -> str:
    """Does what `python -m crm` does, and returns what it printed."""
    result = CliRunner().invoke(cli, arguments, env=environment)
    assert result.exit_code == expect, result.output
    assert expect == 0 or result.output.splitlines()[-1].startswith("Error: ")
    return str(result.output)
