"""What every request and answer has: an id, headers, a log line that gives nothing away, and a limit of size."""

import json
import logging
import random
import re
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgi_correlation_id import correlation_id
from fastapi.testclient import TestClient

from crm import events
from crm.db.postgres import LOCK
from crm.main import create_app
from tests.conftest import Api, settings_of
from tests.postgres import connected, sql
from tests.service import Service, serving

SECRETS = ("+79991234567", "ivan@example.com", "Where is my order?", "a very secret admin key", "tg:1001")


def use(service: Service) -> list[str]:
    """A little of everything; returns the ids of the answers."""
    ids = []
    with closing(service.connect()) as connection:
        for method, path, body, key in (
            ("POST", "/sources/", {"name": "Shop"}, SECRETS[3]),
            ("POST", "/contacts/", {"source_id": 1, "lead_phone": SECRETS[0], "lead_email": SECRETS[1],
                                    "message": SECRETS[2], "lead_external_id": SECRETS[4]}, SECRETS[3]),
            ("GET", "/leads/?email=ivan@example.com", None, SECRETS[3]),
            ("GET", "/contacts/1", None, "a wrong key"),
            ("GET", f"/leads/{SECRETS[0]}", None, SECRETS[3]),
            ("GET", f"/leads/{SECRETS[1]}", None, SECRETS[3]),
        ):  # fmt: skip
            headers = {"Content-Type": "application/json", "X-API-Key": key}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            answer.read()
            ids.append(answer.headers["X-Request-ID"])
    return ids


@pytest.mark.parametrize("workers", [1, 2])
def test_each_request_is_one_line_of_json_with_its_id_and_without_secrets(path: Path, workers: int) -> None:
    log_file = path.with_name("log")
    with log_file.open("w") as log:
        environment = {"CRM_ADMIN_KEY": SECRETS[3], "CRM_LOG_FORMAT": "json"}
        options = ["--log-config", "crm/log_config.json"]
        with serving(
            f"sqlite:///{path}", workers=workers, log=log, options=options, is_anew=True, **environment
        ) as service:
            ids = use(service)
    text = log_file.read_text()
    lines = [json.loads(line) for line in text.splitlines()]  # all of them, also those of uvicorn's parent process
    requests = [line for line in lines if line["event"] == "request" and line["route"] != "-"]
    assert [line["request_id"] for line in requests] == ids
    assert [(line["method"], line["route"], line["status"]) for line in requests] == [
        ("POST", "/sources/", 201), ("POST", "/contacts/", 201), ("GET", "/leads/", 200),
        ("GET", "/contacts/{contact_id}", 401),
        ("GET", "/leads/{lead_id}", 404), ("GET", "/leads/{lead_id}", 422),
    ]  # fmt: skip
    assert [line.get("contact_id") for line in requests] == [None, None, None, "1", None, None]
    assert all(0 < line["seconds"] < 10 for line in requests)
    assert not [secret for secret in (*SECRETS, "9991234567", "a wrong key") if secret in text]
    assert "uvicorn.error" in {line["logger"] for line in lines}


def test_the_lines_are_text_unless_asked_for(path: Path) -> None:
    log_file = path.with_name("log")
    with log_file.open("w") as log, serving(f"sqlite:///{path}", log=log) as service:
        service.call("GET", "/operators/")
    assert re.search(
        r"^\S+ INFO request .*method=GET route=/operators/ status=200 seconds=0", log_file.read_text(), re.M
    )


REFUSE = {  # all identifiers, with an error that quotes them
    "sqlite": (
        "CREATE TRIGGER refuse BEFORE INSERT ON lead_identifier BEGIN SELECT RAISE(ABORT, 'no'); END",
        "DROP TRIGGER refuse",
    ),
    "postgresql": (
        "ALTER TABLE lead_identifier ADD CONSTRAINT refuse CHECK (value = '') NOT VALID",
        "ALTER TABLE lead_identifier DROP CONSTRAINT refuse",
    ),
}


def test_an_error_that_nobody_foresaw_is_a_500_with_its_id_and_one_line_without_secrets(
    database: str, path: Path
) -> None:
    log_file, (refuse, allow) = path.with_name("log"), REFUSE[database.partition(":")[0]]
    with log_file.open("w") as log, serving(database, log=log) as service:
        service.call("POST", "/sources/", {"name": "Shop"})
        sql(database, refuse)
        with closing(service.connect()) as connection:
            body = json.dumps({"source_id": 1, "lead_phone": SECRETS[0], "lead_email": SECRETS[1]})
            connection.request("POST", "/contacts/", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        sql(database, allow)
    assert (answer.status, json.loads(text)) == (500, {"detail": "internal error"})
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    lines = log_file.read_text().splitlines()
    own = [line for line in lines if answer.headers["X-Request-ID"] in line]
    assert ["status=500" in line for line in own] == [True, False]
    assert "IntegrityError" in own[1]
    assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in lines)
    assert not [secret for secret in (*SECRETS, "9991234567") if secret in "".join(lines)]


