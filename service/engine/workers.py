"""The background threads: one works off the indexing queue and merges segments when it is idle, one preselects."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from queue import Empty

from opentelemetry.context import Context

from index.errors import ChunkTooLong, DiskFull, UnknownCollection
from index.indexing.indexer import Indexer, Round
from index.indexing.reembedding import Reembedding
from index.storage.local.compaction import compact
from index.storage.local.segments import SEGMENT_ROWS
from index.storage.local.store import Store
from service.engine.checkpoints import Checkpoints, Loaded
from service.engine.engine import Engine
from service.engine.memory import trim_heap
from service.observing.tracing import record_span

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0
"""Longest wait between two looks at the queue; new documents are announced, so this is a safety net."""

PAUSE_SECONDS = 5.0
"""Pause before trying again when the disk is full, or after an unexpected error."""

TRIM_SECONDS = 30.0
"""Least time between two returns of free memory to the system."""

STALLED = "The disk is full: indexing goes on by itself once there is space."


class IndexingWorker:
    """Runs :class:`~index.indexing.indexer.Indexer` rounds until stopped, in turn with the rounds of a change of checkpoint.

    One thread does both and ends the change, so that no round begins with one checkpoint and ends with another.
    """

    def __init__(self, store: Store, checkpoints: Checkpoints, engine: Engine) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._engine = engine
        self._stopping = threading.Event()
        self.round_listeners: list[Callable[[Round, float], None]] = []
        """Called with what each round has done, and the seconds it took."""
        self._thread = threading.Thread(target=self._loop, name="indexing", daemon=True)

    def start(self) -> None:
        """Start working; documents that an earlier process left unfinished come first."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Take no more work; what is embedded already will be stored."""
        self._stopping.set()
        self._store.announce()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _index(self) -> bool:
        """One round; whether there was anything to do."""
        encoder = self._checkpoints.current.encoder
        embed = partial(self._engine.embed_actions, encoder)
        began = time.perf_counter()
        done = Indexer(self._store, encoder, embed, self._stopping).work()
        if done is None:
            return False
        record_span("index", began, Context(), **done._asdict())
        for listener in self.round_listeners:
            listener(done, time.perf_counter() - began)
        return True

    def _reembed(self) -> bool:
        change = self._checkpoints.change
        if change is None or change.encoder is None or change.space is None:
            return False
        embed = partial(self._engine.embed_actions, change.encoder)
        try:
            return Reembedding(
                self._store, change.encoder, embed, self._stopping, change.space
            ).work() or self._checkpoints.finish(change)
        except ChunkTooLong as error:
            self._checkpoints.fail(change, error)
            return True

    def _loop(self) -> None:
        try:
            self._checkpoints.resume()
        except Exception:
            log.exception("a change of checkpoint that was not finished cannot go on")
        trimmed = time.monotonic()
        while not self._stopping.is_set():
            store = self._store
            news = store.news
            if time.monotonic() - trimmed > TRIM_SECONDS:
                trim_heap()
                trimmed = time.monotonic()
            try:
                freed = store.remove_deleted() or store.database.release_space()
                if store.stalled and not freed and self._no_space():
                    store.wait_for_news(news, PAUSE_SECONDS)
                    store.stall(STALLED)
                    continue
                indexed, reembedded = self._index(), self._reembed()
                worked = indexed or reembedded or compact(store) or freed
                store.stalled = None
                if not worked:
                    store.reserve.keep()
                    store.wait_for_news(news, IDLE_SECONDS)
            except DiskFull as error:
                log.error("indexing waits: %s", error)
                store.stall(STALLED)
                store.wait_for_news(store.news, PAUSE_SECONDS)
            except Exception:
                log.exception("indexing round failed")
                self._stopping.wait(PAUSE_SECONDS)

    def _no_space(self) -> bool:
        dimension = max(space.dimension for space in self._store.spaces.values())
        segment_bytes = SEGMENT_ROWS * 5 * dimension  # embeddings and their codes
        return shutil.disk_usage(self._store.directory).free < segment_bytes


class PreselectionWorker:
    """Builds an index of each collection that has become too large to be read for each step."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="preselection", daemon=True)

    def start(self) -> None:
        """Wait for collections; until an index is built, and after a restart, their searches are exact."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what is being built."""
        self._stopping.set()
        self._checkpoints.current.catalog.too_large.put(None)
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            current = self._checkpoints.current

            def given_up(current: Loaded = current) -> bool:
                return self._stopping.is_set() or self._checkpoints.current is not current

            try:
                if collection := current.catalog.too_large.get(timeout=IDLE_SECONDS):
                    current.catalog.preselect(collection, current.encoder.function.positions, given_up)
            except Empty:
                current.catalog.drop_unused()
            except (CancelledError, UnknownCollection):
                continue  # stopping, or the collection was deleted meanwhile
            except Exception:
                log.exception("building an index failed, searches stay exact collection=%s", collection)
