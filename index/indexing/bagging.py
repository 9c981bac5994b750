"""Bags for chunks that were stored without: from a former version of the data directory, or after a lost file.

Searching goes on meanwhile; the chunks gain nothing from the lexical signal until they have their bags.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby

from index.arrays import TokenIds
from index.indexing.encoding import ActionEncoder
from index.storage.protocols import Storage
from index.storage.vectors import ChunkAddress

log = logging.getLogger(__name__)


class Bagging:
    """Makes the missing bags of the active space, some thousand chunks in a round."""

    def __init__(self, storage: Storage, encoder: ActionEncoder) -> None:
        self._catalogue = storage.catalogue
        self._vectors = storage.vectors
        self._encoder = encoder

    def work(self) -> bool:
        """Run one round; returns whether there was anything to do. Raises :class:`~index.errors.DiskFull`."""
        missing = self._vectors.unbagged(self._vectors.space)
        if missing is None:
            return False
        self._vectors.add_bags(missing, self._bags(missing.rows))
        log.info("bags made again chunks=%d", len(missing.rows))
        return True

    def _bags(self, rows: Sequence[ChunkAddress | None]) -> list[TokenIds]:
        """The tokens of each row; none of chunks whose document was deleted."""
        bags: list[TokenIds] = []
        # Of one document there can be other chunks in the next row than the next ones: parts that were merged.
        places = enumerate(rows)
        for _, group in groupby(places, key=lambda at: None if at[1] is None else (at[1].uid, at[1].number - at[0])):
            members = [row for _, row in group]
            first = members[0]
            texts: list[str] = []
            if first is not None:
                stored = self._catalogue.chunks(first.uid, first=first.number, limit=len(members))
                texts = [self._encoder.chunk_text(chunk.heading, chunk.text) for chunk in stored]
            bags += self._encoder.terms(texts)
            bags += [[]] * (len(members) - len(texts))
        return bags
