"""Of several processes one sends; when it dies or freezes another follows, and nothing is lost or out of order."""

import http.client
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.outbox.conftest import until
from tests.outbox.receiver import Answer, Got, Receiver
from tests.postgres import sql
from tests.service import Service, serving

pytestmark = pytest.mark.seconds(15)
SETTINGS = {"CRM_WEBHOOK_ALLOW": "127.0.0.0/8", "CRM_BUSY_TIMEOUT": "1"}


@pytest.fixture
def service(database: str) -> Iterator[Service]:
    with serving(database, "tests.outbox.quick:app", copies=3, **SETTINGS) as service:
        service.call("POST", "/operators/", {"name": "Anna", "max_load": 100_000})
        service.call("POST", "/sources/", {"name": "Shop"})
        service.call("POST", "/sources/1/operators", {"operator_id": 1})
        yield service


class Writing:
    """Registers contacts until it is told to stop; what fails is sent again."""

    def __init__(self, service: Service, name: str = "calm") -> None:
        self._service, self._name, self._is_over = service, name, threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(2)]

    def __enter__(self) -> "Writing":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _write(self, writer: int) -> None:
        for n in itertools.count():
            if self._is_over.wait(0.02):
                return
            contact = {"source_id": 1, "lead_external_id": str(n), "event_id": f"{self._name}-{writer}-{n}"}
            while not self._is_over.is_set():
                try:  # a copy that was killed or is frozen doesn't answer: the next one does
                    connection = self._service.connect()
                    connection.timeout = 1
                    self._service.request("POST", "/contacts/", contact, over=connection)
                    break
                except OSError:
                    pass
                finally:
                    connection.close()


def sender_of(database: str) -> int:
    """The process that holds the lease."""
    [(holder,)] = until(lambda: sql(database, "SELECT holder FROM lease"), bool)
    return int(holder.partition("-")[0])


def nth_of(service: Service, pid: int) -> int:
    return [process.pid for process in service.processes].index(pid)


def freeze(service: Service, pid: int) -> None:
    """But not in the middle of a transaction: it would keep all others from writing until it wakes."""
    other = (nth_of(service, pid) + 1) % len(service.ports)
    while True:
        os.kill(pid, signal.SIGSTOP)
        with closing(http.client.HTTPConnection("127.0.0.1", service.ports[other], timeout=60)) as connection:
            if service.request("PATCH", "/operators/1", {"name": "Anna"}, over=connection)[0] == 200:
                return
        os.kill(pid, signal.SIGCONT)


def goes_on(receiver: Receiver) -> None:
    """Twenty more events come, and well before a lease of the length that it has in earnest would have ended."""
    count = len(receiver.got)
    receiver.wait_for(count + 20, seconds=28)


def all_came(database: str, receiver: Receiver) -> list[Got]:
    """When each event of the history has come: what came, and that the first arrivals are in order."""
    wanted = [f"evt_{id_}" for (id_,) in sql(database, "SELECT id FROM assignment ORDER BY id")]
    got = receiver.wait_for(lambda got: got and got[-1].id == wanted[-1])
    assert list(dict.fromkeys(one.id for one in got)) == wanted
    by_id = {one.id: one.body for one in got}
    assert all(by_id[one.id] == one.body for one in got)
    return got


@pytest.mark.release_repeats(3)
def test_each_event_is_told_in_order_whatever_happens_to_the_sender(
    service: Service, receiver: Receiver, database: str
) -> None:
    """Once while nothing happens. A frozen one is followed, and writes and tells nothing when it wakes; it is frozen
    while the receiver takes its time, so that it wakes up with an answer to write. A killed one is followed too."""
    service.call("POST", "/subscriptions/", {"target": receiver.url})
    with Writing(service):
        receiver.wait_for(50)
    got = all_came(database, receiver)
    assert len({one.id for one in got}) == len(got)

    receiver.answers = [*[Answer()] * 10, Answer(wait=5)]
    before = len(got)
    for n in range(15):
        service.call("POST", "/contacts/", {"source_id": 1, "lead_external_id": str(n)})
    slow = receiver.wait_for(before + 11)[before + 10].id
    frozen = sender_of(database)
    freeze(service, frozen)
    with Writing(service, "frozen"):
        try:
            goes_on(receiver)
            assert sender_of(database) != frozen
        finally:
            os.kill(frozen, signal.SIGCONT)
        until(lambda: service.answers(nth_of(service, frozen)), bool)  # it is awake
        goes_on(receiver)
    ids = [one.id for one in all_came(database, receiver)]
    assert ids.count(slow) == 2  # it was under way
    assert len(ids) - len({*ids}) <= 40  # what was sent since the last write
    killed = sender_of(database)
    assert killed != frozen

    with Writing(service, "killed"):
        goes_on(receiver)
        nth = nth_of(service, killed)
        service.kill(slice(nth, nth + 1))
        goes_on(receiver)
    repeats = len(ids) - len({*ids})
    ids = [one.id for one in all_came(database, receiver)]
    assert len(ids) - len({*ids}) - repeats <= 40
    assert sender_of(database) != killed
