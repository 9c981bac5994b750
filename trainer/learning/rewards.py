"""Rewards: what an episode is worth in the state that a selection leads to.

The environment gives the reward after each selection, until no support is missing. Another reward is a class here and
its name: one entry of :data:`REWARDS`, one of :data:`~trainer.hyperparameters.RewardName`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from trainer.datasets.question import Question
from trainer.hyperparameters import RewardName


class Reward(Protocol):
    """What episodes are worth, finished or not."""

    def worth(self, question: Question, selected: Collection[int]) -> float:
        """The worth of the state in which the chunks at these positions of the question are selected."""


class Completion:
    """The paper's reward: 1 where all support is selected."""

    def worth(self, question: Question, selected: Collection[int]) -> float:
        """1 in a complete state, else 0."""
        return 0.0 if question.missing(selected) else 1.0


class Shaped:
    """The public code's reward: more for fewer selections."""

    def worth(self, question: Question, selected: Collection[int]) -> float:
        """``0.5 + 0.5 · support / selections`` in a complete state, else 0."""
        return 0.0 if question.missing(selected) else 0.5 + 0.5 * len(question.support) / len(selected)


REWARDS: Mapping[RewardName, Reward] = {"completion": Completion(), "shaped": Shaped()}
"""The rewards by the name that a recipe gives them."""
