"""Episodes played past their ends, with all that a stop rule could have seen: what rules are fitted and judged on.

Selections are greedy whatever the rule, so one trace says what every rule at every threshold would have done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from index.arrays import Float32Array
from index.encoders.encoder import Encoder
from index.episodes.episode import Limits
from index.episodes.head import Moment, Sufficiency
from index.episodes.rules import STOP_RULES, score_of
from index.episodes.stopping import Stopping
from index.search.function import QFunction
from qrag.wire.rules import Rule
from trainer.datasets.question import Question
from trainer.evaluation.counting import found_after
from trainer.evaluation.playing import run_together, start, together
from trainer.evaluation.vectors import ChunkVectors

PAST = 2
"""Selections traced after the completing one. A rule that would go on even then is taken to go on to the end."""

Label = Literal[0, 1, 2]
"""Complete, open, hopeless: see :mod:`index.episodes.stopping`."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One episode."""

    task: str
    moments: tuple[Moment, ...]
    """``moments[t]`` is the state after ``t`` selections."""
    hits: tuple[int, ...]
    """Support chunks among the first ``t`` selections."""
    support: int
    """Support chunks there are, removed ones included."""
    found_after: int | None
    """Selections after which all support was found; none where it was not within the budget."""
    budget: int
    """Most selections: no more than there are chunks."""
    question: str
    """The id of the question."""
    removed: int = 0
    """Support chunks that were taken out of the candidates."""

    def label(self, taken: int) -> Label:
        """What the state after so many selections is."""
        if self.found_after is None:
            return 2
        return 0 if taken >= self.found_after else 1

    def stop(self, scores: Sequence[float] | Float32Array, threshold: float) -> int:
        """After how many selections the rule with these scores, one a moment, stops."""
        for taken, score in enumerate(scores):
            if taken == self.budget or score < threshold:
                return taken
        return self.budget


@dataclass(frozen=True)
class _Recorder(Stopping):
    """Keeps what an episode shows its stop rules."""

    action: None = None
    head: None = None
    moments: list[Moment] = field(default_factory=list)

    @property
    def assesses(self) -> bool:
        return True

    def sufficiency(self, moment: Moment, function: QFunction) -> Sufficiency | None:  # noqa: ARG002
        self.moments.append(moment)
        return None


def trace(encoder: Encoder, questions: Iterable[Question], vectors: ChunkVectors, budget: int) -> list[Trace]:
    """Play greedy episodes of at most ``budget`` selections; none stops before :data:`PAST` its completion."""
    return [played for group in together(questions) for played in _trace_together(encoder, group, vectors, budget)]


def _trace_together(encoder: Encoder, questions: Sequence[Question], vectors: ChunkVectors, budget: int) -> list[Trace]:
    recorders = [_Recorder() for _ in questions]
    episodes = [
        start(encoder, question, vectors, Limits(budget), recorder)
        for question, recorder in zip(questions, recorders, strict=True)
    ]

    def completed_after(i: int) -> int | None:
        return found_after(questions[i], [step.position for step in episodes[i].steps])

    def goes_on(i: int) -> bool:
        after = completed_after(i)
        return after is None or len(recorders[i].moments) <= after + PAST

    run_together(encoder, questions, episodes, goes_on)
    traces = []
    for i, (question, episode) in enumerate(zip(questions, episodes, strict=True)):
        moments = tuple(recorders[i].moments)
        right = [step.position in question.support for step in episode.steps][: len(moments) - 1]
        traces.append(
            Trace(
                task=question.task,
                moments=moments,
                hits=(0, *np.cumsum(right, dtype=int).tolist()),
                support=len(question.support) + question.removed,
                found_after=completed_after(i),
                budget=min(budget, len(question.chunks)),
                question=question.id,
                removed=question.removed,
            )
        )
    return traces


def scores(traces: Sequence[Trace], stopping: Stopping, rule: Rule, function: QFunction) -> list[Float32Array]:
    """The rule's score in each moment of each trace."""
    return [
        np.array([score_of(STOP_RULES[rule], moment, stopping, function) for moment in trace.moments], dtype=np.float32)
        for trace in traces
    ]
