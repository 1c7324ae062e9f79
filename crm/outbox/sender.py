"""The one sender: of all processes on a database the one that holds the lease tells the subscriptions what happened.

Each process looks whether there is something to tell, and takes the lease only then. Each subscription is told in the
order of events, by a task of its own; what came of it is written together with a renewed lease, so that one that was
frozen, and followed by another, can't write any more. What was sent and not written is sent again, with the same id.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, delete, select, update
from sqlmodel import col

from crm.db.base import Database
from crm.events import note
from crm.fields import utcnow
from crm.outbox import people
from crm.outbox.deliveries import (
    SUCCESS,
    add_deliveries,
    after_failed_sending,
    after_failure,
    described,
    give_way,
    is_ripe,
    secrets_of,
    stands,
    switch_off,
    timed,
    wanted_by,
)
from crm.outbox.feed import ContactEvent, Feed, Wanted
from crm.outbox.lease import SUBSCRIPTION, Holder, LeaseLost, State
from crm.outbox.tables import IS_WAITING, Delivery, Subscription
from crm.outbox.webhooks import Failed, Message, Webhooks, message_of_test

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0  # seconds: for what was changed in other processes, and for what is due
TOGETHER = 0.2  # seconds: what comes meanwhile is told together
WRITE_EVERY = 0.2  # seconds, while one event after another is delivered
PAGE, AT_ONCE, AT_ONCE_AGAIN = 100, 100, 20  # events; subscriptions; those of which the last try failed
MOVE_AFTER = 1000  # ids without anything for a subscription, until its cursor is written all the same
TO_STOP = 3.0  # seconds for what is under way
KEPT = timedelta(days=30)  # the log of deliveries
PRUNE_EVERY, PRUNED_AT_ONCE = 3600, 1000  # seconds; deliveries, so that others may write in between


class Sender:
    """One in each process; begins with `start`, in the event loop."""

    def __init__(self, database: Database, feed: Feed, webhook_allow: str | None, public_url: str | None) -> None:
        self._database, self._feed, self._public_url = database, feed, public_url
        self._webhooks, self._people = Webhooks(webhook_allow), people.People()
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}  # what is under way, by kind and id
        self._positions: dict[int, tuple[int, Wanted, int]] = {}  # of a cursor: up to where nothing is wanted
        self._follower: asyncio.Task[None] | None = None
        self._pruned_at = -float(PRUNE_EVERY)

    def start(self) -> None:
        self._wake, self._is_stopping = asyncio.Event(), False
        self._free, self._free_again = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE_AGAIN)
        self._lease = Holder(self._database)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Lets what is under way end, if that does not take long, and the lease to others."""
        self._is_stopping = True
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._follower is not None:
            self._follower.cancel()
        if tasks := [*self._tasks.values()]:
            await asyncio.wait(tasks, timeout=TO_STOP)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), self._follower or asyncio.sleep(0), return_exceptions=True)
        await self._lease.give_back()
        await self._webhooks.close()
        self._people.close()

    def look(self) -> None:
        """Now, for a subscription was changed."""
        self._wake.set()

    async def _run(self) -> None:
        is_well = True
        while True:
            self._wake.clear()
            try:
                await self._look()
                is_well = True
            except LeaseLost:
                self._drop()
            except Exception as error:
                if is_well:
                    log.warning("subscriptions can't be looked at for now: %s", type(error).__name__)
                is_well = False
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._wake.wait()

    async def _look(self) -> None:
        busy = {*self._tasks}  # what ends meanwhile is here as it was before
        state = await self._database.look(lambda connection: State(connection, self._lease.name))
        await self._follow(bool(state.active))
        if not state.is_free:
            return
        due = [row for row in state.active if ("tell", row.id) not in busy and await self._is_due(row)]
        waiting = [each for each in state.waiting if ("send", each[0].id) not in busy and is_ripe(each[0])]
        if (due or waiting or self._tasks) and self._lease.is_to_be_renewed():
            await self._lease.write(lambda _: None, is_held=bool(self._tasks))
        for row in due:
            self._begin("tell", row.id, self._tell, row)
        for row, subscription in waiting:
            self._begin("send", row.id, self._send_waiting, row, subscription)
        if self._tasks and time.monotonic() - self._pruned_at > PRUNE_EVERY:
            old = select(col(Delivery.id)).where(col(Delivery.created_at) < utcnow() - KEPT)
            oldest = old.order_by(col(Delivery.created_at)).limit(PRUNED_AT_ONCE)
            prune = delete(Delivery).where(col(Delivery.id).in_(oldest))
            if await self._lease.write(lambda connection: connection.execute(prune).rowcount) < PRUNED_AT_ONCE:
                self._pruned_at = time.monotonic()

    async def _follow(self, is_wanted: bool) -> None:
        """While there are subscriptions, the feed says when to look."""

        async def follow() -> None:
            async for _ in self._feed.follow(await self._feed.head(), idle=3600):
                self._wake.set()
                await asyncio.sleep(TOGETHER)

        if self._follower is not None and (not is_wanted or self._follower.done()):
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
            self._follower = None
        if is_wanted and self._follower is None:
            self._follower = asyncio.create_task(follow())
            await self._feed.head()

    async def _is_due(self, row: Any) -> bool:
        """Whether there is something for it now; remembers where there is not."""
        if row.next_attempt_at is not None and row.next_attempt_at > utcnow():
            return False
        wanted = wanted_by(row)
        *of, position = self._positions.get(row.id, (None, None, 0))
        position = position if of == [row.cursor, wanted] else row.cursor
        while True:
            events, after = await self._feed.read(position, wanted, PAGE)
            if events or after - row.cursor > MOVE_AFTER:
                return True
            self._positions[row.id] = row.cursor, wanted, after
            if after == position:
                return False
            position = after

    def _begin(self, kind: str, id_: int, work: Callable[..., Any], *arguments: Any) -> None:
        async def run() -> None:
            try:
                await work(*arguments)
            except LeaseLost:
                self._drop()
            except Exception as error:
                log.warning("what was sent was not written: %s", type(error).__name__, extra={"fields": {kind: id_}})
                self._lease.let_go()
                await asyncio.sleep(LOOK_EVERY)

        def end(_: asyncio.Task[None]) -> None:
            del self._tasks[kind, id_]
            self._wake.set()

        self._tasks[kind, id_] = asyncio.create_task(run())
        self._tasks[kind, id_].add_done_callback(end)

    def _drop(self) -> None:
        """Another process sends by now: whatever is still under way here is its to do."""
        self._lease.let_go()
        for task in self._tasks.values():
            if task is not asyncio.current_task():
                task.cancel()

    @asynccontextmanager
    async def _place(self, free: asyncio.Semaphore, row: Any) -> AsyncGenerator[Any]:
        """Waits for one; the subscription as it is then, None if it is gone."""
        has_to_wait = free.locked()
        async with free:
            if has_to_wait:
                now = select(*SUBSCRIPTION).where(col(Subscription.id) == row.id)
                row = await self._database.look(lambda connection: connection.execute(now).one_or_none())
            yield row

    async def _tell(self, row: Any) -> None:
        """Sends to one subscription until there is nothing more for it, or it has to wait."""
        send = self._send_message if row.secret is None else self._send_webhooks
        async with self._place(self._free_again if row.attempts else self._free, row) as row:
            while row is not None and row.is_active and self._lease.is_held() and not self._is_stopping:
                if row.next_attempt_at is not None and row.next_attempt_at > utcnow():
                    return
                events, after = await self._feed.read(row.cursor, wanted_by(row), PAGE)
                if not events and after - row.cursor <= MOVE_AFTER:
                    return
                row = await send(row, events, after)

    async def _send_webhooks(self, row: Any, events: Iterable[ContactEvent], after: int) -> Any:
        """One after the other; the row as it is then."""
        done: list[dict[str, Any]] = []
        cursor, written_at = row.cursor, time.monotonic()
        for event in events:
            if time.monotonic() - written_at > WRITE_EVERY or not self._lease.is_held() or self._is_stopping:
                after = cursor  # the rest is read again
                break
            delivery = {"event_id": event.id, "events": 1, "attempt": row.attempts + 1 if not done else 1}
            message = Message(f"evt_{event.id}", event.json_text)
            try:
                done.append(delivery | await timed(self._webhooks.send(row.target, message, secrets_of(row))))
            except Failed as failed:
                if done:  # what went well is written first
                    row = await self._record(row, {**SUCCESS, "cursor": cursor}, done)
                    if row is None or row.cursor != cursor:
                        return row
                changes, outcome = after_failure(row, event.id, failed)
                return await self._record(row, changes, [{**delivery, **described(failed), "outcome": outcome}])
            cursor = event.id
            await give_way()
        return row if after == row.cursor else await self._record(row, {**SUCCESS, "cursor": after}, done)

    async def _send_message(self, row: Any, events: list[ContactEvent], after: int) -> Any:
        """All that waits, in one; the row as it is then."""
        shown = people.of_interest(row, events)
        if not shown:
            return await self._record(row, {"cursor": after, "next_attempt_at": None, "blocked_by": None}, [])
        text = await self._database.look(lambda connection: people.compose(connection, row, shown, self._public_url))
        delivery = {"event_id": shown[-1].id, "events": len(shown), "attempt": row.attempts + 1}
        try:
            delivery |= await timed(self._people.send(row.target, text))
        except Failed as failed:
            changes, outcome = after_failure(row, shown[0].id, failed)
            return await self._record(row, changes, [{**delivery, **described(failed), "outcome": outcome}])
        alerted = {"alerted_at": utcnow()} if any(event.type in people.ALERTS for event in shown) else {}
        return await self._record(row, {**SUCCESS, **alerted, "cursor": after}, [delivery])

    async def _record(self, row: Any, changes: dict[str, Any], deliveries: list[dict[str, Any]]) -> Any:
        """Moves the subscription on, unless somebody (alone, so not meanwhile) has changed how it stands; and logs."""
        present = select(*SUBSCRIPTION).where(col(Subscription.id) == row.id)
        move = update(Subscription).where(col(Subscription.id) == row.id).values(changes).returning(*SUBSCRIPTION)

        def work(connection: Connection) -> Any:
            now = connection.execute(present).one_or_none()
            is_moved = now is not None and stands(now) == stands(row)
            now = connection.execute(move).one() if is_moved else now
            if now is not None and deliveries:
                add_deliveries(connection, row.id, deliveries)
            if is_moved and changes.get("is_active") is False:
                switch_off(connection, now)
            return now

        return await self._lease.write(work)

    async def _send_waiting(self, row: Any, subscription: Any) -> None:
        """A test, or a notice."""
        async with self._place(self._free, subscription) as subscription:
            if subscription is None:
                return
            try:
                if subscription.secret is None:
                    language = subscription.language
                    text = await self._database.look(lambda connection: people.text_of(connection, row, language))
                    result = await timed(self._people.send(subscription.target, text))
                else:
                    message = message_of_test(row.id, row.created_at)
                    result = await timed(self._webhooks.send(subscription.target, message, secrets_of(subscription)))
            except Failed as failed:
                result = after_failed_sending(row, failed)
        done = update(Delivery).where(col(Delivery.id) == row.id, IS_WAITING).values({"error": None, **result})

        def work(connection: Connection) -> None:
            connection.execute(done)
            told = {"subscription_id": row.subscription_id, "kind": row.kind, "event_id": None}
            note(connection, "delivery", **told, outcome=result.get("outcome", "failed"), status=result.get("status"))

        await self._lease.write(work)
