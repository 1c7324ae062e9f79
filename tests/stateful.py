"""A hypothesis state machine on either engine: each example has a database of its own, which `open` makes."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis.stateful import RuleBasedStateMachine

from tests.conftest import empty_file
from tests.postgres import empty_database


class OnSQLite(RuleBasedStateMachine):
    def open(self) -> str:
        self.folder = Path(tempfile.mkdtemp(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))  # where all tests have theirs
        return empty_file(self.folder / "crm.db")

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


class OnPostgreSQL(RuleBasedStateMachine):
    def open(self) -> str:
        return empty_database()
