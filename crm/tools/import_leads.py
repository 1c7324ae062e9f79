"""`python -m crm import leads FILE.csv`: leads of another system, by the same rules as those of a contact.

A hundred at a time, so that a running service goes on beside it. Whatever ends it, what was added stays, and the next
run adds what is missing.
"""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

import click
import sqlalchemy
from sqlalchemy import Connection, func, literal_column, text
from sqlmodel import Session, col, select

from crm.db import open_database
from crm.db.base import Database, check_schema
from crm.db.sql import add_rows, next_id
from crm.errors import StartupError
from crm.fields import IdentifierKind, utcnow
from crm.identity import KINDS, OF_LEAD, OWNERS, Claim, read_leads
from crm.models import Lead, LeadIdentifier
from crm.settings import load_settings
from crm.tools.leads_csv import LeadsFile, Line, Value
from crm.web.cells import csv_text

BATCH = 100  # claims in a transaction: as many leads, if each has one phone, e-mail and external id
MOST = 100  # identifiers of a line, as of PATCH /leads/{lead_id}
BUSY_TIMEOUT = 60  # seconds that a lock of a running service is waited for
LONGEST = 255  # letters of a name or an identifier

FIND: Any = sqlalchemy.select(*OWNERS)
NEW_ID: Any = sqlalchemy.select(next_id(literal_column("lead")))
Outcome = Literal["added", "completed", "unchanged", "rejected"]
Said = dict[IdentifierKind, Value]


class Rejected(NamedTuple):
    """What of a line could not be used, and why; the whole line if no column is named."""

    line: int
    column: str
    value: str
    why: str


class NewLead:
    """A line of the file as claims, which are looked up and added as those of a contact are."""

    def __init__(self, line: Line, region: str) -> None:
        self.rejected: list[Rejected] = []
        self._number = line.number
        name = " ".join(value.text for value in line.names)
        if name and (why := _why_not(name)):
            self._reject(Value(line.names[0].column, name), why)
            name = ""
        self.name = name or None
        short: list[tuple[IdentifierKind, Value]] = []
        for kind, value in dict.fromkeys(line.identifiers):
            if why := _why_not(value.text):
                self._reject(value, why)
            elif len(short) == MOST:
                self._reject(value, f"is one too many: a lead may have {MOST} identifiers")
            else:
                short.append((kind, value))
        # A claim has one value of a kind. With several of one there is a claim for each value.
        is_one = len({kind for kind, _ in short}) == len(short)
        said: list[Said] = [dict(short)] if is_one else [{kind: value} for kind, value in short]
        self.claims: list[tuple[Claim, Said]] = []
        seen: set[tuple[str, str]] = set()
        for values in said:
            claim = Claim({kind: values[kind].text if kind in values else None for kind in KINDS}, region)
            for kind, why in claim.problems.items():
                self._reject(values[kind], why)
            if claim.values and not claim.values.items() <= seen:
                self.claims.append((claim, values))
                seen |= claim.values.items()
        if not self.claims:
            self._reject(Value("", ""), line.problem or "has no phone, e-mail or external id that can be used")

    def _reject(self, value: Value, why: str) -> None:
        self.rejected.append(Rejected(self._number, *value, why))

    def add(self, connection: Connection, now: datetime) -> tuple[Outcome, list[Rejected]]:
        """What was done, and what besides `rejected` could not be used. Under the write lock."""
        if not self.claims:
            return "rejected", []
        others: list[Rejected] = []
        owners = [owners_of(connection, claim) for claim, _ in self.claims]
        known = next((its[kind] for kind in KINDS for its in owners if kind in its), None)
        lead_id: int = connection.execute(NEW_ID).scalar_one() if known is None else known
        is_changed = self.name is not None and known is not None and _is_nameless(connection, known)
        is_new = known is None
        for (claim, said), its in zip(self.claims, owners, strict=True):
            for kind, owner in its.items():
                if owner != lead_id:
                    why = f"belongs to lead {owner}, and this line is of lead {lead_id}"
                    others.append(Rejected(self._number, *said[kind], why))
            _, rows, _ = claim.find_lead(connection, its, lead_id, is_new, self.name, now)
            is_changed, is_new = is_changed or bool(rows), False
            if rows:
                add_rows(connection, *rows)
        return "added" if known is None else "completed" if is_changed else "unchanged", others


def _why_not(value: str) -> str | None:
    if len(value) > LONGEST:
        return f"is longer than {LONGEST} letters"
    return "has a NUL" if "\x00" in value else None


def _is_nameless(connection: Connection, lead_id: int) -> bool:
    return connection.execute(select(Lead.name).where(col(Lead.id) == lead_id)).scalar_one() is None


def owners_of(connection: Connection, claim: Claim) -> dict[IdentifierKind, int]:
    """The lead of each identifier that is known."""
    found = connection.execute(FIND, {kind: claim.values.get(kind) for kind in KINDS}).one()
    return {kind: owner for kind, owner in zip(KINDS, found, strict=True) if owner is not None}


