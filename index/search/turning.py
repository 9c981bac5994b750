"""What of a state turns with a chunk's position.

In the paper (Q-RAG, arXiv 2511.07328) everything does: a chunk at position ``ρ`` is worth ``<s, R(ρ) a>``. Then how
like a question a chunk is depends on where it stands. So positions may have a space of their own instead, and leave
meaning alone: ``<s, a> + <u, R(ρ) P a>``, where the checkpoint's map ``P`` takes an embedding into that space, and
``u(s)`` is what the state asks there, nothing where order does not matter.

Either way the *state* is turned and the matrix of the chunks only read, because ``<u, R(ρ) P a> = <Pᵀ R(-ρ) u, a>``: at
each level a state has one query, ``R(-ρ) s`` or ``s + Pᵀ R(-ρ) u``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.arrays import Float32Array, Float64Array, IntArray
from index.search.positions import Positions, rotate, rotate_back
from index.search.states import State


@dataclass(frozen=True, slots=True, eq=False)
class Turning:
    """The positions, and the map into the space in which they turn."""

    positions: Positions
    order_map: Float64Array | None = None
    """``P``, shape ``[k, d]``; none where the whole embedding turns."""
    order_norm: float = 0.0
    """Its largest singular value."""

    def queries(self, state: State, indices: IntArray) -> Float64Array:
        """The vectors whose inner products with embeddings are the state's at these level indices.

        Shape ``[len(indices), d]``.
        """
        if self.order_map is None:
            return rotate_back(state.embedding, indices, self.positions)
        # No BLAS: its threads would wait for those that compute something else.
        mapped: Float64Array = np.einsum("nk,kd->nd", self.turned_order(state, indices), self.order_map)
        return state.embedding + mapped

    def turned_order(self, state: State, indices: IntArray) -> Float64Array:
        """``R(-ρ) u`` at these level indices, shape ``[len(indices), k]``."""
        return rotate_back(_order(state), indices, self.positions)

    def longest(self, state: State) -> float:
        """A bound of the Euclidean norm of the state's queries."""
        length = float(np.linalg.norm(state.embedding.astype(np.float64)))
        if self.order_map is None:
            return length
        return length + float(np.linalg.norm(_order(state).astype(np.float64))) * self.order_norm

    def turns(self, state: State) -> bool:
        """Whether the state's query depends on a chunk's position."""
        return self.positions.mode != "none" and (self.order_map is None or bool(_order(state).any()))

    def turned(self, embeddings: Float32Array, indices: IntArray) -> Float32Array:
        """Chunks at these level indices as an ordinary index of vectors holds them: ``R(ρ) a``, or ``[a, R(ρ) P a]``.

        ``embeddings`` has shape ``[n, d]``; their products with :meth:`plain_query` are the state's with the chunks.
        """
        rho = self.positions.rho(indices)
        wide = embeddings.astype(np.float64)
        if self.order_map is None:
            return rotate(wide, rho, self.positions.rope_base).astype(np.float32)
        turned = rotate(wide @ self.order_map.T, rho, self.positions.rope_base)
        return np.concatenate((embeddings, turned.astype(np.float32)), axis=1)

    def plain_query(self, state: State) -> Float32Array:
        """The state as a query of :meth:`turned` vectors: ``s``, or ``[s, u]``."""
        return state.embedding if self.order_map is None else np.concatenate((state.embedding, _order(state)))


def _order(state: State) -> Float32Array:
    if state.order is None:
        raise ValueError("the state lacks what it asks of order: embed it with the checkpoint of this map")
    return state.order
