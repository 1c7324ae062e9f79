"""The lines of the log, as text or JSON: with the request's id, and without anybody's words.

No path, query, body, phone, e-mail, message or key, and no exception's own words: events, routes and ids.
"""

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from asgi_correlation_id import correlation_id

requests = logging.getLogger("crm.requests")  # a line for each


class Formatter(logging.Formatter):
    """A line for each record, as JSON or as text; `extra={"fields": {...}}` adds to it. Also for `log_config.json`."""

    def __init__(self) -> None:
        super().__init__()
        self.as_json = os.environ.get("CRM_LOG_FORMAT") == "json"  # the settings see to it that it is this or text

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": at, "level": record.levelname, "logger": record.name}
        line |= {"event": record.getMessage().strip(), "request_id": correlation_id.get() or "-"}
        line |= {name: value for name, value in getattr(record, "fields", {}).items() if value is not None}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line["exception"] = _without_words(error) if self.as_json else json.dumps(_without_words(error))
        if self.as_json:
            return json.dumps(line)
        fields = " ".join(f"{name}={value}" for name, value in line.items() if name not in ("time", "level", "event"))
        return f"{at} {record.levelname} {line['event']} {fields}"


def _without_words(error: BaseException | None) -> str:
    """Types and frames: the text of a database's error quotes the row."""
    parts = []
    while error is not None:
        parts.append(f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}")
        error = error.__cause__ or error.__context__
    return "from ".join(parts)


def set_up_logs() -> None:
    """For our lines and uvicorn's, whose own request lines say less; in each process of --workers too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter())
    for name in ("crm", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = ([] if name == "uvicorn.error" else [handler]), name == "uvicorn.error"
    logging.getLogger("crm").setLevel(logging.getLogger("uvicorn.error").level or logging.INFO)
    access = logging.getLogger("uvicorn.access")
    requests.disabled = not access.handlers  # uvicorn's --no-access-log is for our lines too
    access.handlers, access.propagate = [], False
