"""Vectors that need not be computed: those of chunks that a document keeps when other content replaces it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from index.arrays import Float32Array
from index.indexing.batches import ChunkText, read_chunks
from index.indexing.encoding import ActionEncoder
from index.storage.documents import Document
from index.storage.protocols import Storage

BLOCK_CHUNKS = 4096
"""Chunks of a former version read at once."""


class FormerVectors:
    """The vectors of the versions that waiting documents replace, by what the action tower reads of each chunk."""

    def __init__(self, storage: Storage, encoder: ActionEncoder) -> None:
        self._catalogue = storage.catalogue
        self._vectors = storage.vectors
        self._encoder = encoder
        self._former: dict[int, tuple[int, dict[bytes, int]]] = {}
        """By the ``uid`` of a waiting document: the version that it replaces, and the chunk with each digest."""

    def add(self, document: Document) -> None:
        """Read the version that a document replaces, if there is one, unless that was done before."""
        if document.replaces is None or document.uid in self._former:
            return
        stored = self._vectors.stored(document.replaces, self._vectors.space)
        chunks = read_chunks(self._catalogue, document.replaces, 0, stored, block=BLOCK_CHUNKS, stopped=lambda: False)
        numbers = {_digest(self._encoder.chunk_text(chunk.heading, chunk.text)): chunk.number for chunk in chunks}
        self._former[document.uid] = (document.replaces, numbers)

    def keep(self, uids: Collection[int]) -> None:
        """Forget what was read for all other documents."""
        self._former = {uid: former for uid, former in self._former.items() if uid in uids}

    def find(self, texts: Sequence[ChunkText], inputs: Sequence[str]) -> dict[int, Float32Array]:
        """The vectors, shape ``[d]``, of those chunks that the former version of their document has as well.

        ``inputs`` is what the tower reads of each chunk; the keys are places in these lists.
        """
        found: dict[int, Float32Array] = {}
        for uid in {text.uid for text in texts} & self._former.keys():
            replaced, numbers = self._former[uid]
            chunks = {row: numbers.get(_digest(inputs[row])) for row, text in enumerate(texts) if text.uid == uid}
            kept = {row: number for row, number in chunks.items() if number is not None}
            former = np.array(list(kept.values()), dtype=np.int64)
            vectors = self._vectors.rows(replaced, former, self._vectors.space)
            if vectors is not None:
                found.update(zip(kept, vectors, strict=True))
        return found


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
