"""A real Chromium for the tests of the page; and axe-core, which finds what keeps people from using it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
MUST = os.environ.get("CRM_BROWSER_TESTS") == "must"  # set by .ci/run: then nothing is skipped


def needs(what: object, name: str) -> None:
    if not what:
        (pytest.fail if MUST else pytest.skip)(f"the tests of the page need {name}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    needs(CHROMIUM, "Chromium: such as by `apt-get install chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*OPTIONS, "--disable-sync"])
        yield browser
        browser.close()


@lru_cache
def axe() -> str:
    """Its script, from npm."""
    npm = shutil.which("npm")
    needs(npm, "npm, for axe-core")
    folder = Path(mkdtemp(prefix="axe-"))
    command = [str(npm), "install", "--prefix", str(folder), "--no-audit", "--no-fund", "axe-core@~4.14.1"]
    result = subprocess.run(command, capture_output=True, timeout=120, check=False)
    needs(result.returncode == 0, f"axe-core from npm: {result.stderr.decode(errors='replace')[-300:]}")
    script = (folder / "node_modules/axe-core/axe.min.js").read_text()
    shutil.rmtree(folder)
    return script


class Tab:
    """A page in a context of its own. What it must never do is noted, for `check`: errors, calls of other hosts."""

    def __init__(self, browser: Browser, base: str, **options: Any) -> None:
        """base: the URL of the service. options: of the browser's context, such as locale and viewport."""
        options = {"locale": "en-US", "viewport": {"width": 1280, "height": 900}, **options}
        self.base = base
        self.context: BrowserContext = browser.new_context(**options)
        self.context.set_default_timeout(8_000)
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.expected: tuple[str, ...] = ()  # parts of errors that the test provokes
        self.page = self.open()

    def open(self) -> Page:
        page = self.context.new_page()
        page.on("request", lambda request: self._note(request.url))
        page.on("console", lambda line: line.type in ("error", "warning") and self.problems.append(line.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        return page

    def _note(self, url: str) -> None:
        self.requests.append(url)
        if not url.startswith((self.base, "data:", "blob:")):
            self.problems.append(f"a request to {url}")

    def check(self) -> None:
        self.context.close()
        unexpected = [text for text in self.problems if not any(part in text for part in self.expected)]
        assert not unexpected, unexpected

    def go(self, view: str = "") -> Page:
        """Shows the page, or changes to another of its views."""
        self.page.goto(f"{self.base}/#{view}" if view else f"{self.base}/")
        self.page.locator("main").wait_for()
        return self.page

    def axe(self) -> list[str]:
        """The serious and critical findings."""
        self.page.evaluate(axe())
        found = self.page.evaluate("axe.run().then(({violations}) => violations)")
        return [
            f"{one['id']}: {node['html'][:200]}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
