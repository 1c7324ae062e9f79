"""POST /sources/{source_id}/simulate: agrees with what then happens, and changes nothing."""

import random
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm.api import simulation
from crm.distribution import draw
from tests.conftest import Api
from tests.day.shifts import Clock, only
from tests.effort import effort

CANDIDATE = ("operator_id", "operator_name", "weight", "load", "max_load", "eligible", "reason", "probability")


def simulate(api: Api, contacts: int = 100, source_id: int = 1, **body: Any) -> Any:
    return api.post(f"/sources/{source_id}/simulate", {"contacts": contacts, "seed": 1, **body}, expect=200)


def drawn(answer: Any) -> dict[int, int]:
    return {row["operator_id"]: row["drawn"] for row in answer["operators"]}


def entries(*weights: float, **more: Any) -> list[dict[str, Any]]:
    """Of the operators 1, 2, 3 ..."""
    return [{"operator_id": number, "weight": weight, **more} for number, weight in enumerate(weights, 1)]


def team(api: Api, *limits: int) -> None:
    """At the source 1, all with the same weight."""
    api.source(
        weights={api.operator(f"Operator {number}", max_load=limit): 1 for number, limit in enumerate(limits, 1)}
    )


def test_without_weights_of_its_own_it_sees_the_same_candidates_as_a_contact_would(api: Api, clock: Clock) -> None:
    team(api, 1, 10, 10, 10, 10)
    api.put("/sources/1/operators", entries(10, 20, 30, 0, 5) + entries(1, 0, topic="returns"))
    api.patch("/operators/3", {"is_active": False})
    api.put("/operators/5/shifts", only((1, 2)))
    while api.get("/operators/1")["load"] < 1:
        api.contact(1)
    assert clock
    for topic in ("", "returns", "other"):
        candidates = api.get(f"/sources/1/candidates?topic={topic}")
        answer = simulate(api, topic=topic)
        assert [{name: row[name] for name in CANDIDATE} for row in answer["operators"]] == candidates
        assert [row["expected"] for row in answer["operators"]] == [row["probability"] * 100 for row in candidates]
    assert [row["reason"] for row in simulate(api)["operators"]] == [
        "full",
        None,
        "inactive",
        "zero_weight",
        "off_shift",
    ]
    assert simulate(api, contacts=5)["pending"] == 0
    assert drawn(simulate(api, contacts=5)) == {1: 0, 2: 5, 3: 0, 4: 0, 5: 0}


