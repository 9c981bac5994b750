"""One question with everything that can be retrieved for it: what every loader yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its candidate chunks and which of them it needs.

    The chunks of all documents are laid end to end, as in :class:`index.scoring.Scope`: ``counts`` holds
    the number of chunks of each document and sums to ``len(chunks)``; ``support`` are positions on that axis.
    """

    id: str
    task: str
    """Which benchmark it comes from, for example ``qa3`` or ``musique``: results are reported by task."""
    text: str
    chunks: Sequence[str]
    counts: tuple[int, ...]
    support: frozenset[int]
    budget: int
    """Selections that the benchmark's protocol allows."""
    pool: Sequence[str] = ()
    """Further texts that are no evidence: training looks for hard negatives among them. Shared between questions."""

    def __post_init__(self) -> None:
        """Raises :class:`ValueError` where the parts contradict each other."""
        if not self.text.strip():
            raise ValueError("the question is empty")
        if sum(self.counts) != len(self.chunks) or min(self.counts, default=1) < 1:
            raise ValueError("the documents' counts do not add up to the chunks")
        if not self.support:
            raise ValueError("no chunk is marked as support")
        if not all(0 <= position < len(self.chunks) for position in self.support):
            raise ValueError(f"support {sorted(self.support)} names a chunk outside 0..{len(self.chunks) - 1}")
        if self.budget < 1:
            raise ValueError("the budget must allow at least one selection")
