"""Figures over questions: means with intervals by bootstrap, curves, endings and calibration."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

from qrag.evaluation.measuring import METHODS
from qrag.evaluation.report import AnswerFigures, Bin, Calibration, Figure, MethodFigures, QuestionResult, Report, Score

RESAMPLES = 1000
"""Resamples of a bootstrap."""

CONFIDENCE = 0.95
"""What an interval is meant to cover."""

BINS = 10
"""Bins of the calibration, of equal width."""

OF_EVIDENCE = ("recall", "share")
"""Figures that a limit can be for, also as ``share@3``: among the first three chunks."""

OF_ANSWERS = ("exact", "f1")
"""Further ones."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The least that a figure of the service, the first method, has to be."""

    name: str
    at: int | None
    """Among the first ``at`` chunks, or among all."""
    least: float

    def __str__(self) -> str:
        return self.name if self.at is None else f"{self.name}@{self.at}"

    def measured(self, report: Report) -> float:
        """The figure; the report has to have it."""
        if self.name in OF_ANSWERS:
            assert report.answers is not None
            return (report.answers.exact if self.name == "exact" else report.answers.f1).mean
        method = report.methods[0]
        figure, curve = (method.recall, method.recall_at) if self.name == "recall" else (method.share, method.share_at)
        return figure.mean if self.at is None else curve[self.at - 1]


def limit(words: str) -> Limit:
    """The limit that ``recall=0.8``, ``share@3=0.5`` or ``f1=0.5`` says. Raises :class:`ValueError` for others."""
    name, _, least = words.partition("=")
    name, _, at = name.partition("@")
    wrong = ValueError(f"{words!r} is no limit like recall=0.8, share@3=0.5 or exact=0.5")
    try:
        parsed = Limit(name, int(at) if at else None, float(least))
    except ValueError:
        raise wrong from None
    names = OF_EVIDENCE if at else (*OF_EVIDENCE, *OF_ANSWERS)
    if name not in names or not 0 <= parsed.least <= 1 or (parsed.at is not None and parsed.at < 1):
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
    """The figures of every method that was measured, over the questions with expected evidence."""
    scores = [result.scores for result in results if result.scores]
    measured = [name for name in METHODS if scores and name in scores[0]]
    return [method_figures(name, [scored[name] for scored in scores], max_steps) for name in measured]


def answer_figures(results: Sequence[QuestionResult]) -> AnswerFigures | None:
    """The figures of the written answers, those that are missing included; None where none are accepted."""
    written = [result.written for result in results if result.written is not None]
    if not written:
        return None
    exact, f1 = bootstrap([[answer.exact for answer in written], [answer.f1 for answer in written]])
    return AnswerFigures(
        language_model=next((answer.language_model for answer in written if answer.language_model), None),
        questions=len(written),
        exact=exact,
        f1=f1,
        failed=sum(answer.error is not None for answer in written),
    )


def _mean(values: Iterable[float]) -> float:
    collected = list(values)
    return sum(collected) / len(collected)
