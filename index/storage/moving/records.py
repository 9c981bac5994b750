"""Records of feedback or questions, which their stores give page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from index.storage.feedback import StoredFeedback
from index.storage.questions import StoredQuestion

Stored = TypeVar("Stored", StoredFeedback, StoredQuestion)

PAGE = 256
"""Records that are read at once."""


def every_record(read: Callable[..., Sequence[Stored]]) -> Iterator[Stored]:
    """All that a store has, in order of arrival; ``read`` is its method ``records``."""
    last = 0
    while page := read(after=last, limit=PAGE):
        yield from page
        last = page[-1].number
