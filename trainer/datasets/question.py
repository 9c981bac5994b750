"""One question with everything that can be retrieved for it: what every loader yields."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its candidate chunks and which of them it needs.

    The chunks of all documents are laid end to end, as in a scope of :mod:`index.search.scope`: ``counts`` holds
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
    removed: int = 0
    """How much of the support has been taken out of the candidates: with any gone, the evidence is never complete."""

    def __post_init__(self) -> None:
        """Raises :class:`ValueError` where the parts contradict each other."""
        if not self.text.strip():
            raise ValueError("the question is empty")
        if sum(self.counts) != len(self.chunks) or min(self.counts, default=1) < 1:
            raise ValueError("the documents' counts do not add up to the chunks")
        if not self.support and not self.removed:
            raise ValueError("no chunk is marked as support")
        if not all(0 <= position < len(self.chunks) for position in self.support):
            raise ValueError(f"support {sorted(self.support)} names a chunk outside 0..{len(self.chunks) - 1}")
        if self.budget < 1:
            raise ValueError("the budget must allow at least one selection")

    def missing(self, selected: Collection[int]) -> int:
        """How many support chunks are missing where these are selected; removed ones are never found."""
        return len(self.support.difference(selected)) + self.removed

    def without(self, positions: Collection[int]) -> Question:
        """The question with these chunks taken out; documents that had no others go with them."""
        kept = [position for position in range(len(self.chunks)) if position not in positions]
        place = {old: new for new, old in enumerate(kept)}
        first, counts = 0, []
        for count in self.counts:
            counts.append(sum(position not in positions for position in range(first, first + count)))
            first += count
        return replace(
            self,
            chunks=[self.chunks[position] for position in kept],
            counts=tuple(count for count in counts if count),
            support=frozenset(place[position] for position in self.support if position in place),
            removed=self.removed + len(self.support.intersection(positions)),
        )
