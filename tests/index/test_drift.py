"""Drift: nothing drifts over the calibration's own questions, and what is not comparable is not compared."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.episodes.calibration import Calibration, CurvePoint
from index.episodes.drift import FIGURES, LEADING, Compared, compared
from index.episodes.episode import Episode, Limits
from index.episodes.rules import STOP_RULES, StopBelow
from index.episodes.stopping import UNTAUGHT, Stopping
from tests.index.episodes import PLAIN, chunk_named_by_its_position, documents, random_states, run, seeds
from tests.index.stopping import random_stopping

BUDGET = 4
DIMENSION = 8
"""The dimension of the vectors of seven chunks."""


def played(
    seed: int,
    threshold: float | None = None,
    *,
    rule: str = "threshold",
    steps: int = BUDGET,
    chunks: int = 7,
    stopping: Stopping = UNTAUGHT,
) -> Episode:
    """The episode of one question; without a threshold the budget ends it."""
    stop = None if threshold is None else StopBelow(STOP_RULES[rule], threshold)
    limits = Limits(steps, stop=stop)
    states = random_states(chunks + chunks % 2, seed)
    return run(Episode(documents([chunks]), limits, chunk_named_by_its_position, stopping), states, PLAIN)


def calibrated_on(questions: list[int]) -> Calibration:
    """A curve of every threshold that matters, by playing each question with each."""
    thresholds = sorted({step.q for seed in questions for step in played(seed).steps})
    chunks = [sum(len(played(seed, threshold).steps) for seed in questions) for threshold in thresholds]
    curve = tuple(
        CurvePoint(threshold=threshold, recall=0.5, chunks=count / len(questions))
        for threshold, count in zip(thresholds, chunks, strict=True)
    )
    return Calibration(curves={"threshold": curve}, budget=BUDGET, default_rule="threshold", step_cost=0.1)


@settings(max_examples=25)
@given(st.lists(seeds, min_size=1, max_size=4, unique=True), st.data())
def test_the_questions_of_the_calibration_have_its_means(questions: list[int], data: st.DataObject) -> None:
    calibration = calibrated_on(questions)
    curve = calibration.curves["threshold"]
    reference = min(curve, key=lambda point: abs(point.chunks - LEADING)).threshold
    point = data.draw(st.sampled_from([point for point in curve if point.threshold <= reference]))
    stop = StopBelow(STOP_RULES["threshold"], point.threshold)
    found = [compared(played(seed, point.threshold), stop, calibration) for seed in questions]
    for figures in found:
        assert figures.keys() == {"chunks", "q"}  # without a head nothing says how complete the evidence is
    for figure in ("chunks", "q"):
        served, calibrated = (sum(part) / len(found) for part in zip(*(each[figure] for each in found), strict=True))
        assert served == pytest.approx(calibrated)


@given(seeds)
def test_steps_beyond_those_of_the_calibration_do_not_count(seed: int) -> None:
    stopping = random_stopping(DIMENSION)
    curve = (CurvePoint(threshold=0.0, recall=0.75, chunks=3.0),)
    curves = {"sufficiency": curve, "threshold": curve}
    calibration = Calibration(curves=curves, budget=BUDGET, default_rule="sufficiency", step_cost=0.1)
    stop = StopBelow(STOP_RULES["sufficiency"], 0.0)
    short, long = (played(seed, 0.0, rule="sufficiency", steps=n, stopping=stopping) for n in (BUDGET, BUDGET + 2))
    assert (len(short.steps), len(long.steps)) == (BUDGET, BUDGET + 2)
    figures = compared(short, stop, calibration)
    assert figures.keys() == set(FIGURES)
    assert compared(long, stop, calibration) == figures
    assert short.sufficiency is not None
    assert figures["complete"] == Compared(short.sufficiency.complete, 0.75)
    assert figures["chunks"] == Compared(BUDGET, 3.0)


def test_what_the_calibration_says_nothing_about_is_not_compared() -> None:
    calibration = calibrated_on([1, 2, 3])
    threshold = calibration.curves["threshold"][0].threshold
    stop = StopBelow(STOP_RULES["threshold"], threshold)
    assert compared(played(1, threshold), stop, calibration)
    assert not compared(played(1, threshold - 1), StopBelow(stop.rule, threshold - 1), calibration)
    assert not compared(played(1, threshold), StopBelow(STOP_RULES["action"], threshold), calibration)
    few = played(1, -9.0, chunks=2)
    assert few.stopped_by == "exhausted"
    assert not compared(few, stop, calibration)


def test_nothing_is_found_without_a_chunk_or_where_none_will_help() -> None:
    assert not played(1).found_nothing
    nothing = played(1, 9.0)
    assert (nothing.stopped_by, nothing.steps, nothing.found_nothing) == ("threshold", (), True)
    assert played(1, chunks=0).found_nothing
    stopping = random_stopping(DIMENSION, seed=3)
    endings = set()
    for seed in range(40):
        episode = played(seed, 0.05, rule="sufficiency", stopping=stopping)
        endings.add((episode.stopped_by, bool(episode.steps), episode.found_nothing))
        assert episode.found_nothing == (episode.stopped_by == "hopeless" or not episode.steps)
    assert {("hopeless", True, True), ("sufficient", True, False), ("budget", True, False)} <= endings
