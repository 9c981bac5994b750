"""Measures of stopping are what slow, obvious counting says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.arrays import IntArray
from trainer.stopping.stops import (
    COSTS,
    Calibrated,
    Point,
    area_under_curve,
    bootstrap,
    budget_curve,
    calibration,
    chunks_for,
    clustered,
    measure_stops,
    oracle_curve,
    stop_at,
    stop_at_budget,
    stop_with_oracle,
)
from trainer.stopping.traces import Trace

BUDGET = 6


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    support = draw(st.integers(1, 3))
    order = draw(st.permutations([True] * support + [False] * (BUDGET - support)))
    missed = draw(st.booleans())
    hits = np.cumsum([0, *order]).tolist()
    found = None if missed else hits.index(support)
    shown = BUDGET if found is None else min(BUDGET, found + 2)
    hits = hits[: shown + 1]
    return Trace("t", (), tuple(hits), support + missed, found, BUDGET, "q")


@given(st.lists(st.tuples(traces(), st.integers(0, BUDGET)), min_size=1, max_size=8))
def test_measures_are_what_counting_says(found: list[tuple[Trace, int]]) -> None:
    played = [one for one, _ in found]
    stops = measure_stops(played, np.array([taken for _, taken in found]))
    kinds, precisions, f1s, utilities, oracles = [], [], [], [], []
    for one, taken in found:
        hits = one.hits[min(taken, len(one.hits) - 1)]
        complete = one.found_after is not None and taken >= one.found_after
        if one.found_after is None:
            kinds.append("not found")
        elif not complete:
            kinds.append("under")
        else:
            kinds.append("exact" if taken == one.found_after else "over")
        precisions.append(hits / taken if taken else 0.0)
        f1s.append(2 * hits / (taken + one.support))
        utilities.append([complete - cost * taken for cost in COSTS])
        oracles.append([max(0.0, 1 - cost * one.found_after) if one.found_after else 0.0 for cost in COSTS])
    shares = {kind: kinds.count(kind) / len(kinds) for kind in ("exact", "over", "under", "not found")}
    assert (stops.exact, stops.over, stops.under, stops.not_found) == pytest.approx(tuple(shares.values()))
    assert stops.recall == pytest.approx(shares["exact"] + shares["over"])
    assert stops.precision == pytest.approx(np.mean(precisions))
    assert stops.f1 == pytest.approx(np.mean(f1s))
    assert stops.utility == pytest.approx(np.mean(utilities, axis=0))
    assert stops.regret == pytest.approx(np.mean(oracles, axis=0) - np.mean(utilities, axis=0))
    if kinds.count("not found") < len(kinds):
        assert stops.exact_of_found == pytest.approx(kinds.count("exact") / (len(kinds) - kinds.count("not found")))


@given(st.lists(traces(), min_size=1, max_size=8))
def test_no_way_of_stopping_beats_the_oracle(played: list[Trace]) -> None:
    oracle = measure_stops(played, stop_with_oracle(played))
    assert oracle.regret == pytest.approx([0.0] * len(COSTS))
    assert (oracle.under, oracle.over) == (0, 0)
    for budget in range(BUDGET + 1):
        fixed = measure_stops(played, stop_at_budget(played, budget))
        assert min(fixed.regret) >= -1e-12
    for fixed_point, oracle_point in zip(budget_curve(played, BUDGET), oracle_curve(played, BUDGET), strict=True):
        assert fixed_point.recall == oracle_point.recall
        assert fixed_point.chunks >= oracle_point.chunks


def test_rules_stop_where_their_score_falls_below() -> None:
    played = [Trace("t", (), (0, 1), 1, 1, BUDGET, "q"), Trace("t", (), (0, 0), 1, None, BUDGET, "q")]
    assert stop_at(played, [[0.9, 0.1], [0.9, 0.8]], 0.5).tolist() == [1, BUDGET]


def test_the_chunks_that_a_budget_needs_lie_between_its_points() -> None:
    curve = [Point(chunks=0, recall=0), Point(chunks=1, recall=0.5), Point(chunks=2, recall=0.9)]
    assert chunks_for(curve, 0.25) == pytest.approx(0.5)
    assert chunks_for(curve, 0.7) == pytest.approx(1.5)
    assert chunks_for(curve, 0.9) == pytest.approx(2)
    assert chunks_for(curve, 0.0) == 0
    assert chunks_for(curve, 0.95) == 2  # more is not to be had


def test_calibration_error_is_the_mean_distance_of_the_bins() -> None:
    estimates = np.array([0.05, 0.05, 0.95, 0.95])
    found = calibration(estimates, np.array([False, True, True, True]))
    assert found.ece == pytest.approx((0.45 + 0.05) / 2)
    assert found.brier == pytest.approx(np.mean((estimates - [0, 1, 1, 1]) ** 2))
    assert calibration(np.array([1.0, 0.0]), np.array([True, False])).ece == 0
    weighted = calibration(estimates, np.array([False, True, True, True]), np.array([1.0, 0.0, 1.0, 0.0]))
    assert weighted.ece == pytest.approx(0.05)


def test_few_episodes_have_a_calibration_error_by_chance() -> None:
    def found(count: int, states: int = 1, estimate: float = 0.5) -> Calibrated:
        estimates = np.full(count * states, estimate)
        return calibration(estimates, estimates > 1, episodes=np.arange(count).repeat(states))

    # Of fair coins, the mean distance of the share of heads from a half.
    assert found(1).ece_by_chance == pytest.approx(0.5)
    assert found(100).ece_by_chance == pytest.approx((0.25 / 100) ** 0.5 * (2 / np.pi) ** 0.5, rel=0.1)
    # Seven states of one episode are not seven episodes.
    assert found(100, states=7).ece_by_chance == pytest.approx(found(100).ece_by_chance)
    assert found(100, estimate=1.0).ece_by_chance == 0


def test_the_bootstrap_holds_the_mean_and_its_spread() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, size=400)
    each = [np.array([at]) for at in range(len(values))]
    found = bootstrap([each], lambda picked: float(values[picked].mean()))
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    assert bootstrap([each[:3]], lambda picked: float(len(picked))) == (3, 3, 3)


def test_the_bootstrap_keeps_together_what_is_about_one_question() -> None:
    def of(task: str, question: str) -> Trace:
        return Trace(task, (), (0,), 1, None, BUDGET, question)

    played = [of("qa1", "a"), of("hotpotqa", "a"), of("qa1", "b"), of("hotpotqa_sentences", "a"), of("qa1", "a")]
    strata = clustered(played)
    assert [[cluster.tolist() for cluster in clusters] for clusters in strata] == [[[0, 4], [2]], [[1, 3]]]
    seen: list[tuple[int, ...]] = []

    def measure(picked: IntArray) -> float:
        seen.append(tuple(sorted(picked.tolist())))
        return 0.0

    bootstrap(strata, measure)
    assert set(seen) == {(0, 1, 2, 3, 4), (0, 0, 1, 3, 4, 4), (1, 2, 2, 3)}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.lists(st.integers(0, 4), min_size=1, max_size=9))
def test_the_area_under_the_curve_counts_pairs(positive: list[int], negative: list[int]) -> None:
    area = area_under_curve(np.array(positive, dtype=float), np.array(negative, dtype=float))
    assert area is not None
    counted = [(one > other) + 0.5 * (one == other) for one in positive for other in negative]
    assert area.mean == pytest.approx(sum(counted) / len(counted))
    assert 0 <= area.low <= area.high <= 1


def test_there_is_no_area_without_values_of_both_kinds() -> None:
    assert area_under_curve(np.array([]), np.array([0.5])) is None
    assert area_under_curve(np.array([0.5]), np.array([])) is None


def test_the_interval_of_an_area_is_narrower_with_more_values() -> None:
    generator = np.random.default_rng(0)
    few, many = (area_under_curve(generator.normal(1, 1, count), generator.normal(0, 1, count)) for count in (20, 400))
    assert few is not None
    assert many is not None
    assert many.low < 0.76 < many.high  # the normal distribution function at the square root of one half
    assert many.high - many.low < 0.5 * (few.high - few.low)
