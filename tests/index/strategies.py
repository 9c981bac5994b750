"""Random scopes, Q-functions and selections for the property tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.search.codes import Codes, encode
from index.search.function import QFunction
from index.search.matrices import Matrices, Part
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions
from index.storage.local.segments import to_half

Float32 = NDArray[np.float32]

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


def split(matrix: Float32, cuts: Sequence[int], *, kinds: Sequence[Kind]) -> tuple[Part, ...]:
    """Parts that cover the rows of a matrix, of these kinds over and over."""
    found = list(zip(itertools.pairwise([0, *cuts, len(matrix)]), itertools.cycle(kinds)))
    in_segment = [(start, stop) for (start, stop), kind in found if kind == "segment"]
    first_rows, segment = one_segment(matrix, in_segment)
    parts = []
    for (start, stop), kind in found:
        rows = matrix[start:stop]
        if kind == "segment":
            parts.append(Part(start, rows, segment, first_rows[start]))
        else:
            codes = encode(rows) if kind == "coded" else None
            half = to_half(rows, torch.device("cpu")) if kind == "half" else None
            parts.append(Part(start, rows, codes, half=half))
    return tuple(parts)


def one_segment(matrix: Float32, ranges: Sequence[tuple[int, int]]) -> tuple[dict[int, int], Codes]:
    """A segment with some ranges of a matrix, and rows of others, in any order; and where each range begins there."""
    generator = np.random.default_rng(len(matrix))
    first_rows: dict[int, int] = {}
    blocks = [matrix[:0]]
    filled = 0
    for at in generator.permutation(len(ranges)).tolist():
        start, stop = ranges[at]
        other = random_vectors(int(generator.integers(1, 4)), matrix.shape[1], seed=at)
        first_rows[start] = filled + len(other)
        blocks += [other, matrix[start:stop]]
        filled += len(other) + stop - start
    return first_rows, encode(np.concatenate(blocks))


class Case(NamedTuple):
    """What a Q-value depends on."""

    state: Float32
    scope: MatrixScope
    selected: list[int]
    function: QFunction
    scale: float
    """Largest magnitude that a Q-value can have."""


@st.composite
def scopes(draw: st.DrawFn, dimension: int, *, unit: bool, counts: st.SearchStrategy[list[int]]) -> MatrixScope:
    """Documents whose matrix is cut into parts at arbitrary places, each read in one way or another."""
    sizes = draw(counts)
    total = sum(sizes)
    vectors = random_vectors(total, dimension, draw(st.integers(0, 2**32 - 1)), length=1.0 if unit else None)
    few = st.sets(st.integers(1, total - 1), max_size=4) if total > 1 else st.just(set())
    cuts = sorted(draw(st.one_of(few, few, st.just(set(range(1, total))))))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    bound = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max())
    return MatrixScope(Matrices(np.cumsum([0, *sizes]), split(vectors, cuts, kinds=kinds), max(bound, 1.0)))


small_documents = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@st.composite
def cases(draw: st.DrawFn, counts: st.SearchStrategy[list[int]] = small_documents) -> Case:
    """A state, a scope, a selection and a Q-function."""
    dimension = 2 * draw(st.integers(1, 8))
    unit = draw(st.booleans())
    scope = draw(scopes(dimension, unit=unit, counts=counts))
    state = random_vectors(1, dimension, draw(st.integers(0, 2**32 - 1)), length=1.0 if unit else None)[0]
    w = draw(st.sampled_from([1.0, 1.5, -2.0, 0.01, 0.0]))
    b = draw(st.sampled_from([0.0, -0.25, 3.0]))
    function = QFunction(w, b, draw(positions))
    scale = abs(w) * float(np.linalg.norm(state)) * scope.matrices.norm_bound + abs(b)
    return Case(state, scope, draw(selections(scope.size)), function, scale)
