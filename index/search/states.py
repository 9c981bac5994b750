"""States as a search reads them: embeddings, and what signals beside the inner product read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from index.arrays import Float32Array, IntArray


class TermWeights(NamedTuple):
    """The weights of a state's tokens, for lexical signals."""

    tokens: IntArray
    """Token ids, each once, shape ``[n]``."""
    weights: Float32Array
    """Non-negative, shape ``[n]``."""


class State(NamedTuple):
    """One state: the question, and the chunks selected so far."""

    embedding: Float32Array
    """Shape ``[d]``."""
    terms: TermWeights | None = None
    """None where the checkpoint has no signal that reads them."""


@dataclass(frozen=True, slots=True)
class States:
    """Several states side by side."""

    embeddings: Float32Array
    """Shape ``[states, d]``."""
    terms: tuple[TermWeights, ...] | None = None
    """The weights of each state's tokens; none where the checkpoint has no signal that reads them."""

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, number: int) -> State:
        return State(self.embeddings[number], None if self.terms is None else self.terms[number])

    def __iter__(self) -> Iterator[State]:
        return (self[number] for number in range(len(self)))

    def between(self, low: int, high: int) -> States:
        """The states ``low <= number < high``."""
        return States(self.embeddings[low:high], None if self.terms is None else self.terms[low:high])


def concatenate(parts: Sequence[States]) -> States:
    """The states of all parts, in order."""
    terms = [part.terms for part in parts if part.terms is not None]
    embeddings = np.concatenate([part.embeddings for part in parts])
    return States(embeddings, tuple(weights for part in terms for weights in part) if terms else None)
