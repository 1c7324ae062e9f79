"""How a bot reads events in the tests: page by page, and from a stream that may be cut."""

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.service import Service


class Sent(NamedTuple):
    """One block of a stream; without data it is a ping."""

    id: int
    event: str | None
    data: Any


class Stream:
    """A stream that was opened; `with` closes it."""

    def __init__(
        self, service: Service, query: str = "", headers: Mapping[str, str] | None = None, timeout: float = 30
    ) -> None:
        self._connection = service.connect()
        self._connection.timeout = timeout
        self._connection.request("GET", f"/events/stream{query}", headers={**service.headers, **(headers or {})})
        self.answer = self._connection.getresponse()
        assert self.answer.status == 200, self.answer.read()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.answer.close()
        self._connection.close()

    def blocks(self) -> Iterator[Sent]:
        """All that come, until it ends or is cut."""
        block: dict[str, str] = {}
        try:
            for line in self.answer:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    block[name] = value
                elif block:
                    data = json.loads(block["data"]) if "data" in block else None
                    yield Sent(int(block["id"]), block.get("event"), data)
                    block = {}
        except (OSError, http.client.HTTPException, AttributeError):  # the last: closed by another thread
            return

    def events(self) -> Iterator[Any]:
        return (block.data for block in self.blocks() if block.data is not None)


def page(service: Service, query: str, headers: Mapping[str, str] | None = None) -> tuple[list[Any], int]:
    """The events, and the cursor to go on with."""
    connection = service.connect()
    try:
        connection.request("GET", f"/events/{query}", headers={**service.headers, **(headers or {})})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        return json.loads(text), int(answer.headers["X-Cursor"])
    finally:
        connection.close()
