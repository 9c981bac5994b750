"""The report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from qrag.evaluation.report import AnswerFigures, Comparison, Figure, MethodFigures, QuestionResult, Report
from qrag.wire.rules import ENDINGS

_SPECIAL = re.compile(r"([\\`*_\[\]|~#])")


def markdown(report: Report) -> str:
    """The report as a page of GitHub's Markdown."""
    parts = [
        "# Evaluation",
        f"{len(report.questions)} questions, at most {report.max_steps} chunks each, checkpoint {plain(report.model)}, "
        f"{report.created_at:%Y-%m-%d %H:%M} UTC.",
        *(_evidence(report.methods) if report.methods else ["No question has expected evidence."]),
        *([] if report.answers is None else _answers(report.answers)),
        *_unresolved(report),
        *_failed(report),
        *(["## Among the first chunks", _curves(report)] if report.methods else []),
        *_endings(report.methods),
        *_calibration(report.methods),
        *([] if report.comparison is None else _comparison(report.comparison)),
        "## Questions",
        _questions(report),
    ]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """A text on one line that Markdown shows as it is."""
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def interval(figure: Figure, digits: int = 3, signed: bool = False) -> str:
    """A figure with its interval."""
    form = f"{'+' if signed else ''}.{digits}f"
    return f"{figure.mean:{form}} [{figure.low:{form}}, {figure.high:{form}}]"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(entries: Iterable[str]) -> str:
    return "\n".join(f"- {entry}" for entry in entries)


def _evidence(methods: Sequence[MethodFigures]) -> list[str]:
    rows = [
        [method.name, interval(method.recall), interval(method.share), interval(method.chunks, 2)] for method in methods
    ]
    return [
        _table(("method", "recall", "share", "chunks"), rows),
        "Recall: questions with all expected pieces found. Share: mean share of them. In brackets 95% intervals by "
        "bootstrap over the questions.",
        _list(f"**{method.name}**: {plain(method.words)}" for method in methods),
    ]


def _answers(figures: AnswerFigures) -> list[str]:
    row = [str(figures.questions), interval(figures.exact), interval(figures.f1), str(figures.failed)]
    return [
        "## Answers",
        _table(("questions", "exact", "F1", "not answered"), [row]),
        f"Written by {plain(figures.language_model or '–')}, against the accepted answer that fits best. Exact: the "
        "same words. F1: harmonic mean of precision and recall of the words. What is not answered counts as 0.",
    ]


def _unresolved(report: Report) -> list[str]:
    results = report.unresolved
    if not results:
        return []
    reasons = [f"{plain(result.id)}: {plain(reason)}" for result in results for reason in result.unresolved]
    return [
        "## Not resolved",
        f"{len(reasons)} expectations, in {len(results)} of {len(report.questions)} questions. What nothing can find "
        "counts as not found.",
        _list(reasons),
    ]


def _failed(report: Report) -> list[str]:
    errors = [
        (result.id, name, error)
        for result in report.questions
        for name, error in (
            *((name, score.answer.error) for name, score in result.scores.items()),
            ("answer", None if result.written is None else result.written.error),
        )
        if error is not None
    ]
    failures = [f"{plain(id)}, {name}: {plain(error)}" for id, name, error in errors]
    return ["## Not answered", "Nothing counts as found there, or as right.", _list(failures)] if failures else []


def _curves(report: Report) -> str:
    names = ("method", "", *(str(count) for count in range(1, report.max_steps + 1)))
    rows = [
        [method.name, word, *(f"{value:.3f}" for value in curve)]
        for method in report.methods
        for word, curve in (("recall", method.recall_at), ("share", method.share_at))
    ]
    return _table(names, rows)


def _endings(methods: Sequence[MethodFigures]) -> list[str]:
    rows = [
        [method.name, f"{ending}: {ENDINGS[ending]}", str(count)]
        for method in methods
        for ending, count in method.stopped_by.items()
    ]
    return ["## How it ended", _table(("method", "ending", "questions"), rows)] if rows else []


def _calibration(methods: Sequence[MethodFigures]) -> list[str]:
    parts = []
    for method in methods:
        if method.calibration is not None:
            rows = [
                [f"{bin.estimated:.2f}", f"{bin.complete:.2f}", str(bin.questions)] for bin in method.calibration.bins
            ]
            parts += [
                f"### {method.name}",
                f"Expected calibration error {method.calibration.error:.3f}.",
                _table(("estimated", "complete in fact", "questions"), rows),
            ]
    return ["## Whether the evidence is complete", *parts] if parts else []


def _comparison(comparison: Comparison) -> list[str]:
    answers = comparison.answers
    rows = [
        [method.name, interval(method.recall, signed=True), interval(method.share, signed=True)]
        for method in comparison.methods
    ]
    changes = [
        f"{name}, {word}: {', '.join(map(plain, ids))}"
        for name, change in comparison.changes()
        for word, ids in (("better", change.better), ("worse", change.worse))
        if ids
    ]
    tables = [_table(("method", "recall", "share"), rows)] if rows else []
    if answers is not None:
        row = [str(answers.questions), interval(answers.exact, signed=True), interval(answers.f1, signed=True)]
        tables.append(_table(("answers", "exact", "F1"), [row]))
    return [
        "## Compared",
        f"With {comparison.created_at:%Y-%m-%d %H:%M} UTC, checkpoint {plain(comparison.model)}, at most "
        f"{comparison.max_steps} chunks, on the {comparison.questions} questions of both; {comparison.only_now} are "
        f"new, {comparison.only_before} are gone. Differences with 95% intervals by paired bootstrap.",
        *tables,
        *([_list(changes)] if changes else []),
    ]


def _questions(report: Report) -> str:
    names = [method.name for method in report.methods]
    further = [] if report.answers is None else ["exact", "F1"]
    return _table(
        ("id", "question", *names, *further),
        [
            [plain(result.id), plain(result.question), *_shares(result, names), *(_fit(result) if further else [])]
            for result in report.questions
        ],
    )


def _shares(result: QuestionResult, names: Sequence[str]) -> list[str]:
    scores = [result.scores.get(name) for name in names]
    return ["–" if score is None or score.answer.error else f"{score.share():.2f}" for score in scores]


def _fit(result: QuestionResult) -> list[str]:
    written = result.written
    return ["–", "–"] if written is None or written.error else [f"{written.exact:.0f}", f"{written.f1:.2f}"]
