"""Leads that are merged while their contacts come in, in two processes at once."""

import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.conftest import empty
from tests.effort import effort
from tests.postgres import sql
from tests.service import Service
from tests.test_concurrency import at_once, check

pytestmark = pytest.mark.seconds(15)  # as of the others that share the service, lest it start twice
A = {"lead_external_id": "tg:a", "lead_phone": "+79991234561"}
B = {"lead_external_id": "tg:b", "lead_phone": "+79991234562"}
CONNECTIONS = 16


@pytest.fixture
def service(two_copies: Service) -> Service:
    """The same one for all tests, with leads 1 (A) and 2 (B) of one contact each."""
    empty(two_copies.url)
    two_copies.call("POST", "/sources/", {"name": "Shop"})
    two_copies.call("POST", "/operators/", {"name": "Anna", "max_load": 100_000})
    two_copies.call("POST", "/sources/1/operators", {"operator_id": 1})
    for lead in (A, B):
        two_copies.call("POST", "/contacts/", {"source_id": 1, **lead})
    return two_copies


def test_all_contacts_that_come_in_while_a_lead_is_merged_are_taken_and_are_the_others(service: Service) -> None:
    """Merged, taken apart and merged again in the middle of contacts of both, also of some that name both."""
    kinds = itertools.cycle([A, B, {**A, "lead_phone": B["lead_phone"]}, {"lead_phone": A["lead_phone"]}])
    merged, over = threading.Event(), threading.Event()
    statuses, leads_after = list[int](), list[int]()  # after: of what was sent when the last merge was done

    def register(bodies: list[dict[str, str]]) -> None:
        with closing(service.connect()) as connection:
            for body in itertools.cycle(bodies):
                if over.is_set():
                    return
                is_after = merged.is_set()
                status, contact = service.request("POST", "/contacts/", {"source_id": 1, **body}, over=connection)
                statuses.append(status)
                if is_after:
                    leads_after.append(contact["lead_id"])

    def wait(more: int) -> None:
        until = len(statuses) + more
        while len(statuses) < until:
            assert not over.wait(0.01)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        threads = [pool.submit(register, [next(kinds), next(kinds)]) for _ in range(CONNECTIONS)]
        try:
            for call in effort(1, 10) * ["merge", "unmerge"] + ["merge"]:
                wait(effort(60, 500))
                service.call("POST", f"/leads/1/{call}", {"into": 2} if call == "merge" else None)
            merged.set()
            wait(60)
        finally:
            over.set()
        for thread in threads:
            thread.result()
    assert {*statuses} == {201}
    assert {*leads_after} == {2}
    assert sql(service.url, "SELECT lead_id, count(*) FROM contact GROUP BY lead_id") == [(2, len(statuses) + 2)]
    assert sql(service.url, "SELECT lead_id, count(*) FROM lead_identifier GROUP BY lead_id") == [(2, 4)]
    assert sql(service.url, "SELECT id, merged_into FROM lead ORDER BY id") == [(1, 2), (2, None)]
    assert service.call("GET", "/leads/duplicates") == []
    assert service.call("GET", "/stats/")["contacts"] == len(statuses) + 2
    check(service.url)


def test_what_speaks_for_a_pair_is_noted_once_however_many_come_at_once(service: Service) -> None:
    service.call("POST", "/contacts/", {"source_id": 1, "lead_email": "c@example.com"})
    body = {"source_id": 1, **A, "lead_phone": B["lead_phone"], "lead_email": "c@example.com"}
    answers = at_once(service, [body] * 64)
    assert Counter((status, contact["lead_id"]) for status, contact in answers) == {(201, 1): 64}
    noted = sql(service.url, "SELECT lead_id, other_id, kind FROM duplicate ORDER BY other_id")
    assert noted == [(1, 2, "phone"), (1, 3, "email")]
    check(service.url)


def test_of_two_merges_against_each_other_one_is_done(service: Service) -> None:
    for _ in range(effort(5, 50)):
        with ThreadPoolExecutor(2) as pool:
            ways = [(1, 2), (2, 1)]
            merges = [pool.submit(service.request, "POST", f"/leads/{a}/merge", {"into": b}) for a, b in ways]
        statuses = [merge.result()[0] for merge in merges]
        assert sorted(statuses) == [200, 409]
        merged, other = ways[statuses.index(200)]
        assert sql(service.url, "SELECT id, merged_into FROM lead WHERE merged_into IS NOT NULL") == [(merged, other)]
        assert service.call("POST", f"/leads/{merged}/unmerge")["contacts_count"] == 1
