"""A service, open or with keys, and a tab that shows its page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.conftest import app_on, empty_file
from tests.page.browser import Tab, team
from tests.service import Service, Thread, serving

ADMIN = "the-admin's-own-key"


@pytest.fixture
def service(path: Path) -> Iterator[Service]:
    url = empty_file(path)
    service = Thread(url, app_on(url))
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture
def tab(browser: Browser, service: Service) -> Iterator[Tab]:
    tab = Tab(browser, f"http://127.0.0.1:{service.port}")
    try:
        yield tab
    finally:
        tab.context.close()
    tab.check()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for keys, with Anna and Boris; it calls itself with the admin's."""
    with serving(empty_file(tmp_path_factory.mktemp("page") / "crm.db"), CRM_ADMIN_KEY=ADMIN) as service:
        service.headers = {"X-API-Key": ADMIN}
        team(service, Anna=50, Boris=50)
        yield service


@pytest.fixture
def locked(browser: Browser, guarded: Service) -> Iterator[Tab]:
    """A tab of the service that asks for keys."""
    tab = Tab(browser, f"http://127.0.0.1:{guarded.port}")
    tab.expected = ("401", "403", "429")
    try:
        yield tab
    finally:
        tab.context.close()
    tab.check()


def new_key(service: Service, role: str, **owner: int) -> tuple[int, str]:
    made = service.call("POST", "/keys/", {"role": role, "name": "test", **owner})
    return made["id"], made["key"]
