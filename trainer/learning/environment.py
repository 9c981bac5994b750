"""Many episodes stepped as one batch: states, positions and rewards come from the code that serves."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from index.arrays import BoolArray, IntArray, TokenIds
from index.encoders.encoder import Encoder, StateInput
from index.search.positions import Positions, all_level_indices
from trainer.datasets.question import Question

Reward = Literal["completion", "shaped"]


class Observation(NamedTuple):
    """What one state looks like to the networks, and what its candidates are worth.

    Arrays have shape ``[candidates]``. ``available`` is false where a chunk is already selected.
    """

    state: StateInput
    levels: IntArray
    available: BoolArray
    support: BoolArray
    """The support that is still missing."""
    found: float
    """The optimal Q of selecting support that is missing: see :func:`clairvoyant_q`."""
    wasted: float
    """The optimal Q of selecting anything else."""
    complete: bool
    """Whether no support is missing: the moment to stop."""


@dataclass
class Environment:
    """One episode over one question: selections until all support is found or the budget is spent."""

    question: Question
    tokens: TokenIds
    """The question's, as the state tower reads them."""
    budget: int
    selected: list[int] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Support chunks not selected yet."""
        return len(self.question.support.difference(self.selected)) + self.question.removed

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
        """Whether nothing more can be selected."""
        return len(self.selected) >= min(self.budget, len(self.question.chunks))

    def step(self, position: int, reward: Reward) -> float:
        """Select a chunk; returns the reward."""
        earlier = self.missing
        insort(self.selected, position)
        if self.missing or not earlier:
            return 0.0
        return final_reward(reward, len(self.question.support), len(self.selected))


def final_reward(kind: Reward, support: int, steps: int) -> float:
    """What finding all ``support`` chunks in ``steps`` selections is worth.

    ``completion`` is the paper's 1; ``shaped`` is the public code's ``0.5 + 0.5 · support / steps``.
    """
    return 1.0 if kind == "completion" else 0.5 + 0.5 * support / steps


def clairvoyant_q(environment: Environment, gamma: float, reward: Reward) -> tuple[float, float]:
    """The optimal Q of selecting support that is missing, and of selecting anything else, when the support is known.

    With ``m`` support chunks missing after an action, the best that can follow takes ``m`` more selections, so the
    action is worth ``γ^m`` times the final reward. One visited state so supervises all of its candidates. Where nothing
    is missing, or something can never be found, no chunk adds anything: both are 0.
    """
    taken, missing = len(environment.selected), environment.missing
    if missing == 0 or environment.question.removed:
        return 0.0, 0.0
    found, wasted = (
        gamma**m * final_reward(reward, len(environment.question.support), taken + 1 + m)
        for m in (missing - 1, missing)
    )
    return found, wasted


def document_levels(counts: Sequence[int], selected: Sequence[int], positions: Positions) -> IntArray:
    """The level index of every chunk of documents laid end to end, shape ``[sum(counts)]``."""
    if max(counts) == 1 and positions.mode != "absolute":
        # A document of one chunk has one interval until that chunk, the only one, is selected.
        return np.zeros(sum(counts), dtype=np.int64)
    return all_level_indices(np.cumsum([0, *counts], dtype=np.int64), selected, positions)


class Observer:
    """Turns environments into observations, through the encoder that serves."""

    def __init__(self, encoder: Encoder, gamma: float, reward: Reward) -> None:
        self._encoder = encoder
        self._gamma = gamma
        self._reward: Reward = reward
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
        support[list(question.support.difference(selected))] = True
        found, wasted = clairvoyant_q(environment, self._gamma, self._reward)
        return Observation(
            state=self._encoder.compose_state(environment.tokens, chunks),
            levels=document_levels(question.counts, selected, self._encoder.function.positions),
            available=available,
            support=support,
            found=found,
            wasted=wasted,
            complete=environment.missing == 0,
        )

    def _tokens(self, chunk: str) -> TokenIds:
        if chunk not in self._chunk_tokens:
            (self._chunk_tokens[chunk],) = self._encoder.state_tokens([chunk])
        return self._chunk_tokens[chunk]
