"""The image and the compose file: what can be checked without Docker, by running what is written in them."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.service import Service

TOP = Path(__file__).parents[2]
FOLDER = TOP / "crm" / "docker"
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
HALF_A_REQUEST = (
    b"POST /operators/ HTTP/1.1\r\nHost: crm\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
)


@cache
def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, in order: (name, the rest of the line)."""
    lines = [line for line in (FOLDER / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in whole) if name]


def all_of(name: str) -> list[str]:
    return [rest for one, rest in instructions() if one == name]


def last(name: str) -> str:
    return all_of(name)[-1]


COMMAND: list[str] = json.loads(last("CMD"))
CHECK: list[str] = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
ENVIRONMENT = dict(variable.split("=", 1) for variable in shlex.split(last("ENV")))
GRACE = int(COMMAND[COMMAND.index("--timeout-graceful-shutdown") + 1])


class Container(Service):
    """The service started by the very command of the image, but on a free port of this machine only."""

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        command = [Path(sys.executable).with_name(COMMAND[0]), *COMMAND[1:], "--host", "127.0.0.1", "--port", str(port)]
        return subprocess.Popen(command, env=self.environment, cwd="/", start_new_session=True)


@contextmanager
def container(path: Path) -> Iterator[Service]:
    of_image = {name: value for name, value in ENVIRONMENT.items() if name not in ("PATH", "DATABASE_URL")}
    service = Container(f"sqlite:///{path}", **of_image)
    try:
        yield service
    finally:
        service.kill()


def check(port: int) -> int:
    """Runs the health check against another port, on a machine that has a proxy set; its exit code."""
    program = CHECK[-1].replace("8000", str(port))
    command = [sys.executable, *CHECK[1:-1], program]
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    return subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, timeout=30).returncode


def test_the_image_runs_uvicorn_as_a_fixed_user_that_is_not_root() -> None:
    user, _, group = last("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert instructions().index(("USER", last("USER"))) > max(
        number for number, (name, _) in enumerate(instructions()) if name in ("RUN", "COPY", "FROM")
    )
    assert COMMAND[:2] == ["uvicorn", "crm.main:app"]
    assert not all_of("ENTRYPOINT")  # so that what is above is process 1


def test_the_image_listens_where_it_says_and_keeps_its_data_in_its_volume() -> None:
    port = COMMAND[COMMAND.index("--port") + 1]
    assert last("EXPOSE") == port
    assert f"'127.0.0.1', {port}," in CHECK[-1]
    assert COMMAND[COMMAND.index("--host") + 1] == "0.0.0.0"  # noqa: S104 - inside of the container
    assert ENVIRONMENT["DATABASE_URL"] == f"sqlite:///{last('VOLUME')}/crm.db"
    assert any(f"--owner {last('USER').partition(':')[0]} " in run and last("VOLUME") in run for run in all_of("RUN"))


def test_what_the_build_copies_and_installs_is_there() -> None:
    seen = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    sources = {path for copy in all_of("COPY") if "--from" not in copy for path in copy.split()[:-1]}
    assert sources == seen
    assert all((TOP / path).exists() for path in sources)
    assert PROJECT["readme"] in sources
    [extras] = [found[1] for run in all_of("RUN") if (found := re.search(r"/\[(.+)\]", run))]
    assert set(extras.split(",")) == PROJECT["optional-dependencies"].keys() - {"dev"}
    assert f">={last('ARG').removeprefix('PYTHON=').removesuffix('-slim')}" == PROJECT["requires-python"]


def test_the_health_check_tells_a_service_that_answers_from_one_that_does_not(path: Path) -> None:
    with container(path) as service:
        assert check(service.port) == 0
    assert check(service.port) != 0


def test_the_health_check_fails_while_the_database_is_away() -> None:
    class Away(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Away) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        assert check(server.server_port) == 1
        server.shutdown()
        thread.join()


def test_the_service_of_the_image_ends_within_5_seconds_while_a_request_hangs(path: Path) -> None:
    with container(path) as service, closing(socket.create_connection(("127.0.0.1", service.port), 10)) as slow:
        slow.sendall(HALF_A_REQUEST)
        service.call("POST", "/operators/", {"name": "Anna"})
        begin = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert slow.recv(100).startswith(b"HTTP/1.1 503")
        service.process.wait(5 + 10 - (time.monotonic() - begin))  # 10: on a busy machine
        assert GRACE <= 3  # seconds; the rest of the 5 is for the process itself


@pytest.mark.parametrize(("asked", "expected"), [({}, False), ({"UVICORN_PROXY_HEADERS": "true"}, True)])
def test_what_a_proxy_says_of_the_caller_is_believed_only_if_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, str], expected: bool
) -> None:
    """By uvicorn's own reading of the command and the environment."""
    uvicorn, read = import_module("uvicorn.main"), dict[str, Any]()
    monkeypatch.setattr(uvicorn, "run", lambda _, **settings: read.update(settings))
    result = CliRunner().invoke(uvicorn.main, COMMAND[1:], env={**ENVIRONMENT, **asked})
    assert result.exit_code == 0, result.output
    assert read["proxy_headers"] is expected


# --- compose ---------------------------------------------------------------------------------------------------------


@cache
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "compose.yaml").read_text()))


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_compose_builds_this_image_from_the_top() -> None:
    build = compose()["services"]["crm"]["build"]
    assert (FOLDER / build["context"]).resolve() == TOP
    assert TOP / build["dockerfile"] == FOLDER / "Dockerfile"


def test_compose_demands_key_and_password_and_has_none_of_its_own() -> None:
    crm, db = (compose()["services"][name]["environment"] for name in ("crm", "db"))
    assert crm["CRM_ADMIN_KEY"].startswith("${CRM_ADMIN_KEY:?")
    assert crm["PGPASSWORD"] == db["POSTGRES_PASSWORD"]
    assert db["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    assert crm["DATABASE_URL"] == f"postgresql://{db['POSTGRES_USER']}@db/{db['POSTGRES_DB']}"
    assert ".env" in (TOP / ".gitignore").read_text().splitlines()
    assert "crm/docker" in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()


def test_compose_waits_for_the_database_restarts_and_leaves_time_to_stop() -> None:
    crm, db = (compose()["services"][name] for name in ("crm", "db"))
    assert crm["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert db["healthcheck"]["test"][:3] == ["CMD", "pg_isready", "--host=127.0.0.1"]
    assert crm["restart"] == db["restart"] == "unless-stopped"
    assert seconds(crm["stop_grace_period"]) > GRACE + 2
    assert seconds(db["stop_grace_period"]) > 10


def test_compose_publishes_the_service_to_its_own_machine_only_and_keeps_the_data_in_a_volume() -> None:
    crm, db = (compose()["services"][name] for name in ("crm", "db"))
    assert crm["ports"] == [f"${{CRM_PUBLISH:-127.0.0.1:{last('EXPOSE')}}}:{last('EXPOSE')}"]
    assert "ports" not in db
    [(volume, target)] = [one.split(":") for one in db["volumes"]]
    assert volume in compose()["volumes"]
    version = int(db["image"].partition(":")[2])
    assert target == "/var/lib/postgresql" + ("" if version >= 18 else "/data")
