"""Episodes pick what a brute-force search over the formulas picks, and stop when they should."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.arrays import TokenIds
from index.episodes.episode import CONSIDERED, ChunkTokens, Episode, Limits
from index.episodes.rules import STOP_RULES, StopBelow
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions
from index.search.scanning.matrices import Matrices, Part
from tests.index import reference, strategies
from tests.index.episodes import (
    PLAIN,
    StateOf,
    chunk_named_by_its_position,
    documents,
    picks,
    random_states,
    run,
    seeds,
    table,
    toward,
)
from tests.index.stepping import take_step
from tests.index.strategies import Case

UNDECIDED = QFunction(1.0, 0.0, Positions(mode="none"), temperature=0.5)


class Path(NamedTuple):
    order: tuple[int, ...]
    qs: tuple[float, ...]
    probability: float


def brute_force(scope: MatrixScope, state_of: StateOf, function: QFunction, steps: int, width: int) -> list[Path]:
    """The most probable sets of chunks after so many steps: of those less than a twentieth as probable none is kept."""
    beam = [Path((), (), 1.0)]
    for _ in range(steps):
        longer = []
        for path in beam:
            selected = tuple(sorted(path.order))
            values = reference.q_of(state_of(selected), scope, selected, function)
            ranked = reference.ranking(values)
            odds = [math.exp((values[p] - values[ranked[0]]) / function.temperature) for p in ranked[:CONSIDERED]]
            longer += [
                Path((*path.order, p), (*path.qs, values[p]), path.probability * chance / sum(odds))
                for p, chance in zip(ranked[:width], odds, strict=False)
            ]
        beam = most_probable_sets(longer, width)
    return beam


def most_probable_sets(paths: Sequence[Path], width: int) -> list[Path]:
    """Each set once, with the order that is the most probable one, and the probability of all of its orders."""
    sets: dict[frozenset[int], Path] = {}
    for path in sorted(paths, key=lambda path: -path.probability):
        better = sets.setdefault(frozenset(path.order), path)
        if better is not path:
            both = better.probability + path.probability
            sets[frozenset(path.order)] = better._replace(probability=both)
    beam = sorted(sets.values(), key=lambda path: -path.probability)[:width]
    return [path for path in beam if path.probability >= beam[0].probability / 20]


@settings(deadline=None, max_examples=200)
@given(strategies.cases(), st.integers(1, 6), seeds)
def test_greedy_picks_are_those_of_brute_force(case: Case, steps: int, seed: int) -> None:
    steps = min(steps, case.scope.size)
    state_of = random_states(len(case.state), seed)
    (expected,) = brute_force(case.scope, state_of, case.function, steps, width=1)
    episode = run(Episode(case.scope, Limits(steps), chunk_named_by_its_position), state_of, case.function)
    assert picks(episode) == list(expected.order)
    np.testing.assert_allclose([step.q for step in episode.steps], expected.qs, rtol=0, atol=1e-10 * case.scale)
    assert episode.stopped_by == "budget"


@settings(deadline=None, max_examples=100)
@given(strategies.cases(), st.integers(1, 4), st.integers(2, 5), st.sampled_from([0.05, 0.5]), seeds)
def test_a_beam_keeps_the_best_distinct_sets_of_brute_force(
    case: Case, steps: int, width: int, temperature: float, seed: int
) -> None:
    steps = min(steps, case.scope.size)
    state_of = random_states(len(case.state), seed)
    function = QFunction(1.0, 0.0, case.function.positions, temperature)
    expected = brute_force(case.scope, state_of, function, steps, width)
    episode = Episode(case.scope, Limits(steps, beam_width=width), chunk_named_by_its_position)
    run(episode, state_of, function)
    sets = [tuple(ids[0] for ids in path) for path in episode.states()]
    assert len(set(sets)) == len(sets)
    assert sets == [tuple(sorted(path.order)) for path in expected]
    assert picks(episode) == list(expected[0].order)


@settings(deadline=None, max_examples=50)
@given(strategies.cases(), st.integers(1, 5), st.integers(1, 8), seeds)
def test_recorded_candidates_are_the_best_of_each_moment(case: Case, steps: int, recorded: int, seed: int) -> None:
    state_of = random_states(len(case.state), seed)
    limits = Limits(steps, candidates=recorded)
    episode = run(Episode(case.scope, limits, chunk_named_by_its_position), state_of, case.function)
    for number, step in enumerate(episode.steps):
        selected = tuple(sorted(picks(episode)[:number]))
        values = reference.q_of(state_of(selected), case.scope, selected, case.function)
        assert [candidate.position for candidate in step.candidates] == reference.ranking(values)[:recorded]
        assert step.candidates[0] == (step.position, step.q)


def test_candidates_are_recorded_only_when_asked_for() -> None:
    scope = documents([4])
    episode = run(Episode(scope, Limits(2, beam_width=3), chunk_named_by_its_position), toward([1, 2]), PLAIN)
    assert [step.candidates for step in episode.steps] == [(), ()]


# -- hand-made worlds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_the_budget_ends_an_episode(budget: int) -> None:
    episode = Episode(documents([4]), Limits(budget), chunk_named_by_its_position)
    assert episode.is_greedy
    run(episode, toward([2, 0, 3]), PLAIN)
    assert (picks(episode), episode.stopped_by) == ([2, 0, 3][:budget], "budget")


def test_all_chunks_taken_ends_an_episode() -> None:
    episode = run(Episode(documents([1, 2]), Limits(9), chunk_named_by_its_position), toward([2, 0, 1]), PLAIN)
    assert (picks(episode), episode.stopped_by) == ([2, 0, 1], "exhausted")


def test_an_episode_over_nothing_is_over() -> None:
    episode = Episode(MatrixScope(Matrices(np.array([0]), ())), Limits(3), chunk_named_by_its_position)
    assert (picks(episode), episode.stopped_by) == ([], "exhausted")


@pytest.mark.parametrize(("threshold", "taken"), [(1.01, 0), (0.95, 1), (0.85, 2), (-1.0, 3)])
def test_a_chunk_below_the_threshold_is_not_taken(threshold: float, taken: int) -> None:
    limits = Limits(3, stop=StopBelow(STOP_RULES["threshold"], threshold))
    episode = run(Episode(documents([4]), limits, chunk_named_by_its_position), toward([3, 1, 0]), PLAIN)
    assert picks(episode) == [3, 1, 0][:taken]
    assert episode.stopped_by == ("budget" if taken == 3 else "threshold")


def test_a_chunk_at_the_threshold_is_taken() -> None:
    limits = Limits(1, stop=StopBelow(STOP_RULES["threshold"], 1.0))
    episode = run(Episode(documents([4]), limits, chunk_named_by_its_position), toward([3]), PLAIN)
    assert (picks(episode), episode.stopped_by) == ([3], "budget")


@pytest.mark.parametrize(("room", "taken"), [(4, 0), (5, 1), (14, 1), (15, 2), (16, 3), (99, 3)])
def test_a_chunk_that_does_not_fit_the_context_is_not_taken(room: int, taken: int) -> None:
    costs = [1, 10, 99, 5]
    episode = Episode(
        documents([4]), Limits(3, max_context_tokens=room), lambda position: ChunkTokens([position], costs[position])
    )
    run(episode, toward([3, 1, 0]), PLAIN)
    assert picks(episode) == [3, 1, 0][:taken]
    assert episode.stopped_by == ("budget" if taken == 3 else "context")


def test_each_chunk_is_read_once() -> None:
    read: list[int] = []

    def read_chunk(position: int) -> ChunkTokens:
        read.append(position)
        return ChunkTokens([position], 1)

    limits = Limits(3, beam_width=3, max_context_tokens=100)
    run(Episode(documents([4]), limits, read_chunk), random_states(4, 0), PLAIN)
    assert len(read) == len(set(read)) > 0


def test_states_hold_the_chunks_tokens_in_document_order() -> None:
    tokens: list[TokenIds] = [[7, 8], [9], [10, 11], [12]]
    episode = Episode(documents([4]), Limits(3), lambda position: ChunkTokens(tokens[position], 1))
    seen = []
    for order in ((), (3,), (0, 3)):
        seen.append(episode.states())
        take_step(episode, toward([3, 0, 2])(order)[None], PLAIN)
    assert seen == [[[]], [[[12]]], [[[7, 8], [12]]]]


GARDEN_PATH = table(
    {
        (): [0.9, 0.88, 0.0, 0.0],
        (0,): [0.0, 0.3, 0.29, 0.28],  # after the tempting first chunk no second one stands out
        (1,): [0.4, 0.0, 0.95, 0.1],
        (0, 1): [0.0, 0.0, 0.1, 0.1],
        (1, 2): [0.1, 0.0, 0.0, 1.0],
    }
)


def test_a_beam_escapes_where_greedy_is_led_astray() -> None:
    greedy = Episode(documents([4]), Limits(2), chunk_named_by_its_position)
    beam = Episode(documents([4]), Limits(2, beam_width=2), chunk_named_by_its_position)
    assert not beam.is_greedy
    run(greedy, GARDEN_PATH, PLAIN)
    run(beam, GARDEN_PATH, PLAIN)
    assert picks(greedy) == [0, 1]
    assert picks(beam) == [1, 2]
    assert [step.q for step in beam.steps] == pytest.approx([0.88, 0.95])
    assert beam.stopped_by == "budget"


def test_a_set_reached_in_two_orders_is_as_likely_as_both() -> None:
    # (0, 2) is the likeliest in one order, (0, 1) in both: first 1, because then 0 is likelier than 1 after 0.
    states = table({(): [0.9, 0.9, 0.1, 0.0], (0,): [0.0, 0.58, 0.6, 0.0], (1,): [0.6, 0.0, 0.57, 0.0]})
    episode = Episode(documents([4]), Limits(2, beam_width=3), chunk_named_by_its_position)
    run(episode, states, PLAIN)
    assert [tuple(ids[0] for ids in path) for path in episode.states()] == [(0, 1), (0, 2), (1, 2)]
    assert picks(episode) == [1, 0]


def test_paths_that_are_much_less_likely_than_the_best_are_dropped() -> None:
    states = table({(): [0.9, 0.8, 0.7, 0.0], (0,): [0.0, 0.3, 0.6, 0.55], (1,): [0.0, 0.0, 0.9, 0.0]})
    widths: list[int] = []
    episode = Episode(documents([4]), Limits(2, beam_width=4), chunk_named_by_its_position)
    run(episode, states, PLAIN, watch=lambda: widths.append(episode.width))
    assert widths == [2, 3]  # the third is e^-4 as likely as the first


def test_candidates_for_the_trace_change_no_choice() -> None:
    states = random_states(40, seed=3)
    found = []
    for shown in (0, 30):
        limits = Limits(3, beam_width=4, candidates=shown)
        episode = Episode(
            MatrixScope(Matrices(np.array([0, 40]), (Part(0, np.eye(40, dtype=np.float32)),))),
            limits,
            chunk_named_by_its_position,
        )
        run(episode, states, UNDECIDED)
        found.append(episode.selections)
    assert found[0] == found[1]


def test_a_beam_never_leaves_the_context() -> None:
    costs = [3, 3, 1, 1]
    episode = Episode(
        documents([4]),
        Limits(2, beam_width=4, max_context_tokens=4),
        lambda position: ChunkTokens([position], costs[position]),
    )
    states = table(
        {
            (): [0.9, 0.8, 0.7, 0.6],
            (0,): [0.0, 0.2, 0.3, 0.1],
            (1,): [0.25, 0.0, 0.1, 0.1],
            (2,): [0.1, 0.1, 0.0, 0.1],
            (3,): [0.1, 0.1, 0.1, 0.0],
        }
    )
    run(episode, states, UNDECIDED)
    sets = [tuple(ids[0] for ids in path) for path in episode.states()]
    # (1,) wanted 0, which does not fit: it ends there, as a greedy episode would.
    assert sets == [(0, 2), (0, 3), (2, 3)]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 4), st.integers(1, 4), seeds)
def test_positions_move_with_the_selection(counts: list[int], steps: int, width: int, seed: int) -> None:
    # With one state for all, only the positions of the chunks tell the steps apart.
    scope = MatrixScope(Matrices(np.cumsum([0, *counts]), (Part(0, strategies.random_vectors(sum(counts), 4, seed)),)))
    state = strategies.random_vectors(1, 4, seed + 1)[0]
    function = QFunction(1.0, 0.0, Positions(levels=4))
    steps = min(steps, scope.size)
    episode = Episode(scope, Limits(steps, beam_width=width), chunk_named_by_its_position)
    run(episode, lambda _: state, function)
    (expected, *_) = brute_force(scope, lambda _: state, function, steps, width)
    assert picks(episode) == list(expected.order)


def test_progress_can_be_watched_step_by_step() -> None:
    episode = Episode(documents([4]), Limits(3), chunk_named_by_its_position)
    watched: list[list[int]] = []
    run(episode, toward([2, 0, 3]), PLAIN, watch=lambda: watched.append(picks(episode)))
    assert watched == [[2], [2, 0], [2, 0, 3]]
    assert all(math.isclose(step.q, 1 - 0.1 * number, rel_tol=1e-6) for number, step in enumerate(episode.steps))
    assert all(len(shorter) + 1 == len(longer) for shorter, longer in itertools.pairwise(watched))
