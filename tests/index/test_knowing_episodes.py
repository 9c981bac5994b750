"""Episodes that know how far they are: rules end them, and beams keep what has ended beside what goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.episodes.episode import CONSIDERED, ChunkTokens, Episode, Held, Limits
from index.episodes.head import Moment, Sufficiency
from index.episodes.rules import STOP_RULES, StopBelow
from index.episodes.stopping import Stopping
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.scanning.matrices import Matrices
from index.search.signals.lexical import Lexical, Saturation
from index.search.states import States, TermWeights
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
from tests.index.strategies import Case, Float32


@dataclass(frozen=True)
class Knowing(Stopping):
    """Says of each number of selections what the caller says."""

    action: None = None
    head: None = None
    known: Callable[[Moment], Sufficiency] = field(kw_only=True)

    @property
    def assesses(self) -> bool:
        return True

    def sufficiency(self, moment: Moment, function: QFunction) -> Sufficiency | None:  # noqa: ARG002
        return self.known(moment)


def after(*complete: float, hopeless: float = 0.0) -> Knowing:
    """Complete with these probabilities after none, one, two ... selections; the last stands for the rest."""
    return Knowing(known=lambda moment: Sufficiency(complete[min(len(moment.selected), len(complete) - 1)], hopeless))


@pytest.mark.parametrize(
    ("complete", "hopeless", "taken", "reason"),
    [
        ((0.0, 0.1, 0.95), 0.0, 2, "sufficient"),
        ((0.0, 0.05), 0.9, 0, "hopeless"),
        ((0.0, 0.1), 0.3, 3, "budget"),
    ],
)
def test_sufficiency_ends_an_episode(complete: tuple[float, ...], hopeless: float, taken: int, reason: str) -> None:
    limits = Limits(3, stop=StopBelow(STOP_RULES["sufficiency"], 0.2))
    episode = Episode(documents([4]), limits, chunk_named_by_its_position, after(*complete, hopeless=hopeless))
    run(episode, toward([2, 0, 3]), PLAIN)
    assert picks(episode) == [2, 0, 3][:taken]
    assert episode.stopped_by == reason
    told = [*(step.sufficiency for step in episode.steps), episode.sufficiency]
    assert told == [Sufficiency(complete[min(at, len(complete) - 1)], hopeless) for at in range(taken + 1)]


def test_moments_hold_the_two_best_and_what_was_taken() -> None:
    seen: list[Moment] = []

    def known(moment: Moment) -> Sufficiency:
        seen.append(moment)
        return Sufficiency(0.0, 0.0)

    states = table({(): [0.9, 0.5, 0.1, 0.0], (0,): [9.0, 0.2, 0.3, 0.0], (0, 2): [9.0, 0.1, 9.0, 0.0]})
    episode = run(Episode(documents([4]), Limits(2), chunk_named_by_its_position, Knowing(known=known)), states, PLAIN)
    assert [moment.best for moment in seen] == [pytest.approx(best) for best in [(0.9, 0.5), (0.3, 0.2), (0.1, 0.0)]]
    assert [moment.selected for moment in seen] == [(), pytest.approx((0.9,)), pytest.approx((0.9, 0.3))]
    assert episode.stopped_by == "budget"


def test_moments_hold_what_is_covered_of_the_question_and_how_much_is_searched() -> None:
    seen: list[tuple[float, int]] = []

    def known(moment: Moment) -> Sufficiency:
        seen.append((moment.covered, moment.candidates))
        return Sufficiency(0.0, 0.0)

    rarity = np.zeros(9, dtype=np.float32)
    rarity[[2, 3, 5]] = 1.0, 0.5, 0.5
    reading = replace(PLAIN, further=(Lexical(0.0, rarity, Saturation()),))
    nothing = TermWeights(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
    texts = [[5, 7], [3, 1], [8], [8]]

    def moments(function: QFunction, held: Sequence[Held] = ()) -> list[tuple[float, int]]:
        """What an episode shows that selects the first chunk and the second, where it does not hold that already."""
        seen.clear()
        episode = Episode(
            documents([4]),
            Limits(2),
            lambda position: ChunkTokens(texts[position], 1),
            Knowing(known=known),
            held,
            question=[1, 2, 3, 5],
        )
        while episode.stopped_by is None:
            states = States(np.array([[1.0, 0.9, 0.8, 0.0]], dtype=np.float32), (nothing,))
            estimates = episode.scope.estimate(states, episode.selections, function, episode.ranked)
            episode.advance(states, list(estimates), function)
        return list(seen)

    assert moments(reading) == [(0.0, 4), (0.25, 4), (0.5, 4)]
    assert moments(reading, [Held(1)]) == [(0.25, 4), (0.5, 4), (0.5, 4)]
    assert moments(PLAIN) == [(0.0, 4)] * 3  # nothing says which tokens are rare


def test_nothing_to_search_is_hopeless() -> None:
    episode = Episode(MatrixScope(Matrices(np.array([0]), ())), Limits(3), chunk_named_by_its_position, after(0.5))
    assert episode.sufficiency == (0.0, 1.0)


def test_a_path_that_ended_is_not_given_up_for_one_that_becomes_less_likely() -> None:
    # Both first chunks look alike; after (1,) everything is found, after (0,) two chunks look alike again.
    states = table(
        {(): [0.9, 0.88, 0.0, 0.0], (0,): [0.0, 0.1, 0.7, 0.7], (1,): [0.0] * 4, (0, 2): [0.0, 0.6, 0.0, 0.5]}
    )

    def known(moment: Moment) -> Sufficiency:
        return Sufficiency(0.95, 0.05) if not moment.state.embedding.any() else Sufficiency(0.1, 0.4)

    limits = Limits(3, beam_width=2, stop=StopBelow(STOP_RULES["sufficiency"], 0.3))
    episode = run(Episode(documents([4]), limits, chunk_named_by_its_position, Knowing(known=known)), states, PLAIN)
    assert picks(episode) == [1]
    assert (episode.stopped_by, episode.sufficiency) == ("sufficient", (0.95, 0.05))


def test_a_path_that_ended_waits_for_those_that_are_likelier() -> None:
    # (0,) stops first; (1,) is a little likelier, and goes on.
    states = table(
        {
            (): [0.9, 0.92, 0.0, 0.0],
            (0,): [0.0, 0.1, 0.0, 0.0],
            (1,): [0.0, 0.0, 0.9, 0.0],
            (1, 2): [0.0, 0.0, 0.0, 0.2],
        }
    )
    told = {0.1: Sufficiency(0.5, 0.4), 0.9: Sufficiency(0.0, 0.1), 0.2: Sufficiency(0.9, 0.1)}

    def known(moment: Moment) -> Sufficiency:
        return told[round(moment.best[0], 1)] if moment.selected else Sufficiency(0.0, 0.0)

    limits = Limits(3, beam_width=2, stop=StopBelow(STOP_RULES["sufficiency"], 0.3))
    episode = run(Episode(documents([4]), limits, chunk_named_by_its_position, Knowing(known=known)), states, PLAIN)
    assert picks(episode) == [1, 2]
    assert (episode.stopped_by, episode.sufficiency) == ("sufficient", (0.9, 0.1))


def told_by(state: Float32) -> Sufficiency:
    """Something that depends on the state alone."""
    complete, still_open, hopeless = np.random.default_rng(state.view(np.uint32)).dirichlet((1, 1, 1)).tolist()
    assert complete + still_open + hopeless == pytest.approx(1)
    return Sufficiency(complete, hopeless)


class Entry(NamedTuple):
    order: tuple[int, ...]
    probability: float = 1.0
    reason: str | None = None


def slow_beam(
    scope: MatrixScope, state_of: StateOf, function: QFunction, steps: int, width: int, threshold: float
) -> Entry:
    """The set of chunks in which a beam ends, by trying the likeliest continuations of all paths that go on."""
    beam = [Entry(())]
    while beam[0].reason is None:
        pool = [entry for entry in beam if entry.reason is not None]
        for entry in beam:
            if entry.reason is not None:
                continue
            selected = tuple(sorted(entry.order))
            values = reference.q_of(state_of(selected), scope, selected, function)
            left = reference.ranking(values)
            told = told_by(state_of(selected))
            reason = None
            if len(entry.order) == steps:
                reason = "budget"
            elif not left:
                reason = "exhausted"
            elif told.open < threshold:
                kinds = {"sufficiency": told.open, "sufficient": told.complete, "hopeless": told.hopeless}
                reason = max(kinds, key=lambda kind: kinds[kind])
            if reason is not None:
                pool.append(Entry(entry.order, entry.probability, reason))
                continue
            odds = np.exp((values[left] - values[left[0]]) / function.temperature)[: max(width, CONSIDERED)]
            pool += [
                Entry((*entry.order, p), entry.probability * chance / odds.sum())
                for p, chance in zip(left[:width], odds, strict=False)
            ]
        sets: dict[frozenset[int], Entry] = {}
        for entry in sorted(pool, key=probability, reverse=True):
            better = sets.setdefault(frozenset(entry.order), entry)
            if better is not entry:
                both = better.probability + entry.probability
                sets[frozenset(entry.order)] = better._replace(probability=both)
        best = sorted(sets.values(), key=probability, reverse=True)[:width]
        beam = [entry for entry in best if entry.probability >= best[0].probability / 20]
    return beam[0]


def probability(entry: Entry) -> float:
    return entry.probability


@settings(deadline=None, max_examples=150)
@given(strategies.cases(), st.integers(1, 4), st.integers(1, 4), st.floats(0, 0.6), st.sampled_from([0.05, 0.5]), seeds)
def test_a_beam_with_a_rule_ends_where_a_slow_one_does(
    case: Case, steps: int, width: int, threshold: float, temperature: float, seed: int
) -> None:
    state_of = random_states(len(case.state), seed)
    function = QFunction(1.0, 0.0, case.function.positions, temperature)
    expected = slow_beam(case.scope, state_of, function, steps, width, threshold)
    limits = Limits(steps, beam_width=width, stop=StopBelow(STOP_RULES["sufficiency"], threshold))
    knowing = Knowing(known=lambda moment: told_by(moment.state.embedding))
    episode = run(Episode(case.scope, limits, chunk_named_by_its_position, knowing), state_of, function)
    assert (tuple(picks(episode)), episode.stopped_by) == (expected.order, expected.reason)
    assert episode.sufficiency == told_by(state_of(tuple(sorted(expected.order))))


def test_stopping_because_it_is_dear_is_not_called_hopeless() -> None:
    limits = Limits(3, stop=StopBelow(STOP_RULES["sufficiency"], 0.9))
    episode = Episode(documents([4]), limits, chunk_named_by_its_position, after(0.05, hopeless=0.1))
    run(episode, toward([2, 0, 3]), PLAIN)
    assert (picks(episode), episode.stopped_by) == ([], "sufficiency")


def test_a_beam_without_an_estimate_stops_when_its_best_path_does() -> None:
    states = table(
        {
            (): [0.9, 0.91, 0.0, 0.0],
            (0,): [0.0, 0.1, 0.2, 0.0],  # ends
            (1,): [0.0, 0.0, 0.9, 0.0],
            (1, 2): [0.3, 0.0, 0.0, 0.4],  # ends
        }
    )
    limits = Limits(4, beam_width=2, stop=StopBelow(STOP_RULES["threshold"], 0.5))
    episode = run(Episode(documents([4]), limits, chunk_named_by_its_position), states, PLAIN)
    assert (picks(episode), episode.stopped_by, episode.sufficiency) == ([1, 2], "threshold", None)


def test_a_beam_that_knows_never_leaves_the_context() -> None:
    costs = [3, 3, 1, 1]
    states = table(
        {
            (): [0.9, 0.92, 0.3, 0.2],
            (0,): [0.0, 0.5, 0.3, 0.1],  # wants 1, which does not fit
            (1,): [0.0, 0.0, 0.4, 0.1],
            (1, 2): [0.9, 0.0, 0.0, 0.8],  # wants 0, which does not fit
            (0, 2): [0.0] * 4,
            (1, 3): [0.0] * 4,
        }
    )
    known = Knowing(known=lambda moment: Sufficiency(0.2 * len(moment.selected), 0.1))
    limits = Limits(3, beam_width=2, max_context_tokens=4)
    episode = Episode(documents([4]), limits, lambda position: ChunkTokens([position], costs[position]), known)
    run(episode, states, PLAIN)
    assert (picks(episode), episode.stopped_by) == ([1, 2], "context")
    assert episode.sufficiency == (0.4, 0.1)
