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
    facts: tuple[frozenset[int], ...] | None = None
    """The facts it needs, each with the chunks of which any one holds it; none: each support chunk is a fact."""
    enough: int | None = None
    """How many of the facts are enough; none: all of them."""
    answers: tuple[str, ...] = ()
    """The gold answer, and others that are as good; none where the data set has none."""
    judged: bool = False
    """Whether its support is what a frozen reader says, not a person."""
    wrong: tuple[int, ...] = ()
    """Chunks from which a frozen reader does not answer right; none where it was not asked."""
    distil: bool = False
    """Whether training also learns the order in which a cross-encoder has its candidates."""

    def __post_init__(self) -> None:
        """Raises :class:`ValueError` where the parts contradict each other."""
        if not self.text.strip():
            raise ValueError("the question is empty")
        if sum(self.counts) != len(self.chunks) or min(self.counts, default=1) < 1:
            raise ValueError("the documents' counts do not add up to the chunks")
        if self.unlabelled and not self.answers:
            raise ValueError("no chunk is marked as support, and there is no answer to judge chunks by")
        if not all(0 <= position < len(self.chunks) for position in self.support):
            raise ValueError(f"support {sorted(self.support)} names a chunk outside 0..{len(self.chunks) - 1}")
        if self.facts is not None and self.support != frozenset().union(*self.facts):
            raise ValueError("the support is not the chunks that hold the facts")
        if self.budget < 1:
            raise ValueError("the budget must allow at least one selection")

    @property
    def unlabelled(self) -> bool:
        """Whether nobody has said which chunks it needs: a frozen reader may (:mod:`trainer.judging`)."""
        return not self.support and not self.removed

    @property
    def _holders(self) -> Sequence[frozenset[int]]:
        """For each fact the chunks that hold it."""
        return self.facts if self.facts is not None else [frozenset({position}) for position in self.support]

    @property
    def needed(self) -> int:
        """How many facts are to be found."""
        count = len(self.support if self.facts is None else self.facts)
        return count if self.enough is None else min(count, self.enough)

    def found(self, selected: Collection[int]) -> int:
        """How many facts these selections hold."""
        if self.facts is None:
            return len(self.support.intersection(selected))
        return sum(not holders.isdisjoint(selected) for holders in self.facts)

    def missing(self, selected: Collection[int]) -> int:
        """How many facts are missing where these are selected; removed ones are never found."""
        return max(0, self.needed - self.found(selected)) + self.removed

    def open_support(self, selected: Collection[int]) -> frozenset[int]:
        """The support chunks that hold a fact which these selections lack; none where enough is found."""
        if self.found(selected) >= self.needed:
            return frozenset()
        if self.facts is None:
            return self.support.difference(selected)
        return frozenset().union(*(holders for holders in self.facts if holders.isdisjoint(selected)))

    def completed(self, selected: Collection[int]) -> frozenset[int]:
        """These selections with one chunk more for each fact that is missing."""
        lacking = [min(holders) for holders in self._holders if holders.isdisjoint(selected)]
        return frozenset(selected).union(lacking[: max(0, self.needed - self.found(selected))])

    def without(self, positions: Collection[int]) -> Question:
        """The question with these chunks taken out; documents that had no others go with them."""
        kept = [position for position in range(len(self.chunks)) if position not in positions]
        first, counts = 0, []
        for count in self.counts:
            counts.append(sum(position not in positions for position in range(first, first + count)))
            first += count
        left = sum(not holders.issubset(positions) for holders in self._holders)
        removed = self.removed + max(0, self.needed - left)
        return self._rearranged(kept, tuple(count for count in counts if count), removed)

    def rearranged(self, order: Sequence[int], counts: tuple[int, ...]) -> Question:
        """The question with its chunks in another ``order``, in documents of ``counts`` chunks."""
        return self._rearranged(order, counts, self.removed)

    def placed(self, chunks: Sequence[str], first: int) -> Question:
        """The question in one document of ``chunks``, in which its own begin at ``first``."""

        def moved(positions: frozenset[int]) -> frozenset[int]:
            return frozenset(first + position for position in positions)

        facts = None if self.facts is None else tuple(map(moved, self.facts))
        wrong = tuple(first + position for position in self.wrong)
        return replace(
            self, chunks=chunks, counts=(len(chunks),), support=moved(self.support), facts=facts, wrong=wrong
        )

    def _rearranged(self, order: Sequence[int], counts: tuple[int, ...], removed: int) -> Question:
        place = {old: new for new, old in enumerate(order)}

        def moved(positions: frozenset[int]) -> frozenset[int]:
            return frozenset(place[position] for position in positions if position in place)

        facts = None if self.facts is None else tuple(holders for holders in map(moved, self.facts) if holders)
        return replace(
            self,
            chunks=[self.chunks[position] for position in order],
            counts=counts,
            support=moved(self.support),
            removed=removed,
            facts=facts,
            wrong=tuple(place[position] for position in self.wrong if position in place),
        )


def known_answers(*answers: str | None) -> tuple[str, ...]:
    """The answers that say something, each once."""
    return tuple(dict.fromkeys(answer for answer in answers if answer is not None and answer.strip()))
