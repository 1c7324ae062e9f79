"""Starting: the settings, the default database, and that a restart keeps all."""

from pathlib import Path

import pytest

from crm.main import create_app
from tests.conftest import Api, local, settings_of
from tests.service import start


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CRM_DEFAULT_REGION", "Russia"),
        ("CRM_BUSY_TIMEOUT", "soon"),
        ("CRM_BUSY_TIMEOUT", "0"),
        ("CRM_RATE_LIMIT", "inf"),
        ("CRM_WEBHOOK_ALLOW", "10.0.0.1/8"),
        ("CRM_PUBLIC_URL", "crm.example"),
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_start_and_is_named(path: Path, variable: str, value: str) -> None:
    code, said = start(f"sqlite:///{path}", **{variable: value})
    assert code > 0
    assert "Traceback" not in said
    assert variable in said
    assert not path.exists()


def test_the_default_database_is_crm_db_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with local(create_app()) as client:
        assert client.get("/health").json() == {"status": "ok"}
    assert (tmp_path / "crm.db").exists()


def test_a_restart_keeps_everything_and_ids_go_on(path: Path) -> None:
    with local(create_app(settings_of(f"sqlite:///{path}"))) as client:
        Api(client).operator("Anna")
        Api(client).delete(f"/operators/{Api(client).operator('Boris')}")
    with local(create_app(settings_of(f"sqlite:///{path}"))) as client:
        assert [operator["name"] for operator in Api(client).get("/operators/")] == ["Anna"]
        assert Api(client).operator("Clara") == 3


def test_the_first_request_finds_the_routes_built(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes 0.2 s, during which no other is answered."""
    with local(create_app(settings_of(f"sqlite:///{path}"))) as client:
        monkeypatch.setattr("fastapi.routing.get_dependant", None)
        assert Api(client).get("/health") == {"status": "ok"}  # the route that is looked at last
        assert Api(client).get("/contacts/") == []
