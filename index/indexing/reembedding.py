"""Re-embedding: the searchable documents embedded again, for another checkpoint's action tower.

The chunks stay as they were cut. Like indexing, it goes in rounds: what a round had not stored is computed again after
a restart, and searching goes on in the active space meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError

import numpy as np

from index.arrays import Float32Array, TokenIds
from index.errors import ChunkTooLong
from index.indexing.batches import BATCH_CHUNKS, ChunkText, batches, read_chunks
from index.indexing.encoding import ActionEncoder, Embed, read_texts
from index.storage.protocols import APPEND_ROWS, Storage
from index.storage.vectors import ChunkAddress, Space

log = logging.getLogger(__name__)


class Reembedding:
    """Fills a space with the vectors of all searchable documents, at most ``round_chunks`` of them in a round."""

    def __init__(
        self,
        storage: Storage,
        encoder: ActionEncoder,
        embed: Embed,
        stopping: threading.Event,
        space: Space,
        *,
        round_chunks: int = APPEND_ROWS,
        batch_chunks: int = BATCH_CHUNKS,
    ) -> None:
        self._catalogue = storage.catalogue
        self._vectors = storage.vectors
        self._encoder = encoder
        self._embed = embed
        self._stopping = stopping
        self._space = space
        self._round_chunks = round_chunks
        self._batch_chunks = batch_chunks

    def work(self) -> bool:
        """Run one round; returns whether there was anything to do.

        Raises :class:`~index.errors.ChunkTooLong` where the tower cannot read a chunk whole, and
        :class:`~index.errors.DiskFull` or :class:`~index.errors.StorageUnavailable`, after which the round can be
        repeated.
        """
        rows: list[ChunkAddress] = []
        vectors: list[Float32Array] = []
        bags: list[TokenIds] = []
        try:
            for texts in batches(self._texts(), self._batch_chunks):
                vectors.append(self._embedded(texts))
                rows.extend(ChunkAddress(text.uid, text.number) for text in texts)
                bags += self._encoder.terms(read_texts(self._encoder, texts))
        except CancelledError:  # the service is shutting down; finished batches are kept
            pass
        if not rows:
            return False
        self._vectors.append(rows, np.concatenate(vectors), bags, self._space)
        log.info("embedded again chunks=%d space=%d", len(rows), self._space.number)
        return True

    def _texts(self) -> Iterator[ChunkText]:
        remaining = self._round_chunks
        for document in self._vectors.unembedded(self._space, self._round_chunks):
            first, end = document.embedded, min(document.chunks, document.embedded + remaining)
            for text in read_chunks(
                self._catalogue, document.uid, first, end, block=self._batch_chunks, stopped=self._stopping.is_set
            ):
                remaining -= 1
                yield text

    def _embedded(self, texts: Sequence[ChunkText]) -> Float32Array:
        inputs = self._encoder.action_inputs(read_texts(self._encoder, texts))
        longest = max(range(len(inputs)), key=lambda number: len(inputs[number]))
        if len(inputs[longest]) > self._encoder.input_limit:
            (document,) = self._catalogue.documents_at([texts[longest].uid]).values()
            raise ChunkTooLong(
                f"Chunk {texts[longest].number} of document {document.id!r} has {len(inputs[longest])} tokens for this "
                f"checkpoint, which reads {self._encoder.input_limit}. Index that document again with smaller "
                "chunks, or stop the service and run `python -m service reindex` to cut all of them anew."
            )
        return self._embed(inputs)