class RejectedFile:
    """Beside the imported one; gone again if nothing was rejected."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_suffix(".rejected.csv")
        self.lines = 0

    def __enter__(self) -> Self:
        try:
            self._file = self.path.open("w", encoding="utf-8-sig", newline="")
        except OSError as error:
            raise StartupError(f"{self.path} can't be written: {error.strerror}") from error
        self._file.write(csv_text([Rejected._fields]))
        return self

    def write(self, rejected: Sequence[Rejected]) -> None:
        self._file.write(csv_text(rejected))
        self.lines += len(rejected)

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self.lines:
            self.path.unlink()


class DryRun:
    """A database of its own, in which all is done that would be done in the real one. It gets each lead that a line
    names from a snapshot of that."""

    def __init__(self, database: Database, folder: str) -> None:
        self.trial = open_database(f"sqlite:///{folder}/trial.db", BUSY_TIMEOUT)
        self._database = database

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self._database.snapshot() as self._real:
            check_schema(self._real)
            highest = self._real.execute(select(func.coalesce(func.max(Lead.id), 0))).scalar_one()
            set_ids = text("INSERT INTO sqlite_sequence (name, seq) VALUES ('lead', :highest)")
            self.trial.start(lambda connection: connection.execute(set_ids, {"highest": highest}))
            yield

    def bring(self, connection: Connection, lead: NewLead) -> None:
        ids = {owner for claim, _ in lead.claims for owner in owners_of(self._real, claim).values()}
        there = read_leads(connection, ids)
        for found in read_leads(self._real, ids - there.keys()).values():
            values = {kind: getattr(found, f"{kind}s") for kind in KINDS}
            rows = [{"kind": kind, "value": value, "lead_id": found.id} for kind in KINDS for value in values[kind]]
            own = {column.name: getattr(found, column.name) for column in OF_LEAD}
            add_rows(connection, (Lead, own), *((LeadIdentifier, row) for row in rows))


def in_batches(leads: Iterable[NewLead]) -> Iterator[list[NewLead]]:
    """Each as many as one transaction may have, lest others wait for it long."""
    batch: list[NewLead] = []
    for lead in leads:
        batch.append(lead)
        if sum(len(each.claims) or 1 for each in batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def import_file(
    file: LeadsFile,
    region: str,
    rejected: RejectedFile,
    counts: Counter[str],
    database: Database,
    before: Callable[[Connection, NewLead], object],
) -> None:
    """Counts as it goes. before: is called in the transaction before each lead is added."""

    def add(batch: Sequence[NewLead], session: Session) -> list[tuple[Outcome, list[Rejected]]]:
        connection, now, done = session.connection(), utcnow(), []
        for lead in batch:
            before(connection, lead)
            done.append(lead.add(connection, now))
        return done

    leads = (NewLead(line, region) for line in file.read())
    with click.progressbar(length=file.lines, label="leads", show_pos=True) as bar:
        for batch in in_batches(leads):
            begin = time.monotonic()
            for lead, (outcome, others) in zip(batch, await database.write(partial(add, batch)), strict=True):
                counts[outcome] += 1
                rejected.write([*lead.rejected, *others])
            bar.update(len(batch))
            await asyncio.sleep(time.monotonic() - begin)  # SQLite's lock goes to whoever asks first


async def run(file: LeadsFile, rejected: RejectedFile, counts: Counter[str], is_dry: bool) -> None:
    settings = load_settings()
    database = open_database(settings.database_url, BUSY_TIMEOUT)
    try:
        if is_dry:
            with tempfile.TemporaryDirectory() as folder, (dry := DryRun(database, folder)).snapshot():
                try:
                    await import_file(file, settings.default_region, rejected, counts, dry.trial, dry.bring)
                finally:
                    await dry.trial.stop()
        else:
            database.start(lambda _: None, settings.migrate)
            await import_file(file, settings.default_region, rejected, counts, database, lambda *_: None)
    finally:
        await database.stop()


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only say what would be done; no lead is added.")
@click.option("--map", "mapping", multiple=True, metavar="COLUMN=FIELD", help="What a column is; may be given often.")
def leads(file: Path, dry_run: bool, mapping: Sequence[str]) -> None:
    """Add the leads of a CSV file to the database of DATABASE_URL, beside a running service or without one.

    Columns are known by usual names in English and Russian; FIELD is name, phone, email, external_id or ignore. What
    can't be used goes to a file beside it that ends in .rejected.csv, written anew. To run it again adds nothing twice.
    """
    for each in mapping:
        if "=" not in each:
            raise click.BadParameter(f"{each!r} is not COLUMN=FIELD", param_hint="--map")
    fields = {column: field for column, _, field in (each.rpartition("=") for each in mapping)}
    if len({column.strip().casefold() for column in fields}) < len(mapping):
        raise click.BadParameter("a column is named twice", param_hint="--map")
    leads_file = LeadsFile(file, fields)
    used = [f"{column} ({field})" for column, field in zip(leads_file.columns, leads_file.fields, strict=True) if field]
    click.echo(f"{leads_file.encoding}, delimiter {leads_file.delimiter!r}, columns: {', '.join(used)}")
    counts: Counter[str] = Counter()
    try:
        with RejectedFile(file) as rejected:
            asyncio.run(run(leads_file, rejected, counts, dry_run))
    except KeyboardInterrupt:
        what = "nothing was changed" if dry_run else "what was added stays, and the next run adds the rest"
        raise click.ClickException(f"stopped: {what}") from None
    finally:
        if counts or not leads_file.lines:
            said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in get_args(Outcome))
            click.echo(f"{counts.total()} read, {said}{'; a dry run: nothing was changed' if dry_run else ''}")
    if rejected.lines:
        click.echo(f"{rejected.lines} lines or values could not be used: see {rejected.path}")
