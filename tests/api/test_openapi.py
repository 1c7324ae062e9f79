"""The OpenAPI document: complete enough to explore the service by, and true (schemathesis)."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from crm.main import create_app
from tests.conftest import Api
from tests.effort import IS_RELEASE, effort
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
    assert tags == [
        *("Operators", "Sources", "Contacts", "Leads", "Events", "Subscriptions"),
        *("Statistics", "Keys", "Sessions", "Service"),
    ]


def test_every_operation_names_its_errors(document: Any) -> None:
    for method, path, operation in operations(document):
        answers = operation["responses"]
        names_an_id = "{" in path or (method, path) in {
            *(
                ("post", "/contacts/"),
                ("post", "/contacts/distribute"),
                ("post", "/keys/"),
                ("post", "/subscriptions/"),
            ),
            ("get", "/stats/series"),
        }
        assert ("404" in answers) == names_an_id, (method, path)
        assert ("422" in answers) == bool("parameters" in operation or "requestBody" in operation), (method, path)
        assert "503" in answers, (method, path)
        assert ({"401", "403", "413", "429"} <= answers.keys()) == (path != "/health"), (method, path)
        by_key_or_session = [{"Authentication": []}, {"SessionCookie": []}]
        is_open = path == "/health" or (path == "/session" and method != "get")
        assert operation.get("security") == (None if is_open else by_key_or_session), (method, path)
        for status, answer in answers.items():
            assert answer["description"], (method, path, status)
            assert ("content" in answer) == (status != "204"), (method, path, status)


@pytest.mark.usefixtures("clock")  # one of them gives the operator hours
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
            # No keys are asked for, and there is no second lead yet.
            success = {"/session": 409, "/leads/{lead_id}/merge": 404}.get(path, success)
            api.call(method.upper(), re.sub(r"{\w+}", "1", path), example, expect=success)
    [contact] = api.get("/contacts/")
    assert contact["operator"]["name"] == "Anna"
    assert contact["lead"]["name"] == "Ivan Petrov"


@pytest.mark.seconds(10)
@pytest.mark.parametrize(
    ("database", "role"),
    [
        *(("sqlite", "admin"), ("postgresql", "admin")),
        ("sqlite", "operator"),
        *(("sqlite", "source"), ("postgresql", "source"), ("postgresql", "operator"))[: effort(0, 3)],
        *(("sqlite", "metrics"), ("postgresql", "metrics"))[: effort(0, 2)],  # may call even less than a source's key
    ],
    indirect=["database"],
)
def test_schemathesis_finds_nothing(database: str, role: str) -> None:
    """All its checks and phases, on a service that has a little of everything, so that ids are often found."""
    with serving(database, CRM_ADMIN_KEY=ADMIN, CRM_RATE_LIMIT="1000000") as service:
        service.headers = {"X-API-Key": ADMIN}
        for number in (1, 2, 3):
            service.call("POST", "/operators/", {"name": f"Operator {number}"})
            service.call("POST", "/sources/", {"name": f"Source {number}", "bot_id": number})
            service.call("POST", f"/sources/{number}/operators", {"operator_id": number})
            service.call("POST", "/contacts/", {"source_id": number, "lead_external_id": number, "event_id": number})
        key = ADMIN  # that of the settings can't revoke itself
        if role != "admin":
            owner = {f"{role}_id": 1} if role != "metrics" else {}
            key = service.call("POST", "/keys/", {"role": role, "name": "for the test", **owner})["key"]
        executable = str(Path(sys.executable).with_name("schemathesis"))
        command = [executable, "--config-file", "tests/api/schemathesis.toml", "run", "--no-color"]
        # Its phase "coverage", of 3,000 cases, is independent of this.
        examples = (effort(3, 50) if "sqlite" in database else effort(2, 50)) if role == "admin" else effort(1, 20)
        options = ["--max-examples", str(examples), "--seed", "1", "--warnings", "off"]
        # Who may not call it is told so before the limits of values matter, and those are checked before the engine is.
        if (role, service.url[:6]) != ("admin", "sqlite") and not IS_RELEASE:
            options += ["--phases", "examples,fuzzing,stateful"]
        options += ["--continue-on-failure", "--header", f"X-API-Key: {key}"]
        result = subprocess.run(
            [*command, *options, f"http://127.0.0.1:{service.port}/openapi.json"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a client that openapi-python-client makes from the document; what it can't generate fails."""
    folder, tools = tmp_path_factory.mktemp("generated"), Path(sys.executable).parent
    description = folder / "openapi.json"
    description.write_text(json.dumps(create_app().openapi()))
    command = [tools / "openapi-python-client", "generate", "--path", description, "--meta", "none"]
    command += ["--output-path", folder / "generated_client", "--fail-on-warning"]
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    )
    sys.path.insert(0, str(folder))
    yield "generated_client"
    sys.path.remove(str(folder))


