"""The log of questions: what people asked, kept for some days where the operator wants that, and beside the answers.

An answer neither waits for its record nor fails with it: records go through a queue that is bounded, and a thread
writes them. Where the queue or the disk is full they are dropped, and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from index.storage.questions import Question, QuestionStore

log = logging.getLogger(__name__)

MAX_WAITING = 1000
"""Most questions that wait to be written."""

FORGET_SECONDS = 600.0
"""Longest time from a record's end of life to its removal."""

READ_SECONDS = 10.0
"""Longest time that a reader waits for what is still to be written."""


class QuestionLog:
    """Writes questions in a thread of its own, and forgets those that are older than ``days``.

    Drops them while ``has_room`` says no.
    """

    def __init__(self, store: QuestionStore, days: int, has_room: Callable[[], bool]) -> None:
        self.days = days
        self.dropped = 0
        """Questions that were not written, since the start."""
        self._store = store
        self._has_room = has_room
        self._waiting: list[Question] = []
        self._noted = 0
        self._done = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="questions", daemon=True)

    def start(self) -> None:
        """Start writing, and forget what has become too old meanwhile."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and stop."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def note(self, question: Question) -> None:
        """Keep a question, unless too many wait to be written; returns at once."""
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                self.dropped += 1
                return
            self._waiting.append(question)
            self._noted += 1
            self._changed.notify_all()

    def catch_up(self) -> None:
        """Wait until what was noted so far is written or dropped."""
        with self._changed:
            noted = self._noted
            self._changed.wait_for(lambda: self._done >= noted or not self.alive, READ_SECONDS)

    def _loop(self) -> None:
        forget_at = time.monotonic()
        while True:
            if time.monotonic() >= forget_at:
                self._forget()
                forget_at = time.monotonic() + FORGET_SECONDS
            with self._changed:
                seconds = forget_at - time.monotonic()
                self._changed.wait_for(lambda: self._waiting or self._stopping, max(0.0, seconds))
                batch, self._waiting = self._waiting, []
                stopping = self._stopping
            if batch:
                self._write(batch)
            elif stopping:
                return

    def _write(self, batch: list[Question]) -> None:
        dropped = 0
        try:
            if self._has_room():
                self._store.add(batch)
            else:
                dropped = len(batch)
        except Exception as error:  # a question is not worth the thread, nor a line with its words
            log.error("questions were not kept: %s", type(error).__name__)
            dropped = len(batch)
        with self._changed:
            self.dropped += dropped
            self._done += len(batch)
            self._changed.notify_all()

    def _forget(self) -> None:
        try:
            self._store.forget(datetime.now(UTC) - timedelta(days=self.days))
        except Exception as error:
            log.error("questions that are too old stay until the next try: %s", type(error).__name__)
