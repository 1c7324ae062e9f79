"""Who gets a contact: properties of the draw, and the shares that come out over the API."""

import random
from collections import Counter
from math import sqrt
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm.distribution import draw
from tests.conftest import Api
from tests.effort import effort


class Entry(NamedTuple):
    operator_id: int
    operator_name: str
    weight: float
    is_active: bool
    on_shift: bool
    max_load: int
    load: int


weights = st.one_of(st.just(0.0), st.floats(0, 1_000_000), st.floats(0, 1e-300), st.integers(0, 3).map(float))
entries_of_a_source = st.lists(
    st.builds(
        Entry,
        st.integers(1, 50),
        st.just("Anna"),
        weights,
        st.booleans(),
        st.booleans(),
        st.integers(0, 3),
        st.integers(0, 4),
    ),
    max_size=8,
    unique_by=lambda entry: entry.operator_id,
)


def eligible(entry: Entry) -> bool:
    return entry.is_active and entry.on_shift and entry.weight > 0 and entry.load < entry.max_load


some = st.sets(st.integers(1, 50), max_size=4)


@given(entries_of_a_source, st.integers(), some, st.none() | st.integers(1, 50))
def test_the_drawn_operator_is_eligible_and_there_is_one_whenever_somebody_is(
    entries: list[Entry], seed: int, excluded: set[int], preferred: int | None
) -> None:
    loads = {entry.operator_id: entry.load for entry in entries}
    drawn, _ = draw(entries, loads.__getitem__, random.Random(seed), excluded, preferred)
    allowed = {entry.operator_id: entry for entry in entries if eligible(entry) and entry.operator_id not in excluded}
    if preferred in allowed:
        assert drawn == allowed[preferred]
    elif drawn is None:
        assert not allowed
    else:
        assert drawn in allowed.values()


@given(entries_of_a_source, st.integers(), some)
def test_every_entry_is_explained(entries: list[Entry], seed: int, excluded: set[int]) -> None:
    loads = {entry.operator_id: entry.load for entry in entries}
    drawn, seen = draw(entries, loads.__getitem__, random.Random(seed), excluded)
    assert [candidate["operator_id"] for candidate in seen] == [entry.operator_id for entry in entries]
    for entry, candidate in zip(entries, seen, strict=True):
        assert candidate["weight"] == entry.weight
        counted = {"load": entry.load, "max_load": entry.max_load}
        assert {key: candidate[key] for key in counted if key in candidate} in ({}, counted)
        match candidate["outcome"]:
            case "excluded":
                assert entry.operator_id in excluded
            case "zero_weight":
                assert entry.weight == 0
            case "inactive":
                assert not entry.is_active
            case "off_shift":
                assert not entry.on_shift
            case "full":
                assert candidate["load"] >= candidate["max_load"]
            case "chosen":
                assert entry == drawn
                assert candidate["load"] < candidate["max_load"]
            case outcome:
                assert outcome == "not_drawn"
                assert drawn is not None
                assert "load" not in candidate
    assert [candidate["outcome"] for candidate in seen].count("chosen") == (drawn is not None)


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=5), st.integers(0, 4), st.integers())
def test_a_full_operator_leaves_the_others_their_own_weights(own: list[float], full: int, seed: int) -> None:
    """Drawing with somebody full is drawing among the rest: the first choice that is not full decides."""
    entries = [Entry(index, "Anna", weight, True, True, 1, int(index == full)) for index, weight in enumerate(own)]
    drawn, _ = draw(entries, lambda operator_id: entries[operator_id].load, random.Random(seed))
    rest = [entry for entry in entries if entry.load == 0]
    replay = random.Random(seed)
    first = replay.choices(entries, weights=own, k=1)[0]
    if first in rest:
        assert drawn == first
    elif rest:
        assert drawn == replay.choices(rest, weights=[entry.weight for entry in rest], k=1)[0]
    else:
        assert drawn is None


def counts(api: Api, source_id: int) -> Counter[int | None]:
    stats = api.get(f"/stats/sources/{source_id}")
    return Counter({row["operator_id"]: row["contacts"] for row in stats["operators"]})


@pytest.mark.seconds(8)
@pytest.mark.no_cover  # what it calls is covered by others, and this takes half the time
def test_weights_10_and_30_give_a_quarter_and_three_quarters(api: Api) -> None:
    contacts = effort(500, 4000)
    first, second = api.operator("Anna", max_load=contacts), api.operator("Boris", max_load=contacts)
    source_id = api.source(weights={first: 10, second: 30})
    for number in range(contacts):
        api.contact(source_id, f"tg:{number}")
    shares = counts(api, source_id)
    assert shares.total() == contacts
    within = 3 * sqrt(0.25 * 0.75 / contacts)  # 3 standard deviations, of a fixed seed
    assert 0.25 - within <= shares[first] / contacts <= 0.25 + within


@pytest.mark.seconds(3)
@pytest.mark.no_cover
def test_weight_zero_and_inactive_get_none_and_a_full_one_leaves_the_rest_to_the_others(api: Api) -> None:
    names = ("small", "big", "full", "zero", "absent")
    small, big, full, zero, absent = (api.operator(name, max_load=1000) for name in names)
    api.patch(f"/operators/{full}", {"max_load": 1})
    api.patch(f"/operators/{absent}", {"is_active": False})
    contacts = effort(300, 800)
    source_id = api.source(weights={small: 1, big: 3, full: 1000, zero: 0, absent: 1000})
    for number in range(contacts):
        api.contact(source_id, f"tg:{number}")
    shares = counts(api, source_id)
    assert (shares[full], shares[zero], shares[absent]) == (1, 0, 0)
    assert shares[small] + shares[big] == contacts - 1
    within = 3 * sqrt(0.25 * 0.75 / contacts)
    assert 0.25 - within <= shares[small] / (contacts - 1) <= 0.25 + within


def test_a_load_counts_over_all_sources(api: Api) -> None:
    anna = api.operator(max_load=2)
    shop, help_desk = api.source("Shop", {anna: 1}), api.source("Help", {anna: 1})
    assert api.contact(shop)["operator_id"] == anna
    assert api.contact(help_desk)["operator_id"] == anna
    assert api.contact(shop)["status"] == "pending"
    assert api.contact(help_desk)["status"] == "pending"
