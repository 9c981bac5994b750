"""What Qdrant is asked for one state, and what its lists say of every candidate, on them or not.

A state is ranked twice: by its inner products, in each group of candidates that share a position, and by the weights of
its tokens. A list is the beginning of such a ranking. What is not on it has at most its last value, and 0 of the tokens
where the whole ranking was listed. All bounds are upper ones of exact values: what single precision may have rounded is
added, and stored weights of tokens are stretched as far as the mean length of the searched chunks can stretch them
(:func:`~index.storage.qdrant.layout.bands`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from qdrant_client.http import models

from index.arrays import Float64Array, IntArray
from index.search.function import QFunction
from index.search.signals.protocol import UNIT, Chunks
from index.search.states import State
from index.search.surroundings import averaged, beside
from index.storage.qdrant.conditions import Group
from index.storage.qdrant.contents import Statistics
from index.storage.qdrant.layout import BAG, EMBEDDING, STORED, Band, bands

LEAST_OF_GROUP = 8
"""Least length of the list of one group, where a state has many."""

DIGITS = 9
"""Digits of the largest number that a query can hold: hardly fewer than single precision has, and short to send."""


class Weighed(NamedTuple):
    """The tokens of a state as a search of sparse vectors."""

    vector: models.SparseVector
    bands: Sequence[Band]
    """Each is a search of its own: what a stored value can be worth depends on a chunk's length."""
    condition: models.Filter
    error: float
    """How far a score can be from what the stored weights add up to."""


