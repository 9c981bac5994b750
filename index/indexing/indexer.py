"""From a queued document to a searchable one: cut, embed, store.

Work goes in rounds. A round embeds up to one segment of chunks and stores them; short documents
come first, then the next part of a long one, so that nobody waits for a whole library to be embedded. It
can be interrupted at any point: what a round had not stored is computed again after a restart.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from index.arrays import Float32Array, IntArray, TokenIds
from index.chunking import Chunk, Tokenizer, chunk_document
from index.errors import DiskFull
from index.storage.documents import Document
from index.storage.local.segments import SEGMENT_ROWS
from index.storage.local.store import Store

log = logging.getLogger(__name__)

EMBED_CHUNKS = 1024
"""Chunks tokenised and embedded together: enough to fill batches of equal length."""

LONG_DOCUMENT_CHARACTERS = 1_000_000
"""Documents longer than this wait until no shorter one does."""

AHEAD = 2
"""Batches in work at once: one is embedded, the next one tokenised."""

Item = TypeVar("Item")

Embed = Callable[[Sequence[TokenIds]], Float32Array]


class ActionEncoder(Protocol):
    """What indexing needs of :class:`index.encoders.encoder.Encoder`."""

    @property
    def chunk_tokenizer(self) -> Tokenizer:
        """Counts tokens the way the action tower does."""

    @property
    def chunk_limit(self) -> int:
        """Most tokens of a chunk that the action tower reads whole."""

    @property
    def input_limit(self) -> int:
        """Most tokens of a complete input."""

    def action_inputs(self, texts: Sequence[str]) -> list[list[int]]:
        """Complete inputs of the action tower."""


class ChunkText(NamedTuple):
    """Chunk ``number`` of the document ``uid``, to be embedded."""

    uid: int
    number: int
    text: str


class Round(NamedTuple):
    """What a round has done."""

    documents: int
    """That can be searched now."""
    chunks: int
    """That were embedded and stored."""
    failed: int
    """Documents that cannot be indexed."""


class _Round:
    """What one round has embedded so far."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []  # uid and chunk number of each vector
        self.vectors: list[Float32Array] = []
        self.totals: dict[int, int] = {}  # chunks of each document worked on
        self.unembedded: Counter[int] = Counter()  # of each document, chunks that were read and have no vector yet
        self.finished: set[int] = set()  # documents whose last chunk was read
        self.failed: set[int] = set()


