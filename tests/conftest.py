"""What all tests share: an app on a database of its own, and an HTTP client that says what it expects."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from crm.main import create_app
from crm.settings import Settings
from tests import postgres
from tests.page.browser import browser  # noqa: F401  (a fixture for all)


class Api:
    """Calls the API and checks the status; `post("/operators/", {...}, expect=422)["detail"]`."""

    def __init__(self, client: TestClient) -> None:
        self.client = client

    def call(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        answer = self.client.request(method, path, json=body) if body is not None else self.client.request(method, path)
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


def local(app: FastAPI) -> TestClient:
    """A client on the same machine: without keys only those are served."""
    return TestClient(app, "http://localhost", client=("127.0.0.1", 50_000))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The SQLite file of this test."""
    return tmp_path / "crm.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, path: Path) -> str:
    """An empty database on each engine."""
    return postgres.empty_database() if request.param == "postgresql" else f"sqlite:///{path}"


@pytest.fixture
def client(database: str) -> Iterator[TestClient]:
    with local(create_app(settings_of(database), random.Random(1))) as client:
        yield client


@pytest.fixture
def api(client: TestClient) -> Api:
    return Api(client)
