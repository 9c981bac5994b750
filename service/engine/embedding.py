"""Embedding of chunks in pieces short enough for a retrieval to wait for one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from index.arrays import Float32Array, TokenIds
from index.encoders.encoder import Encoder


class EmbeddingJob:
    """Chunks to be embedded, worked off in pieces, longest first."""

    def __init__(self, encoder: Encoder, inputs: Sequence[TokenIds]) -> None:
        self.encoder = encoder
        self._inputs = inputs
        self._order = sorted(range(len(inputs)), key=lambda i: -len(inputs[i]))
        self._done = 0
        self._vectors = np.empty((len(inputs), encoder.config.dimension), dtype=np.float32)
        self.future: Future[Float32Array] = Future()

    def work(self, tokens: int) -> bool:
        """Embed at most ``tokens`` tokens, padding included, but at least a chunk; returns whether the job is done."""
        if self._done < len(self._order):
            longest = len(self._inputs[self._order[self._done]])
            piece = self._order[self._done : self._done + max(1, tokens // max(1, longest))]
            self._vectors[piece] = self.encoder.embed_actions([self._inputs[i] for i in piece])
            self._done += len(piece)
        if self._done < len(self._order):
            return False
        self.future.set_result(self._vectors)
        return True
