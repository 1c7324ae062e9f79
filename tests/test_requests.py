"""What every request and answer has: an id, headers, a log line that gives nothing away, and a limit of size."""

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

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
        with serving(f"sqlite:///{path}", workers=workers, log=log, **environment) as service:
            ids = use(service)
    text = log_file.read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["event"] == "request" and line["path"] != "/openapi.json"]
    assert [line["request_id"] for line in requests] == ids
    assert [(line["method"], line["path"], line["status"]) for line in requests] == [
        ("POST", "/sources/", 201), ("POST", "/contacts/", 201), ("GET", "/leads/", 200), ("GET", "/contacts/1", 401),
    ]  # fmt: skip
    assert all(0 < line["seconds"] < 10 for line in requests)
    assert not [secret for secret in (*SECRETS, "9991234567", "a wrong key") if secret in text]
    assert "uvicorn.error" in {line["logger"] for line in lines}


def test_the_lines_are_text_unless_asked_for(path: Path) -> None:
    log_file = path.with_name("log")
    with log_file.open("w") as log, serving(f"sqlite:///{path}", log=log) as service:
        service.call("GET", "/operators/")
    assert re.search(
        r"^\S+ INFO request .*method=GET path=/operators/ status=200 seconds=0", log_file.read_text(), re.M
    )


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
