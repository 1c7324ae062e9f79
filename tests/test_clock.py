"""What is due by time is done without a call."""

import time

from tests.conftest import Api
from tests.day.shifts import Clock
from tests.test_queue import reasons


def test_what_was_not_accepted_is_passed_on_without_a_call(api: Api, clock: Clock) -> None:
    """A read is none: it changes nothing."""
    api.source(weights={api.operator("Anna"): 1, api.operator("Boris"): 1}, accept_within=60)
    api.contact(1)
    clock.tick(61)
    begin = time.monotonic()
    while len(reasons(api, 1)) == 1:
        assert time.monotonic() - begin < 5  # of these all but one are a busy machine's
        time.sleep(0.02)
    assert [reason for reason, _ in reasons(api, 1)] == ["distributed", "silent"]
