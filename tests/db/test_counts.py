"""The counts that are kept are those of the rows, whenever they are made and whatever becomes of the contacts."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from sqlalchemy import Connection

from crm.db import counts
from tests.conftest import Api, app_on, local
from tests.effort import effort
from tests.leads.test_stateful import Leads
from tests.postgres import connected, sql
from tests.service import Service, threaded
from tests.stateful import OnPostgreSQL, OnSQLite
from tests.test_queue_stateful import Queue

Kinds = tuple[Counter[Any], Counter[Any]]  # of all, without their topic; and of those that have one, with it


def by_kind(connection: Connection) -> Kinds:
    found: Kinds = (Counter(), Counter())
    for with_topic in (False, True):
        for *key, contacts, _, _ in counts.read_counts(connection, {}, with_topic):
            found[with_topic][tuple(key)] += contacts
    return found


def of_rows(rows: Mapping[Any, int]) -> Kinds:
    """rows: by source, operator, topic and whether they are sticky."""
    everything, with_topic = Counter[Any](), Counter[Any]()
    for (source_id, operator_id, topic, is_sticky), contacts in rows.items():
        everything[source_id, operator_id, "", is_sticky] += contacts
        with_topic.update({(source_id, operator_id, topic, is_sticky): contacts} if topic else {})
    return everything, with_topic


class Counting:
    """Before a machine, which knows what there is: while it works, contacts have their turn."""

    engine: Any
    rows: Callable[[str], Any]
    api: Api
    stack: ExitStack
    checks = 0

    def have_turns(self) -> None:
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(counts, "LIVE", 0)
        patch.setattr(counts, "BLOCK", 1)

    def check(self, *what: Any, **more: Any) -> None:
        """After two of three operations a contact has its turn, so that some are closed before it and some after it."""
        self.checks += 1
        with self.engine.begin() as connection:
            if self.checks % 3 and (block := counts.next_block(connection, 1)):
                counts.count_block(connection, block)
        super().check(*what, **more)  # type: ignore[misc]
        self.check_counts()

    def check_counts(self) -> None:
        """The statistics that the machine itself does not look at, and that nothing is counted twice or missing."""
        with self.engine.begin() as connection:
            found = by_kind(connection)
        rows = Counter(tuple(row) for row in self.rows("SELECT source_id, operator_id, topic, is_sticky FROM contact"))
        assert found == of_rows(rows)
        waits = self.rows("SELECT created_at, assigned_at FROM contact WHERE assigned_at IS NOT NULL").all()
        times = [[datetime.fromisoformat(str(moment)) for moment in row] for row in waits]
        seconds = [(assigned - created).total_seconds() for created, assigned in times]
        mean = self.api.get("/stats/")["mean_assign_seconds"]
        assert mean == (pytest.approx(sum(seconds) / len(seconds), abs=2e-6) if seconds else None)


class CountedQueue(Counting, Queue):
    @initialize(operators=st.lists(st.integers(0, 3), min_size=1, max_size=3), sources=st.integers(1, 3))
    def start(self, operators: list[int], sources: int) -> None:
        super().start(operators, sources)
        self.have_turns()


class CountedLeads(Counting, Leads):
    @initialize()
    def start(self) -> None:
        super().start()
        self.have_turns()


class CountedQueueOnSQLite(OnSQLite, CountedQueue):
    pass


class CountedQueueOnPostgreSQL(OnPostgreSQL, CountedQueue):
    pass


class CountedLeadsOnSQLite(OnSQLite, CountedLeads):
    pass


class CountedLeadsOnPostgreSQL(OnPostgreSQL, CountedLeads):
    pass


@pytest.mark.seconds(15)
@pytest.mark.no_cover  # as their machines
class TestCountedQueueOnSQLite(CountedQueueOnSQLite.TestCase):
    settings = settings(max_examples=effort(3, 100), stateful_step_count=40, derandomize=True)


@pytest.mark.seconds(15)
@pytest.mark.no_cover
class TestCountedQueueOnPostgreSQL(CountedQueueOnPostgreSQL.TestCase):
    settings = settings(TestCountedQueueOnSQLite.settings, max_examples=effort(3, 40))


@pytest.mark.seconds(5)
@pytest.mark.no_cover
class TestCountedLeadsOnSQLite(CountedLeadsOnSQLite.TestCase):
    settings = settings(max_examples=effort(3, 60), stateful_step_count=30, derandomize=True)


@pytest.mark.seconds(5)
@pytest.mark.no_cover
class TestCountedLeadsOnPostgreSQL(CountedLeadsOnPostgreSQL.TestCase):
    settings = settings(TestCountedLeadsOnSQLite.settings, max_examples=effort(2, 30))


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each contact has its turn at the next look of the clock."""
    monkeypatch.setattr(counts, "LIVE", 0)
    monkeypatch.setattr(counts, "BLOCK", 1)
    monkeypatch.setattr("crm.day.clock.EVERY", 0.02)


