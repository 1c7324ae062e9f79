"""The documents are true: their commands are run in order, and what they show and name is what there is."""

import ast
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from crm.events import tell
from crm.fields import Role
from crm.main import create_app
from crm.settings import Settings
from crm.web.answers import DESCRIPTIONS
from tests import postgres
from tests.conftest import Api, local, settings_of
from tests.docs import reading
from tests.docs.reading import BOTS, DOCUMENTS, INSIDE, README, ROOT, RUNNING, Block
from tests.service import Service, at_a_terminal, serving
from tests.test_house import LEVELS

# Commands of the documents that no test runs, with the reason.
NOT_RUN = {
    "python3 -m venv .venv": "the test has an environment",
    ".venv/bin/pip install -e .": "downloads; .ci/run does it",
    ".venv/bin/pip install -e '.[dev]'": "downloads; .ci/run does it",
    ".venv/bin/pip install -e '.[postgres]'": "downloads; it is a part of dev",
    ".venv/bin/pip install -e '.[metrics]'": "downloads; it is a part of dev",
    ".venv/bin/pip install -e '.[notify]'": "downloads; it is a part of dev",
    ".venv/bin/pytest -n auto": "would run this test, and all others, in this test",
    ".venv/bin/pytest -n auto tests/api": "takes a minute, and runs anyway",
    ".venv/bin/mypy": "takes half a minute; .ci/run calls it",
    ".venv/bin/python -m tests.bench": "takes minutes, and needs wrk",
    "python -m tests.page.vendor": "fetches from npm",
    'sqlite3 crm.db ".backup copy.db"': "needs SQLite's own program; the command below it does the same without",
    "createuser --pwprompt crm": "asks for a password at the terminal; the server of the tests has that user",
    "docker build -f crm/docker/Dockerfile -t mini-crm .": "needs Docker; tests/docker checks the file without",
    'export CRM_ADMIN_KEY="$(openssl rand -base64 32)"': "is for Docker; below, the same is done without OpenSSL",
    "docker run -d --name crm --restart unless-stopped -p 127.0.0.1:8000:8000 -v crm-data:/data"
    " -e CRM_ADMIN_KEY mini-crm": "needs Docker",
    'printf \'CRM_ADMIN_KEY=%s\\nPOSTGRES_PASSWORD=%s\\n\' "$(openssl rand -base64 32)" "$(openssl rand -hex 32)"'
    " > crm/docker/.env": "is for Docker, and needs OpenSSL",
    "docker compose -f crm/docker/compose.yaml up -d --build --wait": "needs Docker",
    'docker exec crm python -c "import sqlite3; '
    "sqlite3.connect('/data/crm.db').backup(sqlite3.connect('/data/copy.db'))\"": "needs Docker",
    "docker cp crm:/data/copy.db .": "needs Docker",
    "docker compose -f crm/docker/compose.yaml exec -T db pg_dump -U crm -Fc crm > crm.dump": "needs Docker",
    "docker rm -f crm": "needs Docker",
    "git pull": "needs the network, and would change the clone",
}
STORY = README, "rm -f crm.db"
BEFORE = {RUNNING: STORY, BOTS: STORY}  # whose answers go on from where another ends
UVICORN = re.compile(r"(?P<variables>(?:\w+=\S+ )*)\.venv/bin/uvicorn crm\.main:app(?P<options>[^&]*)&?")
UNTIL_CTRL_C = ".venv/bin/python -m crm demo"


