"""Rewards: what selections are worth.

The environment says what was selected before and after each selection, and the reward what that brought, until no
support is missing. Another reward is a class here and its name, one of
:data:`~trainer.hyperparameters.RewardName`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from trainer.datasets.question import Question
from trainer.errors import RecipeError
from trainer.hyperparameters import RewardName
from trainer.judging.judge import Judge, State

LEAST_SPAN = 1.0
"""Nats that a judged support adds at least, where what parts of it add is a reward."""


class Step(NamedTuple):
    """One selection: the positions selected before and after it, in document order."""

    question: Question
    before: tuple[int, ...]
    after: tuple[int, ...]


class Reward(Protocol):
    """What episodes are worth, finished or not."""

    def worth(self, question: Question, selected: Collection[int]) -> float:
        """The worth of ending with the chunks at these positions selected, as the labels have it."""

    def rewards(self, steps: Sequence[Step]) -> list[float]:
        """The reward of each selection; 0 where nothing was missing before it."""


class Completion:
    """The paper's reward: 1 where all support is selected."""

    def worth(self, question: Question, selected: Collection[int]) -> float:
        """1 in a complete state, else 0."""
        return 0.0 if question.missing(selected) else 1.0

    def rewards(self, steps: Sequence[Step]) -> list[float]:
        """The worth of what is selected then, once."""
        return _once(self, steps)


class Shaped:
    """The public code's reward: more for fewer selections."""

    def worth(self, question: Question, selected: Collection[int]) -> float:
        """``0.5 + 0.5 · facts / selections`` in a complete state, else 0: as many facts as are needed."""
        return 0.0 if question.missing(selected) else 0.5 + 0.5 * question.needed / len(selected)

    def rewards(self, steps: Sequence[Step]) -> list[float]:
        """The worth of what is selected then, once."""
        return _once(self, steps)


class AnswerGain:
    """What a selection adds to the probability of the answer, by a frozen reader; for questions that it judged.

    The value of nothing is 0 and that of the judged support is 1, both the question's own: log-probabilities are not
    comparable between questions. Between them it is linear in nats. Other questions have the paper's reward, as have
    those of which a piece was taken away, and those whose support is worth less than :data:`LEAST_SPAN` to this
    reader: a share of so little would pay for chance.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge, self._labelled = judge, Completion()

    def worth(self, question: Question, selected: Collection[int]) -> float:
        """1 in a complete state, else 0: what the judged support is worth."""
        return self._labelled.worth(question, selected)

    def rewards(self, steps: Sequence[Step]) -> list[float]:
        """The differences of values, each cut to 0..1; raises as :class:`~trainer.readers.protocol.Reader` says."""
        judged = [step for step in steps if _tells(step)]
        states: list[State] = [
            (step.question, positions)
            for step in judged
            for positions in ((), tuple(sorted(step.question.support)), step.before, step.after)
        ]
        values = self._judge.values(states).reshape(-1, 4)
        span = values[:, 1] - values[:, 0]
        shares = np.clip((values[:, 2:] - values[:, :1]) / np.maximum(span, LEAST_SPAN)[:, None], 0.0, 1.0)
        gains = iter(np.where(span < LEAST_SPAN, np.nan, shares[:, 1] - shares[:, 0]).tolist())
        told = [next(gains) if _tells(step) else np.nan for step in steps]
        labelled = self._labelled.rewards(steps)
        return [label if np.isnan(gain) else gain for gain, label in zip(told, labelled, strict=True)]


def _tells(step: Step) -> bool:
    """Whether the reader is asked: its judgement is of the whole question, in which something is missing."""
    return step.question.judged and not step.question.removed and step.question.missing(step.before) > 0


def _once(reward: Reward, steps: Sequence[Step]) -> list[float]:
    return [reward.worth(step.question, step.after) if step.question.missing(step.before) else 0.0 for step in steps]


def reward_of(name: RewardName, judge: Judge | None = None) -> Reward:
    """The reward of this name; raises :class:`~trainer.errors.RecipeError` where it needs a judge and there is none."""
    match name:
        case "completion":
            return Completion()
        case "shaped":
            return Shaped()
        case "answer":
            if judge is None:
                raise RecipeError("The reward answer is what a frozen reader says: name the recipe's `reader`.")
            return AnswerGain(judge)
