"""Figures over questions: means with intervals by bootstrap, curves, endings and calibration."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

from qrag.evaluation.measuring import METHODS
from qrag.evaluation.report import Bin, Calibration, Figure, MethodFigures, QuestionResult, Score

RESAMPLES = 1000
"""Resamples of a bootstrap."""

CONFIDENCE = 0.95
"""What an interval is meant to cover."""

BINS = 10
"""Bins of the calibration, of equal width."""

NAMES = ("recall", "share")
"""The figures that a limit can be for, also as ``share@3``: among the first three chunks."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The least that a figure of the service's answers has to be."""

    name: str
    at: int | None
    """Among the first ``at`` chunks, or among all."""
    least: float

    def __str__(self) -> str:
        return self.name if self.at is None else f"{self.name}@{self.at}"

    def measured(self, method: MethodFigures) -> float:
        """The figure of a method."""
        figure, curve = (method.recall, method.recall_at) if self.name == "recall" else (method.share, method.share_at)
        return figure.mean if self.at is None else curve[self.at - 1]


def limit(words: str) -> Limit:
    """The limit that ``recall=0.8`` or ``share@3=0.5`` says. Raises :class:`ValueError` for anything else."""
    name, _, least = words.partition("=")
    name, _, at = name.partition("@")
    wrong = ValueError(f"{words!r} is no limit like recall=0.8 or share@3=0.5")
    try:
        parsed = Limit(name, int(at) if at else None, float(least))
    except ValueError:
        raise wrong from None
    if name not in NAMES or not 0 <= parsed.least <= 1 or (parsed.at is not None and parsed.at < 1):
        raise wrong
    return parsed


def bootstrap(columns: Sequence[Sequence[float]], seed: int = 0) -> list[Figure]:
    """The mean of each column with its interval by percentiles; a row is a question, resampled as a whole."""
    rows = range(len(columns[0]))
    generator = random.Random(seed)
    means: list[list[float]] = [[] for _ in columns]
    for _ in range(RESAMPLES):
        drawn = generator.choices(rows, k=len(rows))
        for column, collected in zip(columns, means, strict=True):
            collected.append(sum(map(column.__getitem__, drawn)) / len(rows))
    outside = (1 - CONFIDENCE) / 2
    figures = []
    for column, collected in zip(columns, means, strict=True):
        collected.sort()
        low, high = collected[floor(outside * RESAMPLES)], collected[ceil((1 - outside) * RESAMPLES) - 1]
        figures.append(Figure(mean=sum(column) / len(rows), low=low, high=high))
    return figures


def method_figures(name: str, scores: Sequence[Score], max_steps: int) -> MethodFigures:
    """The figures of a method over all questions, those without an answer included."""
    recall, share, chunks = bootstrap(
        [
            [score.recall() for score in scores],
            [score.share() for score in scores],
            [float(len(score.answer.chunks)) for score in scores],
        ]
    )
    counts = range(1, max_steps + 1)
    return MethodFigures(
        name=name,
        words=METHODS[name],
        recall=recall,
        share=share,
        chunks=chunks,
        recall_at=[_mean(score.recall(count) for score in scores) for count in counts],
        share_at=[_mean(score.share(count) for score in scores) for count in counts],
        stopped_by=dict(Counter(score.answer.stopped_by for score in scores if score.answer.stopped_by).most_common()),
        calibration=calibration(scores),
        failed=sum(score.answer.error is not None for score in scores),
    )


def calibration(scores: Iterable[Score]) -> Calibration | None:
    """The estimates of completeness against what was found; None where the service gives none."""
    bins: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for score in scores:
        estimate = score.answer.complete
        if estimate is not None:
            bins[min(BINS - 1, int(estimate * BINS))].append((estimate, score.recall()))
    held = [
        Bin(
            questions=len(pairs),
            estimated=_mean(estimate for estimate, _ in pairs),
            complete=_mean(complete for _, complete in pairs),
        )
        for pairs in bins
        if pairs
    ]
    if not held:
        return None
    total = sum(each.questions for each in held)
    error = sum(each.questions * abs(each.estimated - each.complete) for each in held) / total
    return Calibration(error=error, bins=held)


def all_figures(results: Sequence[QuestionResult], max_steps: int) -> list[MethodFigures]:
    """The figures of every method that was measured."""
    measured = [name for name in METHODS if name in results[0].scores]
    return [method_figures(name, [result.scores[name] for result in results], max_steps) for name in measured]


def _mean(values: Iterable[float]) -> float:
    collected = list(values)
    return sum(collected) / len(collected)
