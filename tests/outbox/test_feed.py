"""The cursor: who passes it on misses none and sees none twice, whether writers commit, undo or overtake each other."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from crm.db import open_database
from crm.db.postgres import LOCK
from crm.outbox import feed as feeds
from crm.outbox.feed import ALL, Feed, Wanted
from tests.conftest import Api, app_on, local
from tests.effort import effort
from tests.postgres import connected, empty_database, sql

WRITERS = 8
ADD_LINE = (
    "INSERT INTO assignment (contact_id, reason, candidates, created_at)"
    " VALUES (1, 'closed', '[]', '2026-01-01 00:00:00.000000')"
)


@asynccontextmanager
async def feed_on(url: str) -> AsyncIterator[Feed]:
    database = open_database(url, 5)
    database.start(lambda _: None, migrate=False)
    feed = Feed(database)
    feed.start()
    try:
        yield feed
    finally:
        await feed.stop()
        await database.stop()


def on_feed(url: str, use: Callable[[Feed], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with feed_on(url) as feed:
            await asyncio.wait_for(use(feed), 120)

    asyncio.run(run())


async def first_page(feed: Feed, after: int, wanted: Wanted = ALL, idle: float = 20) -> tuple[list[int], int]:
    async with aclosing(feed.follow(after, wanted, 1000, idle)) as pages:
        async for events, cursor in pages:
            return [event.id for event in events], cursor
    raise AssertionError("closed")


def a_contact(url: str) -> None:
    with local(app_on(url)) as client:
        Api(client).contact(Api(client).source())


def write(url: str, commits: int, seed: int) -> None:
    """Lines of the history in transactions of random length, a quarter of which are undone, as the service writes."""
    rng = random.Random(seed)
    with connected(url) as connection:
        run = connection.exec_driver_sql
        is_sqlite = connection.dialect.name == "sqlite"
        if is_sqlite:
            run("PRAGMA busy_timeout = 60000")
        for _ in range(commits):
            run("BEGIN IMMEDIATE" if is_sqlite else "BEGIN")
            if not is_sqlite:
                run(f"SELECT pg_advisory_xact_lock_shared({LOCK})")
            for _ in range(rng.choice((1, 1, 3))):
                run(ADD_LINE)
                threading.Event().wait(rng.uniform(0, 0.003))
            run(rng.choice(("COMMIT", "COMMIT", "COMMIT", "ROLLBACK")))


def test_a_cursor_misses_none_of_what_many_writers_commit_and_undo(database: str) -> None:
    """And the same writers show a reader of `id > after` what it would miss, where ids are committed out of order."""
    a_contact(database)
    seen, plain = list[int](), list[int]()

    async def read(feed: Feed) -> None:
        commits = effort(20, 200) if database.startswith("sqlite") else effort(100, 1000)
        writers = [asyncio.create_task(asyncio.to_thread(write, database, commits, n)) for n in range(WRITERS)]
        done = asyncio.gather(*writers)

        def read_plainly() -> None:
            with connected(database) as connection:
                while not done.done():
                    after = plain[-1] if plain else 0
                    rows = connection.exec_driver_sql(f"SELECT id FROM assignment WHERE id > {after} ORDER BY id")
                    plain.extend(row[0] for row in rows)

        reader = asyncio.create_task(asyncio.to_thread(read_plainly))
        cursor, end = 0, None
        while end is None or cursor < end:
            ids, cursor = await first_page(feed, cursor, idle=0.2)
            seen.extend(ids)
            if done.done() and end is None:
                [(end,)] = sql(database, "SELECT max(id) FROM assignment")
        await asyncio.gather(done, reader)

    on_feed(database, read)
    there = [row[0] for row in sql(database, "SELECT id FROM assignment ORDER BY id")]
    assert seen == there
    missed = set(there[: there.index(plain[-1])]) - set(plain)
    assert bool(missed) == database.startswith("postgresql")


def test_a_follower_hears_of_what_another_process_commits_in_a_moment(database: str) -> None:
    a_contact(database)

    async def read(feed: Feed) -> None:
        head = await feed.head()
        reader = asyncio.create_task(first_page(feed, head))
        await asyncio.sleep(0.3)
        assert not reader.done()
        await asyncio.to_thread(sql, database, ADD_LINE)
        begin = asyncio.get_running_loop().time()
        assert await reader == ([head + 1], head + 1)
        assert asyncio.get_running_loop().time() - begin < 2

    on_feed(database, read)


def test_what_is_above_an_id_that_may_still_come_is_told_only_after_it() -> None:
    url = empty_database()
    a_contact(url)

    async def read(feed: Feed) -> None:
        head = await feed.head()
        with connected(url) as slow:
            for statement in ("BEGIN", f"SELECT pg_advisory_xact_lock_shared({LOCK})", ADD_LINE):
                slow.exec_driver_sql(statement)
            await asyncio.to_thread(sql, url, ADD_LINE)
            reader = asyncio.create_task(first_page(feed, head))
            await asyncio.sleep(0.5)
            assert not reader.done()
            slow.exec_driver_sql("COMMIT")
        assert await reader == ([head + 1, head + 2], head + 2)

    on_feed(url, read)


def test_what_is_above_an_id_that_was_undone_is_told_at_once() -> None:
    url = empty_database()
    a_contact(url)

    async def read(feed: Feed) -> None:
        head = await feed.head()
        for statement in ("SELECT nextval('assignment_id_seq')", ADD_LINE, ADD_LINE):
            await asyncio.to_thread(sql, url, statement)
        assert await first_page(feed, head) == ([head + 2, head + 3], head + 3)

    on_feed(url, read)


def test_an_event_of_a_deleted_line_is_passed_over(database: str) -> None:
    a_contact(database)

    async def read(feed: Feed) -> None:
        head = await feed.head()
        for statement in (ADD_LINE, ADD_LINE, ADD_LINE, f"DELETE FROM assignment WHERE id = {head + 2}"):
            await asyncio.to_thread(sql, database, statement)
        assert await first_page(feed, head) == ([head + 1, head + 3], head + 3)

    on_feed(database, read)


def test_the_cursor_moves_on_over_what_is_not_wanted(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a reader with a filter doesn't go through the same millions again."""
    monkeypatch.setattr(feeds, "WINDOW", 7)
    a_contact(database)

    async def read(feed: Feed) -> None:
        head = await feed.head()
        for _ in range(20):
            await asyncio.to_thread(sql, database, ADD_LINE)
        nothing = Wanted(types=frozenset({"contact.overdue"}))
        assert await first_page(feed, head, nothing, idle=0) == ([], head + 20)
        assert await first_page(feed, 0, Wanted(types=frozenset({"contact.closed"})), idle=0) == (
            list(range(head + 1, 8)),
            7,
        )

    on_feed(database, read)


