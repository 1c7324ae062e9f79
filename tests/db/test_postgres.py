"""What only a server can do to the service: be away, restart, fail over, lose an answer; and the lock protocol."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from crm.db import open_database
from crm.errors import StartupError
from crm.main import create_app
from tests.conftest import Api, local, settings_of
from tests.effort import effort
from tests.postgres import Proxy, Server, empty_database, server, sql
from tests.service import Service, serving
from tests.test_concurrency import Load, add_source, retry_after


@pytest.fixture
def database() -> str:
    return empty_database()


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that the test may stop."""
    server = Server()
    try:
        yield server
    finally:
        server.remove()


@pytest.mark.release_repeats(10)
def test_when_one_copy_is_killed_the_others_go_on_and_nothing_is_lost(database: str) -> None:
    with serving(database, workers=effort(1, 2), copies=3) as service:
        with Load(service, add_source(service, operators=5, max_load=10_000), threads=9) as load:
            service.kill(slice(1))
            load.wait(300)
        assert set(load.statuses) == {201, "no answer"}
        load.check_all_there(database)


@pytest.mark.release_repeats(10)
def test_a_server_that_crashes_and_restarts_under_load_gives_503_and_loses_nothing(own_server: Server) -> None:
    database = own_server.create_database()
    with serving(database, workers=effort(1, 2), copies=3) as service:
        with Load(service, add_source(service, operators=5, max_load=10_000)) as load:
            own_server.control("restart", "-m", "immediate")
            load.wait(300)
        assert set(load.statuses) <= {201, 503}
        load.check_all_there(database)


def health(service: Service) -> tuple[int, str | None]:
    with closing(service.connect()) as connection:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["Retry-After"]


def test_a_server_that_is_away_gives_503_within_5_seconds_and_the_service_recovers(own_server: Server) -> None:
    with serving(own_server.create_database()) as service:
        body = {"source_id": add_source(service, operators=1, max_load=10), "lead_external_id": "tg:1"}
        assert health(service) == (200, None)
        own_server.stop()
        begin = time.monotonic()
        assert health(service) == (503, "1")
        assert retry_after(service, "POST", "/contacts/", body) == (503, "1")
        assert retry_after(service, "PATCH", "/operators/1", {"max_load": 5}) == (503, "1")
        assert time.monotonic() - begin < 5  # all three: it takes 0.05
        own_server.start()
        assert health(service) == (200, None)
        assert retry_after(service, "POST", "/contacts/", body) == (201, None)
        assert service.call("GET", "/operators/1")["max_load"] == 10


@pytest.mark.seconds(9)
@pytest.mark.release_repeats(20)
def test_a_failover_loses_no_answered_contact(own_server: Server) -> None:
    """The primary crashes under load, its synchronous standby is promoted, and the load goes on."""
    name = own_server.create_database().rpartition("/")[2]
    standby = Server(primary=own_server)
    try:
        own_server.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        own_server.sql("SELECT pg_reload_conf()")
        wait_for(lambda: own_server.sql("SELECT sync_state FROM pg_stat_replication") == [("sync",)])
        ports = f"{own_server.port},{standby.port}"
        both = f"postgresql://crm@/{name}?host=127.0.0.1,127.0.0.1&port={ports}&target_session_attrs=read-write"
        with serving(both, workers=2) as service:
            with Load(service, add_source(service, operators=5, max_load=10_000)) as load:
                own_server.stop()
                wait_for(lambda: load.statuses[503] > 0)
                standby.control("promote")
                load.wait(300)
            assert set(load.statuses) == {201, 503}
            assert health(service) == (200, None)
        load.check_all_there(standby.dsn(name))
    finally:
        standby.remove()


