"""The index of the search on SQLite (FTS5): one for all that a lead is called.

Each write into it alone would cost as much as a registration. So triggers note whose words have changed, and `catch_up`
puts many into the index at once, a segment of it; now and then segments are merged, in small steps.
"""

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError
from sqlmodel import Session

MARKS = "\x02\x02"
ALIKE_IN_INDEX = {"ß": "ss", "ẞ": "ss", "İ": "i", "ı": "i", "\u0307": "", "ς": "σ"}
MARKED = {end: end + MARKS for end in " -"}  # after either a word begins
AT_ONCE = 500  # leads that get into the index in one transaction, of about 20 ms; fewer stay noted
LETTERS = 30_000  # or so many letters: 500 leads have 20,000 if nobody has many or long identifiers
MANY = 10_000  # noted ones, of which the start makes the index, and does not leave it to the clock
PAGES = 32  # of the index that are merged in one
LATER, ANEW, WHOLE = 0, -1, -2  # notes that are no lead's: to be merged; wholly, for one is forgotten; it has begun

log = logging.getLogger(__name__)


class Unreadable(Exception):
    """FTS5 can't work with what the file has of the index. Nothing else of the transaction is lost."""


def _indexed(text: str) -> str:
    """This column as it is indexed, in SQL; revision 0010 has the same for PostgreSQL."""
    for letters, instead in {**ALIKE_IN_INDEX, **MARKED}.items():
        text = f"replace({text}, '{letters}', '{instead}')"
    return f"coalesce(char(10) || '{MARKS}' || {text}, '')"


VALUES = f"SELECT coalesce(group_concat({_indexed('value')}, ''), '') FROM lead_identifier WHERE lead_id = lead.id"  # noqa: S608
SOME = "(SELECT lead_id FROM lead_search_noted WHERE lead_id > 0 AND lead_id <= ?)"
INDEX = (  # what is noted up to this one
    f"DELETE FROM lead_search WHERE rowid IN {SOME}",  # noqa: S608
    f"INSERT INTO lead_search (rowid, words) SELECT id, {_indexed('name')} || ({VALUES}) FROM lead WHERE id IN {SOME}",  # noqa: S608
    "DELETE FROM lead_search_noted WHERE lead_id > 0 AND lead_id <= ?",
)
NOTED = "SELECT lead_id FROM lead_search_noted WHERE lead_id > 0 ORDER BY lead_id LIMIT ?"
LENGTHS = f"""SELECT lead_id, (SELECT length(name) FROM lead WHERE id = lead_id),
    (SELECT sum(length(value)) FROM lead_identifier AS of WHERE of.lead_id = noted.lead_id),
    (SELECT length(words) FROM lead_search WHERE rowid = lead_id) FROM ({NOTED}) AS noted"""  # noqa: S608
NOTE = "INSERT OR IGNORE INTO lead_search_noted VALUES (?)"
DONE = "DELETE FROM lead_search_noted WHERE lead_id = ?"


def has_index(connection: Connection) -> bool:
    """Also False when the file has one, and this SQLite can't read it. PostgreSQL always has."""
    return connection.dialect.name != "sqlite" or (can_index(connection) and _is_there(connection))


def can_index(connection: Connection) -> bool:
    """Since 3.34 SQLite has trigrams. A build that can't tell its modules is taken for one without FTS5."""
    return (
        sqlite3.sqlite_version_info >= (3, 34) and "fts5" in connection.exec_driver_sql("PRAGMA module_list").scalars()
    )


def warn(connection: Connection) -> None:
    """Tells at a start what an administrator should know."""
    if has_index(connection):
        return
    log.info("no index of the search: each reads all leads (it needs SQLite with FTS5, and a migration)")
    if _is_there(connection):
        log.warning(
            "the file has one that this SQLite can't read: in it stays what is changed and forgotten (running.md)"
        )


def _is_there(connection: Connection) -> bool:
    is_there = "SELECT 1 FROM sqlite_schema WHERE name = 'lead_search'"
    return connection.exec_driver_sql(is_there).first() is not None


