"""What is due by time, in several processes at once: done once, whoever does it, and whatever their clocks say."""

import asyncio
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any

import pytest

from crm.day.shifts import recompute_shifts
from crm.db import open_database
from tests.conftest import empty
from tests.effort import IS_RELEASE, effort
from tests.outbox.conftest import until
from tests.postgres import sql
from tests.service import Service, serving
from tests.test_concurrency import at_once, check

pytestmark = pytest.mark.seconds(15)
LATE = "tests.day.late:app"
NEVER = [{"begin": "2000-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z", "works": False}]
STATUSES = "SELECT status, count(*) FROM contact GROUP BY status"


def start_anew(database: str) -> None:
    """What a start does by the right clock."""
    opened = open_database(database, 5)
    opened.start(lambda connection: recompute_shifts(connection, datetime.now(UTC), "UTC"))
    asyncio.run(opened.stop())


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def add_team(service: Service, operators: int, max_load: int, off: bool = True, **fields: Any) -> None:
    """Source 1 and its operators, none of whom works yet; off: or who all work always."""
    service.call("POST", "/sources/", {"name": "Shop", **fields})
    for number in range(1, operators + 1):
        service.call("POST", "/operators/", {"name": f"Operator {number}", "max_load": max_load})
        service.call("POST", "/sources/1/operators", {"operator_id": number})
        if off:
            service.call("PUT", f"/operators/{number}/shifts", {"exceptions": NEVER})


def let_work(database: str, begin: datetime, end: datetime) -> None:
    """Plans and what is stored of them for all who have one, at once."""
    exceptions = [*NEVER, {"begin": begin.isoformat(), "end": end.isoformat(), "works": True}]
    sql(database, f"UPDATE shift_plan SET exceptions = '{json.dumps(exceptions)}'")
    sql(database, f"UPDATE operator SET shift_until = '{begin:%Y-%m-%d %H:%M:%S.%f}{offset(database)}'")


def offset(database: str) -> str:
    return "+00" if database.startswith("postgresql") else ""


def statuses(database: str) -> dict[str, int]:
    return dict(tuple(row) for row in sql(database, STATUSES))


ENGINES = ["sqlite", "postgresql"]


@pytest.fixture
def service(two_copies: Service) -> Service:
    """The same one for all tests that need no other clock, without any rows."""
    empty(two_copies.url)
    return two_copies


def test_shifts_that_begin_in_the_same_second_hand_out_all_that_waits_once(service: Service) -> None:
    waiting, database = effort(250, 5000), service.url
    add_team(service, operators=50, max_load=waiting // 60)
    at_once(service, [{"source_id": 1, "lead_external_id": f"tg:{n}"} for n in range(waiting)])
    assert statuses(database) == {"pending": waiting}
    begin = in_seconds(0.5)
    let_work(database, begin, in_seconds(3600))
    handed_out = 50 * (waiting // 60)
    while statuses(database).get("new") != handed_out:
        # A release is tried at rest, where nothing else takes the cores.
        assert (datetime.now(UTC) - begin).total_seconds() < effort(60, 5), statuses(database)
        time.sleep(0.2)  # there are few cores, and it needs them
    time.sleep(1.5)  # as long as it takes all of them to look again
    lines = "SELECT reason, count(*) FROM assignment GROUP BY reason ORDER BY reason"
    assert sql(database, lines) == [("from_queue", handed_out), ("queued", waiting)]
    assert {load for (load,) in sql(database, "SELECT count(*) FROM contact GROUP BY operator_id")} == {
        waiting // 60,
        waiting - handed_out,
    }
    check(database)


@pytest.mark.parametrize("database", ENGINES if IS_RELEASE else ["sqlite"], indirect=True)
def test_when_the_process_that_does_it_is_killed_in_the_middle_another_one_does_it(database: str) -> None:
    """The clock of the other one is two seconds late, so that it is not the first."""
    with serving(database, LATE, TESTS_AHEAD="-2") as service, serving(database, LATE, TESTS_DIES="1") as dying:
        add_team(service, operators=10, max_load=30)
        at_once(service, [{"source_id": 1, "lead_external_id": f"tg:{n}"} for n in range(200)])
        let_work(database, in_seconds(0.2), in_seconds(3600))
        assert until(dying.process.poll, lambda code: code is not None) == -9
        assert statuses(database) == {"pending": 200}
        until(lambda: statuses(database), lambda found: found == {"new": 200})
    assert sql(database, "SELECT count(*) FROM assignment") == [(400,)]
    check(database)


def test_nobody_gets_a_contact_that_came_after_the_end_of_the_shift(service: Service) -> None:
    """Contacts come all the time, to all processes, while one shift after the other ends."""
    add_team(service, operators=8, max_load=100_000, off=False)
    first = in_seconds(1.5)
    ends = {number: first + timedelta(seconds=0.15 * number) for number in range(1, 8)}  # the eighth goes on
    for number, end in ends.items():
        absent = {"begin": end.isoformat(), "end": "2100-01-01T00:00:00Z", "works": False}
        service.call("PUT", f"/operators/{number}/shifts", {"exceptions": [absent]})
    numbers, over = itertools.count(), max(ends.values()) + timedelta(seconds=0.5)

    def register(_: int) -> list[tuple[datetime, int]]:
        got = []
        with closing(service.connect()) as connection:
            while (sent := datetime.now(UTC)) < over:
                body = {"source_id": 1, "lead_external_id": f"tg:{next(numbers)}"}
                _, contact = service.request("POST", "/contacts/", body, over=connection)
                got.append((sent, contact["operator_id"]))
        return got

    with ThreadPoolExecutor(4) as pool:
        got = list(itertools.chain.from_iterable(pool.map(register, range(4))))
    assert [(sent, one) for sent, one in got if one in ends and sent >= ends[one]] == []
    assert {one for _, one in got} == set(range(1, 9))
    assert len([sent for sent, _ in got if sent >= first]) > 20
    check(service.url)


@contextmanager
def watching_shifts(database: str) -> Iterator[list[list[bool]]]:
    """What is stored of who is on shift, each time that it changes."""
    seen: list[list[bool]] = []
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.05):
            now = [bool(on_shift) for (on_shift,) in sql(database, "SELECT on_shift FROM operator ORDER BY id")]
            if now != seen[-1:]:
                seen.append(now)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        thread.join()


@pytest.mark.parametrize("database", ENGINES if IS_RELEASE else ["postgresql"], indirect=True)
def test_clocks_that_are_three_seconds_apart_give_nothing_back_and_forth(database: str) -> None:
    """Also when the late one starts anew, and so computes all shifts, after the early one has switched them."""
    with serving(database, LATE, TESTS_AHEAD="3") as early, serving(database, LATE) as late:
        add_team(early, operators=3, max_load=20, accept_within=1)
        at_once(late, [{"source_id": 1, "lead_external_id": f"tg:{n}"} for n in range(50)])
        with watching_shifts(database) as seen:
            let_work(database, in_seconds(4), in_seconds(9))
            until(lambda: seen and all(seen[-1]), bool)
            start_anew(database)
            for service in (early, late) * 5:
                service.call("PATCH", "/operators/1", {"name": "Anna"})
            assert all(seen[-1])
            until(lambda: not any(seen[-1]), bool)
            start_anew(database)
            time.sleep(4.5)  # until it has ended for the late one too
        changes = [on for on, _ in itertools.groupby(seen)]
        assert changes == [[False] * 3, [True] * 3, [False] * 3]
    had = Counter(sql(database, "SELECT contact_id, operator_id FROM assignment WHERE operator_id IS NOT NULL"
                      " AND reason <> 'unaccepted'"))  # fmt: skip
    assert set(had.values()) == {1}
    assert len(had) > 50


def test_of_a_start_and_the_passing_on_one_wins_and_the_answer_says_which(service: Service) -> None:
    """One process starts contacts about when they are due, while the other one passes on what is due."""
    contacts = effort(100, 1000)
    add_team(service, operators=2, max_load=100_000, off=False, accept_within=1)
    stopped, rng = threading.Event(), random.Random(1)

    def pass_on() -> None:
        with closing(HTTPConnection("127.0.0.1", service.ports[1], timeout=60)) as connection:
            while not stopped.is_set():
                service.request("PATCH", "/operators/1", {"name": "Anna"}, over=connection)

    def start(number: int) -> tuple[int, int, int, Any]:
        contact = service.call("POST", "/contacts/", {"source_id": 1, "lead_external_id": f"tg:{number}"})
        due = datetime.fromisoformat(contact["due_at"]) + timedelta(seconds=rng.uniform(-0.2, 0.1))
        time.sleep(max(0, (due - datetime.now(UTC)).total_seconds()))
        body = {"status": "in_progress", "operator_id": contact["operator_id"]}
        path = f"/contacts/{contact['id']}/status"
        with closing(HTTPConnection("127.0.0.1", service.ports[0], timeout=60)) as connection:
            return contact["id"], contact["operator_id"], *service.request("PATCH", path, body, connection)

    thread = threading.Thread(target=pass_on)
    thread.start()
    try:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(start, range(contacts)))
    finally:
        stopped.set()
        thread.join()
    for contact_id, operator_id, status, answer in answers:
        history = service.call("GET", f"/contacts/{contact_id}")["history"]
        [first, second, *_] = [(entry["reason"], entry["operator_id"]) for entry in history]
        assert first == ("distributed", operator_id)
        if status == 200:
            assert second == ("started", operator_id)
            assert len(history) == 2
        else:
            assert status == 409
            assert second == ("silent", 3 - operator_id)
            assert f"contact {contact_id} is operator {3 - operator_id}'s by now" in answer["detail"]
    assert {status for _, _, status, _ in answers} == {200, 409}
    check(service.url)


def test_of_many_that_return_at_once_to_one_free_place_one_gets_it(service: Service) -> None:
    add_team(service, operators=2, max_load=1, off=False, sticky="prefer")
    service.call("PATCH", "/operators/2", {"max_load": 0})
    for lead in range(30):
        contact = service.call("POST", "/contacts/", {"source_id": 1, "lead_external_id": f"tg:{lead}"})
        assert contact["operator_id"] == 1
        service.call("PATCH", f"/contacts/{contact['id']}/status", {"status": "closed"})
    service.call("PATCH", "/operators/2", {"max_load": 10})
    answers = at_once(service, [{"source_id": 1, "lead_external_id": f"tg:{lead}"} for lead in range(30)])
    assert Counter(contact["operator_id"] for _, contact in answers) == {1: 1, 2: 10, None: 19}
    reasons = "SELECT reason, operator_id, count(*) FROM assignment WHERE contact_id > 30 GROUP BY reason, operator_id"
    found = {(reason, operator_id): count for reason, operator_id, count in sql(service.url, reasons)}
    assert found == {("sticky", 1): 1, ("distributed", 2): 10, ("queued", None): 19}
    check(service.url)
