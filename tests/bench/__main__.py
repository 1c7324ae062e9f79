"""Measures the service on this machine and prints one table: `python -m tests.bench` (a few minutes, needs wrk).

The service is started as a user would start it, on a new SQLite file; with --postgres on a new server that flushes to
the disk, with 1, 2 and 4 workers and with a delay of the network. wrk registers contacts of unique leads over 16
connections, while they are closed as they come, so that each operator has some tens of open contacts. In the same run
the same is measured on a bare endpoint that validates and answers the same models without a database.
"""

import argparse
import asyncio
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import create_engine

from crm.api.registration import ContactCreate
from crm.models import ContactPublic, LeadPublic, OperatorRef, SourceRef
from tests.bench.cases import BURST, BURST_CONNECTIONS, CASES, burst, prepare
from tests.bench.history import SOURCES, add_history, add_team
from tests.bench.load import WRK, Result, close, register
from tests.bench.told import open_streams, webhook
from tests.postgres import Proxy, Server, sql
from tests.service import Service, serving

OPEN = 2_000  # contacts kept open: 20 for each operator

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANSWER = {
    "id": 1, "created_at": NOW, "message": "Where is my order?", "priority": 0, "event_id": "1-1", "lead_id": 1,
    "source_id": 1, "operator_id": 1, "status": "new", "identity_note": None, "assigned_at": NOW, "closed_at": None,
}  # fmt: skip
bare = FastAPI()


@bare.post("/contacts/", status_code=201)
async def answer_without_database(_: ContactCreate) -> ContactPublic:
    return ContactPublic(
        **ANSWER,
        lead=LeadPublic(id=1, created_at=NOW, name="Lead", external_ids=["tg:1"], phones=["+79161234567"], emails=[]),
        source=SourceRef(id=1, name="Source 1", bot_id="bot-1"),
        operator=OperatorRef(id=1, name="Operator 1"),
    )