class Indexer:
    """Works off the queue of a store.

    ``embed`` runs the action tower (the service lends its engine's). Once ``stopping`` is set, a round
    ends after the batch in hand and stores what it has.
    """

    def __init__(self, store: Store, encoder: ActionEncoder, embed: Embed, stopping: threading.Event) -> None:
        self._store = store
        self._encoder = encoder
        self._embed = embed
        self._stopping = stopping

    def work(self) -> Round | None:
        """One round; none if there was nothing to do.

        A document that cannot be indexed becomes ``failed`` with the reason, the others go on. Raises
        :class:`~index.errors.DiskFull`; the round can then be repeated once there is space.
        """
        current = _Round()
        # What is cancelled ends the round, for the service is shutting down; what is done is kept.
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="embedding") as ahead, suppress(CancelledError):
            for texts, embeddings in _one_ahead(self._begun(current, ahead)):
                self._add_or_fail(current, texts, embeddings)
        return self._save(current) if current.totals else None

    def _begun(
        self, current: _Round, ahead: ThreadPoolExecutor
    ) -> Iterator[tuple[list[ChunkText], Future[Float32Array]]]:
        """Batches being embedded; the next one is read and tokenised meanwhile."""
        for batch in batches(self._texts(current)):
            texts = [text for text in batch if text.uid not in current.failed]
            if texts:
                current.unembedded.update(text.uid for text in texts)
                yield texts, ahead.submit(self._embedded, texts)

    def _embedded(self, texts: Sequence[ChunkText]) -> Float32Array:
        return self._embed(self._encoder.action_inputs([text.text for text in texts]))

    def _add_or_fail(self, current: _Round, texts: Sequence[ChunkText], embeddings: Future[Float32Array]) -> None:
        """Add a batch, or if that fails each of its documents by itself. Nothing may be added after a cancelled one."""
        try:
            self._add(current, texts, embeddings.result())
        except CancelledError:
            raise
        except Exception:
            log.warning("embedding failed, trying each document by itself", exc_info=True)
            for uid, group in groupby(texts, key=lambda text: text.uid):
                own = list(group)
                try:
                    self._add(current, own, self._embedded(own))
                except CancelledError:
                    raise
                except Exception as error:
                    self._fail(current, {uid}, error)

    def _add(self, current: _Round, texts: Sequence[ChunkText], embeddings: Float32Array) -> None:
        kept = [at for at, text in enumerate(texts) if text.uid not in current.failed]  # an earlier batch may have
        current.vectors.append(embeddings[kept])
        current.rows.extend((texts[at].uid, texts[at].number) for at in kept)
        current.unembedded.subtract(text.uid for text in texts)
        for uid, number in {text.uid: text.number for text in texts}.items():
            self._store.set_progress(uid, (number + 1) / current.totals[uid])

    def _texts(self, current: _Round) -> Iterator[ChunkText]:
        """The chunks of this round, and in ``current`` the documents that end with them."""
        left = SEGMENT_ROWS
        for document in self._waiting():
            is_long = document.characters > LONG_DOCUMENT_CHARACTERS
            if left <= 0 or self._stopping.is_set() or (is_long and current.totals):
                return  # short documents become searchable before the next part of a long one is begun
            try:
                total, number = self._prepare(document)
            except CancelledError:
                return  # shutting down
            except DiskFull:
                raise
            except Exception as error:
                current.totals[document.uid] = 0
                self._fail(current, {document.uid}, error)
                continue
            current.totals[document.uid] = total
            while number < total and left > 0 and not self._stopping.is_set() and document.uid not in current.failed:
                rows = self._store.chunks(document.uid, first=number, limit=min(EMBED_CHUNKS, left))
                if not rows:
                    break  # deleted meanwhile
                yield from (ChunkText(document.uid, at, text) for at, _, text in rows)
                number += len(rows)
                left -= len(rows)
            if number == total:
                current.finished.add(document.uid)

    def _waiting(self) -> Iterator[Document]:
        with self._store.database.read() as connection:
            ids = [
                row["id"]
                for row in connection.execute(
                    "SELECT id FROM documents WHERE status IN ('queued', 'indexing') "
                    "ORDER BY characters > ?, uid LIMIT ?",
                    (LONG_DOCUMENT_CHARACTERS, SEGMENT_ROWS),
                )
            ]
        for id in ids:
            document = self._store.find_document(id)
            if document is not None and document.status in ("queued", "indexing"):
                yield document

    def _prepare(self, document: Document) -> tuple[int, int]:
        """Cut the document unless that is done; returns its chunks in all, and how many are stored."""
        if document.chunks is not None:
            with self._store.database.read() as connection:
                stored: int = connection.execute(
                    "SELECT COALESCE(MAX(first_chunk + rows), 0) FROM pieces WHERE uid = ? AND space = ?",
                    (document.uid, self._store.space.space),
                ).fetchone()[0]
            if document.chunks:
                self._store.set_progress(document.uid, stored / document.chunks)
            return document.chunks, stored
        text = "".join(self._store.text_blocks(document.uid))
        limit = document.chunking.token_limit(self._encoder.chunk_limit)
        chunks = chunk_document(text, document.chunking.mode, limit, self._encoder.chunk_tokenizer)
        table: IntArray = np.fromiter(self._until_stopped(chunks), dtype=np.dtype((np.int64, 3)))
        self._store.save_chunks(document.uid, table)
        return len(table), 0

    def _until_stopped(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if self._stopping.is_set():
                raise CancelledError
            yield chunk

    def _save(self, current: _Round) -> Round:
        rows = current.rows
        done = {uid for uid in current.finished - current.failed if not current.unembedded[uid]}
        if rows:
            matrix = np.concatenate(current.vectors)
            segment = self._store.add_segment(matrix, pieces_of(rows), done)
        else:
            segment = None
            self._store.finish_documents(done)
        log.info("indexed documents=%d chunks=%d segment=%s", len(done), len(rows), segment)
        return Round(len(done), len(rows), len(current.failed))

    def _fail(self, current: _Round, uids: set[int], error: Exception) -> None:
        current.failed |= uids
        reason = f"Indexing failed ({type(error).__name__}). Retry the document; the server's log has the details."
        log.error("indexing failed uids=%s", sorted(uids), exc_info=error)
        self._store.fail_documents(uids, reason)


def batches(texts: Iterable[ChunkText]) -> Iterator[list[ChunkText]]:
    """The texts in groups of :data:`EMBED_CHUNKS`."""
    batch: list[ChunkText] = []
    for text in texts:
        batch.append(text)
        if len(batch) == EMBED_CHUNKS:
            yield batch
            batch = []
    if batch:
        yield batch


def _one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items; the next one is begun before each is given out."""
    last: list[Item] = []
    for item in items:
        yield from last
        last = [item]
    yield from last


def pieces_of(rows: Sequence[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """Runs of rows of one document, as ``(uid, first_chunk, first_row, rows)``."""
    pieces = []
    for uid, group in groupby(enumerate(rows), key=lambda item: item[1][0]):
        members = list(group)
        first_row, (_, first_chunk) = members[0]
        pieces.append((uid, first_chunk, first_row, len(members)))
    return pieces
