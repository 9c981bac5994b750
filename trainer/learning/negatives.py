"""Hard negatives: the texts of a whole pool without evidence that a state is drawn to most.

A document of a hundred chunks says little about the best of 400,000. So a visited state also sees the few texts of its
question's pool with the largest Q, as if they stood somewhere in its document: what a long document would hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csc_matrix, csr_matrix

from index.arrays import IntArray
from index.encoders.encoder import ReadStates
from trainer.learning.heads.bags import frequencies_among, term_shares
from trainer.learning.networks import ChunkTable, QNetwork
from trainer.learning.scoring import queries_at
from trainer.learning.transitions import HardNegatives


class _Texts(NamedTuple):
    """The distinct texts of a pool, in the order of their rows in the chunk table."""

    rows: IntArray
    places: IntArray
    """Where in the pool each first stands."""


class Negatives:
    """Searches pools with the network as it is; a pool is embedded when it is first met."""

    def __init__(self, network: QNetwork, table: ChunkTable, count: int) -> None:
        self._network, self._table, self._count = network, table, count
        self._texts: dict[int, _Texts] = {}
        self._pools: list[Sequence[str]] = []  # kept, so that no other pool gets the id of one that is gone
        self._vectors: dict[int, torch.Tensor] = {}
        self._counts: dict[int, csc_matrix] = {}

    def forget(self) -> None:
        """Compute the pools' embeddings again when they are next needed: the adapter or the tower has changed."""
        self._vectors.clear()

    @torch.no_grad()
    def search(
        self, states: ReadStates, levels: Sequence[int], pool: Sequence[str], rows: Sequence[IntArray]
    ) -> list[HardNegatives]:
        """The texts of the pool with the largest Q in each state.

        The texts stand at the given level of each state's document, and are not in the
        ``rows`` of its question's chunks: those are candidates already, or selected, or support.
        """
        texts, vectors = self._pool(pool)
        q = self._network.w * (queries_at(self._network, states, levels) @ vectors.T) + self._network.b
        bags = self._table.bags
        head, lexical = self._network.heads.terms, self._network.encoder.function.lexical
        if bags is not None and head is not None and lexical is not None and states.terms is not None:
            of_pool = self._counts_of(pool, texts, bags.counts)
            lengths = bags.lengths[texts.rows]
            for scores, terms, chunks in zip(q, states.terms, rows, strict=True):
                tokens = terms.tokens
                frequencies = frequencies_among(bags, chunks, tokens)
                shares = term_shares(of_pool[:, tokens], lengths, tokens, frequencies, lexical)
                added = shares @ terms.weights.cpu().numpy()
                scores += head.factor * torch.from_numpy(added).to(q.device)
        for scores, chunks in zip(q, rows, strict=True):
            place = np.minimum(np.searchsorted(texts.rows, chunks), len(texts.rows) - 1)
            scores[torch.from_numpy(place[texts.rows[place] == chunks]).to(q.device)] = -torch.inf
        best = q.topk(min(self._count, len(texts.rows)), dim=1)
        negatives = []
        for values, places in zip(best.values.cpu().numpy(), best.indices.cpu().numpy(), strict=True):
            kept = places[values > -np.inf]
            negatives.append(HardNegatives(texts.places[kept], texts.rows[kept], values[values > -np.inf]))
        return negatives

    def _counts_of(self, pool: Sequence[str], texts: _Texts, counts: csr_matrix) -> csc_matrix:
        """The bags of a pool's distinct texts; no training changes them."""
        if id(pool) not in self._counts:
            self._counts[id(pool)] = counts[texts.rows].tocsc()
        return self._counts[id(pool)]

    def _pool(self, pool: Sequence[str]) -> tuple[_Texts, torch.Tensor]:
        """The pool's distinct texts, and their embeddings, shape ``[texts, d]``."""
        key = id(pool)
        if key not in self._texts:
            self._pools.append(pool)
            rows, places = np.unique(self._table.rows(pool), return_index=True)
            self._texts[key] = _Texts(rows, places)
        if key not in self._vectors:
            self._vectors[key] = self._network.chunks(self._table[torch.from_numpy(self._texts[key].rows)])
        return self._texts[key], self._vectors[key]
