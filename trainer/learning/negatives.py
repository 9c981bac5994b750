"""Hard negatives: of a whole pool of texts that are no evidence, those that a state is drawn to most.

A document of a hundred chunks says little about the best of 400,000. So a visited state also sees the few texts of its
question's pool with the largest Q, as if they stood somewhere in its document: what a long document would hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from index.arrays import Float32Array, IntArray
from trainer.learning.networks import ChunkTable, QNetwork
from trainer.learning.scoring import halves, rotated_back, rotation


class Negatives:
    """Searches pools with the network as it is; a pool is embedded when it is first met."""

    def __init__(self, network: QNetwork, table: ChunkTable, count: int) -> None:
        self._network, self._table, self._count = network, table, count
        self._rows: dict[int, IntArray] = {}
        self._pools: list[Sequence[str]] = []  # kept, so that no other pool gets the id of one that is gone
        self._vectors: dict[int, torch.Tensor] = {}

    def forget(self) -> None:
        """Compute the pools' embeddings again when they are next needed: the adapter or the tower has changed."""
        self._vectors.clear()

    @torch.no_grad()
    def search(
        self, states: torch.Tensor, levels: Sequence[int], pool: Sequence[str], own: Sequence[IntArray]
    ) -> list[tuple[IntArray, Float32Array]]:
        """Of each state the rows in the chunk table of the pool's texts with the largest Q, and their Q.

        ``states`` has shape ``[n, d]``. The texts stand at the given level of each state's document, and are none of
        its ``own`` rows: those are candidates already, or selected, or support.
        """
        rows, vectors = self._pool(pool)
        positions = self._network.encoder.function.positions
        turn = rotation(np.array(levels)[:, None], positions, states.shape[1], states.device)
        q = self._network.w * (rotated_back(states, turn) @ vectors.T) + self._network.b
        for scores, mine in zip(q, own, strict=True):
            place = np.minimum(np.searchsorted(rows, mine), len(rows) - 1)
            scores[torch.from_numpy(place[rows[place] == mine]).to(q.device)] = -torch.inf
        best = q.topk(min(self._count, len(rows)), dim=1)
        return [
            (rows[places[values > -np.inf]], values[values > -np.inf])
            for values, places in zip(best.values.cpu().numpy(), best.indices.cpu().numpy(), strict=True)
        ]

    def _pool(self, pool: Sequence[str]) -> tuple[IntArray, torch.Tensor]:
        """The pool's rows in ascending order, and their embeddings, shape ``[rows, d]``."""
        key = id(pool)
        if key not in self._rows:
            self._pools.append(pool)
            self._rows[key] = np.unique(self._table.rows(pool))
        if key not in self._vectors:
            self._vectors[key] = halves(self._network.chunks(self._table[torch.from_numpy(self._rows[key])]))
        return self._rows[key], self._vectors[key]
