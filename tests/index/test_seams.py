"""What can be added to search and episodes from outside, through the protocols alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.arrays import BoolArray, Float32Array, Float64Array, IntArray, TokenIds
from index.episodes.episode import ChunkTokens, Episode, Limits
from index.episodes.head import Moment, Sufficiency
from index.episodes.rules import Need, StopBelow
from index.episodes.stepping import Stepped, embed_together, step_together
from index.episodes.stopping import Stopping
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions
from index.search.scanning.bags import Frequencies
from index.search.scanning.matrices import Matrices, Part
from index.search.scope import Candidate, Estimate
from index.search.scoring import best, exact_q
from index.search.signals.protocol import Chunks
from index.search.states import State, States, TermWeights, concatenate
from qrag.wire.rules import StoppedBy
from tests.index import reference, strategies
from tests.index.strategies import Case

PLAIN = QFunction(1.0, 0.0, Positions(mode="none"))


def scope_of(matrix: Float32Array, counts: Sequence[int]) -> MatrixScope:
    return MatrixScope(Matrices(np.cumsum([0, *counts]), (Part(0, matrix),), norm_bound=1.001))


def named(position: int) -> ChunkTokens:
    return ChunkTokens([position], cost=1)


# -- a second signal --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Words:
    """Adds a bonus for each token of a chunk that the state weighs; rounds what it adds to sixteenths."""

    bonus: Float64Array
    """The bonus of each token in each chunk, shape ``[chunks, tokens]``."""

    def add(
        self, states: States, matrices: Matrices, selections: Sequence[Sequence[int]], values: Float32Array
    ) -> list[float]:
        for state, selected, row in zip(states, selections, values, strict=True):
            exact = self.exact(state, matrices, selected, np.arange(matrices.size))
            row += np.round(exact * 16).astype(np.float32) / 16
        return [1 / 32 + 1e-5] * len(states)

    def exact(self, state: State, chunks: Chunks, selected: Sequence[int], positions: IntArray) -> Float64Array:  # noqa: ARG002
        assert state.terms is not None
        found: Float64Array = self.bonus[positions][:, state.terms.tokens] @ state.terms.weights.astype(np.float64)
        return found


@settings(deadline=None, max_examples=60)
@given(strategies.cases(), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_best_of_a_sum_of_signals_is_exact(case: Case, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    words = Words(generator.random((case.scope.size, 5)))
    function = QFunction(case.function.w, case.function.b, case.function.positions, further=(words,))
    terms = TermWeights(np.array([1, 4]), generator.random(2).astype(np.float32))
    state = State(case.state, terms)
    (estimate,) = case.scope.estimate(States(case.state[None], (terms,)), [case.selected], function)
    expected = reference.q_of(case.state, case.scope, case.selected, case.function)
    left = [position for position in range(case.scope.size) if position not in case.selected]
    expected[left] += words.exact(state, case.scope, case.selected, np.array(left, dtype=np.int64))
    assert (np.abs(estimate.values[left] - expected[left]) <= estimate.error + 1e-9 * np.abs(expected[left])).all()
    chosen = best(estimate, count, state, case.scope, case.selected, function)
    assert len(chosen) == min(count, len(left))
    tolerance = 1e-9 * (1 + np.abs(expected[left]).max(initial=0.0))
    np.testing.assert_allclose([q for _, q in chosen], sorted(expected[left], reverse=True)[:count], atol=tolerance)
    for position, q in chosen:
        assert q == pytest.approx(expected[position], abs=tolerance)


def test_terms_stay_with_their_states() -> None:
    weights = tuple(TermWeights(np.array([at]), np.ones(1, dtype=np.float32)) for at in range(3))
    states = States(np.eye(3, dtype=np.float32), weights)
    both = concatenate([states.between(2, 3), states.between(0, 2)])
    assert [state.terms for state in both] == [weights[2], weights[0], weights[1]]
    np.testing.assert_array_equal(both.embeddings, np.eye(3)[[2, 0, 1]])


# -- a second engine's scope, and masks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListedScope:
    """Knows nothing of matrices that are scanned: shows the few best of each state, as an engine elsewhere would."""

    matrix: Float32Array
    offsets: IntArray
    mask: BoolArray | None = None
    shown: int = 6

    @property
    def size(self) -> int:
        return len(self.matrix)

    @property
    def read_size(self) -> int:
        return self.shown

    def masked(self, excluded: IntArray) -> ListedScope:
        mask = np.ones(self.size, dtype=np.bool_) if self.mask is None else self.mask.copy()
        mask[excluded] = False
        return ListedScope(self.matrix, self.offsets, mask, self.shown)

    def document_of(self, position: int) -> int:
        return int(np.searchsorted(self.offsets, position, side="right")) - 1

    def rows(self, positions: IntArray) -> Float32Array:
        return self.matrix[positions]

    def term_counts(self, tokens: IntArray, positions: IntArray) -> IntArray:
        return np.zeros((len(tokens), len(positions)), dtype=np.int64)

    def frequencies(self, tokens: IntArray) -> Frequencies:
        return Frequencies(np.zeros(len(tokens), dtype=np.int64), 0, 0)

    def lengths(self, positions: IntArray) -> IntArray:
        return np.zeros(len(positions), dtype=np.int64)

    def estimate(
        self,
        states: States,
        selections: Sequence[Sequence[int]],
        function: QFunction,
        count: int = 1,  # noqa: ARG002
    ) -> list[Estimate]:
        estimates = []
        for state, selected in zip(states, selections, strict=True):
            free = np.ones(self.size, dtype=np.bool_) if self.mask is None else self.mask.copy()
            free[list(selected)] = False
            q = exact_q(state, self, selected, function, np.flatnonzero(free))
            listed = np.flatnonzero(free)[np.argsort(-q, kind="stable")[: self.shown]]
            values = exact_q(state, self, selected, function, listed).astype(np.float32)
            estimates.append(Estimate(values, 1e-6, listed, exact=False))
        return estimates

    def nearest(self, query: Float32Array, count: int) -> list[Candidate]:
        products = self.matrix @ query
        return [Candidate(int(at), float(products[at])) for at in np.argsort(-products)[:count]]


class Answering:
    """An encoder whose states are the sums of what they hold."""

    def __init__(self, matrix: Float32Array, fails_on: int | None = None) -> None:
        self._matrix, self._fails_on = matrix, fails_on

    def compose_state(self, question: TokenIds, chunks: Sequence[TokenIds]) -> list[int]:
        if self._fails_on in question:
            raise LookupError("this question cannot be composed")
        return [*question, *(ids[0] for ids in chunks)]

    def embed_states(self, states: Sequence[list[int]]) -> States:
        return States(np.stack([self._matrix[state].sum(axis=0) for state in states]).astype(np.float32))


@pytest.mark.parametrize("width", [1, 3])
def test_an_episode_runs_over_any_engines_scope(width: int) -> None:
    matrix = strategies.random_vectors(30, 8, seed=3)
    function = QFunction(1.0, 0.0, Positions(levels=4))
    excluded = np.array([4, 17])
    selections = []
    for scope in (scope_of(matrix, [12, 18]), ListedScope(matrix, np.array([0, 12, 30]), shown=20)):
        episode = Episode(scope.masked(excluded), Limits(4, beam_width=width), named, question=[4])
        encoder = Answering(matrix)
        while episode.stopped_by is None:
            (states,) = embed_together(encoder, [episode])
            assert isinstance(states, States)
            (outcome,) = step_together([episode], [states], function)
            assert isinstance(outcome, Stepped)
        selections.append([step.position for step in episode.steps])
        assert episode.exact == isinstance(scope, MatrixScope)
    assert selections[0] == selections[1]
    assert len(selections[0]) == 4
    assert not set(selections[0]) & {4, 17}


@settings(deadline=None, max_examples=60)
@given(strategies.cases(), st.data())
def test_masked_chunks_are_never_selected_and_change_nothing_else(case: Case, data: st.DataObject) -> None:
    excluded = np.array(data.draw(strategies.selections(case.scope.size)), dtype=np.int64)
    masked = case.scope.masked(excluded)
    states = States(case.state[None])
    (everything,) = case.scope.estimate(states, [case.selected], case.function)
    (estimate,) = masked.estimate(states, [case.selected], case.function)
    left = np.setdiff1d(np.arange(case.scope.size), [*excluded, *case.selected])
    np.testing.assert_array_equal(estimate.values[left], everything.values[left])
    gone = np.setdiff1d(np.arange(case.scope.size), left)
    assert (estimate.values[gone] == -np.inf).all()
    chosen = best(estimate, 5, states[0], masked, case.selected, case.function)
    assert len(chosen) == min(5, len(left))
    assert {position for position, _ in chosen} <= set(left.tolist())
    nearest = [position for position, _ in masked.nearest(case.state, case.scope.size)]
    assert sorted(nearest) == sorted(set(range(case.scope.size)) - set(excluded.tolist()))
    assert masked.masked(np.arange(case.scope.size)).nearest(case.state, 3) == []


# -- a second stop rule -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AfterSoMany:
    """Stops after a number of selections, which is its threshold turned round."""

    name: str = "so-many"
    needs: frozenset[Need] = frozenset()

    def score(
        self,
        moment: Moment,
        sufficiency: Sufficiency | None,  # noqa: ARG002
        stopping: Stopping,  # noqa: ARG002
        function: QFunction,  # noqa: ARG002
    ) -> float:
        return -float(len(moment.selected))

    def ending(self, sufficiency: Sufficiency | None) -> StoppedBy:  # noqa: ARG002
        return "threshold"


@pytest.mark.parametrize("selections", [0, 1, 3])
def test_an_episode_stops_by_a_rule_from_elsewhere(selections: int) -> None:
    matrix = np.eye(6, dtype=np.float32)
    limits = Limits(5, stop=StopBelow(AfterSoMany(), 0.5 - selections))
    episode = Episode(scope_of(matrix, [6]), limits, named)
    while episode.stopped_by is None:
        step_together([episode], [States(np.ones((episode.width, 6), dtype=np.float32))], PLAIN)
    assert len(episode.steps) == selections
    assert episode.stopped_by == "threshold"


# -- stepping ---------------------------------------------------------------------------------------------------------


class Broken(ListedScope):
    """Cannot be read."""

    def estimate(
        self,
        states: States,  # noqa: ARG002
        selections: Sequence[Sequence[int]],  # noqa: ARG002
        function: QFunction,  # noqa: ARG002
        count: int = 1,  # noqa: ARG002
    ) -> list[Estimate]:
        raise OSError("the engine does not answer")


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(1, 3)), min_size=1, max_size=6))
def test_episodes_stepped_together_select_what_each_selects_alone(asked: list[tuple[int, int, int]]) -> None:
    matrix = strategies.random_vectors(10, 6, seed=1)
    scopes = [scope_of(matrix, [10]), scope_of(matrix, [3, 7]), scope_of(matrix, [1] * 10)]
    function = QFunction(1.0, 0.0, Positions(levels=3))
    encoder = Answering(matrix)

    def started() -> list[Episode]:
        return [
            Episode(scopes[scope], Limits(3, beam_width=width), named, question=[question])
            for scope, question, width in asked
        ]

    together, alone = started(), started()
    while running := [each for each in together if each.stopped_by is None]:
        states = [states for states in embed_together(encoder, running) if isinstance(states, States)]
        outcomes = step_together(running, states, function)
        assert all(isinstance(outcome, Stepped) for outcome in outcomes)
    for own in alone:
        while own.stopped_by is None:
            (embedded,) = embed_together(encoder, [own])
            assert isinstance(embedded, States)
            step_together([own], [embedded], function)
    for one, other in zip(together, alone, strict=True):
        assert [step.position for step in one.steps] == [step.position for step in other.steps]
        assert one.stopped_by == other.stopped_by


def test_what_fails_leaves_the_other_episodes_as_they_are() -> None:
    matrix = strategies.random_vectors(10, 6, seed=1)
    working, broken = scope_of(matrix, [10]), Broken(matrix, np.array([0, 10]))
    running = [
        Episode(working, Limits(3), named, question=[1]),
        Episode(working, Limits(3), named, question=[7]),
        Episode(broken, Limits(3), named, question=[2]),
    ]
    embedded = embed_together(Answering(matrix, fails_on=7), running)
    assert [type(states) for states in embedded] == [States, LookupError, States]
    left = [(each, states) for each, states in zip(running, embedded, strict=True) if isinstance(states, States)]
    outcomes = step_together([each for each, _ in left], [states for _, states in left], PLAIN)
    assert [type(outcome) for outcome in outcomes] == [Stepped, OSError]
    assert [len(each.steps) for each in running] == [1, 0, 0]


def test_a_forward_pass_that_fails_fails_for_all() -> None:
    class Unable(Answering):
        def embed_states(self, states: Sequence[list[int]]) -> States:  # noqa: ARG002
            raise MemoryError

    matrix = strategies.random_vectors(10, 6, seed=1)
    running = [Episode(scope_of(matrix, [10]), Limits(3), named, question=[question]) for question in (1, 2)]
    assert [type(outcome) for outcome in embed_together(Unable(matrix), running)] == [MemoryError, MemoryError]
