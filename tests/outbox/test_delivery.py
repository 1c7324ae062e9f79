"""Every reader is told of everything once, in order and not before its commit, whatever is cut, killed or resumed."""

import http.client
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import empty_file
from tests.effort import effort
from tests.outbox.reading import Stream, page
from tests.postgres import connected, empty_database, sql
from tests.service import Service, serving

WRITERS, READERS = 16, 3
BROKEN = (OSError, http.client.HTTPException, AssertionError)  # of a worker that was killed; a 503 too


class Reader:
    """What one was told; each page is looked up in the database at once, past the service."""

    def __init__(self, database: str, seed: int) -> None:
        self.ids, self.contacts = list[int](), list[int]()
        self.rng = random.Random(seed)
        self._rows = connected(database)

    @property
    def cursor(self) -> int:
        return self.ids[-1] if self.ids else 0

    def take(self, events: list[Any]) -> None:
        ids = [event["id"] for event in events]
        if ids:
            listed = ", ".join(map(str, ids))
            count = f"SELECT count(*) FROM assignment WHERE id IN ({listed})"
            assert self._rows.exec_driver_sql(count).scalar_one() == len(ids), "told before the commit"
        self.ids += ids

    def close(self) -> None:
        self._rows.close()


def follow_pages(service: Service, reader: Reader, is_done: Callable[[Reader], bool]) -> None:
    """By X-Cursor, with pages of any length; an answer that did not come is asked for again."""
    cursor = 0
    while not is_done(reader):
        try:
            query = f"?after={cursor}&limit={reader.rng.randint(1, 50)}&wait={reader.rng.choice([0, 0.2, 1])}"
            events, cursor = page(service, query)
        except BROKEN:
            time.sleep(0.05)
        else:
            reader.take(events)


def follow_stream(service: Service, reader: Reader, is_done: Callable[[Reader], bool]) -> None:
    """Cut after some events, and resumed where it was, at whatever worker."""
    while not is_done(reader):
        resume = reader.rng.choice([("", {"Last-Event-ID": str(reader.cursor)}), (f"?after={reader.cursor}", {})])
        try:
            with Stream(service, *resume) as stream:
                left = reader.rng.randint(1, 60)
                for block in stream.blocks():
                    if block.data is not None:
                        reader.take([block.data])
                        left -= 1
                    if left == 0 or is_done(reader):
                        break
        except BROKEN:
            time.sleep(0.05)


def write(service: Service, seed: int, operations: int) -> None:
    """Registers, starts and closes; what was not answered is sent again."""
    rng, mine = random.Random(seed), list[int]()

    def call(method: str, path: str, body: Any) -> Any:
        while True:
            try:
                status, answer = service.request(method, path, body)
            except BROKEN[:2]:
                status = 503
            if status < 500:
                return answer
            time.sleep(0.05)

    for number in range(operations):
        if mine and rng.random() < 0.5:
            contact_id = rng.choice(mine)
            call("PATCH", f"/contacts/{contact_id}/status", {"status": rng.choice(["in_progress", "closed"])})
        else:
            body = {"source_id": rng.randint(1, 2), "lead_external_id": f"tg:{rng.randint(1, 30)}"}
            mine.append(call("POST", "/contacts/", {**body, "event_id": f"{seed}-{number}"})["id"])


def kill_a_worker(service: Service) -> None:
    """`kill -9`; the process that started it starts another."""
    command = ["pgrep", "-P", str(service.process.pid)]
    workers = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(random.choice(workers)), signal.SIGKILL)


@pytest.mark.seconds(40)
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_each_reader_is_told_of_everything_once_and_in_order(engine: str, path: Path) -> None:
    """Several workers, or two copies of two, of which some are killed while 16 clients write."""
    shape = {"workers": effort(2, 4)} if engine == "sqlite" else {"workers": 2, "copies": 2}
    database = empty_file(path) if engine == "sqlite" else empty_database()
    with serving(database, **shape) as service:
        for number in (1, 2):
            service.call("POST", "/operators/", {"name": f"Operator {number}", "max_load": 5})
            service.call("POST", "/sources/", {"name": f"Source {number}"})
            service.call("POST", f"/sources/{number}/operators", {"operator_id": number})
        readers = [Reader(database, seed) for seed in range(2 * READERS)]
        last: int | None = None
        deadline = time.monotonic() + 600  # on a busy machine

        def is_done(reader: Reader) -> bool:
            assert time.monotonic() < deadline, f"reader at {reader.cursor} of {last}"
            return last is not None and reader.cursor >= last

        written = threading.Event()

        def kill_some() -> None:
            for _ in range(effort(1, 3)):
                if not written.wait(effort(1, 2)):
                    kill_a_worker(service)

        with ThreadPoolExecutor(WRITERS + len(readers) + 1) as pool:
            reading = [
                pool.submit(follow_pages if nth < READERS else follow_stream, service, reader, is_done)
                for nth, reader in enumerate(readers)
            ]
            killing = pool.submit(kill_some)
            writing = [pool.submit(write, service, seed, effort(25, 60)) for seed in range(WRITERS)]
            for task in writing:
                task.result()
            written.set()
            killing.result()
            last = sql(database, "SELECT max(id) FROM assignment")[0][0]
            for task in reading:
                task.result()
        for reader in readers:
            reader.close()
    there = [row[0] for row in sql(database, "SELECT id FROM assignment ORDER BY id")]
    assert [reader.ids == there for reader in readers] == [True] * len(readers)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_stream_hears_of_another_process_within_300_milliseconds(engine: str, path: Path) -> None:
    """The median; the other copy writes."""
    database = empty_file(path) if engine == "sqlite" else empty_database()
    with serving(database, copies=2) as service:
        service.call("POST", "/sources/", {"name": "Shop"})
        reads, writes = (http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in service.ports)
        with closing(reads), closing(writes):
            reads.request("GET", "/events/stream")
            answer = reads.getresponse()
            delays = []
            for number in range(15):
                body = {"source_id": 1, "lead_external_id": f"tg:{number}"}
                assert service.request("POST", "/contacts/", body, writes)[0] == 201
                begin = time.monotonic()
                while not answer.readline().startswith(b"data:"):
                    pass
                delays.append(time.monotonic() - begin)
                time.sleep(random.uniform(0, 0.1))
            answer.close()
    assert sorted(delays)[7] < 0.3, delays
