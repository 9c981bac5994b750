"""What one Q-value is made of: meaning, order, tokens, and what stands beside the chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from index.search.function import QFunction
from index.search.positions import level_indices
from index.search.scoring import averaged_products
from index.search.signals.protocol import Chunks
from index.search.states import State


class Parts(NamedTuple):
    """The summands of a Q-value, of which :attr:`constant` is the same for all chunks."""

    constant: float
    """``b``."""
    meaning: float
    """``w <s, a>``: how like the state the chunk is, wherever it stands."""
    order: float
    """What its position adds."""
    spread: float
    """How much the Q-value of this very chunk varies over all positions that it could have: 0 where order is not
    asked for."""
    terms: tuple[tuple[int, float], ...]
    """What tokens that the state weighs add, by id, largest first."""
    surroundings: float
    """What the average of meaning and order with those of the chunks beside it changes."""


def explain(state: State, chunks: Chunks, selected: Sequence[int], function: QFunction, position: int) -> Parts:
    """The parts of the chunk at ``position`` of the candidate axis; they add up to its Q-value."""
    turning, positions = function.turning, np.array([position])
    embedding = chunks.rows(positions)[0].astype(np.float64)
    here = level_indices(positions, chunks.offsets, selected, turning.positions)
    everywhere = here
    if turning.positions.mode == "relative":
        everywhere = np.arange(turning.positions.levels * (len(selected) + 1), dtype=np.int64)
    products = function.w * (turning.queries(state, np.concatenate((here, everywhere))) @ embedding)
    meaning = function.w * float(state.embedding.astype(np.float64) @ embedding)
    terms: list[tuple[int, float]] = []
    if function.lexical is not None:
        terms = [(token, float(added[0])) for token, added in function.lexical.shares(state, chunks, positions)]
    (own,) = function.inner_product.exact(state, chunks, selected, positions)
    (averaged,) = averaged_products(state, chunks, selected, function, positions)
    return Parts(
        constant=function.b,
        meaning=meaning,
        order=float(products[0]) - meaning,
        spread=float(products[1:].max() - products[1:].min()),
        terms=tuple(sorted(((token, added) for token, added in terms if added), key=lambda term: -abs(term[1]))),
        surroundings=float(averaged - own),
    )
