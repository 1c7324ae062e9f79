"""The guarantees of design.md under real threads and processes: the service runs as its users start it."""

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import empty, serving_on
from tests.effort import effort
from tests.postgres import connected, empty_database, server, sql
from tests.service import Service, serving

CONNECTIONS = 32


ENGINES: dict[str, Any] = {
    "one process": {},
    "two processes": {"workers": 2},
    "PostgreSQL": {"workers": 2, "copies": effort(2, 3)},
}


@pytest.fixture(scope="module", params=ENGINES)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """On SQLite in one or two processes, and on PostgreSQL as some copies of two processes, all driven at once."""
    with serving_on(request.param, tmp_path_factory, **ENGINES[request.param]) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Service:
    """The same one for all tests, without any rows."""
    empty(running.url)
    return running


def at_once(service: Service, bodies: list[dict[str, Any]]) -> list[tuple[int, Any]]:
    """Registers these contacts over 32 connections that begin together."""
    connections = [service.connect() for _ in range(min(CONNECTIONS, len(bodies)))]
    barrier = threading.Barrier(len(connections))

    def register(nth: int) -> list[tuple[int, Any]]:
        barrier.wait()
        mine = bodies[nth :: len(connections)]
        return [service.request("POST", "/contacts/", body, over=connections[nth]) for body in mine]

    with ThreadPoolExecutor(len(connections)) as pool:
        answers = list(itertools.chain.from_iterable(pool.map(register, range(len(connections)))))
    for connection in connections:
        connection.close()
    return answers


def add_source(service: Service, operators: int, max_load: int) -> int:
    source_id = int(service.call("POST", "/sources/", {"name": "Shop"})["id"])
    for number in range(operators):
        operator = service.call("POST", "/operators/", {"name": f"Operator {number}", "max_load": max_load})
        service.call("POST", f"/sources/{source_id}/operators", {"operator_id": operator["id"], "weight": number + 1})
    return source_id


LOAD = "(SELECT count(*) FROM contact WHERE operator_id = operator.id AND status IN ('new', 'in_progress'))"
OVERLOADED = f"SELECT id FROM operator WHERE {LOAD} > max_load"
KEPT_WAITING = f"""
    SELECT waiting.id FROM contact AS waiting JOIN source_operator USING (source_id)
    JOIN operator ON operator.id = source_operator.operator_id
    WHERE waiting.status = 'pending' AND is_active AND on_shift AND weight > 0 AND {LOAD} < max_load
"""
# The newest entry of each contact names its operator, and the first with an operator is its assigned_at.
WRONG_HISTORY = """
    SELECT contact.id FROM contact LEFT JOIN assignment AS last
    ON last.id = (SELECT max(id) FROM assignment WHERE contact_id = contact.id)
    WHERE last.id IS NULL OR last.operator_id IS DISTINCT FROM contact.operator_id OR assigned_at IS DISTINCT FROM
    (SELECT created_at FROM assignment WHERE contact_id = contact.id AND operator_id IS NOT NULL ORDER BY id LIMIT 1)
"""
# A contact that has no lead with an identifier, or not just one line of history.
HALF_WRITTEN = """
    SELECT id FROM contact WHERE (SELECT count(*) FROM assignment WHERE contact_id = contact.id) <> 1
    OR NOT EXISTS (SELECT 1 FROM lead JOIN lead_identifier ON lead_id = lead.id WHERE lead.id = contact.lead_id)
"""


def check(database: str) -> None:
    """What must hold at any moment, asked past the service."""
    for wrong in (OVERLOADED, KEPT_WAITING, WRONG_HISTORY):
        assert sql(database, wrong) == []
    if database.startswith("sqlite"):
        assert sql(database, "PRAGMA integrity_check") == [("ok",)]
        assert sql(database, "PRAGMA foreign_key_check") == []
    else:
        assert sql(database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]


def test_no_operator_goes_past_the_limit(service: Service) -> None:
    source_id = add_source(service, operators=5, max_load=20)
    answers = at_once(service, [{"source_id": source_id, "lead_external_id": f"tg:{n}"} for n in range(300)])
    assert Counter(status for status, _ in answers) == {201: 300}
    assert Counter(contact["status"] for _, contact in answers) == {"new": 100, "pending": 200}
    assert [operator["load"] for operator in service.call("GET", "/operators/")] == [20] * 5
    check(service.url)


SPELLINGS = ("8 (999) 123-45-67", "+7 999 123-45-67", "79991234567", "8-999-123-45-67")


