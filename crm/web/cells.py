"""CSV as a spreadsheet may open it: UTF-8 with a BOM, RFC 4180, and no cell that it would run."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

BOM = "\ufeff"
STARTS_FORMULA = frozenset("=+-@\t\r\n")
PHONES = re.compile(r"\+\d+(; \+\d+)*")  # in E.164: digits only, so there is nothing to run


def harmless(cell: str) -> str:
    """With an apostrophe before it if a spreadsheet would run it."""
    return f"'{cell}" if cell[:1] in STARTS_FORMULA and not PHONES.fullmatch(cell) else cell


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """None is an empty cell."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()
