"""Counting what episodes found.

No oracle stops an episode: it ends when the budget is spent. *All-support recall at k* is the share of questions whose
whole support is among the first ``k`` selections.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.datasets.question import Question


def found_after(question: Question, selected: Sequence[int]) -> int | None:
    """After how many selections all support was found; none if it was not, or is not there."""
    return next((step for step in range(1, len(selected) + 1) if question.missing(selected[:step]) == 0), None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one episode brought."""

    found_after: int | None
    """See :func:`found_after`."""
    selected: int
    f1: float
    """F1 of the selected chunks against the support."""
    shares: tuple[float, ...] = ()
    """The share of the evidence among the first 1, 2, ... selections: see :func:`evidence_shares`."""


def outcome(question: Question, selected: Sequence[int]) -> Outcome:
    """What these selections bring."""
    hits = len(question.support.intersection(selected))
    f1 = 2 * hits / (len(question.support) + len(selected))
    return Outcome(found_after(question, selected), len(selected), f1, evidence_shares(question, selected))


def evidence_shares(question: Question, selected: Sequence[int]) -> tuple[float, ...]:
    """The share of the facts, of at most ``k``, that the first ``k`` selections hold, for each ``k`` up to all."""
    facts = len(question.support if question.facts is None else question.facts)
    return tuple(min(1.0, question.found(selected[:k]) / max(1, min(k, facts))) for k in range(1, len(selected) + 1))


@dataclass(frozen=True, slots=True)
class Recall:
    """All-support recall of one task's questions."""

    questions: int
    at_budget: float
    by_step: tuple[float, ...]
    """``by_step[k - 1]`` is the recall at ``k``."""
    support_f1: float
    """Mean F1 of the selected chunks against the support, at the budget."""
    share_by_step: tuple[float, ...] = ()
    """``share_by_step[k - 1]`` is the mean :func:`evidence_shares` at ``k``."""

    @property
    def standard_error(self) -> float:
        """The standard error of the recall at the budget, from the number of questions (Agresti and Coull:
        not 0 at a recall of 1)."""
        count = self.questions + 4
        share = (self.at_budget * self.questions + 2) / count
        return math.sqrt(share * (1 - share) / count)


def recall(questions: Sequence[Question], selections: Sequence[Sequence[int]]) -> Recall:
    """The recall of these selections, one list a question."""
    return summary([outcome(question, selected) for question, selected in zip(questions, selections, strict=True)])


def summary(outcomes: Sequence[Outcome]) -> Recall:
    """The recall of these episodes; raises :class:`ValueError` where there are none."""
    if not outcomes:
        raise ValueError("no questions to count")
    after = [episode.found_after for episode in outcomes]
    by_step = tuple(
        sum(step is not None and step <= k for step in after) / len(outcomes)
        for k in range(1, max(episode.selected for episode in outcomes) + 1)
    )
    return Recall(
        questions=len(outcomes),
        at_budget=sum(step is not None for step in after) / len(outcomes),
        by_step=by_step,
        support_f1=float(np.mean([episode.f1 for episode in outcomes])),
        share_by_step=tuple(
            float(np.mean([episode.shares[min(k, len(episode.shares)) - 1] for episode in outcomes]))
            for k in range(1, max(len(episode.shares) for episode in outcomes) + 1)
        ),
    )


def by_task(questions: Iterable[Question]) -> dict[str, list[Question]]:
    """The questions of each task, in order of first appearance."""
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        groups[question.task].append(question)
    return dict(groups)
