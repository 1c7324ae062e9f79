"""What happens to each request before a route sees it, and to each answer: its id, size, headers and log line.

Log lines hold no query, body, phone, e-mail, message or key: the path, and ids.
"""

import json
import logging
import os
import re
import secrets
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm.events import tell

MAX_BODY = 256 * 1024  # bytes
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY"), (b"referrer-policy", b"no-referrer")]
log = logging.getLogger("crm.requests")
request_id: ContextVar[str] = ContextVar("request_id", default="-")


class Requests:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, size, status = time.perf_counter(), 0, 500
        headers = dict(scope["headers"])
        given, length = headers.get(b"x-request-id", b""), headers.get(b"content-length", b"")
        own_id = given if re.fullmatch(rb"[\w.-]{1,64}", given) else secrets.token_hex(8).encode()
        request_id.set(own_id.decode())
        is_large = length.isdigit() and int(length) > MAX_BODY

        async def receive_little() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if is_large or size > MAX_BODY:
                raise HTTPException(413, "the body is larger than 256 KiB")
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
            await self.app(scope, receive_little, send_marked)
        finally:
            path = scope["path"].encode("unicode_escape").decode()  # one line, whatever was asked for
            route = getattr(scope.get("route"), "path_format", "-")
            fields = {"method": scope["method"], "path": path, "route": route, "status": status}
            tell([("request", {**fields, "seconds": round(time.perf_counter() - begin, 6)})], log)


class Formatter(logging.Formatter):
    """A line for each record, as JSON or as text; `extra={"fields": {...}}` adds to it. Also for `log_config.json`."""

    def __init__(self) -> None:
        super().__init__()
        self.as_json = os.environ.get("CRM_LOG_FORMAT") == "json"  # the settings see to it that it is this or text

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": at, "level": record.levelname, "logger": record.name}
        line |= {"event": record.getMessage(), "request_id": request_id.get()}
        line |= {name: value for name, value in getattr(record, "fields", {}).items() if value is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if self.as_json:
            return json.dumps(line)
        fields = " ".join(f"{name}={value}" for name, value in line.items() if name not in ("time", "level", "event"))
        return f"{at} {record.levelname} {line['event']} {fields}"


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