def prepare(connection: Connection) -> None:
    """Makes the index if there is none and it can be made: of a million leads in half a minute. If there is one, it
    gets what is noted, when that is so much that `catch_up` would take long.
    """
    if connection.dialect.name != "sqlite" or not can_index(connection):
        return
    run = connection.exec_driver_sql
    if not _is_there(connection):
        run("CREATE VIRTUAL TABLE lead_search USING fts5 (words, detail=none, columnsize=0, tokenize='trigram')")
        # `catch_up` merges, in small steps: what is there 16 times, for more often costs more than a search gains.
        for option, value in (("automerge", 0), ("usermerge", 16), ("crisismerge", 64)):
            run("INSERT INTO lead_search (lead_search, rank) VALUES (?, ?)", (option, value))
        run("INSERT OR IGNORE INTO lead_search_noted SELECT id FROM lead")
    elif _count_noted(connection, MANY) < MANY:
        return
    try:
        with _unreadable():
            _index_all(connection)
    except Unreadable as error:  # what is noted stays so, and the clock will tell it too
        log.warning("the index of the search can't be used: %s", error)


def _index_all(connection: Connection) -> None:
    done, told = 0, time.monotonic()
    while some := connection.exec_driver_sql(NOTED, (MANY,)).scalars().all():
        _index(connection, some[-1])
        done += len(some)
        if time.monotonic() - told > 5:
            log.info("the index of the search is made: %d leads are in it", done)
            told = time.monotonic()
    connection.exec_driver_sql(NOTE, (LATER,))


def is_behind(connection: Connection) -> bool:
    """Whether `catch_up` has something to do."""
    if not has_index(connection) or connection.dialect.name != "sqlite":
        return False
    later = connection.exec_driver_sql("SELECT 1 FROM lead_search_noted WHERE lead_id <= 0").first()
    return later is not None or _count_noted(connection, AT_ONCE) == AT_ONCE


def _count_noted(connection: Connection, most: int) -> int:
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM ({NOTED})", (most,)).scalar_one())  # noqa: S608


def catch_up(session: Session) -> None:
    """A step, in a transaction of its own: some of what is noted gets into the index, and some segments are merged.

    Only a whole merge leaves nothing of what was taken out, so that follows a forgotten lead. Until it is done nothing
    else gets into the index: FTS5 leaves a merge for new segments, and would have to begin anew. Raises Unreadable.
    """
    with _unreadable():
        _step(session.connection())


@contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        # Other errors, such as a full disk, may have undone the whole transaction.
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT):
            raise Unreadable(str(error.orig)) from error
        raise


def _step(connection: Connection) -> None:
    run = connection.exec_driver_sql
    marks = run("SELECT lead_id FROM lead_search_noted WHERE lead_id <= 0").scalars().all()
    if WHOLE in marks:
        if not _merge(connection, PAGES) and not _merge(connection, -PAGES):
            run(DONE, (WHOLE,))
        return
    noted = _count_noted(connection, AT_ONCE)
    if noted == AT_ONCE or (noted and ANEW in marks):
        run(NOTE, (LATER,))
        _index(connection, _last_of_a_step(connection))
    has_merged = _merge(connection, PAGES)
    if ANEW in marks and not _count_noted(connection, 1):
        run(DONE, (ANEW,))
        run(NOTE, (WHOLE,))
    elif not has_merged:
        run(DONE, (LATER,))


def _last_of_a_step(connection: Connection) -> int:
    """Up to which lead what is noted gets into the index now: both what it has of them and what it is to have."""
    letters, last = 0, 0
    with connection.exec_driver_sql(LENGTHS, (AT_ONCE,)) as rows:
        for lead_id, *lengths in rows:
            letters += sum(filter(None, lengths))
            if last and letters > LETTERS:
                break
            last = lead_id
    return last


def _index(connection: Connection, last: int) -> None:
    for statement in INDEX:
        connection.exec_driver_sql(statement, (last,))


def _merge(connection: Connection, pages: int) -> bool:
    """Whether something was left to merge. pages: negative: of all segments, from the begin."""
    before = connection.exec_driver_sql("SELECT total_changes()").scalar_one()
    connection.exec_driver_sql("INSERT INTO lead_search (lead_search, rank) VALUES ('merge', ?)", (pages,))
    return bool(connection.exec_driver_sql("SELECT total_changes()").scalar_one() - before >= 2)
