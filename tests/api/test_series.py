"""GET /stats/series: values over time, compared with plain counts."""

import math
import random
from bisect import bisect_left
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from crm import queue
from crm.api import contacts, registration, series
from tests.conftest import Api
from tests.effort import effort
from tests.postgres import sql

BEGIN = datetime(2026, 3, 1, 8, 30, 15, 250_000, UTC)
SECONDS = {"minute": 60, "hour": 3_600, "day": 86_400}


class Clock:
    def __init__(self) -> None:
        self.at = BEGIN

    def move(self, **by: float) -> datetime:
        self.at += timedelta(**by)
        return self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (registration, queue, contacts, series):
        monkeypatch.setattr(module, "utcnow", lambda: clock.at)
    return clock


def ask(api: Api, measure: str, step: str, since: datetime, expect: int = 200, **more: Any) -> Any:
    query = {"measure": measure, "step": step, "since": since.isoformat()}
    query |= {name: at.isoformat() if isinstance(at, datetime) else at for name, at in more.items()}
    return api.get(f"/stats/series?{urlencode(query)}", expect=expect)


def values(answer: Any) -> dict[str, list[Any]]:
    return {one["name"]: one["values"] for one in answer["series"]}


class Past(NamedTuple):
    """What a team did, as seen from outside."""

    waited: set[int]  # contacts that were pending when they came
    times: list[datetime]
    loads: list[Counter[int]]  # by source, after what was done at that time


def live(api: Api, database: str, clock: Clock, rng: random.Random, acts: int) -> Past:
    """Anna, Boris and Clara with little room serve two sources: contacts come, wait, are moved, released and closed."""
    team = [api.operator(name, max_load=limit) for name, limit in (("Anna", 2), ("Boris", 3), ("Clara", 1))]
    sources = [api.source("Shop", {team[0]: 1, team[1]: 2}), api.source("Help", {team[1]: 1, team[2]: 1})]
    waited: set[int] = set()
    times, loads = list[datetime](), list[Counter[int]]()

    def known(condition: str) -> list[int]:
        return [row[0] for row in sql(database, f"SELECT id FROM contact WHERE {condition} ORDER BY id")]

    def look() -> None:
        of_all = "SELECT source_id, count(*) FROM contact WHERE status IN ('new', 'in_progress') GROUP BY 1"
        times.append(clock.at)
        loads.append(Counter(dict(map(tuple, sql(database, of_all)))))

    def come() -> None:
        contact = api.contact(rng.choice(sources), f"tg:{rng.randint(1, 20)}")
        if contact["status"] == "pending":
            waited.add(contact["id"])

    def close() -> None:
        if found := known("status <> 'closed'"):
            api.close(rng.choice(found))

    def close_what_waits() -> None:
        if found := known("status = 'pending'"):
            api.close(rng.choice(found))

    def assign() -> None:
        if found := known("status <> 'closed'"):
            body = {"operator_id": rng.choice(team), "force": True}
            api.post(f"/contacts/{rng.choice(found)}/assign", body, expect=200)

    def release() -> None:
        operator = rng.choice(team)
        api.post(f"/operators/{operator}/release", expect=200)
        look()
        clock.move(minutes=rng.choice([0, 0, 5, 90]))
        api.patch(f"/operators/{operator}", {"is_active": True})

    whole = clock.at.replace(second=0, microsecond=0)
    for _ in range(acts):
        leap = rng.choice(["none", "little", "little", "much", "to the step"])
        if leap == "to the step":  # of those that are asked for below
            clock.at = max(clock.at, whole + timedelta(hours=math.ceil((clock.at - whole) / timedelta(hours=1))))
        elif leap != "none":
            clock.move(microseconds=rng.randint(1, 10**8 if leap == "little" else 10**10))
        rng.choice([come, come, come, come, close, close, close_what_waits, assign, release])()
        look()
    return Past(waited, times, loads)


def rank(waits: list[float], share: float) -> float | None:
    return sorted(waits)[math.ceil(share * len(waits)) - 1] if waits else None


