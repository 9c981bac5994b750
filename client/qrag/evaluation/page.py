"""The report as one HTML file that needs nothing else: no scripts, no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from qrag.evaluation.markdown import interval
from qrag.evaluation.plots import curves, reliability
from qrag.evaluation.report import (
    AnswerComparison,
    AnswerFigures,
    Comparison,
    MethodComparison,
    MethodFigures,
    QuestionResult,
    Report,
    Written,
)
from qrag.evaluation.styles import STYLES
from qrag.wire.rules import ENDINGS

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What the page may load: nothing, so that no text in it can ever become more than text."""


def page(report: Report) -> str:
    """The report as a page of HTML."""
    styles = {method.name: number for number, method in enumerate(report.methods)}
    body = [
        "<h1>Evaluation</h1>",
        f'<p class="quiet">{len(report.questions)} questions, at most {report.max_steps} chunks each, checkpoint '
        f"{_text(report.model)}, {report.created_at:%Y-%m-%d %H:%M} UTC</p>",
        _summary(report.methods) if report.methods else "<p>No question has expected evidence.</p>",
        "" if report.answers is None else _answers(report.answers),
        _unresolved(report),
        _curves(report, styles) if report.methods else "",
        _endings(report.methods),
        _calibration(report.methods),
        "" if report.comparison is None else _comparison(report.comparison),
        _questions(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Evaluation</title>\n'
        f"<style>\n{STYLES}\n</style>\n</head>\n<body>\n" + "\n".join(filter(None, body)) + "\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    """A text of anybody's, in a direction of its own."""
    return f"<bdi>{escape(text)}</bdi>"


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _figure(words: str) -> str:
    mean, _, rest = words.partition(" ")
    return f"{mean} <small>{rest}</small>"


def _summary(methods: Sequence[MethodFigures]) -> str:
    rows = [
        (
            f"<b>{escape(method.name)}</b>",
            _figure(interval(method.recall)),
            _figure(interval(method.share)),
            _figure(interval(method.chunks, 2)),
        )
        for method in methods
    ]
    failures = [
        f'<p class="bad">{escape(method.name)}: {method.failed} questions have no answer; nothing counts as found.</p>'
        for method in methods
        if method.failed
    ]
    return (
        _table(("method", "recall", "share", "chunks"), rows)
        + '<p class="quiet">Recall: questions with all expected pieces found. Share: mean share of them. In brackets '
        "95% intervals by bootstrap over the questions.</p>" + "".join(failures)
    )


def _answers(figures: AnswerFigures) -> str:
    row = (str(figures.questions), _figure(interval(figures.exact)), _figure(interval(figures.f1)), str(figures.failed))
    return (
        "<h2>Answers</h2>"
        + _table(("questions", "exact", "F1", "not answered"), [row])
        + f'<p class="quiet">Written by {_text(figures.language_model or "–")}, against the accepted answer that fits '
        "best. Exact: the same words. F1: harmonic mean of precision and recall of the words. What is not answered "
        "counts as 0.</p>"
    )


def _unresolved(report: Report) -> str:
    results = report.unresolved
    if not results:
        return ""
    reasons = [(result.id, reason) for result in results for reason in result.unresolved]
    entries = "".join(f"<li>{_text(id)}: {_text(reason)}</li>" for id, reason in reasons)
    return (
        f'<h2>Not resolved</h2><p class="bad">{len(reasons)} expectations, in {len(results)} of '
        f"{len(report.questions)} questions. What nothing can find counts as not found.</p><ul>{entries}</ul>"
    )


def _curves(report: Report, styles: Mapping[str, int]) -> str:
    legend = "".join(
        f'<li><svg class="key" viewBox="0 0 32 14" aria-hidden="true"><g class="line s{styles[method.name]}">'
        f'<polyline points="0,7 32,7"/><circle cx="16" cy="7" r="4"/></g></svg> <b>{escape(method.name)}</b>: '
        f"{escape(method.words)}</li>"
        for method in report.methods
    )
    figures = [
        f"<figure><h3>{title}</h3>{curves(title, series, styles)}</figure>"
        for title, series in (
            ("Recall among the first chunks", {method.name: method.recall_at for method in report.methods}),
            ("Share among the first chunks", {method.name: method.share_at for method in report.methods}),
        )
    ]
    return f'<h2>Among the first chunks</h2><div class="plots">{"".join(figures)}</div><ul class="legend">{legend}</ul>'


def _endings(methods: Sequence[MethodFigures]) -> str:
    rows = [
        (escape(method.name), escape(ending), escape(ENDINGS[ending]), str(count))
        for method in methods
        for ending, count in method.stopped_by.items()
    ]
    return f"<h2>How it ended</h2>{_table(('method', 'ending', 'because', 'questions'), rows)}" if rows else ""


def _calibration(methods: Sequence[MethodFigures]) -> str:
    figures = [
        f"<figure><h3>{escape(method.name)}: expected calibration error {method.calibration.error:.3f}</h3>"
        f"{reliability(f'Reliability of {method.name}', method.calibration)}</figure>"
        for method in methods
        if method.calibration is not None
    ]
    if not figures:
        return ""
    return (
        '<h2>Whether the evidence is complete</h2><p class="quiet">What the service estimates (to the right) against '
        "the share of questions with all expected pieces found (upwards); a larger circle has more questions.</p>"
        f'<div class="plots">{"".join(figures)}</div>'
    )


def _comparison(comparison: Comparison) -> str:
    methods = [
        (
            f"<b>{escape(method.name)}</b>",
            _figure(interval(method.recall, signed=True)),
            _figure(interval(method.share, signed=True)),
            _counts(method),
        )
        for method in comparison.methods
    ]
    tables = _table(("method", "recall", "share", "questions"), methods) if methods else ""
    if (answers := comparison.answers) is not None:
        row = (
            str(answers.questions),
            _figure(interval(answers.exact, signed=True)),
            _figure(interval(answers.f1, signed=True)),
            _counts(answers),
        )
        tables += _table(("answers", "exact", "F1", "questions"), [row])
    changes = "".join(
        f'<li>{escape(name)}, <span class="{style}">{word}</span>: {", ".join(map(_text, ids))}</li>'
        for name, change in comparison.changes()
        for word, style, ids in (("better", "good", change.better), ("worse", "bad", change.worse))
        if ids
    )
    return (
        f"<h2>Compared</h2><p class='quiet'>With {comparison.created_at:%Y-%m-%d %H:%M} UTC, checkpoint "
        f"{_text(comparison.model)}, at most {comparison.max_steps} chunks, on the {comparison.questions} questions of "
        f"both; {comparison.only_now} are new, {comparison.only_before} are gone. Differences with 95% intervals by "
        f"paired bootstrap.</p>{tables}<ul>{changes}</ul>"
    )


def _counts(change: MethodComparison | AnswerComparison) -> str:
    return f'<span class="good">{len(change.better)} better</span>, <span class="bad">{len(change.worse)} worse</span>'


def _questions(report: Report) -> str:
    """All questions, the worst first: by the share of the first method or by the F1 of the answer."""
    names = [method.name for method in report.methods]

    def worst(result: QuestionResult) -> float:
        share = result.scores[names[0]].share() if result.scores else 1.0
        return share if result.written is None else min(share, result.written.f1)

    return f"<h2>Questions</h2>{''.join(_question(result, names) for result in sorted(report.questions, key=worst))}"


def _question(result: QuestionResult, names: Sequence[str]) -> str:
    badges: list[str] = []
    body = "".join(f'<p class="bad">{_text(note)}</p>' for note in result.unresolved)
    if result.scores:
        share = result.scores[names[0]].share()
        badges.append(_badge(f"{share:.0%}", share))
        body += _found(result, names)
    if result.written is not None:
        badges.append(_badge(f"F1 {result.written.f1:.2f}", result.written.f1))
        body += _written(result.written, result.answers)
    return (
        f'<details><summary>{" ".join(badges)} <span class="quiet">{_text(result.id)}</span> '
        f"{_text(result.question)}</summary>{body}</details>"
    )


def _badge(words: str, value: float) -> str:
    return f'<span class="share {"good" if value == 1 else "bad"}">{words}</span>'


def _written(written: Written, accepted: Iterable[str]) -> str:
    words = f'<p class="quiet">Accepted answers: {" or ".join(map(_text, accepted))}. Then what was written.</p>'
    if written.error is not None:
        return f'{words}<p class="bad">Not answered: {_text(written.error)}</p>'
    style = "hit" if written.exact else ""
    return f'{words}<blockquote dir="auto" class="{style}">{escape(written.text)}</blockquote>'


def _found(result: QuestionResult, names: Sequence[str]) -> str:
    """Where each expected piece is found, and the chunks of the first method."""
    first = result.scores[names[0]]
    rows = [
        (_text(expected), *(_rank(result.scores[name].found_at[number]) for name in names))
        for number, expected in enumerate(result.expected)
    ]
    failure = "" if first.answer.error is None else f'<p class="bad">{_text(first.answer.error)}</p>'
    chunks = [
        f'<p class="quiet">{rank}. {_text(chunk.title or chunk.document_id)}, characters {chunk.start} to '
        f"{chunk.end}</p>"
        f'<blockquote dir="auto" class="{"hit" if rank in first.found_at else ""}">{escape(chunk.text)}</blockquote>'
        for rank, chunk in enumerate(first.answer.chunks, 1)
    ]
    return (
        f'{failure}<p class="quiet">Rank at which each expected piece is found; then the chunks of '
        f"{escape(names[0])}.</p>{_table(('expected', *names), rows)}{''.join(chunks)}"
    )


def _rank(rank: int | None) -> str:
    return '<span class="bad">not found</span>' if rank is None else str(rank)
