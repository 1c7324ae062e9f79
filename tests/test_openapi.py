"""The OpenAPI document: complete enough to explore the service by, and true (schemathesis)."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.conftest import Api
from tests.service import serving

ADMIN = "the-admin's-own-key"


@pytest.fixture
def document(client: TestClient) -> Any:
    return client.get("/openapi.json").json()


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def test_every_operation_has_a_tag_a_summary_a_description_and_a_readable_id(document: Any) -> None:
    tags = [tag["name"] for tag in document["tags"]]
    ids = []
    for method, path, operation in operations(document):
        assert len(operation["tags"]) == 1, path
        assert operation["tags"][0] in tags, path
        assert operation["summary"], path
        assert operation["description"], path
        assert re.fullmatch("[a-z]+(_[a-z]+)+", operation["operationId"]), (method, path)
        ids.append(operation["operationId"])
    assert len(set(ids)) == len(ids)
    assert tags == ["Operators", "Sources", "Contacts", "Leads", "Statistics", "Keys", "Service"]


def test_every_operation_names_its_errors(document: Any) -> None:
    for method, path, operation in operations(document):
        answers = operation["responses"]
        names_an_id = "{" in path or (method, path) in {
            *(("post", "/contacts/"), ("post", "/contacts/distribute"), ("post", "/keys/"))
        }
        assert ("404" in answers) == names_an_id, (method, path)
        assert ("422" in answers) == bool("parameters" in operation or "requestBody" in operation), (method, path)
        assert "503" in answers, (method, path)
        assert ({"401", "403", "413", "429"} <= answers.keys()) == (path != "/health"), (method, path)
        assert ("security" in operation) == (path != "/health"), (method, path)
        for status, answer in answers.items():
            assert answer["description"], (method, path, status)
            assert ("content" in answer) == (status != "204"), (method, path, status)


def test_every_body_has_an_example_and_all_execute_in_the_order_of_the_page(document: Any, api: Api) -> None:
    """As in Swagger from top to bottom: each example is sent as it stands, with 1 where the path wants an id."""
    tags = [tag["name"] for tag in document["tags"]]
    for method, path, operation in sorted(operations(document), key=lambda item: tags.index(item[2]["tags"][0])):
        if "requestBody" in operation:
            [content] = operation["requestBody"]["content"].values()
            schema = content["schema"]
            if "$ref" in schema:
                schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            [example] = schema["examples"] if "examples" in schema else [schema["example"]]
            success = 201 if "201" in operation["responses"] else 200
            api.call(method.upper(), re.sub(r"{\w+}", "1", path), example, expect=success)
    [contact] = api.get("/contacts/")
    assert contact["operator"]["name"] == "Anna"
    assert contact["lead"]["name"] == "Ivan Petrov"


def test_schemathesis_finds_nothing(database: str) -> None:
    """All its checks and phases, on a service that has a little of everything, so that ids are often found."""
    with serving(database, CRM_ADMIN_KEY=ADMIN, CRM_RATE_LIMIT="1000000") as service:
        service.headers = {"X-API-Key": ADMIN}
        for number in (1, 2, 3):
            service.call("POST", "/operators/", {"name": f"Operator {number}"})
            service.call("POST", "/sources/", {"name": f"Source {number}", "bot_id": number})
            service.call("POST", f"/sources/{number}/operators", {"operator_id": number})
            service.call("POST", "/contacts/", {"source_id": number, "lead_external_id": number, "event_id": number})
        executable = str(Path(sys.executable).with_name("schemathesis"))
        command = [executable, "--config-file", "tests/schemathesis.toml", "run", "--no-color"]
        options = ["--max-examples", "30", "--seed", "1", "--warnings", "off", "--continue-on-failure"]
        options += ["--header", f"X-API-Key: {ADMIN}"]
        result = subprocess.run(
            [*command, *options, f"http://127.0.0.1:{service.port}/openapi.json"],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
        )
    assert result.returncode == 0, result.stdout + result.stderr
