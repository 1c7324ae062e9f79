"""A receiver of webhooks on a free port, that answers as a test says and remembers what it got."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook


class Got:
    """A request that came in."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path, self.headers, self.body, self.at = path, headers, body, time.monotonic()
        self.id = headers.get("webhook-id", "")
        self.event = json.loads(body)

    def verified_by(self, secret: str) -> Any:
        """The event; raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)


class Answer:
    """What is answered: a status with headers and a body; after a wait, if need be; 0 closes the connection."""

    def __init__(self, status: int = 204, body: bytes = b"", wait: float = 0, **headers: str) -> None:
        self.status, self.body, self.wait, self.headers = status, body, wait, headers


class Receiver:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hook"
        self.got: list[Got] = []
        self.answers: list[Answer] = []  # in turn, and then 204 to all
        self.always: Answer = Answer()
        self.by_path: dict[str, Answer] = {}  # before all others
        self.is_over = threading.Event()
        self._changed = threading.Condition()

    def take(self, got: Got) -> Answer:
        with self._changed:
            self.got.append(got)
            self._changed.notify_all()
            if got.path in self.by_path:
                return self.by_path[got.path]
            return self.answers.pop(0) if self.answers else self.always

    def wait_for(self, is_so: int | Callable[[list[Got]], Any], seconds: float = 20) -> list[Got]:
        """What has come when so many have, or when it is so."""
        test = (lambda got: len(got) >= is_so) if isinstance(is_so, int) else is_so
        with self._changed:
            assert self._changed.wait_for(lambda: test(self.got), seconds), [got.event for got in self.got]
            return [*self.got]

    @property
    def ids(self) -> list[str]:
        return [got.id for got in self.got]


@contextmanager
def receiving(tls: Any = None) -> Iterator[Receiver]:
    """tls: a context of the standard library, for https."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = receiver.take(Got(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            receiver.is_over.wait(answer.wait)
            if answer.status == 0:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 200

        def handle_error(self, *_: Any) -> None:
            """Who hangs up is not our affair."""

    with Server(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver = Receiver(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield receiver
        finally:
            receiver.is_over.set()
            server.shutdown()
            thread.join()
