"""What comes at its worst: all to one lead, one source or one operator, nobody with room, and many at once."""

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial

from tests.bench.history import add_team
from tests.bench.load import Result, register
from tests.service import Service

BURST, BURST_CONNECTIONS = 10_000, 500
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


# What each contact has instead of the usual, as Lua has it; None: the source that is made for it.
CASES: dict[str, dict[str, str | None]] = {
    "usual": {},
    "one lead": {"lead": "'one'", "phone": "'+79161234567'"},
    "one source": {"source": "1"},
    "one source, mostly full": {"source": "1"},  # its ten operators have less room than is kept open
    "one operator": {"source": None},
    "nobody has room": {"source": None},
}


def prepare(service: Service, case: str) -> Callable[[int], Result]:
    """The load of so many seconds; adds a team and what else it needs."""
    add_team(service.call)
    words = {**CASES[case]}
    if case == "one source":
        for operator in service.call("GET", "/operators/"):
            service.call("PATCH", f"/operators/{operator['id']}", {"max_load": 100_000})
    if "source" in words and words["source"] is None:
        max_load = 0 if case == "nobody has room" else 100_000
        operator = service.call("POST", "/operators/", {"name": "The only one", "max_load": max_load})["id"]
        source = service.call("POST", "/sources/", {"name": "Theirs", "bot_id": "theirs"})["id"]
        service.call("PUT", f"/sources/{source}/operators", [{"operator_id": operator, "weight": 1}])
        words["source"] = str(source)
    return partial(register, service.port, **words)


async def burst(port: int) -> tuple[float, list[int], list[float]]:
    """10,000 contacts over 500 connections, as fast as they are taken: the seconds, the status codes that were not
    201, and how many seconds others waited meanwhile, who asked for a list each 100 ms."""
    others, refused, left = list[float](), list[int](), iter(range(BURST))
    done = asyncio.Event()

    async def call(
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], method: str, path: str, body: str
    ) -> int:
        reader, writer = streams
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].split()[0]))
        return int(answer.split()[1])

    async def register_some() -> None:
        streams = await asyncio.open_connection("127.0.0.1", port)
        for n in left:
            body = {"source_id": n % 30 + 1, "lead_external_id": f"burst:{n}", "event_id": f"burst-{n}"}
            status = await call(streams, "POST", "/contacts/", json.dumps(body))
            refused.extend([status] * (status != 201))
        streams[1].close()

    async def ask() -> None:
        streams = await asyncio.open_connection("127.0.0.1", port)
        while not done.is_set():
            begin = time.perf_counter()
            assert await call(streams, "GET", "/contacts/?limit=20", "") == 200
            others.append(time.perf_counter() - begin)
            await asyncio.sleep(0.1)
        streams[1].close()

    asking = asyncio.create_task(ask())
    begin = time.perf_counter()
    await asyncio.gather(*(register_some() for _ in range(BURST_CONNECTIONS)))
    seconds = time.perf_counter() - begin
    done.set()
    await asking
    return seconds, refused, sorted(others)
