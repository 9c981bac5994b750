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
    order: Float32Array | None = None
    """What the state asks of order, ``u(s)``, shape ``[k]``; none where positions have no space of their own."""
    surroundings: float = 0.0
    """How much the chunks beside a candidate count, ``κ(s)`` (:mod:`index.search.surroundings`)."""


@dataclass(frozen=True, slots=True)
class States:
    """Several states side by side."""

    embeddings: Float32Array
    """Shape ``[states, d]``."""
    terms: tuple[TermWeights, ...] | None = None
    """The weights of each state's tokens; none where the checkpoint has no signal that reads them."""
    order: Float32Array | None = None
    """``u(s)`` of each, shape ``[states, k]``; none where positions have no space of their own."""
    surroundings: Float32Array | None = None
    """``κ(s)`` of each, shape ``[states]``; none where every chunk stands for itself."""

    def __len__(self) -> int:
        return len(self.embeddings)

    def __getitem__(self, number: int) -> State:
        return State(
            self.embeddings[number],
            None if self.terms is None else self.terms[number],
            None if self.order is None else self.order[number],
            0.0 if self.surroundings is None else float(self.surroundings[number]),
        )

    def __iter__(self) -> Iterator[State]:
        return (self[number] for number in range(len(self)))

    def between(self, low: int, high: int) -> States:
        """The states ``low <= number < high``."""
        return States(
            self.embeddings[low:high],
            None if self.terms is None else self.terms[low:high],
            None if self.order is None else self.order[low:high],
            None if self.surroundings is None else self.surroundings[low:high],
        )


def concatenate(parts: Sequence[States]) -> States:
    """The states of all parts, in order."""
    terms = [part.terms for part in parts if part.terms is not None]
    order = [part.order for part in parts if part.order is not None]
    surroundings = [part.surroundings for part in parts if part.surroundings is not None]
    return States(
        np.concatenate([part.embeddings for part in parts]),
        tuple(weights for part in terms for weights in part) if terms else None,
        np.concatenate(order) if order else None,
        np.concatenate(surroundings) if surroundings else None,
    )
