"""Figures for Prometheus: counted once each, in all processes, and the state as the database has it."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from crm.api import metrics
from tests.conftest import Api
from tests.service import Service, serving


def figures(text: str) -> dict[str, float]:
    """By name and labels, these in the order of the alphabet."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {f"{one.name}{{{labelled(one.labels)}}}": one.value for one in samples}


def labelled(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))


def scrape(api: Api) -> dict[str, float]:
    answer = api.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return figures(answer.text)


@pytest.fixture
def grown(api: Api) -> Callable[[], dict[str, float]]:
    """By how much each figure has grown since: this process counts for all tests."""
    before = scrape(api)
    return lambda: {name: value - before.get(name, 0) for name, value in scrape(api).items()}


def registrations(source_id: int, outcome: str) -> str:
    return f'crm_registrations_total{{outcome="{outcome}",source_id="{source_id}"}}'


def test_registrations_count_by_source_and_outcome(api: Api, grown: Callable[[], dict[str, float]]) -> None:
    anna = api.operator("Anna", max_load=2)
    shop, empty = api.source("Shop", {anna: 1}), api.source("Empty")
    for event, status in (("1", 201), ("2", 201), ("2", 200), ("3", 201), ("3", 200), ("3", 200)):
        api.contact(shop, "tg:1", event_id=event, expect=status)
    api.contact(empty, "tg:1")
    counts = grown()
    assert counts[registrations(shop, "assigned")] == 2
    assert counts[registrations(shop, "pending")] == 1
    assert counts[registrations(shop, "repeated")] == 3
    assert counts[registrations(empty, "pending")] == 1
    assert counts["crm_assign_seconds_count{}"] == 2


def test_the_first_assignment_counts_with_its_wait_and_later_ones_do_not(
    api: Api, grown: Callable[[], dict[str, float]]
) -> None:
    anna, boris = api.operator("Anna", max_load=0), api.operator("Boris", max_load=0)
    shop = api.source("Shop", {anna: 1, boris: 0})
    first, second = (api.contact(shop, f"tg:{n}")["id"] for n in (1, 2))
    assert grown()["crm_assign_seconds_count{}"] == 0
    api.patch(f"/operators/{anna}", {"max_load": 1})
    api.post(f"/contacts/{second}/assign", {"operator_id": boris, "force": True}, expect=200)
    counts = grown()
    assert counts["crm_assign_seconds_count{}"] == 2
    assert 0 < counts["crm_assign_seconds_sum{}"] < 60
    api.post(f"/contacts/{first}/assign", {"operator_id": boris, "force": True}, expect=200)
    api.post(f"/operators/{boris}/release", expect=200)
    assert grown()["crm_assign_seconds_count{}"] == 2


def test_what_was_rolled_back_was_not(api: Api, grown: Callable[[], dict[str, float]]) -> None:
    shop = api.source("Shop", {api.operator("Anna"): 1})
    api.contact(shop, "  ", expect=422)
    api.contact(99, "tg:1", expect=404)
    assert not [name for name, growth in grown().items() if name.startswith("crm_registrations") and growth]


def test_the_state_is_that_of_the_database(api: Api) -> None:
    anna, boris = api.operator("Anna", max_load=1), api.operator('B"oris\n', max_load=5)
    shop, _ = api.source("Shop", {anna: 30, boris: 10}), api.source("Empty")
    api.patch(f"/operators/{boris}", {"is_active": False})
    for lead in ("tg:1", "tg:2", "tg:3"):
        api.contact(shop, lead)
    now = scrape(api)
    assert now['crm_operator_load{operator="Anna",operator_id="1"}'] == 1
    assert now['crm_operator_max_load{operator="B"oris",operator_id="2"}'] == 5
    active = [
        now[f'crm_operator_active{{operator="{name}",operator_id="{n}"}}'] for n, name in ((1, "Anna"), (2, 'B"oris'))
    ]
    assert active == [1, 0]
    assert now['crm_pending{source="Shop",source_id="1"}'] == 2
    assert now['crm_pending{source="Empty",source_id="2"}'] == 0
    assert 0 < now['crm_oldest_pending_seconds{source="Shop",source_id="1"}'] < 60
    assert now['crm_oldest_pending_seconds{source="Empty",source_id="2"}'] == 0
    both = 'operator="Anna",operator_id="1",source="Shop",source_id="1"'
    assert (now[f"crm_target_share{{{both}}}"], now[f"crm_actual_share{{{both}}}"]) == (0.75, 1)


def test_requests_count_by_the_template_of_the_route_and_what_is_made_up_makes_no_new_ones(
    api: Api, grown: Callable[[], dict[str, float]]
) -> None:
    for number in range(5):
        api.get(f"/operators/{number + 1}", expect=404)
        api.client.request(f"FOO{number}", "/operators/")
        api.client.get(f"/nowhere/{number}")
    counts = {name: growth for name, growth in grown().items() if name.startswith("crm_request_seconds_count")}
    assert counts['crm_request_seconds_count{method="GET",route="/operators/{operator_id}",status="404"}'] == 5
    made_up = [name for name in counts if "FOO" in name or "nowhere" in name]
    assert made_up == []


def texts(service: Service) -> list[str]:
    """Over connections of their own, so that each worker answers some."""
    return [httpx2.get(f"http://127.0.0.1:{service.port}/metrics").text for _ in range(8)]


def test_two_workers_answer_alike_for_both_and_after_a_restart_count_from_zero(path: Path) -> None:
    with serving(f"sqlite:///{path}", workers=2, is_anew=True) as service:
        service.call("POST", "/operators/", {"name": "Anna", "max_load": 100})
        service.call("POST", "/sources/", {"name": "Shop"})
        service.call("PUT", "/sources/1/operators", [{"operator_id": 1}])
        for number in range(40):  # each over a connection of its own: both workers get some
            service.call("POST", "/contacts/", {"source_id": 1, "lead_external_id": number})
        for text in texts(service):
            assert figures(text)[registrations(1, "assigned")] == 40
            assert len(re.findall("^# TYPE crm_registrations_total", text, re.M)) == 1
    with serving(f"sqlite:///{path}", workers=2, is_anew=True) as service:
        service.call("POST", "/contacts/", {"source_id": 1, "lead_external_id": 1})
        assert figures(texts(service)[0])[registrations(1, "assigned")] == 1


def test_without_the_library_metrics_are_501(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "IS_INSTALLED", False)
    assert "pip install -e '.[metrics]'" in api.get("/metrics", expect=501)["detail"]


def test_without_the_library_all_else_can_be_imported() -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None; import crm.main; print(crm.api.metrics.IS_INSTALLED)"
    )
    result: Any = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr
