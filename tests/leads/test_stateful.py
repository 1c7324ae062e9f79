"""Random registrations, corrections, merges, and what undoes them, against a simple model of who is whose."""

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
from tests.effort import effort
from tests.stateful import OnPostgreSQL, OnSQLite

VALUES = {
    "external_id": ("tg:1", "tg:2", "tg:3", "tg:4"),
    "phone": ("+79991234561", "+79991234562", "+79991234563"),
    "email": ("a@example.com", "b@example.com", "c@example.com"),
}
Identifier = tuple[str, str]
index = st.integers(0, 30)  # picks one of what there is
names = st.sampled_from([None, "Ivan", "Anna"])
one_of_each = {kind: st.sampled_from(values) for kind, values in VALUES.items()}


class Moved(NamedTuple):
    """What a merge took along, less what was given back since."""

    identifiers: set[Identifier]
    contacts: set[int]
    leads: set[int]


class Leads(RuleBasedStateMachine):
    open: Callable[[Any], str]  # gives the URL of an empty database

    @initialize()
    def start(self) -> None:
        url = self.open()
        self.stack = ExitStack()
        self.stack.enter_context(pytest.MonkeyPatch.context()).setattr(crm.day.clock, "EVERY", 1000)
        self.api = Api(self.stack.enter_context(local(app_on(url))))
        self.engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self.rows = self.engine.connect().exec_driver_sql
        self.api.source(weights={self.api.operator(max_load=1000): 1})
        self.owners: dict[Identifier, int] = {}
        self.contacts: dict[int, int] = {}  # whose each is
        self.open_contacts = set[int]()
        self.merged: dict[int, int] = {}  # into which
        self.moved: dict[int, Moved] = {}  # of what is merged
        self.leads = set[int]()
        self.forgotten = set[int]()
        self.evidence = set[tuple[str, str, int, int]]()  # kind, value, who came with it, and whose it was
        self.merges = set[frozenset[int]]()  # of which two, also if undone
        self.told_apart = set[frozenset[int]]()

    def teardown(self) -> None:
        if hasattr(self, "api"):
            self.rows.__self__.close()
            self.engine.dispose()
            self.stack.close()

    def lead(self, nth: int) -> int:
        return sorted(self.leads)[nth % len(self.leads)]

    def is_living(self, lead_id: int) -> bool:
        return lead_id not in self.merged and lead_id not in self.forgotten

    def now(self, *leads: int) -> frozenset[int]:
        """The same as they are now; one, if they were merged."""
        return frozenset(self.merged.get(lead_id, lead_id) for lead_id in leads)

    def open_pairs(self) -> set[frozenset[int]]:
        pairs = {self.now(*leads) for _, _, *leads in self.evidence}
        return {pair for pair in pairs if len(pair) == 2} - self.merges - {self.now(*pair) for pair in self.told_apart}

    # --- operations ---------------------------------------------------------------------------------------------

    @rule(said=st.fixed_dictionaries({}, optional=one_of_each), name=names)
    def register(self, said: dict[str, str], name: str | None) -> None:
        said = said or {"external_id": "tg:1"}
        body = {"source_id": 1, "lead_name": name, **{f"lead_{kind}": value for kind, value in said.items()}}
        contact = self.api.post("/contacts/", body)
        owners = [self.owners[kind, said[kind]] for kind in VALUES if (kind, said.get(kind, "")) in self.owners]
        lead_id = contact["lead_id"]
        assert lead_id == owners[0] if owners else lead_id not in self.leads
        self.leads.add(lead_id)
        named = {(kind, value, self.owners.get((kind, value), lead_id)) for kind, value in said.items()}
        self.evidence |= {(kind, value, lead_id, owner) for kind, value, owner in named if owner != lead_id}
        for identifier in said.items():
            self.owners.setdefault(identifier, lead_id)
        self.contacts[contact["id"]] = lead_id
        self.open_contacts.add(contact["id"])
        self.check()

    @precondition(lambda self: self.leads)
    @rule(nth=index, kind=st.sampled_from([*VALUES]), nths=st.sets(st.integers(0, 2), max_size=2))
    def correct(self, nth: int, kind: str, nths: set[int]) -> None:
        lead_id, wanted = self.lead(nth), {(kind, VALUES[kind][nth]) for nth in nths}
        others = {identifier for identifier, owner in self.owners.items() if owner == lead_id and identifier[0] != kind}
        taken = any(self.owners.get(identifier, lead_id) != lead_id for identifier in wanted)
        is_done = self.is_living(lead_id) and not taken and (wanted or others)
        values = [value for _, value in wanted]
        self.api.patch(f"/leads/{lead_id}", {f"{kind}s": values}, expect=200 if is_done else 409)
        if is_done:
            self.owners = {each: owner for each, owner in self.owners.items() if owner != lead_id or each in others}
            self.owners |= dict.fromkeys(wanted, lead_id)
        self.check()

    @precondition(lambda self: self.leads)
    @rule(nth=index, name=names)
    def rename(self, nth: int, name: str | None) -> None:
        lead_id = self.lead(nth)
        self.api.patch(f"/leads/{lead_id}", {"name": name}, expect=200 if self.is_living(lead_id) else 409)
        self.check()

    @precondition(lambda self: len(self.leads) > 1)
    @rule(nth=index, other=index)
    def merge(self, nth: int, other: int) -> None:
        lead_id, into = self.lead(nth), self.lead(other)
        if lead_id == into:
            self.api.post(f"/leads/{lead_id}/merge", {"into": into}, expect=422)
            return
        is_done = self.is_living(lead_id) and self.is_living(into)
        self.api.post(f"/leads/{lead_id}/merge", {"into": into}, expect=200 if is_done else 409)
        if is_done:
            self.moved[lead_id] = moved = Moved(
                {each for each, owner in self.owners.items() if owner == lead_id},
                {each for each, owner in self.contacts.items() if owner == lead_id},
                {each for each, survivor in self.merged.items() if survivor == lead_id},
            )
            self.owners |= dict.fromkeys(moved.identifiers, into)
            self.contacts |= dict.fromkeys(moved.contacts, into)
            self.merged |= dict.fromkeys({lead_id, *moved.leads}, into)
            self.merges.add(frozenset((lead_id, into)))
        self.check()

    @precondition(lambda self: self.leads)
    @rule(nth=index)
    def unmerge(self, nth: int) -> None:
        lead_id = sorted(self.merged)[nth % len(self.merged)] if self.merged else self.lead(nth)
        survivor = self.merged.get(lead_id)
        took = self.moved.get(lead_id, Moved(set(), set(), set()))
        stays = {each for each, owner in self.owners.items() if owner == survivor} - took.identifiers
        is_done = survivor is not None and survivor not in self.forgotten and (stays or not took.identifiers)
        self.api.post(f"/leads/{lead_id}/unmerge", expect=200 if is_done else 409)
        if is_done:
            del self.moved[lead_id]
            back = Moved(
                {each for each in took.identifiers if self.owners.get(each) == survivor},
                {each for each in took.contacts if self.contacts[each] == survivor},
                {each for each in took.leads if self.merged.get(each) == survivor},
            )
            del self.merged[lead_id]
            self.owners |= dict.fromkeys(back.identifiers, lead_id)
            self.contacts |= dict.fromkeys(back.contacts, lead_id)
            self.merged |= dict.fromkeys(back.leads, lead_id)
            for other in [other for other, into in self.merged.items() if into == survivor]:
                self.moved[other] = Moved(
                    self.moved[other].identifiers - took.identifiers,
                    self.moved[other].contacts - back.contacts,
                    self.moved[other].leads - back.leads - {lead_id},
                )
        self.check()

    @precondition(lambda self: len(self.leads) > 1)
    @rule(nth=index, other=index)
    def merge_and_undo(self, nth: int, other: int) -> None:
        lead_id, into = self.lead(nth), self.lead(other)
        if lead_id != into and self.is_living(lead_id) and self.is_living(into) and into in self.owners.values():
            before = self.state()
            self.api.post(f"/leads/{lead_id}/merge", {"into": into}, expect=200)
            assert self.state() != before
            self.api.post(f"/leads/{lead_id}/unmerge", expect=200)
            assert self.state() == before
            self.merges.add(frozenset((lead_id, into)))

    @precondition(lambda self: self.open_contacts)
    @rule(nth=index)
    def close_all_of_a_lead(self, nth: int) -> None:
        lead_id = self.lead(nth)
        for contact_id in [each for each in self.open_contacts if self.contacts[each] == lead_id]:
            self.api.close(contact_id)
            self.open_contacts.remove(contact_id)

    @precondition(lambda self: len(self.leads) > 2)
    @rule(nth=index)
    def forget(self, nth: int) -> None:
        lead_id = self.lead(nth)
        is_open = any(self.contacts[each] == lead_id for each in self.open_contacts)
        is_done = self.is_living(lead_id) and not is_open
        self.api.post(f"/leads/{lead_id}/forget", expect=200 if is_done else 409)
        if is_done:
            self.forgotten.add(lead_id)
            gone = {each for each, owner in self.owners.items() if owner == lead_id}
            self.owners = {each: owner for each, owner in self.owners.items() if each not in gone}
            self.evidence = {
                (kind, value, *leads) for kind, value, *leads in self.evidence
                if (kind, value) not in gone and lead_id not in self.now(*leads)
            }  # fmt: skip
        self.check()

    @rule(nth=index)
    def tell_apart(self, nth: int) -> None:
        if pairs := self.api.get("/leads/duplicates"):
            pair = pairs[nth % len(pairs)]
            ids = pair["lead"]["id"], pair["other"]["id"]
            self.api.delete(f"/leads/{ids[0]}/duplicates/{ids[1]}")
            self.told_apart.add(frozenset(ids))
            self.check()

    # --- what must hold -----------------------------------------------------------------------------------------

    def state(self) -> Any:
        """Past the service: who is whose, and what each is called."""
        tables = ("lead_identifier ORDER BY kind, value", "lead ORDER BY id", "contact ORDER BY id")
        return [self.rows(f"SELECT * FROM {table}").all() for table in tables]

    def check(self) -> None:
        identifiers, leads, contacts = self.state()
        assert {(row.kind, row.value): row.lead_id for row in identifiers} == self.owners
        assert {row.id: row.lead_id for row in contacts} == self.contacts
        assert {row.id: row.merged_into for row in leads if row.merged_into is not None} == self.merged
        assert {row.id for row in leads} == self.leads
        assert not self.merged.keys() & ({*self.contacts.values()} | {*self.merged.values()} | self.forgotten)
        gone = self.forgotten | {lead_id for lead_id, into in self.merged.items() if into in self.forgotten}
        assert {row.name for row in leads if row.id in gone} <= {None}
        assert {row.identity_note for row in contacts if row.lead_id in gone} <= {None}
        stats = self.api.get("/stats/")
        assert (stats["contacts"], stats["leads"]) == (len(self.contacts), len(self.leads))
        for lead_id, into in self.merged.items():
            lead = self.api.get(f"/leads/{lead_id}")
            assert (lead["id"], lead["is_forgotten"]) == (into, into in self.forgotten)
            assert lead["contacts_count"] == sum(owner == into for owner in self.contacts.values())
        listed = [(pair["lead"]["id"], pair["other"]["id"]) for pair in self.api.get("/leads/duplicates")]
        assert all(one < other and self.is_living(one) and self.is_living(other) for one, other in listed)
        assert {frozenset(pair) for pair in listed} == self.open_pairs()


class LeadsOnSQLite(OnSQLite, Leads):
    pass


class LeadsOnPostgreSQL(OnPostgreSQL, Leads):
    pass


@pytest.mark.seconds(10)
@pytest.mark.no_cover  # what it calls is covered by others, and this takes half the time
class TestLeadsOnSQLite(LeadsOnSQLite.TestCase):
    settings = settings(max_examples=effort(4, 200), stateful_step_count=30, derandomize=True)


@pytest.mark.seconds(10)
@pytest.mark.no_cover
class TestLeadsOnPostgreSQL(LeadsOnPostgreSQL.TestCase):
    settings = settings(TestLeadsOnSQLite.settings, max_examples=effort(2, 60))
