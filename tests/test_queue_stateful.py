"""Random operations over the API against a simple model: after each step every rule of design.md still holds.

The model knows what the operators and weights are; who was drawn it takes from the service, and checks that it was
allowed. The state of the contacts is read past the service, so that the service's own queries are not trusted.
"""

import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sqlalchemy import create_engine

from tests.conftest import Api, app_on, empty_file, local
from tests.effort import effort
from tests.postgres import empty_database

OPEN = ("new", "in_progress")
index = st.integers(0, 30)  # picks one of what there is
limits = st.integers(0, 3)
weights = st.sampled_from([0, 0, 0.5, 1, 3])


class Row(NamedTuple):
    id: int
    source_id: int
    operator_id: int | None
    status: str
    priority: int
    created_at: str
    assigned_at: str | None

    @property
    def place(self) -> tuple[int, int]:
        """Sorts by the order of handing out."""
        return -self.priority, self.id


class Queue(RuleBasedStateMachine):
    open: Callable[[Any], str]  # gives the URL of an empty database

    @initialize(operators=st.lists(limits, min_size=1, max_size=3), sources=st.integers(1, 3))
    def start(self, operators: list[int], sources: int) -> None:
        url = self.open()
        self.client = local(app_on(url))
        self.client.__enter__()
        self.api = Api(self.client)
        self.engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self.rows = self.engine.connect().exec_driver_sql
        self.operators: dict[int, dict[str, Any]] = {}
        self.weights: dict[tuple[int, int], float] = {}
        self.sources = [self.api.source(f"Source {number}") for number in range(sources)]
        self.contacts: dict[int, Row] = {}
        self.entries = 0
        self.steps: list[tuple[int, dict[int, tuple[int | None, str]]]] = []  # after each: lines, contacts
        for max_load in operators:
            self.create_operator(max_load)
        for source_id in self.sources:
            self.replace_weights(source_id - 1, dict.fromkeys(self.operators, 1.0))

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.check_events()
            self.client.__exit__()
            self.rows.__self__.close()
            self.engine.dispose()

    # --- what can be picked -------------------------------------------------------------------------------------

    def operator(self, nth: int) -> int:
        return sorted(self.operators)[nth % len(self.operators)]

    def contact(self, nth: int) -> Row:
        return list(self.contacts.values())[nth % len(self.contacts)]

    # --- operations ---------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.operators) < 6)
    @rule(max_load=limits)
    def create_operator(self, max_load: int) -> None:
        operator_id = self.api.operator("Anna", max_load=max_load)
        self.operators[operator_id] = {"is_active": True, "max_load": max_load}
        self.check()

    @rule(nth=index, change=st.fixed_dictionaries({}, optional={"is_active": st.booleans(), "max_load": limits}))
    def change_operator(self, nth: int, change: dict[str, Any]) -> None:
        operator_id = self.operator(nth)
        self.api.patch(f"/operators/{operator_id}", change)
        self.operators[operator_id] |= change
        self.check()

    @precondition(lambda self: len(self.operators) > 1)
    @rule(nth=index)
    def delete_operator(self, nth: int) -> None:
        operator_id = self.operator(nth)
        had = self.rows(f"SELECT count(*) FROM assignment WHERE operator_id = {operator_id}").scalar_one()
        self.api.delete(f"/operators/{operator_id}", expect=409 if had else 204)
        if not had:
            del self.operators[operator_id]
            self.weights = {key: weight for key, weight in self.weights.items() if key[1] != operator_id}
        self.check()

    @rule(source=index, nth=index, weight=weights)
    def set_weight(self, source: int, nth: int, weight: float) -> None:
        source_id, operator_id = self.sources[source % len(self.sources)], self.operator(nth)
        if (source_id, operator_id) in self.weights:
            self.api.patch(f"/sources/{source_id}/operators/{operator_id}", {"weight": weight})
        else:
            self.api.post(f"/sources/{source_id}/operators", {"operator_id": operator_id, "weight": weight})
        self.weights[source_id, operator_id] = weight
        self.check()

    @rule(source=index, nth=index)
    def remove_weight(self, source: int, nth: int) -> None:
        key = self.sources[source % len(self.sources)], self.operator(nth)
        self.api.delete(f"/sources/{key[0]}/operators/{key[1]}", expect=204 if key in self.weights else 404)
        self.weights.pop(key, None)
        self.check()

    @rule(source=index, chosen=st.dictionaries(index, weights, max_size=3))
    def replace_weights(self, source: int, chosen: dict[int, float]) -> None:
        source_id = self.sources[source % len(self.sources)]
        new = {self.operator(nth): weight for nth, weight in chosen.items()}
        entries = [{"operator_id": operator_id, "weight": weight} for operator_id, weight in new.items()]
        self.api.put(f"/sources/{source_id}/operators", entries)
        self.weights = {key: weight for key, weight in self.weights.items() if key[0] != source_id}
        self.weights |= {(source_id, operator_id): weight for operator_id, weight in new.items()}
        self.check()

    @rule(source=index, lead=st.integers(1, 5), priority=st.sampled_from([0, 0, 0, 5, 9]))
    def register(self, source: int, lead: int, priority: int) -> None:
        self.api.contact(self.sources[source % len(self.sources)], f"tg:{lead}", priority=priority)
        self.check()

    @precondition(lambda self: self.contacts)
    @rule(nth=index, status=st.sampled_from(["in_progress", "closed", "closed", "new", "pending"]))
    def change_status(self, nth: int, status: str) -> None:
        contact = self.contact(nth)
        allowed = contact.status == status or (contact.status != "closed" and status == "closed")
        allowed = allowed or (contact.status, status) == ("new", "in_progress")
        self.api.call("PATCH", f"/contacts/{contact.id}/status", {"status": status}, expect=200 if allowed else 409)
        self.check(statuses={contact.id: status} if allowed else {})

    @precondition(lambda self: self.contacts)
    @rule(nth=index, to=index, force=st.booleans())
    def assign(self, nth: int, to: int, force: bool) -> None:
        contact, operator_id = self.contact(nth), self.operator(to)
        operator, load = self.operators[operator_id], self.loads()[operator_id]
        has_room = operator["is_active"] and load < operator["max_load"]
        allowed = contact.status != "closed" and (force or has_room or contact.operator_id == operator_id)
        body = {"operator_id": operator_id, "force": force}
        self.api.post(f"/contacts/{contact.id}/assign", body, expect=200 if allowed else 409)
        moved = allowed and contact.operator_id != operator_id
        self.check(by_hand={contact.id: operator_id} if moved else {}, forced=moved and not has_room)

    @precondition(lambda self: self.contacts)
    @rule(nth=index)
    def assign_to_anyone(self, nth: int) -> None:
        contact = self.contact(nth)
        others = self.eligible(contact.source_id) - {contact.operator_id}
        allowed = contact.status != "closed" and bool(others)
        answer = self.api.post(f"/contacts/{contact.id}/assign", {}, expect=200 if allowed else 409)
        if allowed:
            assert answer["operator_id"] in others
        self.check(by_hand={contact.id: answer["operator_id"]} if allowed else {})

    @rule(nth=index)
    def release(self, nth: int) -> None:
        operator_id = self.operator(nth)
        load = self.loads()[operator_id]
        answer = self.api.post(f"/operators/{operator_id}/release", expect=200)
        self.operators[operator_id]["is_active"] = False
        assert answer["released"] == answer["reassigned"] + answer["pending"] == load
        self.check()
        assert self.loads()[operator_id] == 0

    @rule()
    def distribute(self) -> None:
        pending = sum(contact.status == "pending" for contact in self.contacts.values())
        assert self.api.post("/contacts/distribute", expect=200) == {"assigned": 0, "pending": pending}
        self.check()

    # --- what must hold -----------------------------------------------------------------------------------------

    def loads(self) -> Counter[int | None]:
        return Counter(contact.operator_id for contact in self.contacts.values() if contact.status in OPEN)

    def eligible(self, source_id: int) -> set[int | None]:
        loads = self.loads()
        return {
            operator_id
            for operator_id, operator in self.operators.items()
            if operator["is_active"]
            and self.weights.get((source_id, operator_id), 0) > 0
            and loads[operator_id] < operator["max_load"]
        }

    def check(
        self, statuses: dict[int, str] | None = None, by_hand: dict[int, int] | None = None, forced: bool = False
    ) -> None:
        before, loads_before = self.contacts, self.loads()
        rows = self.rows(
            "SELECT id, source_id, operator_id, status, priority, created_at, assigned_at FROM contact ORDER BY id"
        )
        self.contacts = {row[0]: Row(*row) for row in rows}
        history = self.rows("SELECT contact_id, operator_id, reason, created_at FROM assignment ORDER BY id").all()
        self.check_limits(loads_before, by_hand or {}, forced)
        self.check_queue(before, by_hand or {})
        self.check_history(before, history, by_hand or {}, forced)
        self.steps.append((len(history), {row.id: (row.operator_id, row.status) for row in self.contacts.values()}))
        self.check_statistics(history)
        for contact_id, status in (statuses or {}).items():
            assert self.contacts[contact_id].status == status

    def check_limits(self, before: Counter[int | None], by_hand: dict[int, int], forced: bool) -> None:
        for operator_id, load in self.loads().items():
            assert operator_id is not None
            if load > before[operator_id] and not (forced and operator_id in by_hand.values()):
                assert load <= self.operators[operator_id]["max_load"]

    def check_queue(self, before: dict[int, Row], by_hand: dict[int, int]) -> None:
        for source_id in self.sources:
            waiting = [row for row in self.contacts.values() if (row.status, row.source_id) == ("pending", source_id)]
            if waiting:
                assert self.eligible(source_id) == set()
            served = [
                row
                for row in self.contacts.values()
                if row.source_id == source_id and row.status == "new" and row.id not in by_hand
                if row.id not in before or before[row.id].status == "pending"
            ]
            waited = [row for row in waiting if row.id in before and before[row.id].status == "pending"]
            assert all(row.place < other.place for row in served for other in waited)

    def check_history(self, before: dict[int, Row], history: list[Any], by_hand: dict[int, int], forced: bool) -> None:
        new, self.entries = history[self.entries :], len(history)
        changed = [row.id for row in self.contacts.values() if self.owner(row) != self.owner(before.get(row.id))]
        moves = [entry for entry in new if entry[2] not in ("started", "closed")]
        assert sorted(entry[0] for entry in moves) == changed
        worked_on = {
            (row.id, row.operator_id, {"in_progress": "started"}.get(row.status, row.status))
            for row in self.contacts.values()
            if row.status in ("in_progress", "closed") and row.status != before[row.id].status
        }
        assert {tuple(entry[:3]) for entry in new if entry not in moves} == worked_on
        for contact_id, operator_id, reason, _ in moves:
            assert self.contacts[contact_id].operator_id == operator_id
            if contact_id in by_hand:
                assert reason == ("forced" if forced else "manual")
            elif contact_id not in before:
                assert reason == ("queued" if operator_id is None else "distributed")
            else:
                assert reason == ("from_queue" if before[contact_id].status == "pending" else "released")
        firsts = {contact_id: at for contact_id, operator_id, _, at in reversed(history) if operator_id is not None}
        lasts = {contact_id: operator_id for contact_id, operator_id, _, _ in history}
        for row in self.contacts.values():
            assert (row.operator_id, row.assigned_at) == (lasts[row.id], firsts.get(row.id))

    def check_events(self) -> None:
        """They alone tell, after each step, who has which contact and how much that is for each."""
        events, told = list[Any](), dict[int, tuple[int | None, str]]()
        while page := self.api.get(f"/events/?limit=1000&after={events[-1]['id'] if events else 0}"):
            events += page
        for before, (length, contacts) in itertools.pairwise([(0, {}), *self.steps]):
            for event in events[before[0] : length]:
                data = event["data"]
                told[data["contact_id"]] = data["operator"] and data["operator"]["id"], data["status"]
            assert told == contacts
        assert len(events) == self.entries
        assert Counter(operator_id for operator_id, status in told.values() if status in OPEN) == self.loads()

    @staticmethod
    def owner(row: Row | None) -> int | str | None:
        """Whose the contact is; a contact that isn't there is nobody's in another way than a waiting one."""
        return "not there" if row is None else row.operator_id

    def check_statistics(self, history: list[Any]) -> None:
        last = {contact_id: operator_id for contact_id, operator_id, _, _ in history}
        loads, totals = self.loads(), Counter(last.values())
        for row in self.api.get("/stats/operators"):
            assert (row["load"], row["total_contacts"]) == (loads[row["operator_id"]], totals[row["operator_id"]])
            statuses = Counter(c.status for c in self.contacts.values() if c.operator_id == row["operator_id"])
            assert Counter(row["by_status"]) == statuses
        stats = self.api.get("/stats/")
        assert (stats["contacts"], stats["load"]) == (len(last), loads.total())
        assert stats["pending"] == sum(contact.status == "pending" for contact in self.contacts.values())
        for row in self.api.get("/stats/sources"):
            here = [last[contact.id] for contact in self.contacts.values() if contact.source_id == row["source_id"]]
            assert row["total_contacts"] == len(here)
            counted = {entry["operator_id"]: entry["contacts"] for entry in row["operators"] if entry["contacts"]}
            assert counted == Counter(operator_id for operator_id in here if operator_id is not None)


class QueueOnSQLite(Queue):
    def open(self) -> str:
        self.folder = Path(tempfile.mkdtemp(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))  # where all tests have theirs
        return empty_file(self.folder / "crm.db")

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


class QueueOnPostgreSQL(Queue):
    def open(self) -> str:
        return empty_database()


@pytest.mark.seconds(30)
@pytest.mark.no_cover  # what it calls is covered by others, and this takes half the time
class TestQueueOnSQLite(QueueOnSQLite.TestCase):
    settings = settings(max_examples=effort(12, 200), stateful_step_count=50, derandomize=True)


@pytest.mark.seconds(20)
@pytest.mark.no_cover
class TestQueueOnPostgreSQL(QueueOnPostgreSQL.TestCase):
    settings = settings(TestQueueOnSQLite.settings, max_examples=effort(5, 60))