@pytest.fixture
def only_calls(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Nothing asks the database but calls do, so that a fault meets the one that the test makes."""
    request.getfixturevalue("without_timer")
    monkeypatch.setattr("crm.outbox.sender.Sender._look", AsyncMock())


@pytest.mark.usefixtures("only_calls")
def test_a_commit_whose_answer_was_lost_is_not_repeated_and_says_that_it_may_be_saved(database: str) -> None:
    with Proxy(server()) as proxy, local(create_app(settings_of(proxy.dsn(database)))) as client:
        api = Api(client)
        source_id = api.source(weights={api.operator(): 1})
        proxy.lose = b"COMMIT\0"
        body = {"source_id": source_id, "lead_external_id": "tg:1", "event_id": "1"}
        answer = client.post("/contacts/", json=body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "may" in answer.json()["detail"]
        assert [contact["id"] for contact in api.get("/contacts/")] == [1]
        assert api.post("/contacts/", body, expect=200)["id"] == 1


@pytest.mark.usefixtures("only_calls")
def test_a_connection_that_breaks_after_the_answer_of_the_commit_repeats_nothing(database: str) -> None:
    with Proxy(server()) as proxy, local(create_app(settings_of(proxy.dsn(database)))) as client:
        api = Api(client)
        source_id = api.source(weights={api.operator(): 1})
        for number in range(3):
            proxy.cut = b"COMMIT\0"
            api.contact(source_id, f"tg:{number}")
        assert [contact["id"] for contact in api.get("/contacts/")] == [3, 2, 1]


@pytest.mark.usefixtures("only_calls")
def test_a_connection_that_breaks_in_the_middle_of_reading_is_a_503(database: str) -> None:
    with Proxy(server()) as proxy, local(create_app(settings_of(proxy.dsn(database)))) as client:
        Api(client).contact(Api(client).source(), lead_name="Ivan")
        proxy.lose = b"Ivan"  # in the answer of the second statement
        answer = client.get("/leads/")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert [lead["name"] for lead in Api(client).get("/leads/")] == ["Ivan"]


def test_a_server_that_freezes_gives_503_within_5_seconds_also_on_open_connections(own_server: Server) -> None:
    with serving(own_server.create_database()) as service, ThreadPoolExecutor(40) as pool:
        body = {"source_id": add_source(service, operators=1, max_load=100), "lead_external_id": "tg:1"}

        def ask() -> tuple[set[tuple[int, str | None]], float]:
            """The answers to many calls at once, and how long all of them took."""
            begin = time.monotonic()
            writes = [pool.submit(retry_after, service, "POST", "/contacts/", body) for _ in range(20)]
            reads = [pool.submit(health, service) for _ in range(10)]
            return {future.result() for future in writes + reads}, time.monotonic() - begin

        answers, usual = ask()
        assert answers == {(201, None), (200, None)}
        own_server.freeze()
        try:
            answers, seconds = ask()
        finally:
            own_server.freeze(signal.SIGCONT)
        assert answers == {(503, "1")}
        assert seconds < 6.5 + 4 * usual  # on a busy machine the calls themselves take longer, and so does noticing it
        assert health(service) == (200, None)
        assert service.call("GET", "/stats/")["contacts"] == 20
        assert retry_after(service, "POST", "/contacts/", body) == (201, None)


@pytest.mark.parametrize("sqlstate", ["40P01", "40001"])
def test_a_deadlock_is_tried_again_as_a_whole_and_at_last_a_503(database: str, sqlstate: str) -> None:
    """A trigger that fails the first two times, or always, stands for other transactions."""
    with local(create_app(settings_of(database))) as client:
        api = Api(client)
        source_id = api.source(weights={api.operator(): 1})
        sql(database, "CREATE SEQUENCE attempts")
        sql(
            database,
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF nextval('attempts') < 3 THEN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END IF;"
            " RETURN NEW; END $$",
        )
        sql(database, "CREATE TRIGGER fail BEFORE INSERT ON assignment FOR EACH ROW EXECUTE FUNCTION fail()")
        try:
            api.contact(source_id)
            assert sql(database, "SELECT last_value FROM attempts") == [(3,)]
            sql(database, "ALTER SEQUENCE attempts MINVALUE -1000 RESTART -1000")
            answer = client.post("/contacts/", json={"source_id": source_id, "lead_external_id": "tg:2"})
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert sql(database, "SELECT last_value FROM attempts") == [(-996,)]
            assert len(api.get("/contacts/")) == len(api.get("/leads/")) == 1
        finally:
            sql(database, "DROP FUNCTION fail CASCADE")
            sql(database, "DROP SEQUENCE attempts")


@contextmanager
def holding(database: str, *statements: str) -> Iterator[None]:
    """Another transaction that has done this and stays open during the block."""
    engine = create_engine(database, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
        yield


SHARED, EXCLUSIVE = (f"SELECT pg_advisory_xact_lock{suffix}(4711001)" for suffix in ("_shared", ""))


def test_only_registering_and_closing_share_the_lock_and_only_while_nobody_waits(database: str) -> None:
    with local(create_app(settings_of(database, busy_timeout=1))) as client:
        api = Api(client)
        anna, boris = api.operator("Anna", max_load=2), api.operator("Boris")
        shop, nobody = api.source("Shop", {anna: 1}), api.source("Nobody")
        with holding(database, SHARED):
            first, second = api.contact(shop)["id"], api.contact(shop)["id"]
            api.patch(f"/contacts/{first}/status", {"status": "in_progress"})
            api.close(first)
            first = api.contact(shop)["id"]
            for method, path, body in (
                ("POST", "/contacts/", {"source_id": nobody, "lead_external_id": "tg:1"}),  # has to wait
                ("POST", "/contacts/", {"source_id": shop, "lead_external_id": "tg:1"}),  # all are full
                ("PATCH", f"/operators/{anna}", {"max_load": 3}),
                ("PUT", f"/sources/{shop}/operators", []),
                ("POST", f"/contacts/{first}/assign", {"operator_id": boris}),
                ("POST", f"/operators/{anna}/release", None),
            ):
                api.call(method, path, body, expect=503)
        waiting = api.contact(shop)["id"]
        with holding(database, SHARED):
            api.call("PATCH", f"/contacts/{second}/status", {"status": "closed"}, expect=503)  # somebody gets the place
            api.call("PATCH", f"/contacts/{waiting}/status", {"status": "closed"}, expect=503)  # waits itself
        api.close(second)
        assert api.get(f"/contacts/{waiting}")["operator_id"] == anna
        with holding(database, EXCLUSIVE):
            api.call("POST", "/contacts/", {"source_id": shop, "lead_external_id": "tg:1"}, expect=503)
            assert api.get("/stats/")["contacts"] == 4


def test_a_registration_waits_for_the_operator_it_drew_and_counts_after_that(database: str) -> None:
    """The other transaction fills the last place: who counted before would go past the limit."""
    with local(create_app(settings_of(database))) as client:
        api = Api(client)
        source_id = api.source(weights={api.operator(max_load=1): 1})
        api.close(api.contact(source_id)["id"])
        loop = asyncio.new_event_loop()
        fills = "UPDATE contact SET status = 'new', closed_at = NULL"
        lock = "SELECT id FROM operator WHERE id = 1 FOR NO KEY UPDATE"
        with holding(database, SHARED, lock, fills):
            answer = loop.run_in_executor(None, api.contact, source_id, "tg:2")
            time.sleep(0.3)
            assert not answer.done()
        assert loop.run_until_complete(answer)["status"] == "pending"
        loop.close()


def test_work_is_rolled_back_and_its_error_raised(database: str) -> None:
    other = open_database(database, 1)

    def fail(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO lead (created_at) VALUES (now())")
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    async def execute() -> None:
        try:
            await other.execute(fail)
        finally:
            await other.stop()

    with pytest.raises(OperationalError):
        asyncio.run(execute())
    assert sql(database, "SELECT count(*) FROM lead") == [(0,)]


def test_without_the_driver_the_start_says_what_to_install(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "crm.db.postgres")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StartupError, match=r"pip install -e '.\[postgres\]'"):
        open_database(database, 1)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_all_letters_stops_the_start(encoding: str) -> None:
    name = f"in_{encoding.lower()}"
    server().sql(f"CREATE DATABASE {name} ENCODING {encoding} LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(StartupError, match=f"has the encoding {encoding}, .* it must be UTF8"):
            open_database(server().dsn(name), 5).start(lambda _: None)
    finally:
        server().drop_database(server().dsn(name))


def test_times_are_utc_whatever_the_time_zone_of_the_server(database: str) -> None:
    name = database.rpartition("/")[2]
    sql(database, f"ALTER DATABASE {name} SET timezone = 'Asia/Kamchatka'")
    try:
        with local(create_app(settings_of(database))) as client:
            contact: Any = Api(client).contact(Api(client).source())
            assert json.dumps(contact).count('Z"') == 2
    finally:
        sql(database, f"ALTER DATABASE {name} RESET timezone")
