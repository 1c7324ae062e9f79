"""What happens to each request before a route sees it, and to each answer: its id, size, headers and log line.

Log lines hold no path, query, body, phone, e-mail, message or key, and no exception's own words: the route, and ids.
"""

import asyncio
import json
import logging
import os
import re
import secrets
import sys
import time
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm.errors import StartupError
from crm.events import tell
from crm.web.answers import answer

MAX_BODY = 256 * 1024  # bytes
TOO_LARGE = "the body is larger than 256 KiB"
ID = re.compile(r"\d{1,9}")  # shorter than any phone
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY"), (b"referrer-policy", b"no-referrer")]
HEADERS += [(b"cache-control", b"no-cache")]  # a file of the page is asked for again after an update
log = logging.getLogger("crm.requests")
request_id: ContextVar[str] = ContextVar("request_id", default="-")


class Requests:
    """The middleware around all others of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, partial(_send_in_one_line, send))
            return
        begin, size, status = time.perf_counter(), 0, 0
        headers = dict(scope["headers"])
        given, length = headers.get(b"x-request-id", b""), headers.get(b"content-length", b"")
        own_id = given if re.fullmatch(rb"[\w.-]{1,64}", given) else secrets.token_hex(8).encode()
        request_id.set(own_id.decode())

        async def receive_little() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY:
                raise HTTPException(413, TOO_LARGE)
            return message

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*HEADERS, (b"x-request-id", own_id)]
                if status == 413:
                    own.append((b"connection", b"close"))  # the rest of the body is not read
                message["headers"] = [*message["headers"], *own]
            await send(message)

        try:
            if length.isdigit() and int(length) > MAX_BODY:
                await answer(413, TOO_LARGE)(scope, receive, send_marked)
            else:
                await self.app(scope, receive_little, send_marked)
        except asyncio.CancelledError:
            if status != 0:
                raise
            await answer(503, "the service was stopped meanwhile: it may be done or not")(scope, receive, send_marked)
        finally:
            if status == 0:  # it failed, and the server will log how
                await answer(500, "internal error")(scope, receive, send_marked)
            ids = {name: value for name, value in scope.get("path_params", {}).items() if ID.fullmatch(str(value))}
            route = getattr(scope.get("route"), "path_format", "-")
            fields = {"method": scope["method"], "route": route, **ids, "status": status}
            tell([("request", {**fields, "seconds": round(time.perf_counter() - begin, 6)})], log)


async def _send_in_one_line(send: Send, message: Message) -> None:
    """Tells the server why the start failed in one line; Starlette tells it the whole traceback."""
    _, is_startup_error, reason = message.get("message", "").rpartition(f"{StartupError.__name__}: ")
    if is_startup_error:
        message["message"] = reason.strip()
    await send(message)


class Formatter(logging.Formatter):
    """A line for each record, as JSON or as text; `extra={"fields": {...}}` adds to it. Also for `log_config.json`."""

    def __init__(self) -> None:
        super().__init__()
        self.as_json = os.environ.get("CRM_LOG_FORMAT") == "json"  # the settings see to it that it is this or text

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": at, "level": record.levelname, "logger": record.name}
        line |= {"event": record.getMessage().strip(), "request_id": request_id.get()}
        line |= {name: value for name, value in getattr(record, "fields", {}).items() if value is not None}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line["exception"] = _without_words(error) if self.as_json else json.dumps(_without_words(error))
        if self.as_json:
            return json.dumps(line)
        fields = " ".join(f"{name}={value}" for name, value in line.items() if name not in ("time", "level", "event"))
        return f"{at} {record.levelname} {line['event']} {fields}"


def _without_words(error: BaseException | None) -> str:
    """Types and frames: the text of a database's error quotes the row."""
    parts = []
    while error is not None:
        parts.append(f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}")
        error = error.__cause__ or error.__context__
    return "from ".join(parts)


def set_up_logs() -> None:
    """For our lines and uvicorn's, whose own request lines say less; in each process of --workers too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter())
    for name in ("crm", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = ([] if name == "uvicorn.error" else [handler]), name == "uvicorn.error"
    logging.getLogger("crm").setLevel(logging.getLogger("uvicorn.error").level or logging.INFO)
    access = logging.getLogger("uvicorn.access")
    log.disabled = not access.handlers  # uvicorn's --no-access-log is for our lines too
    access.handlers, access.propagate = [], False