@dataclass(frozen=True)
class Ranking:
    """One state, as Qdrant ranks chunks for it."""

    groups: Sequence[Group]
    queries: Float64Array
    """The query of each group, shape ``[groups, d]``."""
    summand: float
    """What is added to a score."""
    error: float
    """How far a score can be from the inner product."""
    weighed: Weighed | None
    """None where no token adds anything."""

    def requests(self, length: int) -> list[models.QueryRequest]:
        """Searches for lists of about this length."""
        asked = [
            exact_request(query.tolist(), EMBEDDING, group.condition, self._length_of_group(length))
            for query, group in zip(self.queries, self.groups, strict=True)
        ]
        if self.weighed is not None:
            vector, bands, condition, _ = self.weighed
            for band in bands:
                lengths = models.FieldCondition(key="length", range=models.Range(gte=band.shortest, lte=band.longest))
                asked.append(exact_request(vector, BAG, models.Filter(must=[lengths, condition]), length))
        return asked

    def read(
        self,
        results: Sequence[Sequence[models.ScoredPoint]],
        length: int,
        positions_of: Callable[[Sequence[models.ScoredPoint]], IntArray],
    ) -> Lists:
        """What the results of these searches say."""
        products = results[: len(self.groups)]
        of_group = self._length_of_group(length)
        lasts = [points[-1].score for points in products if len(points) == of_group]
        by_product = [point for points in products for point in points]
        margin = self.summand + self.error
        by_tokens: list[models.ScoredPoint] = []
        values = [np.empty(0)]
        unlisted_tokens = 0.0
        if self.weighed is not None:
            for points, band in zip(results[len(self.groups) :], self.weighed.bands, strict=True):
                by_tokens += points
                values.append((_scores(points) + self.weighed.error) * band.ratio)
                if len(points) == length:
                    unlisted_tokens = max(unlisted_tokens, float(values[-1][-1]))
        return Lists(
            Listed(positions_of(by_product), _scores(by_product) + margin, max(lasts, default=-np.inf) + margin),
            Listed(positions_of(by_tokens), np.concatenate(values), unlisted_tokens),
        )

    def _length_of_group(self, length: int) -> int:
        return length if len(self.groups) == 1 else max(4 * length // max(len(self.groups), 1), LEAST_OF_GROUP)


class Listed(NamedTuple):
    """Bounds of one summand of Q."""

    positions: IntArray
    values: Float64Array
    """Upper bounds of the summand at these positions."""
    elsewhere: float
    """The same at any other; ``-inf`` where there is none."""

    def at(self, positions: IntArray) -> Float64Array:
        """The bounds at some positions."""
        order = np.argsort(self.positions)
        known = np.append(self.positions[order], -1)
        places = np.searchsorted(known[:-1], positions)
        return np.where(known[places] == positions, np.append(self.values[order], 0.0)[places], self.elsewhere)


class Lists(NamedTuple):
    """Bounds of the inner products and of what tokens add."""

    products: Listed
    tokens: Listed

    @property
    def unlisted(self) -> float:
        """An upper bound of Q of all that is on no list, nor beside what is listed by its inner product."""
        return self.products.elsewhere + self.tokens.elsewhere

    def candidates(self, state: State, offsets: IntArray, selected: Sequence[int]) -> IntArray:
        """What is on a list, or has a neighbour on it that counts; increasing."""
        listed = self.products.positions
        around = beside(listed, offsets, selected).ravel() if state.surroundings else np.empty(0, dtype=np.int64)
        together = np.unique(np.concatenate((listed, self.tokens.positions, around)))
        return together[together >= 0]

    def bounds(self, state: State, offsets: IntArray, selected: Sequence[int], positions: IntArray) -> Float64Array:
        """Upper bounds of Q at some positions."""
        products = self.products.at(positions)
        if state.surroundings:
            around = beside(positions, offsets, selected)
            counted = (around >= 0).astype(np.float64)
            neighbours = np.where(around >= 0, self.products.at(around.ravel()).reshape(around.shape), 0.0)
            products = averaged(products, neighbours, counted, state.surroundings)
        return products + self.tokens.at(positions)

    def expected(self, state: State, offsets: IntArray, selected: Sequence[int], positions: IntArray) -> Float64Array:
        """A guess of Q at some positions: what is on no list adds nothing."""
        alone = Lists(self.products._replace(elsewhere=0.0), self.tokens._replace(elsewhere=0.0))
        return alone.bounds(state, offsets, selected, positions)


def ranking(
    state: State,
    groups: Sequence[Group],
    condition: models.Filter | None,
    function: QFunction,
    chunks: Chunks,
    statistics: Statistics,
) -> Ranking:
    """How chunks are ranked for a state: by inner products in ``groups``, by tokens where the ``condition`` holds."""
    turning = function.turning
    levels = np.array([group.level for group in groups], dtype=np.int64)
    longest = abs(function.w) * turning.longest(state)
    decimals = DIGITS - math.ceil(math.log10(max(longest, 1e-30)))
    queries = np.round(function.w * turning.queries(state, levels), decimals)
    dimension = len(state.embedding)
    error = UNIT * ((dimension + 8) * longest * statistics.norm + 2 * abs(function.b))
    error += 0.5 * 10.0**-decimals * dimension**0.5 * statistics.norm
    weighed = None
    if function.lexical is not None and condition is not None:
        terms = function.lexical.terms(state)
        frequencies = chunks.frequencies(terms.tokens)
        weights = function.lexical.weights(terms, frequencies)
        if (positive := weights > 0).any():
            weighed = Weighed(
                models.SparseVector(indices=terms.tokens[positive].tolist(), values=weights[positive].tolist()),
                bands(function.lexical.saturation.among(frequencies), statistics.longest),
                condition,
                (int(positive.sum()) + 4) * UNIT * float(weights.sum()) * (STORED.k1 + 1),
            )
    return Ranking(groups, queries, function.b, error, weighed)


def exact_request(
    query: list[float] | models.SparseVector, vector: str, condition: models.Filter, length: int
) -> models.QueryRequest:
    """A search for the ``length`` best points under a condition, which reads all of them."""
    return models.QueryRequest(
        query=query,
        using=vector,
        filter=condition,
        limit=length,
        params=models.SearchParams(exact=True),
        with_payload=False,
        with_vector=False,
    )


def _scores(points: Sequence[models.ScoredPoint]) -> Float64Array:
    return np.array([point.score for point in points], dtype=np.float64)
