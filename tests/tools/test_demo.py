"""`python -m crm demo`, against a running service."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crm.__main__ import main as cli
from crm.tools.demo import LIMITS, SOURCES
from tests.service import Service, at_a_terminal, free_port, serving

ADMIN = "the-admin's-own-key"


def demo(service: Service, *arguments: str, expect: int = 0, **environment: str) -> str:
    options = ["demo", "--url", f"http://127.0.0.1:{service.port}", "--rate", "1000", *arguments]
    result = CliRunner().invoke(cli, options, env=environment)
    assert result.exit_code == expect, result.output
    return str(result.output)


@pytest.fixture
def service(path: Path) -> Any:
    with serving(f"sqlite:///{path}") as service:
        yield service


def test_it_fills_an_empty_service_and_shows_life(service: Service) -> None:
    printed = demo(service, "--contacts", "150")
    assert f"open http://127.0.0.1:{service.port}/" in printed
    assert {row["name"] for row in service.call("GET", "/operators/")} == set(LIMITS)
    sources = {row["bot_id"]: row for row in service.call("GET", "/sources/")}
    assert {bot_id: row["name"] for bot_id, row in sources.items()} == {bot: name for bot, (name, _) in SOURCES.items()}
    assert {entry["operator_name"]: entry["weight"] for entry in sources["demo_telegram"]["operators"]} == SOURCES[
        "demo_telegram"
    ][1]
    stats = service.call("GET", "/stats/")
    assert stats["contacts"] == 150
    assert stats["leads"] < 130  # others came back
    rows = service.call("GET", "/stats/operators")
    assert all(row["load"] <= row["max_load"] for row in rows)
    assert sum(row["by_status"]["closed"] for row in rows) > 25
    assert {"new", "in_progress", "closed"} <= {row["status"] for row in service.call("GET", "/contacts/?limit=1000")}
    lead = max(service.call("GET", "/leads/?limit=1000"), key=lambda row: row["contacts_count"])
    assert len(lead["phones"]) == len(lead["emails"]) == 1  # however they were written
    assert len(lead["external_ids"]) > 1
    assert not any(row["identity_note"] for row in service.call("GET", "/contacts/?limit=1000"))


def test_it_refuses_a_service_that_has_data_unless_told_to_and_leaves_that_alone(service: Service) -> None:
    service.call("POST", "/operators/", {"name": "Anna", "max_load": 100})
    service.call("POST", "/sources/", {"name": "WhatsApp"})  # as one of its own is called
    service.call("POST", "/sources/1/operators", {"operator_id": 1})
    for number in range(30):
        service.call("POST", "/contacts/", {"source_id": 1, "lead_external_id": f"tg:{number}"})
    assert "has data already" in demo(service, "--contacts", "1", expect=1)
    assert len(service.call("GET", "/sources/")) == 1
    for _ in range(2):
        demo(service, "--contacts", "60", "--add")
    assert len(service.call("GET", "/operators/")) == 1 + len(LIMITS)
    assert len(service.call("GET", "/sources/")) == 1 + len(SOURCES)
    assert service.call("GET", "/stats/")["contacts"] == 150
    real = service.call("GET", "/operators/1/stats")
    assert (real["is_active"], real["by_status"]["new"]) == (True, 30)


@pytest.mark.seconds(8)
def test_it_outlives_a_restart_of_the_service_and_people_who_are_faster(service: Service) -> None:
    command = [sys.executable, "-m", "crm", "demo", "--url", f"http://127.0.0.1:{service.port}", "--rate", "100"]
    with at_a_terminal([*command, "--contacts", "80"], subprocess.DEVNULL) as process:
        wait_for(service, 20)
        service.stop()
        time.sleep(0.5)  # so that it is told once at least that nobody is there
        service.restart()
        while process.poll() is None:
            for contact in service.call("GET", "/contacts/?status=in_progress") if service.answers() else []:
                service.request("PATCH", f"/contacts/{contact['id']}/status", {"status": "closed"})
            time.sleep(0.02)  # not all the time, which takes a core
        assert process.wait(60) == 0
    assert service.call("GET", "/stats/")["contacts"] == 80


def wait_for(service: Service, contacts: int) -> None:
    deadline = time.monotonic() + 120
    while service.call("GET", "/stats/")["contacts"] < contacts:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_it_brings_the_key_and_says_in_one_line_when_it_cannot_go_on(path: Path) -> None:
    with serving(f"sqlite:///{path}", CRM_ADMIN_KEY=ADMIN, CRM_RATE_LIMIT="30") as service:
        demo(service, "--contacts", "20", CRM_ADMIN_KEY=ADMIN)  # waits when it is told that this is too fast
        assert (
            demo(service, "--contacts", "1", expect=1)
            .splitlines()[-1]
            .startswith("Error: GET /sources/?limit=1000: 401")
        )
        assert "401" in demo(service, "--key", "wrong", "--contacts", "1", expect=1)
    result = CliRunner().invoke(cli, ["demo", "--url", f"http://127.0.0.1:{free_port()}"])
    assert result.exit_code == 1
    assert "is uvicorn crm.main:app running?" in result.output.splitlines()[-1]


def test_it_goes_on_until_it_is_stopped(service: Service) -> None:
    command = [sys.executable, "-m", "crm", "demo", "--url", f"http://127.0.0.1:{service.port}", "--rate", "50"]
    with at_a_terminal(command) as process:
        wait_for(service, 10)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert printed.splitlines()[-1] == "stopped; what was sent stays"
