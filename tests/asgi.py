"""Calls of an app in this process: an HTTP client and its stream of the answer took two thirds of the time."""

import asyncio
import json
import re
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, cast
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from anyio.from_thread import BlockingPortal
from fastapi.testclient import TestClient
from starlette.datastructures import Headers

PLAIN = re.compile(r"/(?!session)[\w/.~%&=?:,+@-]*", re.ASCII)  # a session comes as a cookie
_loops = WeakKeyDictionary[BlockingPortal, asyncio.AbstractEventLoop]()


class Answer(NamedTuple):
    status_code: int
    headers: Headers
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return json.loads(self.content)


def ask(
    client: TestClient, method: str, path: str, body: Any = None, headers: Mapping[str, str | bytes] | None = None
) -> Any:
    """What `client.request` answers, as far as `Answer` has it; by that itself, where more is needed."""
    portal, transport = client.portal, cast(Any, client._transport)
    is_plain = PLAIN.fullmatch(path) and not client.cookies and transport.raise_server_exceptions
    if portal is None or not is_plain:
        return client.request(method, path, **({} if body is None else {"json": body}), headers=headers)
    if portal not in _loops:
        _loops[portal] = portal.call(asyncio.get_running_loop)
    answer: Future[Answer] = asyncio.run_coroutine_threadsafe(
        _ask(client, method, path, body, headers or {}), _loops[portal]
    )
    result = answer.result()
    return client.request(method, path, json=body, headers=headers) if 300 <= result.status_code < 400 else result


async def _ask(client: TestClient, method: str, path: str, body: Any, headers: Mapping[str, str | bytes]) -> Answer:
    content, own = b"", [(b"host", client.base_url.netloc)]
    if body is not None:
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        own += [(b"content-type", b"application/json")]
    if body is not None or method in ("POST", "PUT", "PATCH"):
        own += [(b"content-length", b"%d" % len(content))]
    raw_path, _, query = path.partition("?")
    transport: Any = client._transport
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "root_path": transport.root_path,
        "scheme": client.base_url.scheme,
        "query_string": query.encode(),
        "headers": own
        + [(name.lower().encode(), text.encode() if isinstance(text, str) else text) for name, text in headers.items()]
        + [(key.lower(), value) for key, value in client.headers.raw if key.lower() != b"accept-encoding"],
        "client": transport.client,
        "server": [client.base_url.host, client.base_url.port],
        "extensions": {},
        "state": client.app_state.copy(),
    }
    requests = [{"type": "http.request", "body": content, "more_body": False}]
    status, answered, parts, done = 0, list[tuple[bytes, bytes]](), list[bytes](), asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not requests:
            await done.wait()
            return {"type": "http.disconnect"}
        return requests.pop()

    async def send(message: Any) -> None:
        nonlocal status, answered
        if message["type"] == "http.response.start":
            status, answered = message["status"], message["headers"]
        else:
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                done.set()

    await client.app(scope, receive, send)  # type: ignore[arg-type]
    assert status, f"{method} {path} was not answered"
    return Answer(status, Headers(raw=answered), b"".join(parts))
