"""The search: what it finds is what a plain scan finds, whatever was done, and is found in an index."""

import hashlib
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from alembic import command
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import create_engine
from sqlmodel import Session

import crm.day.clock
from crm.db import search, search_index
from tests.conftest import Api, app_on, empty_file, local
from tests.db.test_migrations import migrate
from tests.effort import effort
from tests.outbox.conftest import until
from tests.postgres import connected, sql
from tests.service import serving
from tests.stateful import OnPostgreSQL, OnSQLite
from tests.test_queue import reasons

# Few letters, so that parts are found, and among them all that are not simply in one of two cases.
LETTERS = "abABсСыЫsSßẞiIİı\u0307σςΣ -1\x02µſ"
words = st.text(LETTERS, min_size=1, max_size=8)
index = st.integers(0, 30)
RUNNING = Path(crm.__file__).parent / "docs/running.md"


def catch_up(url: str) -> None:
    """All that the clock would do, if a single change were enough."""
    engine = create_engine(url)
    with pytest.MonkeyPatch.context() as patch, Session(engine) as session:
        patch.setattr(search_index, "AT_ONCE", 1)
        while search_index.is_behind(session.connection()):
            search_index.catch_up(session)
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

    @initialize(names=st.lists(words, min_size=3, max_size=5))
    def start(self, names: list[str]) -> None:
        self.url = self.open()
        self.stack = ExitStack()
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(crm.day.clock, "EVERY", 1000)
        patch.setattr(search, "NEXT", 2)  # so that PostgreSQL asks its index soon
        self.api = Api(self.stack.enter_context(local(app_on(self.url))))
        self.api.source(weights={self.api.operator(max_load=1000): 1})
        self.texts: dict[int, set[str]] = {}
        for number, name in enumerate(names):
            self.register(name, f"{name}{number}", number + 10 if number < 3 else None)

    def teardown(self) -> None:
        if hasattr(self, "api"):
            self.stack.close()

    def lead(self, nth: int) -> int:
        """One that is to be changed: half of the time, all is in the index before."""
        if nth % 2:
            catch_up(self.url)
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
        merged = sql(self.url, "SELECT id FROM lead WHERE merged_into IS NOT NULL ORDER BY id")
        if merged:
            self.do("POST", f"/leads/{merged[nth % len(merged)][0]}/unmerge")

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
    def what_a_lead_was_and_is_called_finds_whom_it_should(self) -> None:
        leads = self.api.get("/leads/?limit=1000")
        texts = {lead["id"]: {lead["name"] or "", *lead["external_ids"], *lead["phones"]} - {""} for lead in leads}
        changed = [self.texts.get(lead_id, set()) ^ texts.get(lead_id, set()) for lead_id in {*self.texts, *texts}]
        for text in set[str]().union(*changed):
            for part in (text, text[len(text) // 3 :]):
                if not is_special(part):
                    assert found(self.api, part) == scan(leads, part)
        self.texts = texts


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
    settings = settings(max_examples=effort(6, 300), stateful_step_count=30, derandomize=True)


@pytest.mark.seconds(20)
@pytest.mark.no_cover
class TestSearchOnPostgreSQL(SearchOnPostgreSQL.TestCase):
    settings = settings(TestSearchOnSQLite.settings, max_examples=effort(4, 100))


# --- letters ---------------------------------------------------------------------------------------------------------


def test_each_letter_is_found_in_all_its_cases(database: str) -> None:
    """Also those of which the index of either engine, or Python, knows less than the others."""
    everything = map(chr, range(sys.maxunicode + 1))
    cased = [letter for letter in everything if len({letter, letter.lower(), letter.upper()}) > 1]
    assert len(cased) > 2500
    values = ", ".join(f"({nth}, 'x{letter}y', '2026-01-01 00:00:00')" for nth, letter in enumerate(cased, 1))
    sql(database, f"INSERT INTO lead (id, name, created_at) VALUES {values}")
    catch_up(database)
    names = [f"x{letter}y" for letter in cased]
    with connected(database) as connection, Session(connection) as session:
        for name in names[:: effort(20, 1)]:
            has = re.compile(search.pattern(name)).search
            wanted = [nth for nth, each in enumerate(names, 1) if has(each)]
            assert search.find(session, [name], lambda _: [], 0, 0, 5000) == wanted, name


# --- the index -------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(path: Path) -> str:
    return empty_file(path)


class Steps:
    """Those of the clock, of which each merges little."""

    def __init__(self, session: Session) -> None:
        self.session = session
        session.connection().exec_driver_sql("PRAGMA secure_delete=ON")  # as the service has it

    def one(self) -> bool:
        is_behind = search_index.is_behind(self.session.connection())
        if is_behind:
            search_index.catch_up(self.session)
        self.session.commit()
        return is_behind

    def all(self) -> list[int]:
        """How many are noted after each."""
        noted = "SELECT count(*) FROM lead_search_noted WHERE lead_id > 0"
        return [self.session.connection().exec_driver_sql(noted).scalar_one() for _ in iter(self.one, False)]


@pytest.fixture
def steps(file: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    monkeypatch.setattr(search_index, "PAGES", 2)
    engine = create_engine(file)
    with Session(engine) as session:
        yield Steps(session)
    engine.dispose()


def in_file(path: Path, *texts: str) -> list[str]:
    content = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    return [text for text in texts if text.encode() in content]


def test_of_who_is_forgotten_no_three_letters_are_left_in_the_file(
    path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the index only adds to what it has, until its parts are merged."""
    monkeypatch.setattr(search_index, "AT_ONCE", 1)
    with local(app_on(file)) as client:
        api = Api(client)
        source_id = api.source(weights={api.operator(max_load=100): 1})
        contact = api.contact(source_id, "tg:1", lead_name="Qzxwvk Jfpghd")
        api.contact(source_id, "tg:2", lead_name="Maria")
        until(lambda: is_behind(file), lambda behind: not behind)
        for number in range(3, 6):
            api.contact(source_id, f"tg:{number}")
            until(lambda: is_behind(file), lambda behind: not behind)
        assert in_file(path, "qzx", "jfp", "mar") == ["qzx", "jfp", "mar"]
        monkeypatch.undo()
        api.close(contact["id"])
        api.post("/leads/1/forget", expect=200)
        assert found(api, "zxw") == []
        until(lambda: is_behind(file), lambda behind: not behind)
        assert found(api, "mar") == [2]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert in_file(path, "qzx", "jfp", "mar") == ["mar"]


def add_leads(url: str, first: int, last: int) -> None:
    """Called alike, and each a word of its own."""
    names = {nth: f"Lead {hashlib.sha256(str(nth).encode()).hexdigest()[:30]}" for nth in range(first, last + 1)}
    values = ", ".join(f"({nth}, '{name}', '2026-01-01 00:00:00')" for nth, name in names.items())
    sql(url, f"INSERT INTO lead (id, name, created_at) VALUES {values}")


def test_who_comes_while_the_index_is_written_anew_does_not_end_it(path: Path, file: str, steps: Steps) -> None:
    """For new segments FTS5 leaves a merge that has begun, and then there seems to be nothing to merge."""
    forgotten = f"INSERT INTO lead_search_noted VALUES ({search_index.ANEW})"
    add_leads(file, 1, 3 * search_index.AT_ONCE)
    sql(file, "UPDATE lead SET name = 'Qzxwvk' WHERE id = 1")
    sql(file, forgotten)
    steps.all()
    sql(file, "UPDATE lead SET name = 'Maria' WHERE id = 1")
    sql(file, forgotten)
    for nth in range(3, 8):
        steps.one()
        add_leads(file, nth * search_index.AT_ONCE + 1, (nth + 1) * search_index.AT_ONCE)
    assert in_file(path, "qzx")
    steps.all()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert in_file(path, "qzx", "mar") == ["mar"]


def is_behind(url: str) -> bool:
    with connected(url) as connection:
        return search_index.is_behind(connection)


def test_many_changes_get_into_the_index_in_steps_and_its_parts_stay_few(file: str, steps: Steps) -> None:
    add_leads(file, 1, 20 * search_index.AT_ONCE + 7)
    sizes = steps.all()
    assert max(before - after for before, after in pairwise(sizes)) == search_index.AT_ONCE
    assert sizes[-1] == 7  # fewer are not worth it
    assert sql(file, "SELECT count(DISTINCT segid) FROM lead_search_idx")[0][0] < 16
    assert sql(file, "SELECT count(*) FROM lead_search WHERE lead_search MATCH 'lea'") == [(20 * search_index.AT_ONCE,)]


def test_of_leads_with_long_identifiers_fewer_get_into_the_index_in_one_step(file: str, steps: Steps) -> None:
    """Others wait meanwhile."""
    add_leads(file, 1, search_index.AT_ONCE + 1)
    values = ", ".join(f"('external_id', '{nth:0255}', {nth})" for nth in range(1, search_index.AT_ONCE + 1))
    sql(file, f"INSERT INTO lead_identifier (kind, value, lead_id) VALUES {values}")
    [left, *_] = steps.all()
    assert search_index.AT_ONCE // 2 < left < search_index.AT_ONCE


def test_what_has_come_past_the_service_gets_into_the_index_at_the_start(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if ids are far apart, and nobody who was called otherwise is found by that."""
    monkeypatch.setattr(search_index, "MANY", 3)
    add_leads(file, 1, 3)
    migrate(file)
    sql(file, "UPDATE lead SET name = 'Anna' WHERE id = 1")
    sql(file, "INSERT INTO lead (id, name, created_at) VALUES (1000000000, 'Maria', '2026-01-01 00:00:00')")
    migrate(file)
    assert sql(file, "SELECT count(*) FROM lead_search_noted WHERE lead_id > 0") == [(2,)]
    add_leads(file, 5, 5)
    migrate(file)
    assert sql(file, "SELECT lead_id FROM lead_search_noted") == [(search_index.LATER,)]
    match = "SELECT rowid FROM lead_search WHERE lead_search MATCH"
    indexed = {part: sql(file, f"{match} '{part}'") for part in ("lea", "ann", "mar")}
    assert indexed == {"lea": [(2,), (3,), (5,)], "ann": [(1,)], "mar": [(1_000_000_000,)]}


def test_an_index_that_is_broken_costs_only_the_search(
    path: Path, file: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when SQLite gives that the kind of error that a full disk has; and what the clock does besides goes on."""
    monkeypatch.setattr(crm.day.clock, "AFTER_ERROR", 1000)
    monkeypatch.setattr(crm.day.clock, "EVERY", 0.01)
    monkeypatch.setattr(search_index, "MANY", 1)
    add_leads(file, 1, 1)
    sql(file, "UPDATE lead_search_config SET v = 9 WHERE k = 'version'")
    with local(app_on(file)) as client:
        assert "the index of the search can't be used: invalid fts5 file format" in caplog.text
        api = Api(client)
        both = api.operator(max_load=1000), api.operator(max_load=1000)
        source_id = api.source(weights=dict.fromkeys(both, 1), accept_within=1)
        for number in range(100):
            api.contact(source_id, f"tg:{number}")
        until(lambda: reasons(api, 1), lambda found: len(found) > 1)
        assert client.get("/leads/?q=lea").status_code == 503
    assert "what has changed did not get into the index of the search: invalid fts5 file format" in caplog.text
    assert "what is due" not in caplog.text
    [documented] = re.findall(r'executescript\("([^"]*lead_search[^"]*)"\)', RUNNING.read_text())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(documented.replace("\\x27", "'"))
    with local(app_on(file)) as client:
        assert found(Api(client), "lea") == [1]


def test_a_sqlite_without_fts5_reads_all_and_says_so_once_and_one_with_it_makes_the_index_at_its_start(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{path}"
    caplog.set_level("INFO")
    with monkeypatch.context() as without:
        without.setattr(search_index, "can_index", lambda _: False)
        with local(app_on(url)) as client:
            api = Api(client)
            source_id = api.source()
            api.contact(source_id, "tg:1", lead_name="Анна")
            assert found(api, "ННА") == found(api, "а") == [1]
    told = [record.message for record in caplog.records if "no index" in record.message]
    assert len(told) == 1
    assert sql(url, "SELECT name FROM sqlite_schema WHERE name = 'lead_search'") == []
    with local(app_on(url)) as client:
        assert sql(url, "SELECT rowid FROM lead_search WHERE lead_search MATCH 'нна'") == [(1,)]
        assert found(Api(client), "ННА") == found(Api(client), "а") == [1]
    with monkeypatch.context() as without:  # the file has it, and this SQLite can't read it: nothing is lost
        without.setattr(search_index, "can_index", lambda _: False)
        with local(app_on(url)) as client:
            api = Api(client)
            api.patch("/leads/1", {"name": "Мария"})
            assert (found(api, "нна"), found(api, "мар")) == ([], [1])
        assert caplog.text.count("the file has one that this SQLite can't read") == 1
    with local(app_on(url)) as client:
        assert (found(Api(client), "нна"), found(Api(client), "мар")) == ([], [1])
    assert len([record for record in caplog.records if "no index" in record.message]) == 2


def test_an_old_database_gets_its_index_though_several_processes_open_it_at_once(database: str) -> None:
    with local(app_on(database)) as client:
        api = Api(client)
        source_id = api.source()
        for number in range(50):
            api.contact(source_id, f"tg:{number}", lead_name=f"Анна {number}")
    migrate(database, lambda config: command.downgrade(config, "0009"))
    with serving(database, copies=4) as service:
        assert len(service.call("GET", f"/leads/?q={quote('анна 1')}")) == 11
        service.call("POST", "/contacts/", {"source_id": source_id, "lead_external_id": "tg:x", "lead_name": "Анна 1"})
        assert len(service.call("GET", f"/leads/?q={quote('анна 1')}")) == 12
    catch_up(database)
    with local(app_on(database)) as client:
        assert len(found(Api(client), "анна 1")) == 12
