"""Change notifications of the storage, for waiting threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable


class News:
    """A counter of changes that threads can wait for. Safe to use from many threads.

    Catalogue and vector store announce, once it is visible, whatever changes documents, their status or what a search
    would see.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.number = 0
        """The number of changes so far."""
        self.version = 0
        """The number of changes of the searchable documents so far."""
        self.listeners: list[Callable[[], None]] = []
        """Called, from any thread, whenever documents came, went or changed their status."""

    def announce(self, *, searchable: bool = False) -> None:
        """Wake the waiting threads and call the listeners; ``searchable``: the searchable documents changed."""
        with self._changed:
            self.number += 1
            if searchable:
                self.version += 1
            self._changed.notify_all()
        for listener in tuple(self.listeners):
            listener()

    def wait(self, number: int, seconds: float) -> None:
        """Wait until :attr:`number` differs from ``number``, at most ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self.number != number, seconds)
