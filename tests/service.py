"""The service as a user starts it: processes of its own, reached over HTTP. For tests that one process can't show."""

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

from click.testing import CliRunner

from crm.__main__ import main as cli


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
        **environment: str,
    ) -> None:
        """log: a file for its log lines, which it does not write else. options: further ones of uvicorn."""
        self.url, self.log, self.options = url, log, options
        self.headers: dict[str, str] = {}  # of all requests
        self.environment = {**os.environ, "DATABASE_URL": url, **environment}
        self.app, self.workers = app, workers
        self.ports = [free_port() for _ in range(copies)]
        self.processes = [self._start(port) for port in self.ports]
        self._next = itertools.count()
        deadline = time.monotonic() + 60
        for nth in range(copies):
            while not self._answers(nth):
                if time.monotonic() > deadline or self.processes[nth].poll() is not None:
                    self.kill()
                    raise RuntimeError(f"{app} did not start")
                time.sleep(0.05)

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "uvicorn", self.app, "--port", str(port), "--workers", str(self.workers)]
        command += self.options
        if self.log is None:
            command += ["--log-level", "warning", "--no-access-log"]
        return subprocess.Popen(command, env=self.environment, start_new_session=True, stderr=self.log)

    def _answers(self, nth: int) -> bool:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.ports[nth], timeout=60)) as connection:
                connection.request("GET", "/openapi.json")
                connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        return True

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def process(self) -> subprocess.Popen[bytes]:
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
        connection.request(
            method, path, content, {"Content-Type": "application/json", **self.headers, **(headers or {})}
        )
        answer = connection.getresponse()
        text = answer.read()
        if over is None:
            connection.close()
        return answer.status, json.loads(text) if text else None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that must be a success."""
        status, answer = self.request(method, path, body)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return answer

    def stop(self) -> None:
        """Asks all to finish, and waits."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(30)

    def kill(self, copies: slice = slice(None)) -> None:
        """`kill -9` of these copies and their workers."""
        for process in self.processes[copies]:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


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


def start(url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the service until it gives up: it must not be able to start."""
    return subprocess.run(
        [sys.executable, "-m", "uvicorn", "crm.main:app", "--port", "0"],
        env={**os.environ, "DATABASE_URL": url, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


def run(*arguments: str, expect: int = 0, **environment: str) -> str:
    """Does what `python -m crm` does, and returns what it printed."""
    result = CliRunner().invoke(cli, arguments, env=environment)
    assert result.exit_code == expect, result.output
    assert expect == 0 or result.output.splitlines()[-1].startswith("Error: ")
    return str(result.output)
