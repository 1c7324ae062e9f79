"""The app of a process whose clock goes wrong, by TESTS_AHEAD seconds, and which (TESTS_DIES) ends in the middle of the
first work of more than a hundred contacts."""

import os
import signal
from datetime import timedelta

import crm.fields
from crm.main import app
from crm.queue import Distributor

__all__ = ["app"]

crm.fields.ahead = timedelta(seconds=float(os.environ.get("TESTS_AHEAD", "0")))


def die(distributor: Distributor) -> None:
    """Half of it is written by then."""
    is_much = len(distributor._moves) > 100
    write(distributor)
    if is_much:
        os.kill(os.getpid(), signal.SIGKILL)


if "TESTS_DIES" in os.environ:
    write, Distributor._write = Distributor._write, die  # type: ignore[method-assign]