@pytest.mark.seconds(8)
@pytest.mark.parametrize("seed", range(effort(1, 5)))
def test_all_values_are_those_of_a_plain_count(api: Api, database: str, clock: Clock, seed: int) -> None:
    past = live(api, database, clock, random.Random(seed), acts=120)
    now = clock.move(minutes=7)
    found = [
        {**row, "at": datetime.fromisoformat(row["created_at"]),
         "wait": row["assigned_at"] and datetime.fromisoformat(row["assigned_at"])}
        for row in api.get("/contacts/?limit=1000")
    ]  # fmt: skip
    whole, middle = BEGIN.replace(second=0, microsecond=0), BEGIN + (now - BEGIN) / 2
    begins = [("hour", whole), ("hour", BEGIN - timedelta(hours=5)), ("hour", middle)]
    begins += [("day", whole - timedelta(days=1)), ("minute", now - timedelta(hours=3))]
    ends = [None, middle + timedelta(hours=3), now + timedelta(hours=9)]
    for (step, since), until, source_id in product(begins, ends, (None, 1)):
        of = {} if source_id is None else {"source_id": source_id}
        length, end = timedelta(seconds=SECONDS[step]), until or now
        count = max(0, math.ceil((end - since) / length))
        spans = [(since + n * length, min(since + (n + 1) * length, end)) for n in range(count)]
        own = [row for row in found if source_id in (None, row["source_id"]) and since <= row["at"] < end]
        steps = [[row for row in own if begin <= row["at"] < until_] for begin, until_ in spans]

        answer = ask(api, "contacts", step, since, **of, **({"until": until} if until else {}))
        assert [datetime.fromisoformat(begin) for begin in answer["begins"]] == [begin for begin, _ in spans]
        wanted = {
            name: [sum(row["source_id"] == number for row in rows) for rows in steps]
            for number, name in ((1, "Shop"), (2, "Help"))
            if any(row["source_id"] == number for row in own)
        }
        wanted["waited"] = [sum(row["id"] in past.waited for row in rows) for rows in steps]
        assert values(answer) == wanted, (step, since, until, source_id)

        answer = ask(api, "assign_seconds", step, since, **of, **({"until": until} if until else {}))
        waits = [[(row["wait"] - row["at"]).total_seconds() for row in rows if row["wait"]] for rows in steps]
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            assert values(answer)[name] == pytest.approx([rank(part, share) for part in waits], abs=1e-6)

        answer = ask(api, "load", step, since, **of, **({"until": until} if until else {}))
        wanted_loads: list[int | None] = []
        for begin, until_ in spans:
            last = bisect_left(past.times, until_)  # what was done before the end of the step
            load = past.loads[last - 1] if last else Counter()
            wanted_loads.append(None if begin > now else load.total() if source_id is None else load[source_id])
        assert values(answer) == {"load": wanted_loads}, (step, since, until, source_id)
        assert answer["capacity"] == (6 if source_id is None else None)


def test_the_parts_of_an_answer(api: Api, clock: Clock) -> None:
    anna = api.operator("Anna", max_load=1)
    api.operator("Boris", max_load=5, is_active=False)
    shop = api.source("Shop", {anna: 1})
    api.contact(shop)
    clock.move(seconds=61)
    api.contact(shop)
    clock.move(seconds=30)
    api.close(1)
    asked = {"step": "minute", "since": "2026-03-01T08:30:15.250000Z", "until": "2026-03-01T08:31:46.250000Z"}
    begins = ["2026-03-01T08:30:15.250000Z", "2026-03-01T08:31:15.250000Z"]
    for measure, found, capacity in (
        ("contacts", [("Shop", shop, [1, 1]), ("waited", None, [0, 1])], None),
        ("assign_seconds", [("p50", None, [0, 30]), ("p95", None, [0, 30])], None),
        ("load", [("load", None, [1, 1])], 1),
    ):
        assert ask(api, measure, "minute", BEGIN) == {
            "measure": measure, **asked, "begins": begins, "capacity": capacity,
            "series": [{"name": name, "source_id": source_id, "values": numbers} for name, source_id, numbers in found],
        }  # fmt: skip


@pytest.mark.usefixtures("clock")
def test_nothing_to_count_is_no_error(api: Api) -> None:
    source_id = api.source()
    for measure, names in (("contacts", ["waited"]), ("assign_seconds", ["p50", "p95"]), ("load", ["load"])):
        for of in ({}, {"source_id": source_id}):
            nothing = 0 if measure != "assign_seconds" else None
            found = values(ask(api, measure, "hour", BEGIN - timedelta(hours=2), **of))
            assert found == {name: [nothing] * 2 for name in names}
            for until in (BEGIN, BEGIN - timedelta(days=9)):
                assert values(ask(api, measure, "hour", BEGIN, until=until, **of)) == {name: [] for name in names}
    assert values(ask(api, "load", "hour", BEGIN, until=BEGIN + timedelta(hours=2)))["load"] == [0, None]
    for year in (1, 32, 999):  # fewer than four digits
        assert values(ask(api, "contacts", "day", BEGIN.replace(year=year), until=BEGIN.replace(year=year, day=28)))


@pytest.mark.usefixtures("clock")
def test_what_cannot_be_asked_is_422_and_names_the_field(api: Api) -> None:
    def refused(expect: int = 422, **query: Any) -> Any:
        asked = {"measure": "load", "step": "minute", "since": "2026-03-01T00:00:00Z", **query}
        return api.get(f"/stats/series?{urlencode(asked)}", expect=expect)["detail"]

    for field, value in (("measure", "x"), ("step", "week"), ("since", "2026-03-01T00:00:00"), ("until", "x")):
        assert [problem["loc"] for problem in refused(**{field: value})] == [["query", field]]
    assert refused(other=1)[0]["loc"] == ["query", "other"]
    assert api.get("/stats/series?measure=load&step=hour", expect=422)["detail"][0]["loc"] == ["query", "since"]
    refused(source_id=9, expect=404)
    limit = {"since": "2026-03-01T00:00:00Z", "until": "2026-03-02T01:00:00Z"}  # 1,500 minutes
    assert len(api.get(f"/stats/series?{urlencode({**limit, 'measure': 'load', 'step': 'minute'})}")["begins"]) == 1500
    too_many = refused(**{**limit, "until": "2026-03-02T01:00:00.000001Z"})
    assert [problem["loc"][1] for problem in too_many] == ["step", "since", "until"]
    assert "1501 steps" in too_many[0]["msg"]
    for extreme in ({"since": "0001-01-01T00:00:00Z"}, {"until": "9999-12-31T23:59:59Z"}):
        refused(**extreme)
