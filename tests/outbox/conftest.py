"""What the tests of the outbox share: a service that may send to this machine, and receivers on it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from crm.outbox import deliveries, sender
from tests.conftest import Api, app_on, local
from tests.outbox.receiver import Receiver, receiving


@pytest.fixture
def told(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A service whose webhooks may go to this machine, and which tries again at once."""
    monkeypatch.setattr(deliveries, "RETRIES", (0.02,) * 9)
    monkeypatch.setattr(sender, "LOOK_EVERY", 0.05)
    with local(app_on(database, webhook_allow="127.0.0.0/8", public_url="https://crm.example")) as client:
        yield Api(client)


@pytest.fixture
def receivers() -> Iterator[Callable[[], Receiver]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(receiving())


@pytest.fixture
def receiver(receivers: Callable[[], Receiver]) -> Receiver:
    return receivers()


def subscribe(api: Api, target: str, **fields: Any) -> Any:
    """The subscription, with its secret."""
    return api.post("/subscriptions/", {"target": target, **fields})


def contacts(api: Api, count: int) -> None:
    """So many events: contacts of a lead that somebody gets."""
    sources = api.get("/sources/")
    source_id = sources[0]["id"] if sources else api.source(weights={api.operator(max_load=100_000): 1})
    for _ in range(count):
        api.contact(source_id)


def log_of(api: Api, subscription_id: int = 1) -> list[Any]:
    """The log of deliveries, oldest first."""
    return list(reversed(api.get(f"/subscriptions/{subscription_id}/deliveries?limit=1000")))


def until(read: Callable[[], Any], is_so: Callable[[Any], Any], seconds: float = 20) -> Any:
    """What it reads, when it is so."""
    deadline = time.monotonic() + seconds
    while not is_so(value := read()):
        assert time.monotonic() < deadline, value
        time.sleep(0.01)
    return value
