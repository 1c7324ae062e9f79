"""What all tests share: an app on a database of its own, and an HTTP client that says what it expects."""

import gc
import itertools
import os
import random
import re
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from coverage import Coverage
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import settings
from sqlalchemy import Dialect, Engine
from xdist.scheduler import LoadScopeScheduling

import crm.main
from crm.db import direct, open_database
from crm.main import create_app
from crm.settings import Settings
from tests import leaks, postgres
from tests.asgi import ask
from tests.day.shifts import Clock, set_clock
from tests.effort import IS_RELEASE, effort
from tests.page.browser import browser  # noqa: F401  (a fixture for all)
from tests.service import Service, serving

MEMORY = Path("/dev/shm")  # noqa: S108  (pytest makes a folder of its own there)
if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    # No test can see whether a flush reaches the disk, and there are ten thousands. The variable is pytest's own.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# Quickly, the same cases each time and however long they take, so that what fails is always a change.
settings.register_profile("crm", deadline=None, derandomize=not IS_RELEASE, max_examples=effort(100, 1000))
settings.load_profile("crm")

# A start of the app hides all that is there from the collector, also what a test has left open.
crm.main.gc = SimpleNamespace(freeze=lambda: None)  # type: ignore[attr-defined]


@cache
def _scripts(location: str) -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", location)
    return _read_scripts(config)


# Each start reads the migrations twice, which took most of it; they don't change.
_read_scripts = ScriptDirectory.from_config
ScriptDirectory.from_config = lambda config: _scripts(config.get_main_option("script_location"))  # type: ignore[method-assign]


