"""Random operations over the API against a simple model: after each step every rule of design.md still holds.

The model knows what the operators and weights are; who was drawn it takes from the service, and checks that it was
allowed. The state of the contacts is read past the service, so that the service's own queries are not trusted.

The clock of the service is the model's: it goes on by hours and stands at half past, while all shifts begin and end at
full hours, so that the seconds that a step takes change nothing.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sqlalchemy import create_engine

import crm.day.clock
from tests.conftest import Api, app_on, local
from tests.day.shifts import EIGHT, HOUR, only, set_clock
from tests.effort import effort
from tests.stateful import OnPostgreSQL, OnSQLite

OPEN = ("new", "in_progress")
index = st.integers(0, 30)  # picks one of what there is
limits = st.integers(0, 3)
weights = st.sampled_from([0, 0, 0.5, 1, 3])
topics = st.sampled_from(["", "", "returns"])
of_contacts, priorities = st.sampled_from(["", "returns", "thanks"]), st.sampled_from([0, 0, 0, 5, 9])
spans = st.tuples(st.integers(-2, 3), st.integers(1, 3))  # in how many hours it begins, and how many it is
AUTOMATIC = ("distributed", "from_queue", "released", "sticky", "silent")


class Row(NamedTuple):
    id: int
    source_id: int
    operator_id: int | None
    status: str
    priority: int
    created_at: str
    assigned_at: str | None
    lead_id: int
    topic: str
    due_at: str | None
    is_sticky: bool

    @property
    def place(self) -> tuple[int, int]:
        """Sorts by the order of handing out."""
        return -self.priority, self.id


class Queue(RuleBasedStateMachine):
    open: Callable[[Any], str]  # gives the URL of an empty database

    @initialize(operators=st.lists(limits, min_size=1, max_size=3), sources=st.integers(1, 3))
    def start(self, operators: list[int], sources: int) -> None:
        url = self.open()
        self.hours = 0  # since eight o'clock
        self.stack = ExitStack()
        self.stack.enter_context(pytest.MonkeyPatch.context()).setattr(crm.day.clock, "EVERY", 1000)  # only calls do it
        self.clock = self.stack.enter_context(set_clock())
        self.clock.set(0.5)
        self.client = local(app_on(url))
        self.client.__enter__()
        self.api = Api(self.client)
        self.engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self.rows = self.engine.connect().exec_driver_sql
        self.operators: dict[int, dict[str, Any]] = {}
        self.weights: dict[tuple[int, str, int], float] = {}
        self.plans: dict[int, list[tuple[int, int]] | None] = {}  # of operators; None: always
        self.settings: dict[int, dict[str, Any]] = {}  # of sources
        self.sources = [self.api.source(f"Source {number}") for number in range(sources)]
        self.contacts: dict[int, Row] = {}
        self.entries = 0
        self.steps: list[tuple[int, dict[int, tuple[int | None, str]]]] = []  # after each: lines, contacts
        for max_load in operators:
            self.create_operator(max_load)
        for source_id in self.sources:
            self.settings[source_id] = {"sticky": "off", "accept_within": None, "silence_pauses": False}
            self.replace_weights(source_id - 1, dict.fromkeys(((nth, "") for nth in range(len(operators))), 1.0))

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.check_events()
            self.client.__exit__()
            self.rows.__self__.close()
            self.engine.dispose()
            self.stack.close()

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
            self.weights = {key: weight for key, weight in self.weights.items() if key[2] != operator_id}
        self.check()

    @rule(source=index, nth=index, topic=topics, weight=weights)
    def set_weight(self, source: int, nth: int, topic: str, weight: float) -> None:
        source_id, operator_id = self.sources[source % len(self.sources)], self.operator(nth)
        if (source_id, topic, operator_id) in self.weights:
            self.api.patch(f"/sources/{source_id}/operators/{operator_id}?topic={topic}", {"weight": weight})
        else:
            entry = {"operator_id": operator_id, "topic": topic, "weight": weight}
            self.api.post(f"/sources/{source_id}/operators", entry)
        self.weights[source_id, topic, operator_id] = weight
        self.check()

    @rule(source=index, nth=index, topic=topics)
    def remove_weight(self, source: int, nth: int, topic: str) -> None:
        key = self.sources[source % len(self.sources)], topic, self.operator(nth)
        path = f"/sources/{key[0]}/operators/{key[2]}?topic={topic}"
        self.api.delete(path, expect=204 if key in self.weights else 404)
        self.weights.pop(key, None)
        self.check()

    @rule(source=index, chosen=st.dictionaries(st.tuples(index, topics), weights, max_size=4))
    def replace_weights(self, source: int, chosen: dict[tuple[int, str], float]) -> None:
        source_id = self.sources[source % len(self.sources)]
        new = {(source_id, topic, self.operator(nth)): weight for (nth, topic), weight in chosen.items()}
        entries = [{"operator_id": key[2], "topic": key[1], "weight": weight} for key, weight in new.items()]
        self.api.put(f"/sources/{source_id}/operators", entries)
        self.weights = {key: weight for key, weight in self.weights.items() if key[0] != source_id} | new
        self.check()

    @rule(
        source=index,
        change=st.fixed_dictionaries(
            {},
            optional={
                "sticky": st.sampled_from(["off", "prefer"]),
                "accept_within": st.sampled_from([None, 3600, 7200]),
                "silence_pauses": st.booleans(),
            },
        ),
    )
    def change_source(self, source: int, change: dict[str, Any]) -> None:
        source_id = self.sources[source % len(self.sources)]
        self.api.patch(f"/sources/{source_id}", change)
        self.settings[source_id] |= change
        self.check()

    @rule(nth=index, plan=st.none() | st.lists(spans, max_size=3))
    def plan(self, nth: int, plan: list[tuple[int, int]] | None) -> None:
        operator_id = self.operator(nth)
        chosen = None if plan is None else [(self.hours + begin, self.hours + begin + hours) for begin, hours in plan]
        answer = self.api.put(f"/operators/{operator_id}/shifts", {} if chosen is None else only(*chosen))
        self.plans[operator_id] = chosen
        assert answer["on_shift"] == self.is_on(operator_id)
        self.check()

    @rule(hours=st.integers(1, 3), call=st.sampled_from(["distribute", "change", "register"]), topic=topics)
    def tick(self, hours: int, call: str, topic: str) -> None:
        """What is due is done by the next call that draws, whatever it is about, or that writes."""
        self.clock.tick(3600 * hours)
        self.hours += hours
        if call == "register":
            self.api.contact(self.sources[0], "tg:1", **({"topic": topic} if topic else {}))
        elif call == "change":
            self.api.patch(f"/operators/{self.operator(0)}", {})
        else:
            assert self.api.post("/contacts/distribute", expect=200)["assigned"] == 0
        self.check(ticked=True)

    @rule(
        source=index, contacts=st.lists(st.tuples(st.integers(1, 5), priorities, of_contacts), min_size=1, max_size=3)
    )
    def register(self, source: int, contacts: list[tuple[int, int, str]]) -> None:
        source_id = self.sources[source % len(self.sources)]
        for lead, priority, topic in contacts:
            eligible = self.eligible(source_id, topic)
            fields = {"priority": priority, **({"topic": topic} if topic else {})}
            contact = self.api.contact(source_id, f"tg:{lead}", **fields)
            preferred = self.preferred(source_id, contact["lead_id"])
            assert contact["operator_id"] in (preferred & eligible or eligible or {None})
            self.check()
            assert self.contacts[contact["id"]].is_sticky == bool(preferred & eligible)

    @rule(source=index, topic=topics, lead=st.none() | index)
    def ask(self, source: int, topic: str, lead: int | None) -> None:
        """The candidates are those that the next contact could go to."""
        source_id = self.sources[source % len(self.sources)]
        path, preferred = f"/sources/{source_id}/candidates?topic={topic}", set[int | None]()
        if lead is not None and self.contacts:
            lead_id = self.contact(lead).lead_id
            path, preferred = f"{path}&lead_id={lead_id}", self.preferred(source_id, lead_id)
        rows, eligible = self.api.get(path), self.eligible(source_id, topic)
        assert {row["operator_id"] for row in rows} == self.entries_for(source_id, topic).keys()
        assert {row["operator_id"] for row in rows if row["eligible"]} == eligible
        assert {row["operator_id"] for row in rows if row["probability"]} == (preferred & eligible or eligible)

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
        others = self.eligible(contact.source_id, contact.topic) - {contact.operator_id}
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

    def is_on(self, operator_id: int) -> bool:
        plan = self.plans.get(operator_id)
        return plan is None or any(begin <= self.hours < end for begin, end in plan)

    def entries_for(self, source_id: int, topic: str) -> dict[int, float]:
        """The weights, by operator, that a contact is drawn by."""
        own, plain = (
            {key[2]: weight for key, weight in self.weights.items() if key[:2] == (source_id, of)} for of in (topic, "")
        )
        return own if any(own.values()) else plain

    def preferred(self, source_id: int, lead_id: int) -> set[int | None]:
        """Who is asked first, if anybody is."""
        had = [row for row in self.contacts.values() if row.lead_id == lead_id and row.operator_id is not None]
        return {max(had).operator_id} if had and self.settings[source_id]["sticky"] == "prefer" else set()

    def eligible(self, source_id: int, topic: str) -> set[int | None]:
        loads = self.loads()
        return {
            operator_id
            for operator_id, weight in self.entries_for(source_id, topic).items()
            if weight > 0 and self.operators[operator_id]["is_active"] and self.is_on(operator_id)
            if loads[operator_id] < self.operators[operator_id]["max_load"]
        }

    def check(
        self,
        statuses: dict[int, str] | None = None,
        by_hand: dict[int, int] | None = None,
        forced: bool = False,
        ticked: bool = False,
    ) -> None:
        before, loads_before = self.contacts, self.loads()
        rows = self.rows(
            "SELECT id, source_id, operator_id, status, priority, created_at, assigned_at, lead_id, topic, due_at,"
            " is_sticky FROM contact ORDER BY id"
        )
        self.contacts = {row[0]: Row(*row) for row in rows}
        history = self.rows("SELECT contact_id, operator_id, reason, created_at FROM assignment ORDER BY id").all()
        new = history[self.entries :]
        self.check_operators(before, new)
        self.check_limits(loads_before, by_hand or {}, forced)
        self.check_queue(before, by_hand or {})
        self.check_history(before, history, by_hand or {}, forced)
        self.check_acceptance(before, history, new, ticked)
        self.steps.append((len(history), {row.id: (row.operator_id, row.status) for row in self.contacts.values()}))
        self.check_statistics(history)
        for contact_id, status in (statuses or {}).items():
            assert self.contacts[contact_id].status == status

    def check_operators(self, before: dict[int, Row], new: list[Any]) -> None:
        """Only the clock and plans switch shifts, and nobody off shift got anything by itself; only who has just been
        silent is paused."""
        silent = {
            before[contact_id].operator_id
            for contact_id, _, reason, _ in new
            if reason == "silent" and self.settings[before[contact_id].source_id]["silence_pauses"]
        }
        for operator_id, is_active, on_shift in self.rows("SELECT id, is_active, on_shift FROM operator"):
            assert on_shift == self.is_on(operator_id)
            was_active = self.operators[operator_id]["is_active"]
            assert is_active == was_active or (was_active and operator_id in silent)
            self.operators[operator_id]["is_active"] = bool(is_active)
        for _, operator_id, reason, _ in new:
            assert operator_id is None or reason not in AUTOMATIC or self.is_on(operator_id)

    def check_acceptance(self, before: dict[int, Row], history: list[Any], new: list[Any], ticked: bool) -> None:
        now = f"{EIGHT + (self.hours + 0.9) * HOUR:%Y-%m-%d %H:%M}"  # and nothing is due in the next half hour
        had: dict[int, list[int]] = defaultdict(list)
        for contact_id, operator_id, reason, _ in history:
            assert reason != "silent" or operator_id not in had[contact_id]
            if operator_id is not None:
                had[contact_id].append(operator_id)
        for row in self.contacts.values():
            assert row.due_at is None or (row.status == "new" and str(row.due_at) > now)
            assert not row.is_sticky or row.operator_id is not None
        for contact_id, operator_id, reason, _ in new:
            row = self.contacts[contact_id]
            entries = self.entries_for(row.source_id, row.topic)
            if reason == "unaccepted":
                assert row.operator_id == operator_id
                assert row.due_at is None
                assert {one for one, weight in entries.items() if weight} <= {*had[contact_id]}
            elif reason in ("distributed", "from_queue", "released", "sticky", "silent") and row.status == "new":
                accept_within = self.settings[row.source_id]["accept_within"]
                assert (row.due_at is not None) == bool(accept_within and operator_id is not None)
        due = [row for row in before.values() if row.due_at is not None and str(row.due_at) <= now]
        assert ticked or not due
        told = {contact_id for contact_id, _, reason, _ in new if reason in ("silent", "unaccepted")}
        assert told <= {row.id for row in due}
        for row in due:
            if row.id not in told and self.settings[row.source_id]["accept_within"]:
                assert len(due) > 1 or self.eligible(row.source_id, row.topic) <= {*had[row.id]}
                assert self.contacts[row.id].due_at is not None

    def check_limits(self, before: Counter[int | None], by_hand: dict[int, int], forced: bool) -> None:
        for operator_id, load in self.loads().items():
            assert operator_id is not None
            if load > before[operator_id] and not (forced and operator_id in by_hand.values()):
                assert load <= self.operators[operator_id]["max_load"]

    def check_queue(self, before: dict[int, Row], by_hand: dict[int, int]) -> None:
        for queue in {(row.source_id, row.topic) for row in self.contacts.values()}:
            here = [row for row in self.contacts.values() if (row.source_id, row.topic) == queue]
            waiting = [row for row in here if row.status == "pending"]
            if waiting:
                assert self.eligible(*queue) == set()
            served = [
                row
                for row in here
                if row.status == "new" and row.id not in by_hand
                if row.id not in before or before[row.id].status == "pending"
            ]
            waited = [row for row in waiting if row.id in before and before[row.id].status == "pending"]
            assert all(row.place < other.place for row in served for other in waited)

    def check_history(self, before: dict[int, Row], history: list[Any], by_hand: dict[int, int], forced: bool) -> None:
        new, self.entries = history[self.entries :], len(history)
        changed = [row.id for row in self.contacts.values() if self.owner(row) != self.owner(before.get(row.id))]
        moves = [entry for entry in new if entry[2] not in ("started", "closed", "unaccepted")]
        assert sorted(entry[0] for entry in moves) == changed
        worked_on = {
            (row.id, row.operator_id, {"in_progress": "started"}.get(row.status, row.status))
            for row in self.contacts.values()
            if row.status in ("in_progress", "closed") and row.status != before[row.id].status
        }
        assert {tuple(entry[:3]) for entry in new if entry[2] in ("started", "closed")} == worked_on
        for contact_id, operator_id, reason, _ in moves:
            assert self.contacts[contact_id].operator_id == operator_id
            if contact_id in by_hand:
                assert reason == ("forced" if forced else "manual")
            elif contact_id not in before:
                assert reason in (["queued"] if operator_id is None else ["distributed", "sticky"])
            elif before[contact_id].status == "pending":
                assert reason in ("from_queue", "sticky")
            else:
                assert reason in ("released", "silent")
            assert self.contacts[contact_id].is_sticky == (reason == "sticky")
            assert reason != "sticky" or self.settings[self.contacts[contact_id].source_id]["sticky"] == "prefer"
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
            contacts = [contact for contact in self.contacts.values() if contact.source_id == row["source_id"]]
            sticky = {entry["operator_id"]: entry["sticky"] for entry in row["operators"] if entry["sticky"]}
            assert sticky == Counter(contact.operator_id for contact in contacts if contact.is_sticky)
            of_topics = Counter(contact.topic for contact in contacts if contact.topic)
            waiting = Counter(contact.topic for contact in contacts if contact.status == "pending")
            counts = {topic["topic"]: (topic["contacts"], topic["pending"]) for topic in row["topics"]}
            assert {topic for topic, count in counts.items() if count[0]} == of_topics.keys()
            assert all(count == (of_topics[topic], waiting[topic]) for topic, count in counts.items())


class QueueOnSQLite(OnSQLite, Queue):
    pass


class QueueOnPostgreSQL(OnPostgreSQL, Queue):
    pass


@pytest.mark.seconds(30)
@pytest.mark.no_cover  # what it calls is covered by others, and this takes half the time
class TestQueueOnSQLite(QueueOnSQLite.TestCase):
    settings = settings(max_examples=effort(5, 200), stateful_step_count=40, derandomize=True)


@pytest.mark.seconds(20)
@pytest.mark.no_cover
class TestQueueOnPostgreSQL(QueueOnPostgreSQL.TestCase):
    settings = settings(TestQueueOnSQLite.settings, max_examples=effort(3, 60))