class Reader:
    """Does what a document says, in a folder with a copy of the repository."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.service: Service | None = None
        self.is_changed = False  # the code of that copy
        self._running = stack.enter_context(ExitStack())  # the service that runs now
        for name in ("crm", "tests"):
            shutil.copytree(ROOT / name, folder / name)
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
        (folder / ".curlrc").write_text('silent\nshow-error\nmax-time = 60\nwrite-out = "\\n%{http_code}"\n')
        of_the_tests = ("PYTEST_", "COV_", "COVERAGE_", "CRM_", "DATABASE_URL")
        self.environment = {name: text for name, text in os.environ.items() if not name.startswith(of_the_tests)}
        self.environment |= {"PYTHONPATH": str(folder), "CURL_HOME": str(folder), "no_proxy": "*"}

    def follow(self, document: str, since: str = "") -> None:
        """since: begins with the block that begins like this."""
        self._prepare_postgresql(reading.read(document))
        for block in itertools.dropwhile(lambda block: not block.text.startswith(since), reading.blocks(document)):
            if block.language == "sh":
                self._run(block)
            elif block.language == "python":
                self._run_python(block)
            elif block.language == "diff":
                change(self.folder, block.text)

    def _prepare_postgresql(self, text: str) -> None:
        if "@host/" in text:
            server = postgres.server()
            databases = ("crm", "restored")
            self.stack.callback(lambda: [server.sql(f"DROP DATABASE IF EXISTS {it} WITH (FORCE)") for it in databases])
            self.environment |= {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "crm"}
            self.environment["PATH"] = f"{server.bin}:{self.environment['PATH']}"

    def _here(self, text: str) -> str:
        """With the ports of this run."""
        if "@host/" in text:
            text = text.replace("@host/", f"@127.0.0.1:{self.environment['PGPORT']}/")
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{self.service.port}") if self.service else text

    def _run(self, block: Block) -> None:
        parts = list(reading.commands(block.text))
        if any(UVICORN.fullmatch(part) for part in parts):  # whoever starts it again has stopped it
            self._running.close()
        outputs = [self._do(part) for part in parts if part not in NOT_RUN]
        answers, errors = [], []
        for part, output in zip((part for part in parts if part not in NOT_RUN), outputs, strict=True):
            if part.startswith("curl "):
                body, _, status = output.rpartition("\n")
                answers += [body] if body else []
                errors += [body] if int(status) >= 400 else []
        if block.output is None or block.output.language == "text":
            assert errors == [], block.text
        if block.output is not None and block.output.language == "text":
            assert reading.is_text(block.output.text, "\n".join(outputs)), (block.output.text, outputs)
        if block.output is not None and block.output.language == "json":
            expected = reading.shown(block.output.text)
            assert len(answers) == len(expected), (block.text, answers)
            for one, answer in zip(expected, answers, strict=True):
                assert reading.differences(one, json.loads(answer)) == [], answer
                assert (answer in errors) == (isinstance(one, dict) and list(one) == ["detail"]), answer

    def _do(self, command: str) -> str:
        if server := UVICORN.fullmatch(command):
            self._serve(server["variables"], server["options"])
            return ""
        command = self._here(command)
        if command == UNTIL_CTRL_C:
            return self._until_ctrl_c(f"{command} --url http://127.0.0.1:{self.service and self.service.port}")
        if command.startswith("export "):
            names = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
            self.environment |= json.loads(self._shell(f"{command}; {names}"))
            return ""
        return self._shell(command)

    def _shell(self, command: str) -> str:
        result = subprocess.run(
            ["sh", "-c", command],  # noqa: S607
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert result.returncode == 0, f"{command}: {result.stdout} {result.stderr}"
        return result.stdout

    def _serve(self, variables: str, options: str) -> None:
        """As `uvicorn crm.main:app` does, on a free port and with a draw that is known beforehand."""
        environment = dict(part.split("=", 1) for part in shlex.split(self._here(variables)))
        environment = {**self.environment, **environment}
        url, words = environment.pop("DATABASE_URL", "sqlite:///crm.db"), shlex.split(options)
        self.service = self._running.enter_context(
            # The last --workers counts.
            serving(url, "tests.docs.first:app", options=words, is_anew=self.is_changed, **environment)
        )

    def _until_ctrl_c(self, command: str) -> str:
        """Lets it work, until it has done something, and interrupts it."""
        assert self.service is not None
        with at_a_terminal(shlex.split(command), cwd=self.folder, env=self.environment) as process:
            while not self.service.call("GET", "/stats/")["contacts"] and process.poll() is None:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert output.endswith("what was sent stays\n"), output
        return output

    def _run_python(self, block: Block) -> None:
        """A program of its own, or what belongs into the file that its first line names."""
        target, _, text = block.text.partition("\n")
        if target.startswith("# "):
            self.is_changed = True
            path = self.folder / target.removeprefix("# ")
            before = path.read_text()
            path.write_text(f"{before.partition('def upgrade')[0]}{text}" if "/versions/" in target else before + text)
            return
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", self._here(block.text)],
            env=self.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert block.output is not None
        assert reading.is_text(block.output.text, result.stdout), result.stdout


def change(folder: Path, diff: str) -> None:
    """Applies a diff whose first line is the file; its parts, between lines of `@@`, must each fit in one place."""
    name, _, text = diff.partition("\n")
    path = folder / name
    for part in text.split("@@\n"):
        before, after = (
            "".join(f"{line[1:]}\n" for line in part.splitlines() if line[0] in (" ", sign)) for sign in "-+"
        )
        content = path.read_text()
        assert content.count(before) == 1, f"{name}: {before}"
        path.write_text(content.replace(before, after))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    with ExitStack() as stack:
        reader = Reader(tmp_path, stack)
        monkeypatch.chdir(tmp_path)
        yield reader


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_do_what_the_document_says_and_the_answers_are_those_shown(reader: Reader, document: str) -> None:
    if document in BEFORE:
        reader.follow(*BEFORE[document])
    reader.follow(document)


def test_each_command_is_run_or_listed_with_a_reason() -> None:
    """Also one that is named in the prose; and what is listed is there."""
    in_blocks = {
        command
        for document in DOCUMENTS
        for block in reading.blocks(document)
        if block.language == "sh"
        for command in reading.commands(block.text)
    }
    in_prose = {word for document in DOCUMENTS for word in reading.code_words(document) if reading.PROGRAM.match(word)}
    known = {reading.bare(command) for command in in_blocks | NOT_RUN.keys()}
    assert {word for word in in_prose if reading.bare(word) not in known} == set()
    assert set(NOT_RUN) - in_blocks - in_prose == set()
    languages = {block.language for document in DOCUMENTS for block in reading.blocks(document)}
    assert languages <= {"sh", "python", "js", "diff", "text", "yaml"}, "an answer stands right below its command"


# --- that the comparison can fail ------------------------------------------------------------------------------------

ANSWER = {
    "id": 1, "created_at": "2026-01-31T09:00:00Z", "name": "Anna", "share": 0.5, "key": "crm_abcdefgh", "on": [1, 2]
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        '{"id":1,"created_at":"2020-01-01T00:00:00.5Z","name":"Anna","share":0.5,"key":"crm_Zx81...","on":[1,2]}',
        '{"id":1,...,"on":[1,...]}',
        '{...,"name":"A...","share":0.5,...}',
        "{...}",
    ],
)
def test_an_answer_is_as_shown(text: str) -> None:
    assert reading.differences(*reading.shown(text), ANSWER) == []


@pytest.mark.parametrize(
    "text",
    [
        '{"id":1}',
        '{"id":2,...}',
        '{"id":1.0,...}',
        '{"id":null,...}',
        '{"share":0.5,"id":1,...}',
        '{"id":1,"other":1,...}',
        '{...,"name":"Anna Maria",...}',
        '{...,"created_at":"yesterday",...}',
        '{...,"key":"other...",...}',
        '{...,"on":[1]}',
        '{...,"on":[1,2,3,...]}',
        '{...,"on":[2,1]}',
        '{...,"on":{}}',
        "[{...}]",
    ],
)
def test_an_answer_that_is_not_as_shown_is_noticed(text: str) -> None:
    assert reading.differences(*reading.shown(text), ANSWER) != []


def test_commands_are_told_apart_as_the_shell_does() -> None:
    text = "A=1 x 'a && b\nc' && y \\\n  -d \"# $(z 'q')\"  # why\n\nz\n"
    assert list(reading.commands(text)) == ["A=1 x 'a && b\nc'", "y \\\n  -d \"# $(z 'q')\"", "z"]
    assert reading.is_text("a ... c\n...", "a b c\nd\n")
    assert not reading.is_text("a ... c", "a b d")


# --- what the documents name -----------------------------------------------------------------------------------------


def test_the_readme_is_short_and_each_document_says_for_whom_it_is() -> None:
    assert len(reading.read(README).splitlines()) <= 250
    for document in DOCUMENTS[1:]:
        third = reading.read(document).splitlines()[2]
        assert third.startswith("For those who "), document
        assert "](../../README.md)" in reading.read(document).split("\n## ")[0], document


def anchors(path: Path) -> set[str]:
    """Of the headings, as a git host makes them."""
    headings = re.findall(r"^#+ (.+)$", reading.FENCE.sub("", path.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_link_leads_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", reading.prose(document))
    assert links
    for link in links:
        if "://" not in link:
            name, _, anchor = link.partition("#")
            path = (ROOT / document).parent / name if name else ROOT / document
            assert path.exists(), link
            assert not anchor or anchor in anchors(path), link


def test_the_settings_are_those_of_the_code() -> None:
    def default(value: Any) -> str:
        return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"

    fields = {
        str(field.validation_alias or f"CRM_{name.upper()}"): default(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert {row[0].strip("`"): row[1] for row in reading.table(reading.section(README, "Settings"))} == fields


@pytest.fixture
def sqlite_api(path: Path) -> Iterator[Api]:
    with local(create_app(settings_of(f"sqlite:///{path}"))) as client:
        yield Api(client)


def test_the_map_of_the_api_has_each_route_and_no_other(sqlite_api: Api) -> None:
    paths = sqlite_api.get("/openapi.json")["paths"]
    routes = sorted((method.upper(), path) for path, methods in paths.items() for method in methods)
    rows = reading.table(reading.section(README, "The API"))
    calls = [call.rpartition(" ") for row in rows for call in re.findall(r"`([^`]+)`", row[0])]
    assert sorted((method, path) for methods, _, path in calls for method in methods.split(", ")) == routes


def test_the_statuses_are_those_that_there_are() -> None:
    statuses = [int(row[0]) for row in reading.table(reading.section(README, "Errors"))]
    assert sorted(statuses) == sorted({*DESCRIPTIONS, 404, 405, 422, 500})
    to_bots = {int(status) for row in reading.table(reading.section(BOTS, "When it fails")) for status in
               re.findall(r"\b\d{3}\b", row[0])}  # fmt: skip
    assert to_bots - {307} == {*statuses} - {405, 501}


def test_the_metrics_are_those_of_the_service(sqlite_api: Api) -> None:
    sqlite_api.contact(sqlite_api.source(weights={sqlite_api.operator(): 1}))
    sqlite_api.post("/subscriptions/", {"target": "https://hooks.example/"})
    tell([("delivery", {"subscription_id": 1, "outcome": "delivered"})])
    text = sqlite_api.client.get("/metrics").text
    kinds = {name: kind for name, kind in re.findall(r"^# TYPE (crm_\w+) (\w+)", text, re.M) if "_created" not in name}
    labels = {}
    for name, kind in kinds.items():
        sample = f"{name}_count" if kind == "histogram" else name
        labels[name] = set(re.findall(r"(\w+)=\"", next(re.finditer(rf"^{sample}(\{{.*\}})? ", text, re.M))[0]))
    named = {}
    for row in reading.table(reading.section(RUNNING, "Metrics")):
        named |= {name: set(filter(None, row[1].split(", "))) for name in re.findall(r"`(\w+)`", row[0])}
        assert "histogram" in row[2] or {kinds[name] for name in re.findall(r"`(\w+)`", row[0])} <= {"gauge", "counter"}
    assert named == labels
    in_rules = set(re.findall(r"\bcrm_\w+", "".join(b.text for b in reading.blocks(RUNNING) if b.language == "yaml")))
    assert {name.removesuffix("_count") for name in in_rules} <= kinds.keys()


def test_the_events_are_those_that_are_noted() -> None:
    noted = {"request"}
    for module in (ROOT / "crm").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("note", "tell"):
                name: Any = node.args[1] if node.func.id == "note" else node.args[0].elts[0].elts[0]  # type: ignore[attr-defined]
                assert isinstance(name, ast.Constant)
                noted.add(name.value)
    shown = {line for block in reading.blocks(RUNNING) for line in re.findall(r" INFO (.+?) logger=", block.text)}
    others = re.search(r"The other events are ([^.]+)\.", reading.section(RUNNING, "Logs"))
    assert others is not None
    assert {*shown, *re.findall("`([^`]+)`", others[1])} == noted


def test_the_roles_are_those_of_the_code() -> None:
    assert [row[0].strip("`") for row in reading.table(reading.section(RUNNING, "Keys"))] == [*get_args(Role)]


# --- inside ----------------------------------------------------------------------------------------------------------


def test_the_picture_of_the_rooms_is_that_of_the_house() -> None:
    [picture] = [block for block in reading.blocks(INSIDE) if block.language == "text"]
    lines = dict(line.split(maxsplit=1) for line in picture.text.splitlines())
    assert list(lines) == [str(level) for level in range(1, len(LEVELS) + 1)]
    for level, rooms in enumerate(LEVELS, 1):
        for room in rooms:
            assert re.search(rf"\b{room}\b", lines[str(level)]), room


def defined(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            members = [member for member in node.body if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)]
            names |= {f"{node.name}.{member.name}" for member in members}
    return names


def test_the_functions_on_the_way_of_a_contact_are_where_it_says() -> None:
    rows = reading.table(reading.section(INSIDE, "The way of one contact"))
    assert len(rows) > 10
    for row in rows:
        names = set(re.findall(r"`([\w.]+)`", row[2]))
        assert names <= defined(ROOT / row[1].strip("`")), row
        for name, file in re.findall(r"`([\w.]+)` of `([\w./]+)`", row[3]):
            assert name in defined(ROOT / file), row


def test_each_file_and_each_name_is_there() -> None:
    sources = [*(ROOT / "crm").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), ROOT / "pyproject.toml"]
    sources += [path for path in (ROOT / "crm/page").rglob("*.js") if "vendor" not in path.parts]
    code = "".join(path.read_text() for path in sources)
    words = {*re.findall(r"\w+", code), *re.findall(r"\w+", "".join(b.text for b in reading.blocks(INSIDE)))}
    functions = set().union(*map(defined, (path for path in sources if path.suffix == ".py")))
    for document in DOCUMENTS:
        written = {file for block in reading.blocks(document) for file in re.findall(r" > (\S+)", block.text)}
        for word in reading.code_words(document):
            if re.fullmatch(r"(crm|tests|\.ci)/[\w./]+", word):
                assert (ROOT / word).exists() or word in written, (document, word)
            elif re.fullmatch(r"[A-Z]\w+\.\w+", word):
                assert word in functions, (document, word)
            elif document == INSIDE and re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*(\(.*\))?", word):
                assert set(re.findall(r"\w+", word.partition("(")[0])) <= words, word


# --- bots ------------------------------------------------------------------------------------------------------------


@contextmanager
def answering(*statuses: int) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these answers in turn (0: none at all), and the bodies that it got."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            if status := statuses[len(bodies) - 1]:
                self.send_response(status)
                self.send_header("Retry-After", "7")
                self.end_headers()
                self.wfile.write(b'{"id": 1}')

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", bodies
        server.shutdown()
        thread.join()


def test_the_bot_sends_again_what_may_have_been_lost_and_nothing_that_is_wrong() -> None:
    block = next(block for block in reading.blocks(BOTS) if block.language == "python")
    names: dict[str, Any] = {}
    exec(block.text.partition("\nupdate = ")[0], names)  # noqa: S102
    waits: list[float] = []
    names["time"] = SimpleNamespace(sleep=waits.append)
    with answering(503, 0, 429, 201) as (names["URL"], bodies):
        assert names["register"]({"event_id": 1}) == {"id": 1}
    assert (waits, bodies) == ([7, 1, 7], [b'{"event_id": 1}'] * 4)
    for status in (307, 401, 404, 422, 500):
        with answering(status) as (names["URL"], bodies), pytest.raises(RuntimeError, match=str(status)):
            names["register"]({"event_id": 1})
        assert len(bodies) == 1
