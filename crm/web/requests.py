"""What happens to each request before a route sees it, and to each answer: its size, headers and log line."""

import asyncio
import re
import secrets
import time
from functools import partial

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm.errors import StartupError
from crm.events import tell
from crm.web import logs
from crm.web.answers import answer

MAX_BODY = 256 * 1024  # bytes; FastAPI's own max_body_size first runs a handler that reads no body
TOO_LARGE = "the body is larger than 256 KiB"
ID = re.compile(r"\d{1,9}")  # shorter than any phone
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY"), (b"referrer-policy", b"no-referrer")]
HEADERS += [(b"cache-control", b"no-cache")]  # a file of the page is asked for again after an update


def request_id(given: str = "") -> str:
    """The caller's own if it is a plain one, else a new one."""
    return given if re.fullmatch(r"[\w.-]{1,64}", given, re.ASCII) else secrets.token_hex(8)


class Requests:
    """The middleware around all others of ours but the one that gives each request its id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Exchange(scope, receive, send).run(self.app)
        else:
            await self.app(scope, receive, partial(_send_in_one_line, send))


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._begin = time.perf_counter()
        self._size = 0  # bytes of the body so far
        self._status = 0  # 0: not answered yet

    async def run(self, app: ASGIApp) -> None:
        """Answers in any case: too large, cut off by a stop, or failed."""
        try:
            if self._says_too_large():
                await self._answer(413, TOO_LARGE)
            else:
                await app(self._scope, self._receive_little, self._send_marked)
        except asyncio.CancelledError:
            if self._status != 0:
                raise
            await self._answer(503, "the service was stopped meanwhile: it may be done or not")
        finally:
            if self._status == 0:  # it failed, and the server will log how
                await self._answer(500, "internal error")
            self._tell()

    def _says_too_large(self) -> bool:
        length = next((value for name, value in self._scope["headers"] if name == b"content-length"), b"")
        return length.isdigit() and int(length) > MAX_BODY

    async def _receive_little(self) -> Message:
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > MAX_BODY:
            raise HTTPException(413, TOO_LARGE)
        return message

    async def _send_marked(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            closing = [(b"connection", b"close")] if self._status == 413 else []  # the rest of the body is not read
            message["headers"] = [*message["headers"], *HEADERS, *closing]
        await self._send(message)

    async def _answer(self, status: int, detail: str) -> None:
        await answer(status, detail)(self._scope, self._receive, self._send_marked)

    def _tell(self) -> None:
        """The line of the log, which is counted too."""
        ids = {name: value for name, value in self._scope.get("path_params", {}).items() if ID.fullmatch(str(value))}
        route = getattr(self._scope.get("route"), "path_format", "-")
        fields = {"method": self._scope["method"], "route": route, **ids, "status": self._status}
        tell([("request", {**fields, "seconds": round(time.perf_counter() - self._begin, 6)})], logs.requests)


async def _send_in_one_line(send: Send, message: Message) -> None:
    """Tells the server why the start failed in one line; Starlette tells it the whole traceback."""
    _, is_startup_error, reason = message.get("message", "").rpartition(f"{StartupError.__name__}: ")
    if is_startup_error:
        message["message"] = reason.strip()
    await send(message)