def test_who_falls_behind_what_is_kept_for_all_reads_it_from_the_database(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "RECENT", 5)
    a_contact(database)

    async def read(feed: Feed) -> None:
        head = await feed.head()
        async with aclosing(feed.follow(head, limit=3, idle=20)) as pages:
            await asyncio.to_thread(sql, database, ADD_LINE)
            events, cursor = await anext(pages)
            seen = [event.id for event in events]
            for _ in range(17):
                await asyncio.to_thread(sql, database, ADD_LINE)
                await feed.head()
            while cursor < head + 18:
                events, cursor = await anext(pages)
                assert len(events) <= 3
                seen += [event.id for event in events]
        assert seen == list(range(head + 1, head + 19))

    on_feed(database, read)


def test_one_look_serves_all_and_none_is_made_while_nobody_follows(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_contact(database)

    async def read(feed: Feed) -> None:
        looks = 0
        settled = feed._database.settled

        async def count(after: int | None) -> int:
            nonlocal looks
            looks += 1
            return await settled(after)

        monkeypatch.setattr(feed._database, "settled", count)
        await asyncio.gather(*(feed.head() for _ in range(50)))
        assert looks <= 2
        await asyncio.sleep(0.6)
        assert looks <= 2

    on_feed(database, read)


def test_following_ends_when_the_feed_is_closed(database: str) -> None:
    async def read(feed: Feed) -> None:
        async def follow() -> list[Any]:
            return [page async for page in feed.follow(0)]

        followers = [asyncio.create_task(follow()) for _ in range(3)]
        await asyncio.sleep(0.3)
        feed.close()
        assert await asyncio.wait_for(asyncio.gather(*followers), 1) == [[], [], []]
        assert [page async for page in feed.follow(0)] == []

    on_feed(database, read)
