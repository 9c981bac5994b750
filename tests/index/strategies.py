"""Random scopes, Q-functions and selections for the property tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.arrays import TokenIds
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions
from index.search.scanning.bags import index_bags
from index.search.scanning.codes import Codes, encode
from index.search.scanning.matrices import Matrices, Part
from index.search.signals.lexical import Lexical, Saturation
from index.search.states import State, States, TermWeights, concatenate
from index.storage.local.files.segments import to_half

Float32 = NDArray[np.float32]

VOCABULARY = 9
"""Tokens that bags are made of."""

Kind = Literal["array", "coded", "segment", "half"]
KINDS: tuple[Kind, ...] = ("array", "coded", "segment", "half")

levels = st.one_of(st.sampled_from([1, 2, 18, 1024]), st.integers(1, 1024))
modes = st.sampled_from(["relative", "relative", "absolute", "none"])
positions = st.builds(
    Positions,
    mode=modes,
    delta=st.sampled_from([10.0, 20.0, 0.0, 3.7]),
    ell=st.sampled_from([9.0, 18.0, 1.3]),
    levels=levels,
    rope_base=st.sampled_from([10000.0, 10.0, 1.5]),
)


@st.composite
def selections(draw: st.DrawFn, size: int) -> list[int]:
    """Some of ``size`` candidates, often the first, the last and neighbours among them."""
    chosen = draw(st.sets(st.integers(0, size - 1), max_size=6))
    if draw(st.booleans()):
        chosen.add(0)
    if draw(st.booleans()):
        chosen.add(size - 1)
    if draw(st.booleans()):
        at = draw(st.integers(0, size - 1))
        chosen |= {at, min(at + 1, size - 1)}
    return sorted(chosen)


def random_vectors(count: int, dimension: int, seed: int, *, length: float | None = 1.0) -> Float32:
    """Vectors, shape ``[count, dimension]``, of this length or of various; some repeated, some but for one bit."""
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((count, dimension)).astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors *= (generator.uniform(0.1, 20, (count, 1)) if length is None else length) / norms
    for copy, original in generator.integers(0, count, (count // 3, 2)):
        vectors[copy] = vectors[original]
        if generator.random() < 0.5:
            coordinate = generator.integers(dimension)
            vectors[copy, coordinate] = np.nextafter(vectors[copy, coordinate], np.float32(99))
    return vectors


def split(
    matrix: Float32, cuts: Sequence[int], *, kinds: Sequence[Kind], bags: Sequence[TokenIds] = ()
) -> tuple[Part, ...]:
    """Parts that cover the rows of a matrix, of these kinds over and over; with posting lists if rows have bags."""
    found = list(zip(itertools.pairwise([0, *cuts, len(matrix)]), itertools.cycle(kinds)))
    in_segment = [(start, stop) for (start, stop), kind in found if kind == "segment"]
    first_rows, segment, order = one_segment(matrix, in_segment)
    of_segment = index_bags([bags[row] if row >= 0 else [1, 2] for row in order]) if bags else None
    parts = []
    for (start, stop), kind in found:
        rows = matrix[start:stop]
        if kind == "segment":
            parts.append(Part(start, rows, segment, first_rows[start], postings=of_segment))
        else:
            codes = encode(rows) if kind == "coded" else None
            half = to_half(rows, torch.device("cpu")) if kind == "half" else None
            parts.append(Part(start, rows, codes, half=half, postings=index_bags(bags[start:stop]) if bags else None))
    return tuple(parts)


def one_segment(matrix: Float32, ranges: Sequence[tuple[int, int]]) -> tuple[dict[int, int], Codes, list[int]]:
    """A segment with some ranges of a matrix, and rows of others, in any order.

    Returns where each range begins there, the codes, and for each row which of the matrix it is, or -1.
    """
    generator = np.random.default_rng(len(matrix))
    first_rows: dict[int, int] = {}
    blocks = [matrix[:0]]
    filled = 0
    order: list[int] = []
    for at in generator.permutation(len(ranges)).tolist():
        start, stop = ranges[at]
        other = random_vectors(int(generator.integers(1, 4)), matrix.shape[1], seed=at)
        first_rows[start] = filled + len(other)
        blocks += [other, matrix[start:stop]]
        order += [-1] * len(other) + list(range(start, stop))
        filled += len(other) + stop - start
    return first_rows, encode(np.concatenate(blocks)), order


class Case(NamedTuple):
    """What a Q-value depends on."""

    state: Float32
    scope: MatrixScope
    selected: list[int]
    function: QFunction
    scale: float
    """Largest magnitude that a Q-value can have."""
    whole: State
    """The state with what signals beside the inner product read."""
    bags: Sequence[TokenIds] = ()
    """The tokens of each chunk; empty where no signal reads them."""


@st.composite
def scopes(
    draw: st.DrawFn, dimension: int, *, unit: bool, counts: st.SearchStrategy[list[int]], bagged: bool = False
) -> tuple[MatrixScope, list[list[int]]]:
    """Documents whose matrix is cut into parts at arbitrary places, each read in one way or another; and their bags."""
    sizes = draw(counts)
    total = sum(sizes)
    vectors = random_vectors(total, dimension, draw(st.integers(0, 2**32 - 1)), length=1.0 if unit else None)
    few = st.sets(st.integers(1, total - 1), max_size=4) if total > 1 else st.just(set())
    cuts = sorted(draw(st.one_of(few, few, st.just(set(range(1, total))))))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    bound = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bags = (
        [generator.integers(VOCABULARY, size=generator.integers(12)).tolist() for _ in range(total)] if bagged else []
    )
    parts = split(vectors, cuts, kinds=kinds, bags=bags)
    return MatrixScope(Matrices(np.cumsum([0, *sizes]), parts, max(bound, 1.0))), bags


small_documents = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@st.composite
def cases(draw: st.DrawFn, counts: st.SearchStrategy[list[int]] = small_documents, *, signals: bool = False) -> Case:
    """A state, a scope, a selection and a Q-function.

    With ``signals`` positions may have a space of their own, tokens may be weighed, and what stands beside a chunk may
    count.
    """
    dimension = 2 * draw(st.integers(1, 8))
    unit = draw(st.booleans())
    bagged = signals and draw(st.booleans())
    scope, bags = draw(scopes(dimension, unit=unit, counts=counts, bagged=bagged))
    state = random_vectors(1, dimension, draw(st.integers(0, 2**32 - 1)), length=1.0 if unit else None)[0]
    w = draw(st.sampled_from([1.0, 1.5, -2.0, 0.01, 0.0]))
    b = draw(st.sampled_from([0.0, -0.25, 3.0]))
    function = QFunction(w, b, draw(positions))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    length, total = float(np.linalg.norm(state)), 0.0
    terms = order = None
    if signals and draw(st.booleans()):
        size = 2 * draw(st.integers(1, 5))
        order_map = generator.standard_normal((size, dimension))
        order = generator.standard_normal(size).astype(np.float32) * draw(st.sampled_from([0.0, 1.0, 5.0]))
        function = replace(function, order_map=order_map)
        length += float(np.linalg.norm(order_map, 2) * np.linalg.norm(order))
    if bagged:
        tokens = np.sort(generator.choice(VOCABULARY, size=generator.integers(1, VOCABULARY), replace=False))
        terms = TermWeights(tokens, generator.random(len(tokens)).astype(np.float32) * 3)
        rarity = generator.random(VOCABULARY).astype(np.float32) * generator.integers(2, size=VOCABULARY)
        lexical = Lexical(
            draw(st.sampled_from([0.1, 2.0])),
            rarity.astype(np.float32),
            Saturation(mean_length=draw(st.sampled_from([1.0, 8.0]))),
        )
        function = replace(function, further=(lexical,))
        total = lexical.factor * float(terms.weights @ rarity[tokens]) * (lexical.saturation.k1 + 1)
    scale = abs(w) * length * scope.matrices.norm_bound + abs(b) + total
    surroundings = draw(st.sampled_from([0.0, 0.2, 3.0])) if signals else 0.0
    whole = State(state, terms, order, surroundings)
    return Case(state, scope, draw(selections(scope.size)), function, scale, whole, bags)


def side_by_side(states: Sequence[State]) -> States:
    """The states, all with the same signals, as a search takes them."""
    return concatenate(
        [
            States(
                state.embedding[None],
                None if state.terms is None else (state.terms,),
                None if state.order is None else state.order[None],
                np.array([state.surroundings], dtype=np.float32),
            )
            for state in states
        ]
    )
