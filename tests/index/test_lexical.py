"""The lexical signal and the posting lists it reads, against counting."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions
from index.search.scanning.bags import MOST_COUNTED, counts_in, index_bags, merged_bags
from index.search.scanning.matrices import Matrices, Part
from index.search.scoring import exact_q
from index.search.signals.lexical import Lexical, Saturation
from index.search.states import State, States, TermWeights

bags = st.lists(st.lists(st.integers(0, 6), max_size=12), max_size=9)


@settings(deadline=None)
@given(bags)
def test_posting_lists_say_how_often_each_row_has_each_token(texts: list[list[int]]) -> None:
    postings = index_bags(texts)
    assert postings.lengths.tolist() == [len(text) for text in texts]
    for token in range(8):
        counted = [Counter(text)[token] for text in texts]
        place = np.flatnonzero(postings.tokens == token).tolist()
        entries = slice(postings.borders[place[0]], postings.borders[place[0] + 1]) if place else slice(0, 0)
        assert postings.rows[entries].tolist() == [row for row, count in enumerate(counted) if count]
        assert counts_in(postings, np.array([token]), np.arange(len(texts))).tolist() == [counted]


@settings(deadline=None)
@given(st.lists(bags, min_size=1, max_size=4), st.data())
def test_stretches_of_rows_laid_end_to_end_have_the_lists_of_their_texts(
    segments: list[list[list[int]]], data: st.DataObject
) -> None:
    parts, texts = [], []
    for segment in segments:
        first = data.draw(st.integers(0, len(segment)))
        count = data.draw(st.integers(0, len(segment) - first))
        parts.append((index_bags(segment), first, count))
        texts += segment[first : first + count]
    for merged, made in zip(merged_bags(parts), index_bags(texts), strict=True):
        np.testing.assert_array_equal(merged, made)


def test_more_occurrences_than_are_told_apart_count_as_that_many() -> None:
    assert index_bags([[3] * 1000]).counts.tolist() == [MOST_COUNTED]


def scope_of(texts: list[list[int]]) -> MatrixScope:
    matrix = np.eye(len(texts), 4, dtype=np.float32)
    part = Part(0, matrix, postings=index_bags(texts))
    return MatrixScope(Matrices(np.array([0, len(texts)]), (part,)))


def lexical(**saturation: float) -> Lexical:
    return Lexical(0.5, np.array([0.0, 1.0, 0.25], dtype=np.float32), Saturation(**saturation))


def state_of(weights: dict[int, float]) -> State:
    terms = TermWeights(np.array(list(weights)), np.array(list(weights.values()), dtype=np.float32))
    return State(np.zeros(4, dtype=np.float32), terms)


def values(texts: list[list[int]], weights: dict[int, float], **saturation: float) -> list[float]:
    function = QFunction(1.0, 0.0, Positions(mode="none"), further=(lexical(**saturation),))
    found: list[float] = exact_q(state_of(weights), scope_of(texts), (), function, np.arange(len(texts))).tolist()
    return found


def test_a_rare_token_adds_more_than_a_common_one_and_one_without_rarity_nothing() -> None:
    rare, common, nothing = values([[1], [2], [0]], {0: 1.0, 1: 1.0, 2: 1.0}, b=0.0)
    # Three chunks say little beside the checkpoint's rarity, which weighs as a hundred.
    here = math.log(1 + 2.5 / 1.5) / math.log(1 + 3.5 / 0.5)
    assert rare == pytest.approx(0.5 * (100 * 1.0 + 3 * here) / 103, rel=1e-6)
    assert common == pytest.approx(0.5 * (100 * 0.25 + 3 * here) / 103, rel=1e-6)
    assert nothing == 0


def test_repetition_adds_less_each_time_and_length_takes_away() -> None:
    once, twice, often, long = values([[1], [1, 1], [1] * 200, [1] + [0] * 60], {1: 1.0}, mean_length=1.0)
    assert once < twice
    assert long < once
    assert often < 0.5 * 2.2  # k1 + 1 times what one occurrence in a chunk of mean length adds
    (short,) = values([[1]], {1: 1.0}, b=0.0)
    (flat,) = values([[1] + [0] * 60], {1: 1.0}, b=0.0)
    assert short == flat


def test_chunks_without_bags_gain_nothing() -> None:
    matrix = np.eye(3, 4, dtype=np.float32)
    parts = (Part(0, matrix[:2]), Part(2, matrix[2:], postings=index_bags([[1]])))
    scope = MatrixScope(Matrices(np.array([0, 3]), parts))
    function = QFunction(1.0, 0.0, Positions(mode="none"), further=(lexical(b=0.0),))
    state = state_of({1: 1.0})
    here = math.log(1 + 0.5 / 1.5) / math.log(1 + 1.5 / 0.5)  # in the one chunk that has a bag
    only = 0.5 * (100 * 1.0 + here) / 101
    assert exact_q(state, scope, (), function, np.arange(3)).tolist() == pytest.approx([0.0, 0.0, only], rel=1e-6)
    assert state.terms is not None
    (estimate,) = scope.estimate(States(state.embedding[None], (state.terms,)), [[]], function)
    np.testing.assert_allclose(estimate.values, [0.0, 0.0, only], atol=1e-6)


def test_chunks_behind_those_with_bags_have_none_yet() -> None:
    rows = np.eye(3, 4, dtype=np.float32)
    parts = (Part(0, rows[:1], postings=index_bags([[1, 2], [1, 1]])), Part(1, rows[1:]))
    scope = MatrixScope(Matrices(np.array([0, 3]), parts))
    assert scope.term_counts(np.array([1]), np.arange(3)).tolist() == [[1, 0, 0]]
    assert scope.lengths(np.arange(3)).tolist() == [2, 0, 0]


def test_what_stands_everywhere_here_tells_little_however_rare_it_is_elsewhere() -> None:
    few, many = [[1], [2]], [[1]] * 5000 + [[2]]
    for texts, named in ((few, True), (many, False)):
        first, last = values(texts, {1: 1.0, 2: 1.0}, b=0.0)[:: len(texts) - 1]
        assert (first > last) is named  # token 1 is the rarer one in the texts of the training


@settings(deadline=None)
@given(bags, st.data())
def test_a_token_is_counted_in_the_rows_of_a_scope_alone(texts: list[list[int]], data: st.DataObject) -> None:
    texts = [*texts, [1, 1, 2]]
    first = data.draw(st.integers(0, len(texts) - 1))
    rows = texts[first:]
    part = Part(0, np.eye(len(rows), 4, dtype=np.float32), first_row=first, postings=index_bags(texts))
    scope = MatrixScope(Matrices(np.array([0, len(rows)]), (part,)))
    for _ in range(2):  # the second time from memory
        found = scope.frequencies(np.arange(8))
        assert found.of_tokens.tolist() == [sum(token in row for row in rows) for token in range(8)]
        assert (found.chunks, found.length) == (len(rows), sum(map(len, rows)))
    of_whole = MatrixScope(Matrices(np.array([0, 1]), (part._replace(matrix=part.matrix[:1]),), counted=scope.matrices))
    assert of_whole.frequencies(np.arange(8)).of_tokens.tolist() == found.of_tokens.tolist()


def test_shares_of_the_tokens_add_up_to_the_signal() -> None:
    scope = scope_of([[1, 2], [2, 2], []])
    state = state_of({1: 0.3, 2: 0.9})
    signal = lexical()
    shares = signal.shares(state, scope, np.arange(3))
    assert [token for token, _ in shares] == [1, 2]
    np.testing.assert_allclose(sum(share for _, share in shares), signal.exact(state, scope, (), np.arange(3)))


rarities = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=7, max_size=7)
tokens = st.lists(st.integers(0, 6), max_size=12)


@given(rarities, tokens, bags)
def test_what_is_covered_of_a_question_is_what_the_texts_have_of_it(
    rarity: list[float], question: list[int], texts: list[list[int]]
) -> None:
    covered = Lexical(1.0, np.array(rarity, dtype=np.float32), Saturation()).covered(question, texts)
    asked = sum(rarity[token] for token in set(question))
    held = sum(rarity[token] for token in set(question) if any(token in text for text in texts))
    assert covered == (pytest.approx(held / asked) if asked else 0.0)


def test_a_state_without_weights_is_refused() -> None:
    function = QFunction(1.0, 0.0, Positions(mode="none"), further=(lexical(),))
    with pytest.raises(ValueError, match="weights"):
        exact_q(State(np.zeros(4, dtype=np.float32)), scope_of([[1]]), (), function, np.arange(1))