def test_what_cannot_be_counted_is_done_all_the_same(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(events, "listeners", [fail])
    assert api.operator("Anna") == 1


@pytest.mark.parametrize(
    ("given", "is_kept"), [("bot-7.update_1", True), ("x" * 65, False), ("a b", False), ("", False)]
)
def test_the_id_of_a_request_is_the_callers_if_it_is_a_plain_one(client: TestClient, given: str, is_kept: bool) -> None:
    answer = client.get("/health", headers={"X-Request-ID": given})
    assert (answer.headers["X-Request-ID"] == given) == is_kept
    assert re.fullmatch(r"[\w.-]{1,64}", answer.headers["X-Request-ID"])


@pytest.mark.parametrize("call", ["/health", "/nowhere", "/operators/7", "/contacts/?limit=0", "/docs"])
def test_each_answer_has_the_security_headers(client: TestClient, call: str) -> None:
    headers = client.get(call).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_256_kib_is_413_in_our_shape_and_changes_nothing(client: TestClient, chunked: bool) -> None:
    def body(size: int) -> Any:
        text = b'{"name": "Anna"' + b" " * (size - 16) + b"}"
        return iter([text[:1000], text[1000:]]) if chunked else text

    headers = {"Content-Type": "application/json"}
    assert client.post("/operators/", content=body(256 * 1024), headers=headers).status_code == 201
    answer = client.post("/operators/", content=body(256 * 1024 + 1), headers=headers)
    assert answer.status_code == 413
    assert "256 KiB" in answer.json()["detail"]
    assert len(client.get("/operators/").json()) == 1
    if not chunked:  # else it is not even read
        assert client.post("/contacts/distribute", content=body(256 * 1024 + 1)).status_code == 413


def test_each_event_is_a_line_with_the_id_of_its_request_and_without_secrets(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    log_ids = {}
    with TestClient(create_app(settings_of(database, admin_key=SECRETS[3]), random.Random(1))) as client:
        client.headers["X-API-Key"] = SECRETS[3]
        api = Api(client)
        anna = api.operator("Anna", max_load=1)
        shop = api.source("Shop", {anna: 1})
        logging.getLogger("crm").addHandler(caplog.handler)
        caplog.handler.addFilter(lambda record: log_ids.update({id(record): correlation_id.get()}) or True)

        def told(method: str, path: str, body: Any = None, expect: int = 200) -> list[tuple[str, dict[str, Any]]]:
            caplog.clear()
            answer = client.request(method, path, json=body)
            assert answer.status_code == expect, answer.text
            found: list[Any] = [record for record in caplog.records if record.name == "crm.events"]
            assert {log_ids[id(record)] for record in found} <= {answer.headers["X-Request-ID"]}
            return [
                (one.getMessage(), {name: value for name, value in one.fields.items() if value is not None})
                for one in found
            ]

        body = {"source_id": shop, "lead_phone": SECRETS[0], "message": SECRETS[2], "event_id": "1"}
        of_first = {"contact_id": 1, "source_id": shop}
        assert told("POST", "/contacts/", body, expect=201) == [
            ("lead created", {"lead_id": 1}),
            ("contact assigned", {**of_first, "operator_id": anna, "reason": "distributed", "waited": 0.0}),
            ("limit reached", {"operator_id": anna, "load": 1, "max_load": 1}),
        ]
        assert told("POST", "/contacts/", body) == [("contact repeated", of_first)]
        [left] = told("POST", "/contacts/", {**body, "event_id": "2"}, expect=201)
        of_second = {"contact_id": left[1]["contact_id"], "source_id": shop}
        assert left == ("contact left without operator", {**of_second, "reason": "queued"})
        assigned, limit, handed_out = told("PATCH", "/contacts/1/status", {"status": "closed"})
        assert 0 < assigned[1].pop("waited") < 60
        assert assigned == ("contact assigned", {**of_second, "operator_id": anna, "reason": "from_queue"})
        assert limit[0] == "limit reached"
        assert handed_out == ("queue handed out", {"assigned": 1})
        assert told("POST", f"/operators/{anna}/release") == [
            ("contact left without operator", {**of_second, "reason": "released"})
        ]
        made = {"role": "source", "source_id": shop, "name": "bot"}
        assert told("POST", "/keys/", made, expect=201) == [("key made", {"key_id": 1, "role": "source"})]
        assert told("DELETE", "/keys/1", expect=204) == [("key revoked", {"key_id": 1})]
        session = {"session_id": 1}
        assert told("POST", "/session", {"key": SECRETS[3]}, expect=201) == [("session begun", session)]
        assert told("DELETE", "/session", expect=204) == [("session ended", session)]
        assert told("POST", "/contacts/", {"source_id": 99, "lead_phone": SECRETS[0]}, expect=404) == []
    logging.getLogger("crm").removeHandler(caplog.handler)
    assert not [secret for secret in SECRETS if secret in caplog.text]


# --- slow and broken clients -----------------------------------------------------------------------------------------

HEAD = b"POST /operators/ HTTP/1.1\r\nHost: crm\r\nContent-Type: application/json\r\n"
HALF_A_BODY = HEAD + b'Content-Length: 100\r\n\r\n{"name":'
BROKEN = [b"", b"\x00\xff\x16\x03\x01", b"GET", b"GET / HTTP/9.9\r\n\r\n", HEAD + b"Content-Length: -1\r\n\r\n",
          HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"A" * 100_000]  # fmt: skip


@pytest.fixture
def allow_files() -> Iterator[Callable[[int], None]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda files: resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_slow_and_broken_clients_do_not_keep_others_from_being_served(
    path: Path, allow_files: Callable[[int], None]
) -> None:
    with ExitStack() as stack:
        allow_files(1024)  # as most systems start a service
        service = stack.enter_context(serving(f"sqlite:///{path}"))
        allow_files(4096)

        def send(content: bytes) -> socket.socket:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 10))
            client.sendall(content)
            return client

        slow = [send(HEAD) for _ in range(50)]
        for content in [b""] * 1000 + [HALF_A_BODY] * 100 + BROKEN * 10:
            send(content)
        times = []
        for number in range(50):
            for client in slow:
                client.sendall(b"X-Header-%d: 1\r\n" % number)
            begin = time.monotonic()
            service.call("POST", "/operators/", {"name": f"Operator {number}"})
            times.append(time.monotonic() - begin)
        assert max(times) < 20  # takes 0.01; whoever waited for a slow one would wait for ever
        assert [operator["name"] for operator in service.call("GET", "/operators/?limit=1000")] == [
            f"Operator {number}" for number in range(50)
        ]


def test_a_stop_finishes_what_is_under_way_refuses_the_rest_and_takes_5_seconds_at_most(database: str) -> None:
    options = ["--timeout-graceful-shutdown", "5"]
    with ExitStack() as stack:
        service = stack.enter_context(serving(database, options=options, CRM_BUSY_TIMEOUT="60"))
        clients = [socket.create_connection(("127.0.0.1", service.port), 60) for _ in range(3)]
        for client in clients:
            stack.enter_context(client)
        clients[0].sendall(HALF_A_BODY)
        clients[1].sendall(HEAD)
        service.call("POST", "/sources/", {"name": "Shop"})
        with keeping_the_lock(database):
            under_way = stack.enter_context(closing(service.connect()))
            body = json.dumps({"source_id": 1, "lead_external_id": "tg:1"})
            under_way.request("POST", "/contacts/", body, {"Content-Type": "application/json"})
            service.call("GET", "/health")  # who comes later is answered: so the other was received
            begin = time.monotonic()
            service.process.terminate()
            while is_listening(service.port):
                assert time.monotonic() - begin < 4  # else it is not the stop that refuses
                time.sleep(0.02)
            assert select.select([under_way.sock], [], [], 0)[0] == []  # no answer yet
        assert under_way.getresponse().status == 201
        assert clients[0].recv(1000).startswith(b"HTTP/1.1 503")
        service.process.wait(5 + 15 - (time.monotonic() - begin))  # 15: to end the process itself, on a busy machine
    assert sql(database, "SELECT count(*) FROM contact") == [(1,)]


def is_listening(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 10):
            return True
    except ConnectionError:
        return False


@contextmanager
def keeping_the_lock(database: str) -> Iterator[None]:
    """So that whoever writes waits until the end of the block."""
    with connected(database) as connection:
        is_sqlite = database.startswith("sqlite")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
        if not is_sqlite:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        try:
            yield
        finally:
            connection.exec_driver_sql("ROLLBACK")