@pytest.mark.parametrize("key", [None, ADMIN], ids=["open", "with keys"])
def test_a_generated_client_walks_the_story_of_the_readme(package: str, database: str, key: str | None) -> None:
    """From the document alone; what the client can't parse fails."""
    models = importlib.import_module(f"{package}.models")
    client_module = importlib.import_module(f"{package}.client")

    with (
        serving(database, **({"CRM_ADMIN_KEY": key} if key else {})) as service,
        client_module.AuthenticatedClient(
            f"http://127.0.0.1:{service.port}", token=key or "none", prefix="", auth_header_name="X-API-Key"
        ) as client,
    ):

        def call(tag: str, operation: str, *path: Any, **arguments: Any) -> Any:
            return importlib.import_module(f"{package}.api.{tag}.{operation}").sync(*path, client=client, **arguments)

        for name in ("Anna", "Boris"):
            call("operators", "create_operator", body=models.OperatorCreate(name=name, max_load=20))
        for number, (bot, weights) in enumerate([("shop_bot", (10, 30)), ("wa_bot", (1, 1))], 1):
            source = call("sources", "create_source", body=models.SourceCreate(name=f"Source of {bot}", bot_id=bot))
            entries = [models.SourceOperatorCreate(operator_id=n, weight=weight) for n, weight in enumerate(weights, 1)]
            source = call("sources", "replace_source_operators", number, body=entries)
            assert [entry.share for entry in source.operators] == [weights[0] / sum(weights), weights[1] / sum(weights)]
        said = [
            {"source_bot_id": "shop_bot", "lead_external_id": 5001001, "lead_phone": "8 (999) 123-45-67",
             "lead_name": "Ivan", "message": "Where is my order?", "event_id": 880001},
            {"source_bot_id": "wa_bot", "lead_external_id": "wa:ivan", "lead_phone": "+7 999 123-45-67",
             "message": "Hello?", "event_id": "msg-1"},
        ]  # fmt: skip
        for body in said * 2:  # bots repeat themselves
            contact = call("contacts", "create_contact", body=models.ContactCreate.from_dict(body))
            assert (contact.lead_id, contact.lead.phones) == (1, ["+79991234567"])
            assert contact.operator.name in ("Anna", "Boris")
        lead = call("leads", "get_lead_detail", 1)
        assert (lead.external_ids, [contact.id for contact in lead.contacts]) == (["5001001", "wa:ivan"], [2, 1])
        closed = call("contacts", "update_contact_status", 1, body=models.StatusUpdate.from_dict({"status": "closed"}))
        assert closed.status == "closed"
        assert closed.closed_at is not None
        totals = call("statistics", "get_totals")
        assert (totals.contacts, totals.leads, totals.load, totals.capacity) == (2, 1, 1, 40)
        stats = call("statistics", "get_source_stats", 1)
        assert [(entry.operator_name, entry.target_share) for entry in stats.operators] == [
            ("Anna", 0.25),
            ("Boris", 0.75),
        ]
        detail = call("contacts", "get_contact", 1)
        assert [entry.reason for entry in detail.history] == ["distributed", "closed"]
        assert "contact 99 not found" in call("contacts", "get_contact", 99).detail
