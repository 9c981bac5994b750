"""The chunks of a collection, as a file of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from tqdm import tqdm

from qrag.client.blocking import Client
from qrag.wire.models import FrozenModel
from trainer.datasets.files import entries
from trainer.errors import RecipeError

log = logging.getLogger(__name__)

MOST_CHUNKS = 20_000
"""Chunks that are trained among; of a larger collection, documents are drawn until there are so many."""


class StoredDocument(FrozenModel):
    """A document of the service."""

    id: str
    chunks: tuple[str, ...]


class Collection:
    """Documents laid end to end, as a question's candidates are."""

    def __init__(self, documents: Sequence[StoredDocument]) -> None:
        self.chunks: list[str] = [chunk for document in documents for chunk in document.chunks]
        self.counts: tuple[int, ...] = tuple(len(document.chunks) for document in documents)
        firsts = accumulate(self.counts, initial=0)
        self._first = {document.id: first for document, first in zip(documents, firsts, strict=False)}
        self._count = {document.id: len(document.chunks) for document in documents}

    def position(self, document: str, index: int) -> int | None:
        """Where a chunk of a document stands; none where it is not among these."""
        known = document in self._first and 0 <= index < self._count[document]
        return self._first[document] + index if known else None


def fetched(client: Client, name: str | None, path: Path, seed: int) -> Collection:
    """The collection of this name, all without one, from ``path``, or from the service where that does not exist yet.

    Raises :class:`~trainer.errors.RecipeError` where there is nothing, and what the client raises.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.new")
        with unfinished.open("w", encoding="utf-8") as file:
            for document in _documents(client, name, seed):
                file.write(document.model_dump_json() + "\n")
        unfinished.replace(path)
    documents = [entry.parse(StoredDocument) for entry in entries(path)] if path.stat().st_size else []
    if not documents:
        path.unlink()
        raise RecipeError(f"The collection {name or '(all)'} has no document that is ready. Index some first.")
    collection = Collection(documents)
    log.info("collection documents=%d chunks=%d", len(documents), len(collection.chunks))
    return collection


def _documents(client: Client, name: str | None, seed: int) -> Iterator[StoredDocument]:
    """Documents that are ready, in random order, until there are :data:`MOST_CHUNKS`."""
    ready = [document for document in client.documents(collection=name) if document.status == "ready"]
    order = np.random.default_rng(seed).permutation(len(ready)).tolist()
    count = 0
    for place in tqdm(order, desc="documents", unit="document", disable=None):
        if count >= MOST_CHUNKS:
            log.warning("more than %d chunks: the other documents are left out", MOST_CHUNKS)
            return
        chunks = tuple(chunk.text for chunk in client.chunks(ready[place].id))
        if chunks:
            count += len(chunks)
            yield StoredDocument(id=ready[place].id, chunks=chunks)
