"""The background threads: one indexes, and maintains the storage when idle; one builds indexes for preselection."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from opentelemetry.context import Context

from index.encoders.encoder import Encoder
from index.errors import ChunkTooLong, DiskFull, StorageUnavailable
from index.indexing.bagging import Bagging
from index.indexing.indexer import Indexer, Round
from index.indexing.reembedding import Reembedding
from index.storage.protocols import Storage
from index.storage.vectors import Space
from service.engine.changes import Change
from service.engine.checkpoints import Checkpoints
from service.engine.engine import Engine
from service.engine.loaded import Loaded
from service.engine.memory import trim_heap
from service.observing.tracing import record_span

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0
"""Longest wait between two looks at the queue; new documents are announced, so this is a safety net."""

PAUSE_SECONDS = 5.0
"""Pause before trying again when the disk is full or the storage lost, or after an unexpected error."""

TRIM_SECONDS = 30.0
"""Least time between two returns of free memory to the system."""

STALLED = "The disk is full: indexing goes on by itself once there is space."
"""The ``error`` of documents that wait while the disk is full."""


class IndexingWorker:
    """Runs rounds of :class:`~index.indexing.indexer.Indexer`, in turn with those of a change of checkpoint.

    One thread does both and ends the change, so that no round begins with one checkpoint and ends with another.
    """

    def __init__(self, storage: Storage, checkpoints: Checkpoints, engine: Engine) -> None:
        self._storage = storage
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
        """Take no more work; finished embeddings will be stored."""
        self._stopping.set()
        self._storage.news.announce()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _index(self) -> bool:
        """Run one round of indexing; returns whether there was anything to do."""
        encoder = self._checkpoints.current.encoder
        embed = partial(self._engine.embed_actions, encoder)
        began = time.perf_counter()
        outcome = Indexer(self._storage, encoder, embed, self._stopping).work()
        if outcome is None:
            return False
        record_span("index", began, Context(), **outcome._asdict())
        for listener in self.round_listeners:
            listener(outcome, time.perf_counter() - began)
        return True

    def _bag(self) -> bool:
        """Make some of the bags that are missing; returns whether there were any."""
        return Bagging(self._storage, self._checkpoints.current.encoder).work()

    def _change(self) -> bool:
        """Run one round of a change of checkpoint; returns whether there was anything to do."""
        checkpoints = self._checkpoints
        change = checkpoints.change
        if change is None or change.encoder is None or change.space is None:
            return False
        if self._storage.vectors.unembedded(change.space, 1):
            checkpoints.incomplete(change)
            return self._reembed(change, change.encoder, change.space)
        ready = checkpoints.complete(change)
        if ready is None or ready.candidate is None:
            return True  # another change has taken its place
        if ready.trial is not None and ready.trial.outcome is None:
            ready.trial.work(self._engine, checkpoints.current, ready.candidate, self._stopping)
            return True
        return checkpoints.finish(ready)

    def _reembed(self, change: Change, encoder: Encoder, space: Space) -> bool:
        embed = partial(self._engine.embed_actions, encoder)
        try:
            return Reembedding(self._storage, encoder, embed, self._stopping, space).work()
        except ChunkTooLong as error:
            self._checkpoints.fail(change, error)
            return True

    def _resume(self) -> None:
        """Go on with a change of an earlier process; raises only what may pass."""
        try:
            self._checkpoints.resume()
        except StorageUnavailable:
            raise
        except Exception:
            log.exception("a change of checkpoint that was not finished cannot go on")

    def _loop(self) -> None:
        resumed = False
        trimmed = time.monotonic()
        storage, catalogue, news = self._storage, self._storage.catalogue, self._storage.news
        while not self._stopping.is_set():
            number = news.number
            if time.monotonic() - trimmed > TRIM_SECONDS:
                trim_heap()
                trimmed = time.monotonic()
            try:
                if not resumed:
                    self._resume()
                    resumed = True
                followed = self._checkpoints.follow()
                freed = storage.reclaim_space()
                if catalogue.stalled and not freed and not storage.vectors.has_room():
                    news.wait(number, PAUSE_SECONDS)
                    catalogue.stall(STALLED)
                    continue
                indexed, changed = self._index(), self._change()
                worked = followed or indexed or changed or self._bag() or storage.maintain() or freed
                catalogue.resume()
                if not worked:
                    news.wait(number, IDLE_SECONDS)
            except DiskFull as error:
                log.error("indexing waits: %s", error)
                catalogue.stall(STALLED)
                news.wait(news.number, PAUSE_SECONDS)
            except StorageUnavailable as error:
                log.error("indexing waits: %s", error)
                self._stopping.wait(PAUSE_SECONDS)
            except Exception:
                log.exception("indexing round failed")
                self._stopping.wait(PAUSE_SECONDS)


class PreselectionWorker:
    """Builds an index of each collection that has become too large to be read for each step."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="preselection", daemon=True)

    def start(self) -> None:
        """Start waiting for collections; until their indexes are built, also after a restart, searches are exact."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and give up the index being built."""
        self._stopping.set()
        self._checkpoints.current.scopes.close()  # wakes the thread
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
                current.scopes.preselect(current.encoder.function.turning, given_up, IDLE_SECONDS)
            except Exception:
                log.exception("building an index failed, searches stay exact")