def peak_memory(service: Service) -> float:
    """In MB, since the start."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@contextmanager
def closing_contacts(url: str) -> Iterator[None]:
    """Meanwhile closes all but the newest OPEN contacts, past the service: wrk and the service have the cores."""
    stopped = threading.Event()
    engine = create_engine(url, isolation_level="AUTOCOMMIT")

    def work() -> None:
        with engine.connect() as connection:
            while not stopped.wait(0.2):
                connection.exec_driver_sql(
                    "UPDATE contact SET status = 'closed', closed_at = created_at"
                    f" WHERE status = 'new' AND id <= (SELECT max(id) FROM contact) - {OPEN}"
                )

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        engine.dispose()


def calls(half: int, lead: int) -> list[str]:
    """Each list and statistics call; the ids of a contact and of a lead in the middle of the history."""
    today, day, month = (
        (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT00:00:00Z") for days in (0, 180, 30)
    )
    days = f"step=day&since={month}"
    lists = ["/operators/", "/operators/?is_active=true", "/operators/7", "/sources/", "/sources/?bot_id=bot-7"]
    lists += ["/contacts/", f"/contacts/?before_id={half}", f"/contacts/{half}", f"/contacts/?lead_id={lead}"]
    lists += ["/contacts/?order=queue", "/contacts/?order=queue&source_id=1"]
    lists += [f"/contacts/?{one}" for one in ("status=pending", "status=new", "status=closed", "source_id=5")]
    lists += [f"/contacts/?operator_id=7&{two}" for two in ("status=in_progress", "status=closed", "source_id=5")]
    lists += [f"/contacts/?source_id=5&status=pending&before_id={half}"]
    lists += ["/leads/", f"/leads/?after_id={lead}", "/leads/?phone=84950000001", f"/leads/{lead}"]
    lists += [f"/leads/{lead}/contacts", "/leads/?external_id=tg:none"]
    lists += [f"/leads/?q={q}" for q in ("lead%2077", "5000123", "h-999", "nowhere", f"lead&after_id={lead}")]
    stats = ["/stats/", "/stats/operators", "/stats/sources", "/stats/sources/5", "/operators/7/stats"]
    of_periods = [f"{path}?since={since}" for since in (today, day) for path in stats]
    series = [f"/stats/series?measure={one}&{days}" for one in ("contacts", "assign_seconds", "load")]
    return lists + stats + of_periods + series


def time_each(title: str, works: dict[str, Callable[[], object]]) -> None:
    print(f"\n{title:<60} {'median ms':>10} {'worst ms':>10}")
    for label, work in works.items():
        times = []
        for _ in range(7):
            begin = time.perf_counter()
            work()
            times.append((time.perf_counter() - begin) * 1000)
        print(f"{label:<60} {statistics.median(times):>10.1f} {max(times):>10.1f}", flush=True)


def polls() -> dict[str, list[str]]:
    """What an open page asks for every two seconds, by its view; as in crm/page/views/."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    today = f"since={day:%Y-%m-%dT%H:%M:%SZ}&until={day + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
    frame, operators, sources = (
        [f"/stats/?{today}", "/stats/timeline?minutes=2"],
        f"/stats/operators?{today}",
        "/sources/",
    )
    return {
        "operators": [*frame, operators],
        "sources": [*frame, operators, sources, f"/stats/sources?{today}"],
        "sources, of all time": [*frame, operators, sources, "/stats/sources"],
        "queue": [*frame, operators, "/contacts/?order=queue&limit=100"],
        "contacts": [*frame, operators, sources, "/contacts/?limit=50"],
    }


@contextmanager
def in_threads(works: Sequence[Callable[[], None]], stopped: threading.Event) -> Iterator[None]:
    """Meanwhile all of these are done, each of which ends soon after the event is set."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


@contextmanager
def open_pages(service: Service, number: int) -> Iterator[None]:
    """Meanwhile so many pages poll, on all views alike."""
    stopped, views = threading.Event(), list(polls().values())
    refused: list[str] = []

    def poll(page: int) -> None:
        connection = service.connect()
        stopped.wait(2 * page / number)
        while not stopped.is_set():
            begin = time.monotonic()
            for path in views[page % len(views)]:
                connection.request("GET", path, headers={"Cache-Control": "max-age=2"})
                answer = connection.getresponse()
                answer.read()
                refused.extend([path] * (answer.status != 200))
            stopped.wait(begin + 2 - time.monotonic())
        connection.close()

    with in_threads([partial(poll, page) for page in range(number)], stopped):
        yield
    if refused:
        print(f"{len(refused)} polls were refused, such as {refused[0]}")


@contextmanager
def exporting(service: Service, number: int) -> Iterator[None]:
    """Meanwhile so many readers export all contacts, again and again."""
    stopped = threading.Event()

    def read() -> None:
        while not stopped.is_set():
            with closing(service.connect()) as connection:
                connection.request("GET", "/contacts/export")
                answer = connection.getresponse()
                while not stopped.is_set() and answer.read(1 << 16):
                    pass

    with in_threads([read] * number, stopped):
        yield


def time_reads(url: str, workers: int = 1) -> None:
    """Of one who asks alone, whose answers nobody shares; the start is from the command to the first answer."""
    with serving(url, workers=workers) as service:
        service.call("GET", "/stats/")  # after an upgrade, or a new history, the first start counts it

        def read(*paths: str) -> None:
            for path in paths:
                service.call("GET", path)

        with closing(service.connect()) as connection:

            def scrape() -> None:
                connection.request("GET", "/metrics")
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200

            time_each("poll of the page", {view: partial(read, *paths) for view, paths in polls().items()})
            [newest] = service.call("GET", "/contacts/?limit=1")
            lead = service.call("GET", f"/contacts/{newest['id'] // 2}")["lead_id"]
            time_each("call", {path: partial(read, path) for path in calls(newest["id"] // 2, lead)})
            time_each("", {"a scrape of /metrics": scrape})
        print(f"memory of the service: {peak_memory(service):.0f} MB")
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        with serving(url, workers=workers, is_anew=True):
            times.append(time.perf_counter() - begin)
    print(f"start, until it answers: {statistics.median(times):.1f} s, at worst {max(times):.1f}")
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        size, copy = file.stat().st_size, file.with_name("copy.db")
        begin = time.perf_counter()
        with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(copy)) as new:
            old.backup(new)
        print(f"backup: {time.perf_counter() - begin:.1f} s")
        copy.unlink()
    else:
        [(size,)] = sql(url, "SELECT pg_database_size(current_database())")
    print(f"{size / 1e9:.2f} GB, which is {size / newest['id'] / 1000:.2f} GB for a million contacts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=15, help="of load for each figure (default 15)")
    parser.add_argument("--history", type=int, default=1_000_000, help="contacts of history (default 1,000,000)")
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL instead of SQLite")
    parser.add_argument("--cases", action="store_true", help="only what is registered at its worst")
    parser.add_argument("--reads", metavar="URL", help="only what reads, of a database that is there")
    options = parser.parse_args()
    if options.reads:
        time_reads(options.reads)
        return
    if not WRK:
        sys.exit("wrk is missing: install it with `apt-get install wrk` or `brew install wrk`")
    with tempfile.TemporaryDirectory() as name:
        print(f"{'':<45} {'contacts/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7} {'of bare':>8} {'MB':>6}")
        with serving(f"sqlite:///{name}/bare.db", "tests.bench.__main__:bare") as service:
            register(service.port, 2)
            bare_result = register(service.port, options.seconds)
            report("bare endpoint", bare_result, bare_result, service)
        if options.postgres:
            server = Server(durable=True, shared_buffers="512MB", max_wal_size="4GB")
            try:
                if options.cases:
                    for workers in (1, 2, 4):
                        create = partial(server.create_database, over_socket=True)
                        bench_cases(create, options.seconds, bare_result, workers)
                else:
                    bench_postgres(server, options.seconds, options.history, bare_result)
            finally:
                server.remove()
        elif options.cases:
            files = (f"sqlite:///{name}/{number}.db" for number in count())
            for workers in (1, 2):
                bench_cases(partial(next, files), options.seconds, bare_result, workers)
        else:
            bench(f"sqlite:///{name}/crm.db", options.seconds, options.history, bare_result)


def bench(url: str, seconds: int, history: int, bare_result: Result, workers: int = 1) -> None:
    """Without and with history, and the calls that read."""
    empty = measure("registration", url, seconds, bare_result, workers)
    measure_closing(url, seconds, bare_result, workers)
    pages = measure("registration, 50 open pages", url, seconds, bare_result, workers, pages=50)
    print(f"rate with 50 open pages / without: {pages.rate / empty.rate:.2f}")
    keys = measure("registration with keys", url, seconds, bare_result, workers, with_keys=True)
    print(f"rate with keys / without: {keys.rate / empty.rate:.2f}")
    streams = measure("registration, 10 streams open", url, seconds, bare_result, workers, streams=10)
    print(f"rate with 10 streams / without: {streams.rate / empty.rate:.2f}")
    told = measure("registration, each told by a webhook", url, seconds, bare_result, workers, with_webhook=True)
    print(f"rate with a webhook / without: {told.rate / empty.rate:.2f}")
    add_history(url, history)
    full = measure(f"registration, {history:,} of history", url, seconds, bare_result, workers)
    print(f"rate with history / without: {full.rate / empty.rate:.2f}")
    exported = measure("registration, while all is exported", url, seconds, bare_result, workers, exports=1)
    print(f"rate with an export / without: {exported.rate / full.rate:.2f}")
    time_reads(url, workers)


def bench_postgres(server: Server, seconds: int, history: int, bare_result: Result) -> None:
    for workers in (1, 2, 4):
        url = server.create_database(over_socket=True)
        measure(f"registration, {workers} workers", url, seconds, bare_result, workers)
    with Proxy(server, delay=0.001) as proxy:
        far = proxy.dsn(server.create_database())
        measure("registration, 2 workers, 1 ms of delay", far, seconds, bare_result, 2)
    bench(server.create_database(over_socket=True), seconds, history, bare_result, 2)


def measure(
    label: str, url: str, seconds: int, bare_result: Result, workers: int, with_keys: bool = False, pages: int = 0,
    streams: int = 0, with_webhook: bool = False, exports: int = 0,
) -> Result:  # fmt: skip
    environment = {"CRM_ADMIN_KEY": "the key of the benchmark", "CRM_RATE_LIMIT": "1000000"} if with_keys else {}
    environment |= {"CRM_WEBHOOK_ALLOW": "127.0.0.0/8"} if with_webhook else {}
    with serving(url, workers=workers, **environment) as service:
        service.headers = {"X-API-Key": environment.get("CRM_ADMIN_KEY", "")}
        if not service.call("GET", "/operators/"):
            add_team(service.call)
        bodies = [{"role": "source", "source_id": number, "name": "bot"} for number in range(1, SOURCES + 1)]
        keys = [service.call("POST", "/keys/", body)["key"] for body in bodies] if with_keys else []
        telling = webhook(service) if with_webhook else open_streams(service, streams)
        with closing_contacts(url), open_pages(service, pages), exporting(service, exports), telling as came:
            register(service.port, 2, keys)
            result = register(service.port, seconds, keys)
            told = sum(came)
        if told:
            print(f"told meanwhile: {told:,} {'webhooks' if with_webhook else 'bytes'}")
        report(label, result, bare_result, service)
    return result


def measure_closing(url: str, seconds: int, bare_result: Result, workers: int) -> None:
    """Of the contacts that were registered before, all of which are open for it; half as long, so that they last."""
    sql(url, "UPDATE contact SET status = 'new', closed_at = NULL")
    with serving(url, workers=workers) as service:
        close(service.port, 1, 1)
        [(last,)] = sql(url, "SELECT max(id) FROM contact WHERE status = 'closed'")
        report("closing", close(service.port, seconds // 2, last + 1), bare_result, service)


def bench_cases(create_database: Callable[[], str], seconds: int, bare_result: Result, workers: int) -> None:
    """Each on a database of its own."""
    usual = 0.0
    for name in CASES:
        url = create_database()
        with serving(url, workers=workers) as service:
            load = prepare(service, name)
            with closing_contacts(url):
                load(2)
                result = load(seconds)
            report(f"{name}, {workers} workers", result, bare_result, service)
        usual = usual or result.rate
        print(f"rate / usual: {result.rate / usual:.2f}")
    with serving(create_database(), workers=workers) as service:
        add_team(service.call)
        took, refused, others = asyncio.run(burst(service.port))
    print(
        f"{BURST:,} contacts over {BURST_CONNECTIONS} connections, {workers} workers: {took:.1f} s, refused"
        f" {dict(Counter(refused))}; others waited {statistics.median(others) * 1000:.0f} ms (median),"
        f" {others[-1] * 1000:.0f} ms (at most)"
    )


def report(label: str, result: Result, bare_result: Result, service: Service) -> None:
    print(
        f"{label:<45} {result.rate:>10.0f} {result.p50:>8.1f} {result.p99:>8.1f} {result.errors:>7} "
        f"{result.rate / bare_result.rate:>8.2f} {peak_memory(service):>6.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