@pytest.mark.parametrize(
    "identifiers",
    [
        pytest.param(lambda _: {"lead_external_id": "tg:1"}, id="external_id"),
        pytest.param(lambda n: {"lead_phone": SPELLINGS[n % 4]}, id="spellings of a phone"),
        pytest.param(lambda n: {"lead_external_id": f"tg:{n}", "lead_phone": SPELLINGS[n % 4]}, id="phone in common"),
    ],
)
def test_simultaneous_first_contacts_of_a_lead_all_succeed_and_make_one_lead(
    service: Service, identifiers: Callable[[int], dict[str, str]]
) -> None:
    source_id = add_source(service, operators=1, max_load=100)
    answers = at_once(service, [{"source_id": source_id, **identifiers(n)} for n in range(64)])
    assert [status for status, _ in answers] == [201] * 64
    assert {contact["lead_id"] for _, contact in answers} == {1}
    assert [lead["contacts_count"] for lead in service.call("GET", "/leads/")] == [64]


def test_the_same_event_sent_many_times_at_once_is_one_contact(service: Service) -> None:
    source_id = add_source(service, operators=1, max_load=100)
    body = {"source_id": source_id, "lead_external_id": "tg:1", "event_id": "update-1"}
    answers = at_once(service, [body] * 64)
    assert Counter(status for status, _ in answers) == {201: 1, 200: 63}
    assert {contact["id"] for _, contact in answers} == {1}
    assert service.call("GET", "/stats/")["contacts"] == 1


def test_contacts_that_have_events_and_identifiers_in_common_do_not_wait_for_each_other(service: Service) -> None:
    source_id = add_source(service, operators=7, max_load=1000)
    bodies = [
        {"source_id": source_id, "lead_external_id": f"tg:{n % 30}", "event_id": f"update-{n // 4}"}
        | ({"lead_phone": f"8916000{n % 11:04d}"} if n % 2 else {})
        | ({"lead_email": f"{n % 13}@example.com"} if n % 3 else {})
        for n in range(600)
    ]
    random.Random(1).shuffle(bodies)
    assert Counter(status for status, _ in at_once(service, bodies)) == {201: 150, 200: 450}
    check(service.url)


class Load:
    """Threads that register contacts until the block ends, and note which were answered; `statuses` counts all."""

    def __init__(self, service: Service, source_id: int, threads: int = 8) -> None:
        self.service, self.source_id = service, source_id
        self.answered: dict[str, int] = {}  # contact by event
        self.statuses = Counter[int | str]()
        self._numbers, self._stopped = itertools.count(), threading.Event()
        self._threads = [threading.Thread(target=self._register) for _ in range(threads)]

    def _register(self) -> None:
        connection = self.service.connect()
        while not self._stopped.is_set():
            event_id = f"update-{next(self._numbers)}"
            body = {"source_id": self.source_id, "lead_external_id": f"tg:{event_id}", "event_id": event_id}
            try:
                status, contact = self.service.request("POST", "/contacts/", body, over=connection)
            except (OSError, http.client.HTTPException):
                self.statuses["no answer"] += 1
                break
            self.statuses[status] += 1
            if status == 201:
                self.answered[event_id] = contact["id"]
            else:
                time.sleep(0.05)
        connection.close()

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        try:
            self.wait(300)
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait(self, contacts: int) -> None:
        """Until so many more have been answered with 201."""
        wanted, deadline = len(self.answered) + contacts, time.monotonic() + 180
        while len(self.answered) < wanted:
            assert time.monotonic() < deadline, self.statuses
            time.sleep(0.001)

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def check_all_there(self, database: str) -> None:
        """Each answered contact is in the database with its lead, and none is half there."""
        found = dict(
            sql(
                database,
                "SELECT event_id, contact.id FROM contact JOIN lead_identifier USING (lead_id)"
                " WHERE value = 'tg:' || event_id",
            )
        )
        assert {event_id: found.get(event_id) for event_id in self.answered} == self.answered
        assert sql(database, HALF_WRITTEN) == []
        check(database)


@pytest.mark.release_repeats(10)
def test_what_was_answered_survives_kill_9(database: str) -> None:
    """Killed in the middle of a load; after the restart no answered contact is missing and none is half there."""
    with serving(database) as service, Load(service, add_source(service, operators=5, max_load=1000)) as load:
        service.kill()
    assert set(load.statuses) == {201, "no answer"}
    with serving(database) as restarted:
        event_id, contact_id = next(iter(load.answered.items()))
        body = {"source_id": load.source_id, "lead_external_id": "tg:other", "event_id": event_id}
        status, contact = restarted.request("POST", "/contacts/", body)
        assert (status, contact["id"], contact["lead"]["external_ids"]) == (200, contact_id, [f"tg:{event_id}"])
    load.check_all_there(database)


def retry_after(service: Service, method: str, path: str, body: dict[str, Any]) -> tuple[int, str | None]:
    """The status of a call and its Retry-After header."""
    with closing(service.connect()) as connection:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["Retry-After"]


