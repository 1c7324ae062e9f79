"""The search: what it finds is what a plain scan finds, whatever was done, and is found in an index."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import create_engine
from sqlmodel import Session

import crm.day.clock
from crm.db import search
from tests.conftest import Api, app_on, local
from tests.effort import effort
from tests.postgres import sql
from tests.stateful import OnPostgreSQL, OnSQLite

# Few letters, so that parts are found, and among them all that are not simply in one of two cases.
LETTERS = "abABсСыЫsSßẞiIİı\u0307σςΣ -1\x02µſ"
words = st.text(LETTERS, min_size=1, max_size=8)
index = st.integers(0, 30)


def catch_up(url: str) -> None:
    """All that the clock would do."""
    engine = create_engine(url)
    with Session(engine) as session:
        while search.is_behind(session.connection()):
            search.catch_up(session)
        session.commit()
    engine.dispose()


def scan(leads: list[Any], part: str) -> list[int]:
    """The ids of those that have the part, without any database."""
    where = re.compile(search.pattern(part), re.DOTALL)
    begin = re.compile("(^|[ -])" + where.pattern, re.DOTALL)

    def has(lead: Any) -> bool:
        values = [*lead["external_ids"], *lead["phones"], *lead["emails"]]
        if len(part) < 3:
            return bool(begin.search(lead["name"] or "")) or any(where.match(value) for value in values)
        return any(where.search(text) for text in [lead["name"] or "", *values])

    return [lead["id"] for lead in leads if has(lead)]


def found(api: Api, part: str, more: str = "") -> list[int]:
    return [lead["id"] for lead in api.get(f"/leads/?limit=1000&q={quote(part, safe='')}{more}")]


class Search(RuleBasedStateMachine):
    open: Callable[[Any], str]  # gives the URL of an empty database

    @initialize()
    def start(self) -> None:
        self.url = self.open()
        self.stack = ExitStack()
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(crm.day.clock, "EVERY", 1000)
        patch.setattr(search, "NEXT", 2)  # so that PostgreSQL asks its index soon
        self.api = Api(self.stack.enter_context(local(app_on(self.url))))
        self.api.source(weights={self.api.operator(max_load=1000): 1})

    def teardown(self) -> None:
        if hasattr(self, "api"):
            self.stack.close()

    def lead(self, nth: int) -> int:
        leads = self.api.get("/leads/?limit=1000")
        return int(leads[nth % len(leads)]["id"]) if leads else 0

    def do(self, method: str, path: str, body: Any = None) -> None:
        """Refused or not: what it did is seen in the list."""
        assert self.api.client.request(method, path, json=body).status_code in (200, 201, 204, 404, 409, 422)

    @rule(name=st.none() | words, external_id=words, phone=st.none() | st.integers(10, 12))
    def register(self, name: str | None, external_id: str, phone: int | None) -> None:
        said = {"lead_name": name, "lead_external_id": external_id}
        said |= {"lead_phone": f"+799912345{phone}"} if phone else {}
        self.do("POST", "/contacts/", {"source_id": 1, **said})

    @rule(nth=index, name=st.none() | words)
    def rename(self, nth: int, name: str | None) -> None:
        self.do("PATCH", f"/leads/{self.lead(nth)}", {"name": name})

    @rule(nth=index, external_ids=st.lists(words, max_size=2))
    def correct(self, nth: int, external_ids: list[str]) -> None:
        self.do("PATCH", f"/leads/{self.lead(nth)}", {"external_ids": external_ids})

    @rule(nth=index, other=index)
    def merge(self, nth: int, other: int) -> None:
        self.do("POST", f"/leads/{self.lead(nth)}/merge", {"into": self.lead(other)})

    @rule(nth=index)
    def unmerge(self, nth: int) -> None:
        self.do("POST", f"/leads/{nth}/unmerge")

    @rule(nth=index)
    def forget(self, nth: int) -> None:
        lead_id = self.lead(nth)
        for contact in self.api.get(f"/contacts/?lead_id={lead_id}") if lead_id else []:
            self.do("PATCH", f"/contacts/{contact['id']}/status", {"status": "closed"})
        self.do("POST", f"/leads/{lead_id}/forget")

    @rule(nth=index)
    def delete_past_the_service(self, nth: int) -> None:
        sql(self.url, f"DELETE FROM lead_identifier WHERE lead_id = {self.lead(nth)}")

    @rule()
    def catch_up(self) -> None:
        catch_up(self.url)

    @rule(part=words, after=st.integers(1, 3))
    def look(self, part: str, after: int) -> None:
        leads = self.api.get("/leads/?limit=1000")
        wanted = [lead_id for lead_id in scan(leads, part) if lead_id > after]
        if not is_special(part):
            assert found(self.api, part, f"&after_id={after}") == wanted
            page = self.api.get(f"/leads/?q={quote(part, safe='')}&after_id={after}&skip=1&limit=2")
            assert [lead["id"] for lead in page] == wanted[1:3]

    @invariant()
    @precondition(lambda self: hasattr(self, "api"))
    def what_a_lead_is_called_finds_it(self) -> None:
        leads = self.api.get("/leads/?limit=1000")
        for lead in leads[-2:]:
            for text in (lead["name"], *lead["external_ids"], *lead["phones"]):
                if text and not is_special(text):
                    part = text[len(text) // 3 :]
                    assert found(self.api, part) == scan(leads, part)
                    assert lead["id"] in found(self.api, text)


def is_special(part: str) -> bool:
    """What may be a phone is searched for as one too (`test_q_finds_a_phone...`); and of letters that can be written
    as one or two, SQLite knows the first four both ways.
    """
    return bool(re.fullmatch(r"\+?[\d\s().-]+", part)) or search.pattern(part).count("|") > 4


class SearchOnSQLite(OnSQLite, Search):
    pass


class SearchOnPostgreSQL(OnPostgreSQL, Search):
    pass


@pytest.mark.seconds(20)
@pytest.mark.no_cover
class TestSearchOnSQLite(SearchOnSQLite.TestCase):
    settings = settings(max_examples=effort(15, 300), stateful_step_count=30, derandomize=True)


@pytest.mark.seconds(20)
@pytest.mark.no_cover
class TestSearchOnPostgreSQL(SearchOnPostgreSQL.TestCase):
    settings = settings(TestSearchOnSQLite.settings, max_examples=effort(6, 100))
