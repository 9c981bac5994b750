"""Embedding once more, for another checkpoint's action tower, what can be searched already.

The chunks stay as they were cut. Like indexing it goes in rounds of up to one segment: what a round had not stored is
computed again after a restart, and searching goes on in the active space meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError

import numpy as np

from index.arrays import Float32Array
from index.errors import ChunkTooLong
from index.indexing.indexer import EMBED_CHUNKS, ActionEncoder, ChunkText, Embed, batches, pieces_of
from index.storage.local.segments import SEGMENT_ROWS
from index.storage.local.spaces import Space, unembedded
from index.storage.local.store import Store

log = logging.getLogger(__name__)


class Reembedding:
    """Fills a space with the vectors of all searchable documents."""

    def __init__(
        self, store: Store, encoder: ActionEncoder, embed: Embed, stopping: threading.Event, space: Space
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._embed = embed
        self._stopping = stopping
        self._space = space

    def work(self) -> bool:
        """One round; whether there was anything to do.

        Raises :class:`~index.errors.ChunkTooLong` where the tower cannot read a chunk whole, and
        :class:`~index.errors.DiskFull`, after which the round can be repeated.
        """
        rows: list[tuple[int, int]] = []
        vectors: list[Float32Array] = []
        try:
            for texts in batches(self._texts()):
                vectors.append(self._embedded(texts))
                rows.extend((text.uid, text.number) for text in texts)
        except CancelledError:  # the service is shutting down; what is done is kept
            pass
        if not rows:
            return False
        segment = self._store.add_segment(np.concatenate(vectors), pieces_of(rows), space=self._space.space)
        log.info("embedded again chunks=%d segment=%d space=%d", len(rows), segment, self._space.space)
        return True

    def _texts(self) -> Iterator[ChunkText]:
        with self._store.database.read() as connection:
            documents = unembedded(connection, self._space.space, SEGMENT_ROWS)
        left = SEGMENT_ROWS
        for document in documents:
            number = document.embedded
            while number < document.chunks and left > 0 and not self._stopping.is_set():
                rows = self._store.chunks(document.uid, first=number, limit=min(EMBED_CHUNKS, left))
                if not rows:
                    break  # deleted meanwhile
                yield from (ChunkText(document.uid, at, text) for at, _, text in rows)
                number += len(rows)
                left -= len(rows)

    def _embedded(self, texts: Sequence[ChunkText]) -> Float32Array:
        inputs = self._encoder.action_inputs([text.text for text in texts])
        longest = max(range(len(inputs)), key=lambda at: len(inputs[at]))
        if len(inputs[longest]) > self._encoder.input_limit:
            (document,) = self._store.documents_at([texts[longest].uid]).values()
            raise ChunkTooLong(
                f"Chunk {texts[longest].number} of document {document.id!r} has {len(inputs[longest])} tokens for this "
                f"checkpoint, which reads {self._encoder.input_limit}. Index that document again with smaller "
                "chunks, or stop the service and run `python -m service reindex` to cut all of them anew."
            )
        return self._embed(inputs)
