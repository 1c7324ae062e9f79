"""The service as a user starts it: processes of its own, reached over HTTP. For tests that one process can't show."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Service:
    """`uvicorn APP` on a free port and a SQLite file; started when it answers."""

    def __init__(self, path: Path, app: str = "crm.main:app", workers: int = 1, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", app, "--port", str(self.port), "--workers", str(workers)),
                *("--log-level", "warning", "--no-access-log"),
            ],
            env={**os.environ, "DATABASE_URL": f"sqlite:///{path}", **environment},
            start_new_session=True,
        )
        self.connection = self.connect()
        deadline = time.monotonic() + 30
        while not self._answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.kill()
                raise RuntimeError(f"{app} did not start")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.request("GET", "/openapi.json")
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return False
        return True

    def connect(self) -> http.client.HTTPConnection:
        """One connection; a thread needs its own."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def request(
        self, method: str, path: str, body: Any = None, over: http.client.HTTPConnection | None = None
    ) -> tuple[int, Any]:
        """The status and the JSON of the answer."""
        connection = over or self.connection
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that must be a success."""
        status, answer = self.request(method, path, body)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return answer

    def stop(self) -> None:
        """Asks it to finish, and waits."""
        self.connection.close()
        self.process.terminate()
        self.process.wait(30)

    def kill(self) -> None:
        """`kill -9` of the process and its workers."""
        self.connection.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def serving(path: Path, app: str = "crm.main:app", workers: int = 1, **environment: str) -> Iterator[Service]:
    """A service for the length of a block."""
    service = Service(path, app, workers, **environment)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()
