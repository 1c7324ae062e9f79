"""The guarantees of design.md under real threads and processes: the service runs as its users start it."""

import http.client
import itertools
import json
import random
import resource
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.service import Service, serving

CONNECTIONS = 32


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def service(path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    with serving(path, workers=request.param) as service:
        yield service


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


def check_file(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_no_operator_goes_past_the_limit(service: Service, path: Path) -> None:
    source_id = add_source(service, operators=5, max_load=20)
    answers = at_once(service, [{"source_id": source_id, "lead_external_id": f"tg:{n}"} for n in range(300)])
    assert Counter(status for status, _ in answers) == {201: 300}
    assert Counter(contact["status"] for _, contact in answers) == {"new": 100, "pending": 200}
    assert [operator["load"] for operator in service.call("GET", "/operators/")] == [20] * 5
    check_file(path)


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


def test_what_was_answered_survives_kill_9(path: Path) -> None:
    """Killed in the middle of a load; after the restart no answered contact is missing and none is half there."""
    answered: dict[str, int] = {}
    numbers = itertools.count()

    def register_until_killed() -> None:
        connection = service.connect()
        try:
            while True:
                event_id = f"update-{next(numbers)}"
                body = {"source_id": source_id, "lead_external_id": f"tg:{event_id}", "event_id": event_id}
                status, contact = service.request("POST", "/contacts/", body, over=connection)
                assert status == 201
                answered[event_id] = contact["id"]
        except (OSError, http.client.HTTPException):
            connection.close()

    service = Service(path)
    source_id = add_source(service, operators=5, max_load=1000)
    threads = [threading.Thread(target=register_until_killed) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(answered) < 300:
        time.sleep(0.001)
    service.kill()
    for thread in threads:
        thread.join()

    with serving(path) as restarted:
        for event_id, contact_id in answered.items():
            body = {"source_id": source_id, "lead_external_id": "tg:other", "event_id": event_id}
            status, contact = restarted.request("POST", "/contacts/", body)
            assert (status, contact["id"], contact["lead"]["external_ids"]) == (200, contact_id, [f"tg:{event_id}"])
    check_file(path)
    with closing(sqlite3.connect(path)) as connection:
        [whole] = connection.execute(
            "SELECT count(*) FROM contact JOIN lead ON lead.id = lead_id JOIN lead_identifier USING (lead_id)"
            " WHERE (SELECT count(*) FROM assignment WHERE contact_id = contact.id) = 1"
        ).fetchone()
        [contacts] = connection.execute("SELECT count(*) FROM contact").fetchone()
    assert whole == contacts >= len(answered)


def retry_after(service: Service, method: str, path: str, body: dict[str, Any]) -> tuple[int, str | None]:
    """The status of a call and its Retry-After header."""
    with closing(service.connect()) as connection:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["Retry-After"]


def test_a_lock_that_another_process_keeps_gives_503_and_changes_nothing(path: Path) -> None:
    with serving(path, CRM_BUSY_TIMEOUT="0.3") as service:
        source_id = add_source(service, operators=1, max_load=10)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for method, call, body in (
                ("POST", "/contacts/", {"source_id": source_id, "lead_external_id": "tg:1"}),
                ("POST", "/operators/", {"name": "Anna"}),
                ("PATCH", "/operators/1", {"is_active": False}),
            ):
                assert retry_after(service, method, call, body) == (503, "1")
            assert service.call("GET", "/stats/")["contacts"] == 0  # readers go on meanwhile
            assert service.call("GET", "/health") == {"status": "ok"}
            other.execute("ROLLBACK")
        assert service.call("GET", "/operators/1")["is_active"] is True
        assert service.call("GET", "/stats/")["operators"] == 1
        assert at_once(service, [{"source_id": source_id, "lead_external_id": "tg:1"}])[0][0] == 201


def test_a_full_disk_gives_503_and_changes_nothing_and_the_service_recovers(path: Path) -> None:
    with serving(path) as service:
        source_id = add_source(service, operators=1, max_load=10_000)
        size = Path(f"{path}-wal").stat().st_size
        unlimited = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size + 100_000, unlimited[1]))
        statuses = Counter[int]()
        for number in range(50):
            body = {"source_id": source_id, "lead_external_id": f"tg:{number}", "message": "x" * 10_000}
            statuses[retry_after(service, "POST", "/contacts/", body)[0]] += 1
        assert set(statuses) == {201, 503}
        assert service.call("GET", "/stats/")["contacts"] == statuses[201]
        assert service.call("GET", "/stats/")["leads"] == statuses[201]
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, unlimited)
        assert at_once(service, [{"source_id": source_id, "lead_external_id": "tg:last"}])[0][0] == 201
        assert service.call("GET", "/stats/")["contacts"] == statuses[201] + 1
    check_file(path)


