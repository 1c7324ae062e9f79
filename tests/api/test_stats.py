"""Statistics over the API: design.md, "Statistics"."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from urllib.parse import quote

import pytest

from tests.conftest import Api
from tests.postgres import sql

NOTHING = {"pending": 0, "new": 0, "in_progress": 0, "closed": 0}


def test_an_empty_service_divides_nothing_by_nothing(api: Api) -> None:
    assert api.get("/stats/") == {
        "contacts": 0,
        "leads": 0,
        "operators": 0,
        "active_operators": 0,
        "load": 0,
        "capacity": 0,
        "utilization": 0,
        "pending": 0,
        "unassigned_share": 0,
        "oldest_pending_seconds": None,
        "mean_assign_seconds": None,
    }
    assert api.get("/stats/operators") == api.get("/stats/sources") == []
    source_id = api.source(weights={api.operator(max_load=0): 0})
    [row] = api.get(f"/stats/sources/{source_id}")["operators"]
    assert (row["target_share"], row["actual_share"]) == (0, 0)
    assert api.get("/operators/1/stats")["utilization"] == 0


def test_the_totals_count_load_of_all_but_capacity_of_the_active(api: Api) -> None:
    anna, boris = api.operator("Anna", max_load=4), api.operator("Boris", max_load=6)
    shop, nobody = api.source("Shop", {anna: 1}), api.source("Nobody")
    api.close(api.contact(shop, "tg:1")["id"])
    api.contact(shop, "tg:1")
    api.put(f"/sources/{shop}/operators", [{"operator_id": boris, "weight": 1}])
    api.contact(shop, "tg:2")
    api.patch(f"/operators/{boris}", {"is_active": False})
    waiting = api.contact(nobody, "tg:3")
    api.close(api.contact(nobody, "tg:3")["id"])
    stats = api.get("/stats/")
    assert 0 <= stats.pop("oldest_pending_seconds") < 60
    assert stats == {
        "contacts": 5,
        "leads": 3,
        "operators": 2,
        "active_operators": 1,
        "load": 2,
        "capacity": 4,
        "utilization": 0.25,
        "pending": 1,
        "unassigned_share": 0.4,
        "mean_assign_seconds": 0,
    }
    api.post(f"/contacts/{waiting['id']}/assign", {"operator_id": anna}, expect=200)
    after = api.get("/stats/")
    assert 0 < after["mean_assign_seconds"] < 60
    assert after["oldest_pending_seconds"] is None


def test_the_mean_wait_is_over_all_that_were_ever_assigned(api: Api) -> None:
    """A contact that went back to the queue keeps its first assignment."""
    anna = api.operator(max_load=0)
    source_id = api.source(weights={anna: 1})
    waited = api.contact(source_id)["id"]
    api.patch(f"/operators/{anna}", {"max_load": 2})
    api.contact(source_id)
    api.post(f"/operators/{anna}/release", expect=200)
    api.contact(source_id)
    contact = api.get(f"/contacts/{waited}")
    [seconds] = {api.get("/stats/")["mean_assign_seconds"]}
    assert contact["status"] == "pending"
    assert 0 < seconds < 30
    assert api.get(f"/stats/?since={quote(contact['assigned_at'])}")["mean_assign_seconds"] == 0


def test_the_mean_wait_is_exact_to_the_microsecond(api: Api) -> None:
    anna = api.operator(max_load=0)
    contact_id = api.contact(api.source(weights={anna: 1}))["id"]
    api.patch(f"/operators/{anna}", {"max_load": 1})
    contact = api.get(f"/contacts/{contact_id}")
    created_at, assigned_at = (datetime.fromisoformat(contact[field]) for field in ("created_at", "assigned_at"))
    waited = (assigned_at - created_at).total_seconds()
    assert api.get("/stats/")["mean_assign_seconds"] == pytest.approx(waited, abs=2e-7)


def test_an_operator_counts_its_contacts_by_status(api: Api) -> None:
    anna = api.operator("Anna", max_load=4)
    api.operator("Boris", is_active=False)
    source_id = api.source(weights={anna: 1})
    contacts = [api.contact(source_id)["id"] for _ in range(4)]
    api.patch(f"/contacts/{contacts[0]}/status", {"status": "in_progress"})
    api.close(contacts[1])
    row = {
        "operator_id": anna,
        "operator_name": "Anna",
        "is_active": True,
        "on_shift": True,
        "shift_until": None,
        "max_load": 4,
        "load": 3,
        "available": 1,
        "utilization": 0.75,
        "total_contacts": 4,
        "by_status": {"pending": 0, "new": 2, "in_progress": 1, "closed": 1},
    }
    assert api.get("/stats/operators")[0] == api.get(f"/operators/{anna}/stats") == row
    assert api.get("/stats/operators")[1]["by_status"] == NOTHING
    api.patch(f"/operators/{anna}", {"max_load": 1})
    overloaded = api.get(f"/operators/{anna}/stats")
    assert (overloaded["available"], overloaded["utilization"]) == (0, 3)


def test_a_source_shows_how_far_shares_follow_the_weights(api: Api) -> None:
    anna, boris, clara = api.operator("Anna", max_load=1), api.operator("Boris"), api.operator("Clara")
    source_id = api.source(weights={clara: 1})
    api.contact(source_id)
    entries = [{"operator_id": anna, "weight": 30}, {"operator_id": boris, "weight": 10}]
    api.put(f"/sources/{source_id}/operators", entries)
    while api.get(f"/operators/{anna}")["load"] == 0:  # she is drawn with 75 %
        api.contact(source_id)
    api.patch(f"/operators/{boris}", {"is_active": False})
    api.contact(source_id)
    stats = api.get(f"/stats/sources/{source_id}")
    total = stats["total_contacts"]
    assert (stats["source_name"], stats["pending"], stats["unassigned_share"]) == ("Shop", 1, 1 / total)
    rows = {row["operator_id"]: (row["weight"], row["target_share"], row["contacts"]) for row in stats["operators"]}
    assert rows == {anna: (30, 0.75, 1), boris: (10, 0.25, total - 3), clara: (0, 0, 1)}
    assert [row["actual_share"] for row in stats["operators"]] == [row[2] / (total - 1) for row in rows.values()]
    assert api.get("/stats/sources") == [stats]


def test_since_and_until_are_half_open_on_creation_and_leave_the_present_alone(api: Api) -> None:
    anna = api.operator()
    served, nobody = api.source("Served", {anna: 1}), api.source("Nobody")
    first, second, third = api.contact(served, "tg:1"), api.contact(served, "tg:2"), api.contact(nobody, "tg:3")
    since, until = quote(second["created_at"]), quote(third["created_at"])
    for query, contacts in (
        ("", 3),
        (f"?since={since}", 2),
        (f"?until={since}", 1),
        (f"?since={since}&until={until}", 1),
        (f"?since={since}&until={since}", 0),
        (f"?since={until.replace('Z', '%2B00:00')}", 1),
    ):
        stats = api.get(f"/stats/{query}")
        assert (stats["contacts"], stats["leads"]) == (contacts, contacts), query
        assert (stats["load"], stats["pending"], stats["operators"]) == (2, 1, 1)
    [row] = api.get(f"/stats/operators?until={since}")
    assert (row["total_contacts"], row["by_status"]["new"], row["load"]) == (1, 1, 2)
    assert api.get(f"/operators/{anna}/stats?until={since}") == row
    rows = api.get(f"/stats/sources?until={quote(first['created_at'])}")
    assert [(row["total_contacts"], row["pending"]) for row in rows] == [(0, 0), (0, 1)]
    assert api.get(f"/stats/sources/{nobody}?since={until}")["unassigned_share"] == 1


def age(database: str, contact_id: int, days: float) -> None:
    """Makes it that old; past the API, which knows no such thing."""
    at = datetime.now(UTC) - timedelta(days=days)
    text = f"{at:%Y-%m-%d %H:%M:%S.%f}" + ("+00" if database.startswith("postgresql") else "")
    sql(database, f"UPDATE contact SET created_at = '{text}' WHERE id = {contact_id}")


def test_a_period_of_any_length_counts_the_same(api: Api, database: str) -> None:
    """Short ones are read in another index than long ones, and than those without an end."""
    source_id = api.source(weights={api.operator(max_load=100): 1})
    ages = [0, 1, 20, 30, 32, 40, 400]
    for number, days in enumerate(ages):
        age(database, api.contact(source_id, f"tg:{number}")["id"], days)
    now = datetime.now(UTC)
    for since in (0.5, 10, 30.5, 31.5, 35, 100, 500):
        for until in (None, 0.2, 5, 31, 33):
            period = [("since", now - timedelta(days=since))]
            period += [("until", now - timedelta(days=until))] if until is not None else []
            query = "&".join(f"{name}={quote(moment.isoformat())}" for name, moment in period)
            wanted = sum((until or -1) < days <= since for days in ages)
            assert api.get(f"/stats/?{query}")["contacts"] == wanted, query
            assert api.get(f"/stats/sources?{query}")[0]["total_contacts"] == wanted, query


def test_the_timeline_counts_each_minute_up_to_this_one(api: Api, database: str) -> None:
    source_id = api.source()
    for number, minutes in enumerate([0, 0, 1, 5, 59.99, 61, 2000]):
        age(database, api.contact(source_id, f"tg:{number}")["id"], minutes / 1440)
    timeline = api.get("/stats/timeline")
    at = [datetime.fromisoformat(row["minute"]) for row in timeline]
    assert len(timeline) == 60
    assert {(later - earlier).total_seconds() for earlier, later in pairwise(at)} == {60}
    assert (at[-1].second, at[-1].microsecond, at[-1].utcoffset()) == (0, 0, timedelta(0))
    assert timedelta(0) <= datetime.now(UTC) - at[-1] < timedelta(seconds=120)
    created = [datetime.fromisoformat(row["created_at"]) for row in api.get("/contacts/")]
    for row, begin in zip(timeline, at, strict=True):
        assert row["contacts"] == sum(begin <= moment < begin + timedelta(minutes=1) for moment in created)
    assert sum(row["contacts"] for row in api.get("/stats/timeline?minutes=1440")) == 6
    assert len(api.get("/stats/timeline?minutes=1")) == 1
    for minutes in ("0", "1441", "x"):
        assert api.get(f"/stats/timeline?minutes={minutes}", expect=422)["detail"][0]["loc"] == ["query", "minutes"]
