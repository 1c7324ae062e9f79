"""A real Chromium for the tests of the page; and axe-core, which finds what keeps people from using it."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.effort import effort
from tests.service import Service

OPTIONS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
STREAM = "/events/stream"
expect.set_options(timeout=30_000)
AXE = (files("axe_playwright_python") / "axe.min.js").read_text()

# In these each window is looked at; in both widths, but axe, which takes long, sees the second two in a release only.
WIDTHS = (390, 1280)
LOOKS = [(1280, "light", "en-US"), (390, "dark", "ru-RU"), (390, "light", "en-US"), (1280, "dark", "ru-RU")]
LOOKS = LOOKS[: effort(2, 4)]


def chromium() -> str | None:
    """The machine's own, else (None) the one that playwright fetches."""
    for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"):  # the first works least
        if path := shutil.which(name):
            return path
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode != 0:
        pytest.fail(f"no Chromium here (apt-get install chromium), and none to be fetched: {result.stderr[-500:]}")
    return None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=[*OPTIONS, "--disable-sync"])
        yield browser
        browser.close()


def where_it_is_noon() -> str:
    """A zone where it is between 12 and 13 o'clock, so that some hours before or after it is still the same day."""
    return f"Etc/GMT{datetime.now(UTC).hour - 12:+}"


class Tab:
    """A page in a context of its own. What it must never do is noted, for `check`: errors, calls of other hosts."""

    def __init__(self, browser: Browser, base: str, **options: Any) -> None:
        """base: the URL of the service. options: of the browser's context, such as locale and viewport."""
        size = {"width": 1280, "height": 900}
        options = {"locale": "en-US", "viewport": size, "timezone_id": where_it_is_noon(), **options}
        self.zone = ZoneInfo(options["timezone_id"])  # of who looks
        self.base = base
        self.context: BrowserContext = browser.new_context(**options)
        self.context.set_default_timeout(30_000)
        self.requests: list[str] = []
        self.ended = 0  # of the requests
        self.streams = 0  # asked for; they are not among the requests, for they don't end
        self.problems: list[str] = []
        self.expected: tuple[str, ...] = ()  # parts of errors that the test provokes
        self.page = self.open()

    def open(self) -> Page:
        page = self.context.new_page()
        page.on("request", lambda request: self._note(request.url))
        page.on("requestfinished", lambda request: self._end(request.url))
        page.on("requestfailed", lambda request: self._end(request.url))
        page.on("console", lambda line: line.type in ("error", "warning") and self.problems.append(line.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        return page

    def _note(self, url: str) -> None:
        if url.endswith(STREAM):
            self.streams += 1
        else:
            self.requests.append(url)
        if not url.startswith((self.base, "data:", "blob:")):
            self.problems.append(f"a request to {url}")

    def _end(self, url: str) -> None:
        self.ended += not url.endswith(STREAM)

    def settle(self) -> None:
        """Waits until nothing is asked for any more, and what was answered is shown."""
        deadline = time.monotonic() + 30
        while self.ended < len(self.requests):
            assert time.monotonic() < deadline, self.requests
            self.page.wait_for_timeout(50)
        self.page.wait_for_timeout(200)

    def check(self) -> None:
        self.context.close()
        unexpected = [text for text in self.problems if not any(part in text for part in self.expected)]
        assert not unexpected, unexpected

    def go(self, view: str = "") -> Page:
        """Shows the page, or changes to another of its views."""
        self.page.goto(f"{self.base}/#{view}" if view else f"{self.base}/")
        self.page.locator("main").wait_for()
        return self.page

    def deafen(self) -> None:
        """From now on no stream can be opened."""
        self.expected += ("ERR_FAILED",)
        self.context.route(f"**{STREAM}", lambda route: route.abort())

    def look(self, picture: Path) -> list[tuple[str, str]]:
        """Takes it, and checks that all fits and no text became HTML; what axe finds, each with the picture's name."""
        size = self.page.viewport_size
        assert size is not None
        for width in sorted(WIDTHS, key=size["width"].__eq__):  # its own comes last
            self.page.set_viewport_size({**size, "width": width})
            for part in ("document.documentElement", "document.querySelector('dialog[open]') ?? document.body"):
                is_whole = f"(part => part.scrollWidth <= part.clientWidth)({part})"
                assert self.page.evaluate(is_whole), (picture.stem, width)
        assert self.page.locator("#page :is(b, script, img), dialog :is(b, script, img)").count() == 0
        self.page.screenshot(path=picture)
        return [(picture.stem, problem) for problem in self.axe()]

    def axe(self) -> list[str]:
        """The serious and critical findings."""
        self.page.evaluate(AXE)
        found = self.page.evaluate("axe.run().then(({violations}) => violations)")
        return [
            f"{one['id']}: {node['html'][:200]}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]


def team(service: Service, **limits: int) -> None:
    """Operators 1, 2... with these limits; source 1 "Shop" with weights 1, 3, 5..."""
    for name, max_load in limits.items():
        service.call("POST", "/operators/", {"name": name, "max_load": max_load})
    service.call("POST", "/sources/", {"name": "Shop", "bot_id": "shop_bot"})
    entries = [{"operator_id": number + 1, "weight": 2 * number + 1} for number in range(len(limits))]
    service.call("PUT", "/sources/1/operators", entries)


def write(service: Service, lead: str = "tg:1", **fields: Any) -> Any:
    return service.call("POST", "/contacts/", {"source_id": 1, "lead_external_id": lead, **fields})


def row(page: Page, text: str) -> Any:
    return page.locator("main li").filter(has_text=text)


def hide(page: Page, hidden: bool = True) -> None:
    """As if another tab were in front, or this one again."""
    page.evaluate(f"Object.defineProperty(document, 'hidden', {{value: {str(hidden).lower()}, configurable: true}})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wheel_down_to(page: Page, what: Locator, text: str) -> None:
    """Turns the wheel until there is that text. A turn that comes while a window opens scrolls nothing."""
    page.mouse.move(640, 450)
    wait_for(lambda: bool(page.mouse.wheel(0, 100_000)) or text in (what.text_content() or ""))


@contextmanager
def under_prefix(service: Service) -> Iterator[int]:
    """A proxy that serves the app under /crm and strips that; its port."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with closing(service.connect()) as connection:
                connection.request(self.command, self.path.removeprefix("/crm"), body, dict(self.headers))
                answer = connection.getresponse()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length"):
                        self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):  # the browser leaves a stream, which has no end
                    while piece := answer.read1():
                        self.wfile.write(piece)

        do_GET = do_POST = forward

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
