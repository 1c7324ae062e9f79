"""Measures the service on this machine and prints one table: `python -m tests.bench` (a few minutes, needs wrk).

The service is started as a user would start it, on a new SQLite file. wrk registers contacts of unique leads over 16
connections, while they are closed as they come, so that each operator has some tens of open contacts. In
the same run the same is measured on a bare endpoint that validates and answers the same models without a database.
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI

from crm.models import ContactCreate, ContactPublic, LeadPublic, OperatorRef, SourceRef
from tests.service import Service, serving

SOURCES, OPERATORS, OPERATORS_PER_SOURCE, MAX_LOAD = 30, 100, 10, 60
OPEN = 2_000  # contacts kept open: 20 for each operator
CONNECTIONS = 16
WRK = shutil.which("wrk") or ""

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


WRK_SCRIPT = """
local threads = 0
function setup(thread) thread:set("number", threads); threads = threads + 1 end
function init(args) n = 0; math.randomseed(os.time() * 8 + number) end
function request()
  n = n + 1
  local key = string.format("%d-%d-%d", math.random(0, 2^30), number, n)
  return wrk.format("POST", "/contacts/", {["Content-Type"] = "application/json"}, string.format(
    '{"source_id":%d,"lead_external_id":"tg:%s","lead_phone":"8 9%02d %07d","lead_name":"Lead %d",' ..
    '"message":"Where is my order?","event_id":"%s"}',
    n % SOURCES + 1, key, math.random(10, 29), math.random(0, 9999999), n, key))
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"rate": %f, "p50": %f, "p99": %f, "errors": %d}\\n',
    (summary.requests - e.status) / summary.duration * 1e6, latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, e.connect + e.read + e.write + e.status + e.timeout))
end
""".replace("SOURCES", str(SOURCES))


class Result(NamedTuple):
    rate: float
    p50: float
    p99: float
    errors: int


def wrk(port: int, seconds: int) -> Result:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT)
        script.flush()
        output = subprocess.run(
            [WRK, "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script.name, f"http://127.0.0.1:{port}"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    return Result(**json.loads(output.rpartition("RESULT ")[2]))


def peak_memory(service: Service) -> float:
    """In MB, since the start."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@contextmanager
def closing_contacts(path: Path) -> Iterator[None]:
    """Meanwhile closes all but the newest OPEN contacts, straight in the file: wrk and the service have the cores."""
    stopped = threading.Event()

    def work() -> None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        while not stopped.wait(0.2):
            connection.execute(
                "UPDATE contact SET status = 'closed', closed_at = created_at"
                " WHERE status = 'new' AND id <= (SELECT max(id) FROM contact) - ?",
                (OPEN,),
            )
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def add_team(service: Service) -> None:
    rng = random.Random(1)
    for number in range(1, OPERATORS + 1):
        service.call("POST", "/operators/", {"name": f"Operator {number}", "max_load": MAX_LOAD})
    for number in range(1, SOURCES + 1):
        service.call("POST", "/sources/", {"name": f"Source {number}", "bot_id": f"bot-{number}"})
        chosen = sorted(rng.sample(range(1, OPERATORS + 1), OPERATORS_PER_SOURCE))
        entries = [{"operator_id": operator_id, "weight": rng.randint(1, 100)} for operator_id in chosen]
        service.call("PUT", f"/sources/{number}/operators", entries)


