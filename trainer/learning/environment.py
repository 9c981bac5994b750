"""Episodes over questions, with states and positions by the code that serves."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from index.arrays import BoolArray, IntArray, TokenIds
from index.encoders.encoder import Encoder, StateInput
from index.search.positions import Positions, all_level_indices
from trainer.datasets.question import Question
from trainer.learning.rewards import Step


class Observation(NamedTuple):
    """What one state looks like to the networks, and what the labels say of it.

    Arrays have shape ``[candidates]``. ``available`` is false where a chunk is already selected.
    """

    state: StateInput
    selected: tuple[int, ...]
    """Positions of the chunks selected so far, in document order."""
    levels: IntArray
    available: BoolArray
    support: BoolArray
    """The support that is still missing."""
    complete: bool
    """Whether no support is missing: the moment to stop."""


@dataclass
class Environment:
    """One episode over one question: selections until all support is found or the budget is spent."""

    question: Question
    tokens: TokenIds
    """The question's tokens as the state tower reads them."""
    budget: int
    selected: list[int] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Support chunks not selected yet."""
        return self.question.missing(self.selected)

    @property
    def done(self) -> bool:
        """Whether the episode has ended."""
        return self.missing == 0 or self.truncated

    @property
    def truncated(self) -> bool:
        """Whether it ended for lack of budget, with support missing."""
        return self.missing > 0 and self.full

    @property
    def full(self) -> bool:
        """Whether the budget, or what there is, is spent."""
        return len(self.selected) >= min(self.budget, len(self.question.chunks))

    @property
    def exhausted(self) -> bool:
        """Whether every chunk is selected."""
        return len(self.selected) == len(self.question.chunks)

    def select(self, position: int) -> Step:
        """Select a chunk."""
        before = tuple(self.selected)
        insort(self.selected, position)
        return Step(self.question, before, tuple(self.selected))


def document_levels(counts: Sequence[int], selected: Sequence[int], positions: Positions) -> IntArray:
    """The level index of every chunk of documents laid end to end, shape ``[sum(counts)]``."""
    if max(counts) == 1 and positions.mode != "absolute":
        # A document of one chunk has one interval until that chunk, the only one, is selected.
        return np.zeros(sum(counts), dtype=np.int64)
    return all_level_indices(np.cumsum([0, *counts], dtype=np.int64), selected, positions)


class Observer:
    """Turns environments into observations, through the encoder that serves."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._chunk_tokens: dict[str, TokenIds] = {}

    def start(self, question: Question) -> Environment:
        """A new episode over the question."""
        tokens = self._encoder.question_tokens(question.text)[: self._encoder.question_limit]
        return Environment(question, tokens, question.budget)

    def observe(self, environment: Environment) -> Observation:
        """The state of an episode as the networks read it."""
        question, selected = environment.question, environment.selected
        chunks = [self._tokens(question.chunks[position]) for position in selected]
        available = np.ones(len(question.chunks), dtype=np.bool_)
        available[selected] = False
        support = np.zeros(len(question.chunks), dtype=np.bool_)
        support[list(question.open_support(selected))] = True
        return Observation(
            state=self._encoder.compose_state(environment.tokens, chunks),
            selected=tuple(selected),
            levels=document_levels(question.counts, selected, self._encoder.function.positions),
            available=available,
            support=support,
            complete=environment.missing == 0,
        )

    def _tokens(self, chunk: str) -> TokenIds:
        if chunk not in self._chunk_tokens:
            (self._chunk_tokens[chunk],) = self._encoder.state_tokens([chunk])
        return self._chunk_tokens[chunk]
