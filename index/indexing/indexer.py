"""From a queued document to a searchable one: cut, embed, store.

Work goes in rounds. A round embeds a few thousand chunks and stores them; short documents come first, then the next
part of a long one, so that no document waits for a whole library. A round can be interrupted at any point: what it
had not stored is computed again after a restart.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from typing import NamedTuple

import numpy as np

from index.arrays import Float32Array, IntArray, TokenIds
from index.chunking import Chunk, chunk_document
from index.errors import ChunkTooLong, DiskFull, StorageUnavailable
from index.indexing.batches import BATCH_CHUNKS, ChunkText, batches, one_ahead, read_chunks
from index.indexing.encoding import ActionEncoder, Embed, read_texts
from index.indexing.reuse import FormerVectors
from index.storage.documents import Document
from index.storage.protocols import APPEND_ROWS, Storage
from index.storage.vectors import ChunkAddress

log = logging.getLogger(__name__)

LONG_DOCUMENT_CHARACTERS = 1_000_000
"""Documents longer than this wait until no shorter one does."""

AHEAD = 2
"""Batches in work at once: one is embedded, the next one tokenised."""


class Round(NamedTuple):
    """The outcome of a round."""

    documents: int
    """Documents that can be searched now."""
    chunks: int
    """Chunks that were embedded and stored."""
    failed: int
    """Documents that cannot be indexed."""


class _Round:
    """What one round has embedded so far."""

    def __init__(self) -> None:
        self.rows: list[ChunkAddress] = []  # the chunk of each vector
        self.vectors: list[Float32Array] = []
        self.bags: list[TokenIds] = []
        self.totals: dict[int, int] = {}  # number of chunks of each document in this round
        self.unembedded: Counter[int] = Counter()  # chunks of each document that were read and have no vector yet
        self.finished: set[int] = set()  # documents whose last chunk was read
        self.failed: set[int] = set()


class Indexer:
    """Works off the queue of a storage.

    ``embed`` runs the action tower (the service lends its engine's). Once ``stopping`` is set, a round
    ends after the current batch and stores its vectors. A round has at most ``round_chunks`` chunks, which are read
    and embedded ``batch_chunks`` at a time.
    """

    def __init__(
        self,
        storage: Storage,
        encoder: ActionEncoder,
        embed: Embed,
        stopping: threading.Event,
        *,
        round_chunks: int = APPEND_ROWS,
        batch_chunks: int = BATCH_CHUNKS,
        long_characters: int = LONG_DOCUMENT_CHARACTERS,
    ) -> None:
        self._catalogue = storage.catalogue
        self._vectors = storage.vectors
        self._encoder = encoder
        self._embed = embed
        self._former = FormerVectors(storage, encoder)
        self._stopping = stopping
        self._round_chunks = round_chunks
        self._batch_chunks = batch_chunks
        self._long_characters = long_characters

    def work(self) -> Round | None:
        """Run one round; returns None if there was nothing to do.

        A document that cannot be indexed becomes ``failed`` with the reason, the others go on. Raises
        :class:`~index.errors.DiskFull` or :class:`~index.errors.StorageUnavailable`; the round can then be repeated
        once there is space, or the storage is back.
        """
        current = _Round()
        # A cancelled batch means that the service is shutting down: the round ends, and finished batches are kept.
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="embedding") as ahead, suppress(CancelledError):
            for texts, embeddings in one_ahead(self._begun(current, ahead)):
                self._add_or_fail(current, texts, embeddings)
        return self._save(current) if current.totals else None

    def _begun(
        self, current: _Round, ahead: ThreadPoolExecutor
    ) -> Iterator[tuple[list[ChunkText], Future[Float32Array]]]:
        """Batches being embedded; the next one is read and tokenised meanwhile."""
        for batch in batches(self._texts(current), self._batch_chunks):
            texts = [text for text in batch if text.uid not in current.failed]
            if texts:
                current.unembedded.update(text.uid for text in texts)
                yield texts, ahead.submit(self._embedded, texts)

    def _embedded(self, texts: Sequence[ChunkText]) -> Float32Array:
        read = read_texts(self._encoder, texts)
        known = self._former.find(texts, read)
        rows = [row for row in range(len(texts)) if row not in known]
        if not rows:
            return np.stack([known[row] for row in range(len(texts))])
        inputs = self._encoder.action_inputs([read[row] for row in rows])
        longest = max(map(len, inputs))
        if longest > self._encoder.input_limit:  # they were cut for another checkpoint
            raise ChunkTooLong(
                f"A chunk makes {longest} tokens of the {self._encoder.input_limit} that this checkpoint reads. "
                "Run `python -m service reindex`, which cuts all documents anew."
            )
        embedded = self._embed(inputs)
        if not known:
            return embedded
        vectors = np.empty((len(texts), embedded.shape[1]), dtype=np.float32)
        vectors[rows] = embedded
        vectors[list(known)] = np.stack(list(known.values()))
        return vectors

    def _add_or_fail(self, current: _Round, texts: Sequence[ChunkText], embeddings: Future[Float32Array]) -> None:
        """Add a batch or, if that fails, each of its documents by itself. After a cancelled batch nothing is added."""
        try:
            self._add(current, texts, embeddings.result())
        except (CancelledError, StorageUnavailable):
            raise
        except Exception:
            log.warning("embedding failed, trying each document by itself", exc_info=True)
            for uid, group in groupby(texts, key=lambda text: text.uid):
                texts_of_document = list(group)
                try:
                    self._add(current, texts_of_document, self._embedded(texts_of_document))
                except (CancelledError, StorageUnavailable):
                    raise
                except Exception as error:
                    self._fail(current, {uid}, error)

    def _add(self, current: _Round, texts: Sequence[ChunkText], embeddings: Float32Array) -> None:
        # An earlier batch may have failed a document.
        kept = [row for row, text in enumerate(texts) if text.uid not in current.failed]
        current.vectors.append(embeddings[kept])
        current.bags += self._encoder.terms(read_texts(self._encoder, [texts[row] for row in kept]))
        current.rows.extend(ChunkAddress(texts[row].uid, texts[row].number) for row in kept)
        current.unembedded.subtract(text.uid for text in texts)
        for uid, number in {text.uid: text.number for text in texts}.items():
            self._catalogue.set_progress(uid, (number + 1) / current.totals[uid])

    def _texts(self, current: _Round) -> Iterator[ChunkText]:
        """The chunks of this round; ``current`` gets the documents that end with them."""
        remaining = self._round_chunks
        for document in self._catalogue.waiting(self._long_characters):
            is_long = document.characters > self._long_characters
            if remaining <= 0 or self._stopping.is_set() or (is_long and current.totals):
                return  # short documents become searchable before the next part of a long one is begun
            uid = document.uid
            try:
                total, first = self._prepare(document)
            except CancelledError:
                return  # shutting down
            except (DiskFull, StorageUnavailable):
                raise
            except Exception as error:
                current.totals[uid] = 0
                self._fail(current, {uid}, error)
                continue
            current.totals[uid] = total

            def given_up(uid: int = uid) -> bool:
                return self._stopping.is_set() or uid in current.failed

            number, end = first, min(total, first + remaining)
            for text in read_chunks(self._catalogue, uid, first, end, block=self._batch_chunks, stopped=given_up):
                number = text.number + 1
                yield text
            remaining -= number - first
            if number == total:
                current.finished.add(uid)

    def _prepare(self, document: Document) -> tuple[int, int]:
        """Cut the document unless that is done; returns how many chunks it has, and how many have a vector."""
        self._former.add(document)
        if document.chunks is not None:
            stored = self._vectors.stored(document.uid, self._vectors.space)
            if document.chunks:
                self._catalogue.set_progress(document.uid, stored / document.chunks)
            return document.chunks, stored
        text = "".join(self._catalogue.text_blocks(document.uid))
        limit = document.chunking.token_limit(self._encoder.chunk_limit)
        chunks = chunk_document(text, document.chunking.mode, limit, self._encoder.chunk_tokenizer)
        table: IntArray = np.fromiter(self._until_stopped(chunks), dtype=np.dtype((np.int64, 3)))
        self._catalogue.save_chunks(document.uid, table)
        return len(table), 0

    def _until_stopped(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if self._stopping.is_set():
                raise CancelledError
            yield chunk

    def _save(self, current: _Round) -> Round:
        done = {uid for uid in current.finished - current.failed if not current.unembedded[uid]}
        if current.rows:
            vectors = np.concatenate(current.vectors)
            self._vectors.append(current.rows, vectors, current.bags, self._vectors.space)
        self._catalogue.finish(done)
        self._former.keep(current.totals.keys() - done - current.failed)
        log.info("indexed documents=%d chunks=%d", len(done), len(current.rows))
        return Round(len(done), len(current.rows), len(current.failed))

    def _fail(self, current: _Round, uids: set[int], error: Exception) -> None:
        current.failed |= uids
        reason = f"Indexing failed ({type(error).__name__}). Retry the document; the server's log has the details."
        if isinstance(error, ChunkTooLong):
            reason = str(error)
        log.error("indexing failed uids=%s", sorted(uids), exc_info=error)
        self._catalogue.fail(uids, reason)
