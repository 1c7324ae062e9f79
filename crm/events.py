"""What happens: told to the log and to whoever counts it (`metrics`), once it is committed.

Events hold ids and numbers only: no phone, e-mail, name, message or key.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

log = logging.getLogger(__name__)
Event = tuple[str, dict[str, Any]]
listeners: list[Callable[[str, dict[str, Any]], None]] = []


def note(connection: Connection, name: str, **fields: Any) -> None:
    """In a transaction: it is told after the commit, and not at all if that does not come."""
    connection.info.setdefault("events", []).append((name, fields))


def note_assigned(connection: Connection, seen: Sequence[dict[str, Any]], **contact: Any) -> None:
    """Notes what happened to a contact: contact_id, source_id, operator_id, reason, `waited`: seconds, if for the first
    time. seen: as from `draw`."""
    if contact["operator_id"] is None:
        note(connection, "contact left without operator", **contact)
        return
    note(connection, "contact assigned", **contact)
    chosen = next(candidate for candidate in seen if candidate["outcome"] == "chosen")
    load, max_load = chosen["load"] + 1, chosen["max_load"]
    if load == max_load:
        note(connection, "limit reached", operator_id=contact["operator_id"], load=load, max_load=max_load)


def tell(events: Sequence[Event], to: logging.Logger = log) -> None:
    for name, fields in events:
        if not to.disabled and to.isEnabledFor(logging.INFO):
            to.info(name, extra={"fields": fields})
        for listener in listeners:
            try:
                listener(name, fields)
            except Exception:  # it happened all the same, and that is what the caller must be told
                to.exception("not counted")
