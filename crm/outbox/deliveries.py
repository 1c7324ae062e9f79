"""What came of a delivery: when the next try is, what is passed over, who is switched off, and the log of it all."""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlmodel import col

from crm.events import note
from crm.fields import MAX_ID, utcnow
from crm.outbox import people
from crm.outbox.feed import Wanted, read_events
from crm.outbox.lease import SUBSCRIPTION
from crm.outbox.tables import Delivery, Subscription
from crm.outbox.webhooks import Failed

RETRIES = (5, 300, 1800, *(hours * 3600 for hours in (2, 5, 10, 14, 20, 24)))  # seconds from one try to the next
FINAL_TRIES = 3  # of what would fail again, until it is passed over
GIVE_WAY = 4  # times as long as a turn of the event loop
LONGEST_WAIT = 24 * 3600  # seconds, whatever the receiver asks for
SUCCESS = {"attempts": 0, "next_attempt_at": None, "blocked_by": None}


def wanted_by(row: Any) -> Wanted:
    types = row.types or (people.TYPES if row.secret is None else None)
    return Wanted(types and frozenset(types), row.source_id, row.operator_id)


def stands(row: Any) -> tuple[Any, ...]:
    """What decides what it is told next."""
    return row.cursor, row.attempts, row.target, wanted_by(row)


def secrets_of(row: Any) -> list[str]:
    """With which it is signed: for a day after a change with both."""
    is_both = row.old_secret is not None and row.old_secret_until > utcnow()
    return [row.secret, *([row.old_secret] if is_both else [])]


async def timed(sending: Awaitable[int | None]) -> dict[str, Any]:
    """What is logged of a success."""
    begin = time.perf_counter()
    status = await sending
    return {"outcome": "delivered", "status": status, "seconds": round(time.perf_counter() - begin, 3)}


async def give_way() -> None:
    """Waits, the longer the more there is to do besides: who registers contacts must not feel that others are told."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await asyncio.sleep(0)
    await asyncio.sleep(GIVE_WAY * (loop.time() - begin))


def described(failed: Failed) -> dict[str, Any]:
    return {"status": failed.status, "error": str(failed)[:200]}


def after_failure(row: Any, event_id: int, failed: Failed) -> tuple[dict[str, Any], str]:
    """What becomes of the subscription, and the outcome."""
    attempts = row.attempts + 1
    failure = {"attempts": attempts, "next_attempt_at": None, "blocked_by": event_id}
    if failed.is_gone or attempts > len(RETRIES):
        return {**failure, "is_active": False, "off_reason": "gone" if failed.is_gone else "failed"}, "failed"
    if failed.is_final and attempts >= FINAL_TRIES:
        return {**SUCCESS, "cursor": event_id}, "passed_over"
    wait = max(RETRIES[attempts - 1], min(failed.retry_after, LONGEST_WAIT))
    return {**failure, "next_attempt_at": utcnow() + timedelta(seconds=wait)}, "failed"


def is_ripe(row: Any) -> bool:
    """Of what is `waiting`: a notice that failed waits as an event does, from when it was made."""
    return bool(row.created_at + timedelta(seconds=sum(RETRIES[: row.attempt - 1])) <= utcnow())


def after_failed_sending(row: Any, failed: Failed) -> dict[str, Any]:
    """What becomes of a test, which is sent once, or of a notice."""
    if row.kind == "notice" and row.attempt < FINAL_TRIES:
        return {**described(failed), "attempt": row.attempt + 1}
    return {**described(failed), "outcome": "failed"}


def add_deliveries(connection: Connection, subscription_id: int, deliveries: Iterable[dict[str, Any]]) -> None:
    fixed = {"subscription_id": subscription_id, "kind": "events", "created_at": utcnow()}
    rows = [{**fixed, "status": None, "error": None, "seconds": None, **delivery} for delivery in deliveries]
    connection.execute(insert(Delivery).inline(), rows)
    for row in rows:
        told = {name: row[name] for name in ("subscription_id", "kind", "event_id", "outcome", "status")}
        note(connection, "delivery", **told)


def switch_off(connection: Connection, row: Any) -> None:
    """Tells the log, and whoever gets messages about the whole team."""
    note(connection, "subscription switched off", subscription_id=row.id, reason=row.off_reason)
    of_team = select(col(Subscription.id)).where(
        col(Subscription.secret).is_(None), col(Subscription.operator_id).is_(None)
    )
    others = connection.execute(of_team.where(col(Subscription.is_active), col(Subscription.id) != row.id)).scalars()
    for other in others.all():
        notice = {"subscription_id": other, "kind": "notice", "events": 0, "outcome": "waiting", "attempt": 1}
        connection.execute(insert(Delivery).inline(), {**notice, "about_id": row.id, "created_at": utcnow()})


def oldest_waiting(connection: Connection) -> Iterator[tuple[int, str, float]]:
    """Of each subscription its id, its name, and the age in seconds of the oldest event that it has yet to be told; 0:
    none. Not of those that were switched off by hand."""
    is_to_be_told = col(Subscription.is_active) | col(Subscription.off_reason).is_not(None)
    for row in connection.execute(select(*SUBSCRIPTION).where(is_to_be_told).order_by(col(Subscription.id))).all():
        oldest = read_events(connection, row.cursor, MAX_ID, wanted_by(row), 1)
        yield row.id, row.name or "", (utcnow() - oldest[0].timestamp).total_seconds() if oldest else 0.0