def add_history(path: Path, contacts: int) -> None:
    """Writes closed contacts of as many leads straight into the file: over the API it would take far longer."""
    rng = random.Random(2)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size=-1000000")
    connection.execute("PRAGMA synchronous=OFF")
    entries = list(connection.execute("SELECT source_id, operator_id, weight FROM source_operator ORDER BY 1, 2"))
    by_source = {source: [entry for entry in entries if entry[0] == source] for source in range(1, SOURCES + 1)}
    first = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM lead").fetchone()[0]
    begin = datetime.now(UTC) - timedelta(days=365)
    leads, identifiers, rows, assignments = [], [], [], []
    for number in range(contacts):
        lead_id, source = first + number, rng.randint(1, SOURCES)
        created = (begin + timedelta(days=364) * number / contacts).strftime("%Y-%m-%d %H:%M:%S.%f")
        [chosen] = rng.choices(by_source[source], weights=[entry[2] for entry in by_source[source]])
        seen = [
            {"operator_id": operator, "weight": weight, "outcome": "not_drawn"}
            | ({"outcome": "chosen", "load": 20, "max_load": MAX_LOAD} if operator == chosen[1] else {})
            for _, operator, weight in by_source[source]
        ]
        leads.append((lead_id, created, f"Lead {number}"))
        identifiers.append(("external_id", f"tg:{rng.randint(0, 2**30)}-h-{number}", lead_id))
        identifiers.append(("phone", f"+7495{number:07}", lead_id))
        rows.append((created, "Where is my order?", f"h-{number}", lead_id, source, chosen[1], created, created))
        assignments.append((created, chosen[1], json.dumps(seen)))
    first_contact = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM contact").fetchone()[0]
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO lead (id, created_at, name) VALUES (?, ?, ?)", leads)
    connection.executemany("INSERT INTO lead_identifier (kind, value, lead_id) VALUES (?, ?, ?)", identifiers)
    connection.executemany(
        "INSERT INTO contact (id, created_at, message, priority, event_id, lead_id, source_id, operator_id, status,"
        " assigned_at, closed_at) VALUES (?, ?, ?, 0, ?, ?, ?, ?, 'closed', ?, ?)",
        ((first_contact + index, *row) for index, row in enumerate(rows)),
    )
    connection.executemany(
        "INSERT INTO assignment (contact_id, created_at, operator_id, reason, candidates)"
        " VALUES (?, ?, ?, 'distributed', ?)",
        ((first_contact + index, *row) for index, row in enumerate(assignments)),
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    os.sync()  # else the system writes all this to the disk during the measurement


def calls(half: int) -> list[str]:
    """Each list and statistics call; half: the id of a contact and of a lead in the middle of the history."""
    day = (datetime.now(UTC) - timedelta(days=180)).strftime("%Y-%m-%dT00:00:00Z")
    lists = ["/operators/", "/operators/?is_active=true", "/operators/7", "/sources/", "/sources/?bot_id=bot-7"]
    lists += ["/contacts/", f"/contacts/?before_id={half}", f"/contacts/{half}", f"/contacts/?lead_id={half}"]
    lists += ["/contacts/?order=queue", "/contacts/?order=queue&source_id=1"]
    lists += [f"/contacts/?{one}" for one in ("status=pending", "status=new", "status=closed", "source_id=5")]
    lists += [f"/contacts/?operator_id=7&{two}" for two in ("status=in_progress", "status=closed", "source_id=5")]
    lists += [f"/contacts/?source_id=5&status=pending&before_id={half}"]
    lists += ["/leads/", f"/leads/?after_id={half}", "/leads/?phone=84950000001", f"/leads/{half}"]
    lists += [f"/leads/{half}/contacts", "/leads/?external_id=tg:none"]
    lists += [f"/leads/?q={q}" for q in ("lead%2077", "5000123", "h-999", "nowhere", f"lead&after_id={half}")]
    stats = ["/stats/", "/stats/operators", "/stats/sources", "/stats/sources/5", "/operators/7/stats"]
    return lists + stats + [f"{path}?since={day}" for path in stats]


def time_calls(service: Service, half: int) -> None:
    print(f"\n{'call':<60} {'median ms':>10} {'worst ms':>10}")
    for path in calls(half):
        times = []
        for _ in range(7):
            begin = time.perf_counter()
            service.call("GET", path)
            times.append((time.perf_counter() - begin) * 1000)
        print(f"{path:<60} {statistics.median(times):>10.1f} {max(times):>10.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=15, help="of load for each figure (default 15)")
    parser.add_argument("--history", type=int, default=1_000_000, help="contacts of history (default 1,000,000)")
    options = parser.parse_args()
    if not WRK:
        sys.exit("wrk is missing: install it with `apt-get install wrk` or `brew install wrk`")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "crm.db"
        print(f"{'':<40} {'contacts/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7} {'of bare':>8} {'MB':>6}")
        with serving(path, "tests.bench:bare") as service:
            wrk(service.port, 2)
            bare_result = wrk(service.port, options.seconds)
            report("bare endpoint", bare_result, bare_result, service)
        with serving(path) as service:
            add_team(service)
            empty = measure("registration", service, path, options.seconds, bare_result)
        add_history(path, options.history)
        with serving(path) as service:
            label = f"registration, {options.history:,} of history"
            full = measure(label, service, path, options.seconds, bare_result)
            print(f"rate with history / without: {full.rate / empty.rate:.2f}")
            time_calls(service, options.history // 2)


def measure(label: str, service: Service, path: Path, seconds: int, bare_result: Result) -> Result:
    with closing_contacts(path):
        wrk(service.port, 2)
        result = wrk(service.port, seconds)
    service.connection.close()  # it idled too long; the next call opens it again
    report(label, result, bare_result, service)
    return result


def report(label: str, result: Result, bare_result: Result, service: Service) -> None:
    print(
        f"{label:<40} {result.rate:>10.0f} {result.p50:>8.1f} {result.p99:>8.1f} {result.errors:>7} "
        f"{result.rate / bare_result.rate:>8.2f} {peak_memory(service):>6.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