@given(
    places=st.lists(
        st.tuples(st.sampled_from([0, 0.5, 1, 3, 40]), st.sampled_from([0, 2, 6, 30]), st.booleans()), max_size=6
    ),
    contacts=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_the_draws_are_those_of_the_distribution(
    places: list[tuple[float, int, bool]], contacts: int, seed: int
) -> None:
    entries = [
        SimpleNamespace(operator_id=number, weight=weight, max_load=limit, is_active=is_active, on_shift=True)
        for number, (weight, limit, is_active) in enumerate(places)
    ]
    rng, expected = random.Random(seed), Counter[int]()
    for _ in range(contacts):
        chosen, _ = draw(
            [one for one in entries if expected[one.operator_id] < one.max_load], expected.__getitem__, rng
        )
        if chosen is not None:
            expected[chosen.operator_id] += 1
    result, pending = simulation.simulate(entries, dict.fromkeys(range(6), 0), contacts, random.Random(seed))
    assert result.total() + pending == contacts
    assert pending == contacts - expected.total()
    assert all(result[one.operator_id] <= one.max_load for one in entries)
    if all(limit >= contacts for _, limit, _ in places):
        assert result == expected  # else who is full is drawn once and left out, which takes a number more


def test_new_weights_and_limits_are_tried_and_nothing_is_changed(api: Api) -> None:
    team(api, 1000, 1000, 1000)
    api.contact(1)
    paths = ("/contacts/", "/sources/", "/operators/", "/leads/", "/events/", "/stats/sources")
    before = [api.get(path) for path in paths]
    answer = simulate(api, operators=[*entries(1, 3), {"operator_id": 3, "weight": 96, "max_load": 7}])
    assert [row["expected"] for row in answer["operators"]] == pytest.approx([1, 3, 96])
    third = answer["operators"][2]
    assert (third["max_load"], third["load"] + third["drawn"]) == (7, 7)
    assert sum(drawn(answer).values()) == 100
    assert [api.get(path) for path in paths] == before
    assert answer["operators"][0]["max_load"] == 1000


def test_its_shares_are_those_of_real_contacts(api: Api) -> None:
    """The seeds are fixed. Five standard deviations of the fewer, real ones."""
    real, weights = effort(300, 10_000), (1, 2, 7)
    team(api, 20_000, 20_000, 20_000)
    simulated = drawn(simulate(api, 10_000, operators=entries(*weights)))
    api.put("/sources/1/operators", entries(*weights))
    for number in range(real):
        api.contact(1, f"tg:{number}")
    [stats] = api.get("/stats/sources")
    for row in stats["operators"]:
        share = row["target_share"]
        bound = 5 * (share * (1 - share) / real) ** 0.5
        assert abs(row["actual_share"] - simulated[row["operator_id"]] / 10_000) < bound
        assert abs(simulated[row["operator_id"]] / 10_000 - share) < 5 * (share * (1 - share) / 10_000) ** 0.5


def test_places_fill_up_as_they_really_do(api: Api) -> None:
    team(api, 5, 40, 8)
    for _ in range(4):
        api.contact(1)
    answer = simulate(api, contacts=60)
    for number in range(60):
        api.contact(1, f"tg:{number}")
    loads = {row["id"]: row["load"] for row in api.get("/operators/")}
    assert (
        {row["operator_id"]: row["load"] + row["drawn"] for row in answer["operators"]} == loads == {1: 5, 2: 40, 3: 8}
    )
    assert answer["pending"] == api.get("/stats/")["pending"] == 11
    full = simulate(api, contacts=3)
    assert (full["pending"], set(drawn(full).values())) == (3, {0})
    assert {row["expected"] for row in full["operators"]} == {0}


def test_whoever_is_full_leaves_its_share_to_the_others_by_their_weights(api: Api) -> None:
    team(api, 100_000, 100_000, 10)
    answer = drawn(simulate(api, 10_000, operators=entries(1, 3, 1000)))
    assert answer[3] == 10
    assert abs(answer[1] / 9990 - 0.25) < 5 * (0.25 * 0.75 / 9990) ** 0.5


def test_nobody_to_get_anything_is_an_answer_too(api: Api) -> None:
    team(api, 10)
    for operators in ([], entries(0)):
        answer = simulate(api, operators=operators)
        assert (answer["pending"], sum(drawn(answer).values())) == (100, 0)
    api.source("No operators")
    assert simulate(api, source_id=2) == {"contacts": 100, "topic": "", "seed": 1, "pending": 100, "operators": []}


def test_the_same_seed_gives_the_same_answer_and_without_one_it_is_told(api: Api) -> None:
    team(api, 1000, 1000)
    one, other = (simulate(api, seed=seed) for seed in (5, 6))
    assert one == simulate(api, seed=5)
    assert drawn(one) != drawn(other)
    told = simulate(api, seed=None)
    assert told == simulate(api, seed=told["seed"])
    assert simulate(api, seed=None)["seed"] != told["seed"]


def test_weights_of_a_topic_count_for_it_alone(api: Api) -> None:
    team(api, 1000, 1000)
    operators = [*entries(1, 0), {"operator_id": 2, "weight": 1, "topic": "returns"}]
    assert drawn(simulate(api, operators=operators)) == {1: 100, 2: 0}
    assert drawn(simulate(api, operators=operators, topic="returns")) == {2: 100}
    assert drawn(simulate(api, operators=operators, topic="other")) == {1: 100, 2: 0}


def test_a_bad_question_is_refused_by_name(api: Api) -> None:
    team(api, 10)
    bad: list[tuple[Any, tuple[Any, ...]]] = [
        *(({"contacts": contacts}, ("contacts",)) for contacts in (0, 10_001, None, "5", 1.5, 10**30)),
        *(({"seed": seed}, ("seed",)) for seed in (-1, 2**32, "1", 1.5)),
        ({"topic": None}, ("topic",)),
        ({"topic": "x" * 101}, ("topic",)),
        ({"operators": [{"weight": 1}]}, ("operators", 0, "operator_id")),
        ({"operators": entries(-1)}, ("operators", 0, "weight")),
        ({"operators": entries(1, max_load=-1)}, ("operators", 0, "max_load")),
        ({"operators": entries(1) * 2}, ("operators", 1, "operator_id")),
        ({"surprise": 1}, ("surprise",)),
    ]
    for body, where in bad:
        answer = api.post("/sources/1/simulate", {"contacts": 1, **body}, expect=422)
        assert tuple(answer["detail"][0]["loc"]) == ("body", *where), body
    assert "operator 2" in api.post("/sources/1/simulate", {"contacts": 1, "operators": entries(1, 1)}, 404)["detail"]
    assert "source 9" in api.post("/sources/9/simulate", {"contacts": 1}, expect=404)["detail"]


@pytest.mark.no_cover
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # most of it has nothing to do with that
def test_10_000_contacts_of_100_operators_take_about_a_second(api: Api) -> None:
    """Of the processor; five, for the machine may be slower or busy."""
    ids = [api.operator(f"Operator {number}", max_load=50 + number) for number in range(100)]
    operators = [{"operator_id": number, "weight": number} for number in ids]
    api.source()
    begin = time.process_time()
    answer = simulate(api, 10_000, operators=operators)
    assert time.process_time() - begin < 5
    assert sum(drawn(answer).values()) == sum(50 + number for number in range(100))
    assert answer["pending"] == 10_000 - sum(drawn(answer).values())