KEPT = "SELECT coalesce(sum(contacts), 0) FROM contact_count"
OF_ROWS = "SELECT source_id, operator_id, topic, is_sticky, count(*) FROM contact GROUP BY 1, 2, 3, 4"


def check(url: str) -> None:
    """What is kept and what is counted by who asks is together what there is."""
    with connected(url) as connection:
        assert by_kind(connection) == of_rows({tuple(key): contacts for *key, contacts in sql(url, OF_ROWS)})


@pytest.mark.usefixtures("_at_once")
def test_statistics_are_exact_while_contacts_come_and_are_closed_and_two_copies_count(database: str) -> None:
    """At each moment they have at least what was answered before, and no more than was sent until then."""
    workers, each = 6, effort(15, 100)
    sent, answered, done = [0] * workers, [0] * workers, threading.Event()

    def work(service: Service, nth: int) -> None:
        for number in range(each):
            body = {"source_id": number % 2 + 1, "lead_external_id": f"tg:{nth}-{number}", "topic": "ab"[number % 2]}
            sent[nth] += 1
            contact = service.call("POST", "/contacts/", body)
            answered[nth] += 1
            if number % 5:
                service.call("PATCH", f"/contacts/{contact['id']}/status", {"status": "closed"})

    def read(service: Service) -> int:
        reads = 0
        while not done.is_set():
            for count in (
                lambda: service.call("GET", "/stats/")["contacts"],
                lambda: sum(row["total_contacts"] for row in service.call("GET", "/stats/sources")),
            ):
                least = sum(answered)
                assert least <= count() <= sum(sent)
            reads += 1
        return reads

    with threaded(database) as one, threaded(database) as other, ThreadPoolExecutor(workers + 2) as pool:
        weights = [
            {"operator_id": one.call("POST", "/operators/", {"name": "Anna", "max_load": 3})["id"], "weight": 1}
            for _ in range(4)
        ]
        for name in ("Shop", "Chat"):
            source = one.call("POST", "/sources/", {"name": name})
            one.call("PUT", f"/sources/{source['id']}/operators", weights)
        readers = [pool.submit(read, service) for service in (one, other)]
        try:
            for worker in [pool.submit(work, (one, other)[nth % 2], nth) for nth in range(workers)]:
                worker.result()
        finally:
            done.set()
        assert all(reader.result() for reader in readers)
    check(database)
    assert sql(database, KEPT)[0][0] > 0


@pytest.mark.usefixtures("_at_once")
def test_the_clock_counts_what_is_closed_without_a_call(api: Api, database: str) -> None:
    api.close(api.contact(api.source(weights={api.operator(): 1}))["id"])
    begin = time.monotonic()
    while sql(database, KEPT) != [(1,)]:
        assert time.monotonic() - begin < 10
        if sql(database, "SELECT count(*) FROM uncounted_contact") == [(1,)]:  # it was open when it had its turn
            api.contact(1)  # with the turn of another it is looked at again
        time.sleep(0.02)
    check(database)


@pytest.mark.usefixtures("without_timer")
def test_a_start_counts_a_long_history_also_beyond_a_gap_in_the_ids(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local(app_on(database)) as client:
        api = Api(client)
        source_id = api.source(weights={api.operator(max_load=9): 1})
        for number in range(5):
            api.close(api.contact(source_id, f"tg:{number}")["id"])
        assert sql(database, KEPT) == [(0,)]  # they are too few
        if database.startswith("sqlite"):
            sql(database, "UPDATE sqlite_sequence SET seq = 2000000 WHERE name = 'contact'")
        else:
            sql(database, "SELECT setval('contact_id_seq', 2000000)")
        api.close(api.contact(source_id)["id"])
        api.contact(source_id)
        before = api.get("/stats/"), api.get("/stats/sources"), api.get("/stats/operators")
    monkeypatch.setattr(counts, "LIVE", 1)
    monkeypatch.setattr(counts, "BLOCK", 1)
    with local(app_on(database)) as client:
        assert sql(database, KEPT) == [(6,)]
        api = Api(client)
        assert (api.get("/stats/"), api.get("/stats/sources"), api.get("/stats/operators")) == before
        api.delete(f"/sources/{source_id}", expect=409)
    check(database)