def test_more_readers_at_once_than_threads_or_connections_are_all_served(database: str) -> None:
    with serving(database, CRM_BUSY_TIMEOUT="60") as service, ThreadPoolExecutor(100) as pool:
        add_source(service, operators=5, max_load=10)

        def read(_: int) -> set[int]:
            with closing(service.connect()) as connection:
                calls = ("/operators/", "/stats/", "/sources/1", "/contacts/", "/health")
                return {service.request("GET", call, over=connection)[0] for call in calls}

        begin = time.monotonic()
        assert set().union(*pool.map(read, range(100))) == {200}
        assert time.monotonic() - begin < 60  # takes 1; waiting for one another takes a time-out each


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_several_processes_may_make_the_same_new_database_at_once(engine: str, path: Path) -> None:
    new = f"sqlite:///{path}" if engine == "sqlite" else server().create_database()
    with serving(new, copies=4) as service:
        service.call("POST", "/operators/", {"name": "Anna"})
        for _ in range(4):
            with closing(service.connect()) as connection:
                assert len(service.request("GET", "/operators/", over=connection)[1]) == 1
    check(new)


def test_what_waits_is_finished_when_the_service_is_asked_to_stop(database: str) -> None:
    with serving(database) as service, Load(service, add_source(service, operators=1, max_load=10), threads=4) as load:
        service.stop()
    assert set(load.statuses) == {201, "no answer"}
    load.check_all_there(database)


@pytest.mark.seconds(20)
@pytest.mark.parametrize(
    ("engine", "operations"),
    [("two processes", effort(800, 10_000)), ("PostgreSQL", effort(640, 10_000))],
    ids=["sqlite", "postgresql"],
)
def test_the_rules_hold_after_each_of_many_random_operations_at_once(engine: str, operations: int, path: Path) -> None:
    """Over 16 connections. Limits are only raised, so that a load above one would be a fault at any moment."""
    database = empty_database() if engine == "PostgreSQL" else f"sqlite:///{path}"
    with serving(database, **ENGINES[engine]) as service:
        sources = [int(service.call("POST", "/sources/", {"name": f"Source {n}"})["id"]) for n in range(3)]
        for number in range(6):
            service.call("POST", "/operators/", {"name": f"Operator {number}", "max_load": 3})
        for source_id in sources:
            entries = [{"operator_id": number, "weight": number % 3} for number in range(source_id, source_id + 4)]
            service.call("PUT", f"/sources/{source_id}/operators", entries)
        limits = [3] * 7
        lock = threading.Lock()

        def operate(seed: int) -> Counter[int]:
            rng, statuses = random.Random(seed), Counter[int]()
            with closing(service.connect()) as connection:
                for number in range(operations // 16):
                    operator_id, contact_id = rng.randint(1, 6), rng.randint(1, operations // 3)
                    kind = rng.choice(["register"] * 8 + ["close"] * 6 + ["start", "assign", "anyone", "release"])
                    if kind == "register":
                        body = {"source_id": rng.choice(sources), "lead_external_id": f"tg:{rng.randint(1, 50)}"}
                        body |= {"priority": rng.choice([0, 0, 5]), "event_id": f"{seed}-{number}"}
                        call: tuple[str, str, Any] = ("POST", "/contacts/", body)
                    elif kind in ("close", "start"):
                        status = {"close": "closed", "start": "in_progress"}[kind]
                        call = ("PATCH", f"/contacts/{contact_id}/status", {"status": status})
                    elif kind in ("assign", "anyone"):
                        call = ("POST", f"/contacts/{contact_id}/assign", {"operator_id": operator_id})
                        call = call if kind == "assign" else (*call[:2], {})
                    elif rng.random() < 0.5:
                        call = ("POST", f"/operators/{operator_id}/release", None)
                    else:
                        with lock:
                            limits[operator_id] += 1
                            change = {"is_active": True, "max_load": limits[operator_id]}
                            statuses[service.request("PATCH", f"/operators/{operator_id}", change, connection)[0]] += 1
                        continue
                    statuses[service.request(*call, over=connection)[0]] += 1
            return statuses

        with ThreadPoolExecutor(16) as pool, watching(database) as snapshots:
            statuses = sum(pool.map(operate, range(16)), Counter[int]())
        assert set(statuses) == {200, 201, 404, 409}
        assert len(snapshots) > 20
        assert [snapshot for snapshot in snapshots if snapshot != ([], [])] == []
        assert service.call("POST", "/contacts/distribute") == {
            "assigned": 0,
            "pending": service.call("GET", "/stats/")["pending"],
        }
    assert sql(database, "SELECT count(*) FROM contact")[0][0] > operations / 4
    check(database)


@contextmanager
def watching(database: str) -> Iterator[list[tuple[list[Any], list[Any]]]]:
    """Looks all the time who is past the limit, and what waits although somebody has room: each look is a snapshot."""
    snapshots: list[tuple[list[Any], list[Any]]] = []
    stopped = threading.Event()

    def watch() -> None:
        with connected(database) as connection:
            while not stopped.wait(0.02):
                overloaded, kept_waiting = map(connection.exec_driver_sql, (OVERLOADED, KEPT_WAITING))
                snapshots.append((list(overloaded), list(kept_waiting)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield snapshots
    finally:
        stopped.set()
        thread.join()