class _Compiled(dict[Any, Any]):
    """Statements as SQL, by all that makes one but the engine: each app has new ones, and none changes what comes out.

    To make SQL of all statements again for each test took a fifth of most.
    """

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((type(key[0]), *key[1:]), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        super().__setitem__((type(key[0]), *key[1:]), compiled)


_compiled, _prepared = _Compiled(), dict[Any, direct.Prepared]()
Engine._compiled_cache = property(lambda _: _compiled, lambda *_: None)  # type: ignore[assignment]


def _prepare(statement: Any, dialect: Dialect, names: tuple[str, ...]) -> direct.Prepared:
    key = statement, type(dialect), names
    if key not in _prepared:
        _prepared[key] = direct.Prepared(statement, dialect, names)
    return _prepared[key]


direct._prepare = _prepare  # type: ignore[assignment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that no worker is left alone with it at the end.

    To measure coverage doubles the time of a request: whatever both engines do alike is measured on SQLite only, and
    nothing where the service is a process of its own. Of a test with many parameters the first few show it all; and
    show on PostgreSQL too that it does the same, of web/ still fewer, where most are refused before it is asked.
    """
    nth = Counter[tuple[str, bool]]()
    for item in [*items]:
        is_second = "[postgresql" in item.nodeid
        nth[function := (item.nodeid.partition("[")[0], is_second)] += 1
        if UNMEASURED.search(item.nodeid) or nth[function] > 8:
            item.add_marker("no_cover")
        if is_second and nth[function] > (4 if item.nodeid.startswith("tests/web/") else 8) and not IS_RELEASE:
            items.remove(item)
    items.sort(key=lambda item: -max((mark.args[0] for mark in item.iter_markers("seconds")), default=0))


UNMEASURED = re.compile(r"^tests/(?!db/).*\[postgresql|^tests/(page|docs)/|/test_concurrency\.py")

# Tests that share a browser, a service or a long history, which each worker would have to make for itself.
TOGETHER = re.compile(
    r"tests/page/\w+|_generated_client_|/test_plans\.py.*\[(sqlite|postgresql)"
    r"|/test_concurrency\.py.*\[(one process|two processes|PostgreSQL)\b|/test_at_once\.py.*\[(sqlite|postgresql)"
)


class Scheduling(LoadScopeScheduling):
    """Gives those to one worker, the largest groups first, and then test by test to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        together = TOGETHER.search(nodeid)
        return " ".join(filter(None, (together[0][:20], *together.groups()))) if together else nodeid


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """What is not measured is set up so too: pytest-cov sees to the call only."""
    measured = Coverage.current() if item.get_closest_marker("no_cover") else None
    if measured:
        measured.stop()
    try:
        yield
    finally:
        if measured:
            measured.start()


def pytest_xdist_auto_num_workers() -> int:
    """More than there are cores: the tests of the page and of time-outs mostly wait."""
    return (os.cpu_count() or 1) + 2


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return Scheduling(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for mark in metafunc.definition.iter_markers("release_repeats"):
        metafunc.fixturenames.append("_nth")
        metafunc.parametrize("_nth", range(effort(1, mark.args[0])), indirect=True)


@pytest.fixture
def _nth() -> None:
    """Which time this is, for a test that is repeated."""


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    """Fails the test that leaves a connection, a file or a socket, not the one during which it is collected.

    The other fixtures of a test have ended by then. What was there before is not looked at again, which takes long.
    """
    before = dict(leaks.opened)
    leaks.opened.clear()
    sys.setswitchinterval(0.005)  # the default, that PostgreSQL's part of the app changes for its process
    gc.freeze()
    yield
    left = leaks.close_all()
    leaks.opened.update(before)
    gc.collect()
    assert not left, "opened and not closed:\n" + "\n".join(left)


class Api:
    """Calls the API and checks the status; `post("/operators/", {...}, expect=422)["detail"]`."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def call(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        answer = ask(self.client, method, path, body)
        assert answer.status_code == expect, f"{method} {path} {body}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def get(self, path: str, expect: int = 200) -> Any:
        return self.call("GET", path, expect=expect)

    def post(self, path: str, body: Any = None, expect: int = 201) -> Any:
        return self.call("POST", path, body, expect)

    def put(self, path: str, body: Any, expect: int = 200) -> Any:
        return self.call("PUT", path, body, expect)

    def patch(self, path: str, body: Any, expect: int = 200) -> Any:
        return self.call("PATCH", path, body, expect)

    def delete(self, path: str, expect: int = 204) -> Any:
        return self.call("DELETE", path, expect=expect)

    def operator(self, name: str = "Anna", **fields: Any) -> int:
        """Adds an operator and returns its id."""
        return int(self.post("/operators/", {"name": name, **fields})["id"])

    def source(self, name: str = "Shop", weights: dict[int, float] | None = None, **fields: Any) -> int:
        """Adds a source with these weights by operator id and returns its id."""
        source_id = int(self.post("/sources/", {"name": name, **fields})["id"])
        entries = [{"operator_id": operator_id, "weight": weight} for operator_id, weight in (weights or {}).items()]
        self.put(f"/sources/{source_id}/operators", entries)
        return source_id

    def contact(self, source_id: int, lead: str = "tg:1", expect: int = 201, **fields: Any) -> Any:
        """Registers a contact of the lead with this external_id and returns it."""
        return self.post("/contacts/", {"source_id": source_id, "lead_external_id": lead, **fields}, expect)

    def close(self, contact_id: int) -> Any:
        return self.patch(f"/contacts/{contact_id}/status", {"status": "closed"})


def settings_of(database: str, **fields: Any) -> Settings:
    return Settings(DATABASE_URL=database, **fields)


_ports = itertools.count(1024)


def address() -> str:
    """A new URL of the service each time, so that no client gets an answer that was kept for another's."""
    return f"http://localhost:{next(_ports)}"


def local(app: FastAPI) -> TestClient:
    """A client on the same machine: without keys only those are served."""
    return TestClient(app, address(), client=("127.0.0.1", 50_000))


@cache
def _app(**fields: Any) -> tuple[FastAPI, Settings, random.Random]:
    settings, rng = settings_of("", **fields), random.Random()
    return create_app(settings, rng), settings, rng


def app_on(database: str, **fields: Any) -> FastAPI:
    """The app that these settings make, with draws that begin anew.

    It is the same one each time, so use one at a time: to build its routes takes longer than most tests.
    """
    app, settings, rng = _app(**fields)
    settings.database_url = database
    rng.seed(1)
    return app


@cache
def _migrated_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "crm.db"
        open_database(f"sqlite:///{file}", 5).start(lambda _: None)
        return file.read_bytes()


def empty_file(path: Path) -> str:
    """Makes a SQLite database with all tables and no rows, and returns its URL."""
    path.write_bytes(_migrated_file())
    return f"sqlite:///{path}"


def empty(url: str) -> None:
    """Takes away all rows; ids begin at 1 again. A service may be running on it, but must not write."""
    if url.startswith("postgresql"):
        postgres.empty(url)
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), 30, isolation_level=None)) as connection:
        deletes = "".join(f"DELETE FROM {table};" for table in (*postgres.TABLES.split(", "), "sqlite_sequence"))
        connection.executescript(f"BEGIN IMMEDIATE; {deletes} COMMIT")


@contextmanager
def serving_on(engine: str, factory: pytest.TempPathFactory, **options: Any) -> Iterator[Service]:
    """The service on a database of its own, which is PostgreSQL's if the engine is that."""
    is_postgresql = engine.lower() == "postgresql"
    url = postgres.migrated_database() if is_postgresql else empty_file(factory.mktemp("running") / "crm.db")
    with serving(url, **options) as service:
        yield service
    if is_postgresql:
        postgres.server().drop_database(url)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def two_copies(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two processes on one database, for the tests of all rooms: to start them takes longer than most."""
    with serving_on(request.param, tmp_path_factory, copies=2, workers=effort(1, 2)) as service:
        yield service


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The SQLite file of this test; it is not there yet."""
    return tmp_path / "crm.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, path: Path) -> str:
    """A database on each engine, with all tables and no rows."""
    return postgres.empty_database() if request.param == "postgresql" else empty_file(path)


@pytest.fixture
def client(database: str) -> Iterator[TestClient]:
    with local(app_on(database)) as client:
        yield client


@pytest.fixture
def api(client: TestClient) -> Api:
    return Api(client)


@pytest.fixture
def clock() -> Iterator[Clock]:
    """At eight on a Monday, for the service of this process too."""
    with set_clock() as clock:
        yield clock


@pytest.fixture
def without_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due is done by calls only; to be asked for before the service."""
    monkeypatch.setattr("crm.day.clock.EVERY", 1000)
