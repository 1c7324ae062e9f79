"""How much those tests try that try many cases: a little at each change, or (CRM_TESTS=release) all one can afford."""

import os

IS_RELEASE = {"": False, "quick": False, "release": True}[os.environ.get("CRM_TESTS", "")]


def effort(quick: int, release: int) -> int:
    """So many cases, operations or repetitions."""
    return release if IS_RELEASE else quick