def test_more_readers_at_once_than_threads_or_connections_are_all_served(path: Path) -> None:
    with serving(path) as service, ThreadPoolExecutor(100) as pool:
        add_source(service, operators=5, max_load=10)

        def read(_: int) -> set[int]:
            with closing(service.connect()) as connection:
                calls = ("/operators/", "/stats/", "/sources/1", "/contacts/", "/health")
                return {service.request("GET", call, over=connection)[0] for call in calls}

        begin = time.monotonic()
        assert set().union(*pool.map(read, range(100))) == {200}
        assert time.monotonic() - begin < 20  # takes 1; waiting for one another took the pool's time-out


def test_several_processes_may_make_the_same_new_database_at_once(path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        services = list(pool.map(lambda _: Service(path), range(4)))
    try:
        services[0].call("POST", "/operators/", {"name": "Anna"})
        assert [len(service.call("GET", "/operators/")) for service in services] == [1] * 4
    finally:
        for service in services:
            service.stop()
    check_file(path)


def test_what_waits_is_finished_when_the_service_is_asked_to_stop(path: Path) -> None:
    statuses: list[int] = []

    def register() -> None:
        connection = service.connect()
        for number in itertools.count():
            body = {"source_id": source_id, "lead_external_id": f"tg:{threading.get_ident()}-{number}"}
            try:
                statuses.append(service.request("POST", "/contacts/", body, over=connection)[0])
            except (OSError, http.client.HTTPException):
                break
        connection.close()

    service = Service(path)
    source_id = add_source(service, operators=1, max_load=10)
    threads = [threading.Thread(target=register) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(statuses) < 50:
        time.sleep(0.001)
    service.stop()
    for thread in threads:
        thread.join()
    assert set(statuses) == {201}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM contact").fetchone()[0] >= len(statuses)


def test_the_rules_hold_after_2000_random_operations_at_once(path: Path) -> None:
    """Over 16 connections and two processes. Limits are only raised, so that a load above one would be a fault."""
    with serving(path, workers=2) as service:
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
                for number in range(125):
                    operator_id, contact_id = rng.randint(1, 6), rng.randint(1, 800)
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

        with ThreadPoolExecutor(16) as pool:
            statuses = sum(pool.map(operate, range(16)), Counter[int]())
        assert set(statuses) == {200, 201, 404, 409}
        assert service.call("POST", "/contacts/distribute") == {
            "assigned": 0,
            "pending": service.call("GET", "/stats/")["pending"],
        }
        loads = {operator["id"]: operator["load"] for operator in service.call("GET", "/operators/")}
        assert all(load <= limits[operator_id] for operator_id, load in loads.items())
        for source_id in sources:
            candidates = service.call("GET", f"/sources/{source_id}/candidates")
            waiting = service.call("GET", f"/contacts/?order=queue&source_id={source_id}")
            assert not (waiting and any(candidate["eligible"] for candidate in candidates))
    check_file(path)
    check_history(path)


def check_history(path: Path) -> None:
    """The newest entry of each contact names its operator, and the first with an operator is its assigned_at."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM contact").fetchone()[0] > 500
        wrong = connection.execute(
            "SELECT contact.id FROM contact JOIN assignment AS last ON last.id ="
            " (SELECT max(id) FROM assignment WHERE contact_id = contact.id)"
            " WHERE last.operator_id IS NOT contact.operator_id OR assigned_at IS NOT"
            " (SELECT created_at FROM assignment WHERE contact_id = contact.id AND operator_id IS NOT NULL"
            "  ORDER BY id LIMIT 1)"
        ).fetchall()
        assert wrong == []
        without = "SELECT count(*) FROM contact WHERE id NOT IN (SELECT contact_id FROM assignment)"
        assert connection.execute(without).fetchone() == (0,)
