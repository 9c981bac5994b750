"""A report beside an earlier one: what changed on the questions that both asked."""

from __future__ import annotations

from collections.abc import Sequence

from qrag.evaluation.figures import bootstrap
from qrag.evaluation.report import AnswerComparison, Comparison, MethodComparison, QuestionResult, Report

Pairs = Sequence[tuple[QuestionResult, QuestionResult]]
"""The same questions now and then."""


def compare(report: Report, earlier: Report) -> Comparison:
    """Compare each method that both measured, and the answers, by paired bootstrap over the questions that both asked.

    A question is the same if its id and its words are.
    """
    before = {(result.id, result.question): result for result in earlier.questions}
    pairs = [
        (result, before[result.id, result.question])
        for result in report.questions
        if (result.id, result.question) in before
    ]
    methods = (_method(method.name, pairs) for method in report.methods)
    return Comparison(
        created_at=earlier.created_at,
        model=earlier.model,
        max_steps=earlier.max_steps,
        questions=len(pairs),
        only_now=len(report.questions) - len(pairs),
        only_before=len(earlier.questions) - len(pairs),
        methods=[method for method in methods if method is not None],
        answers=_answers(pairs),
    )


def _method(name: str, pairs: Pairs) -> MethodComparison | None:
    scores = [
        (now.id, now.scores[name], then.scores[name])
        for now, then in pairs
        if name in now.scores and name in then.scores
    ]
    if not scores:
        return None
    shares = {id: now.share() - then.share() for id, now, then in scores}
    recall, share = bootstrap([[now.recall() - then.recall() for _, now, then in scores], [*shares.values()]])
    return MethodComparison(name=name, recall=recall, share=share, better=_better(shares), worse=_worse(shares))


def _answers(pairs: Pairs) -> AnswerComparison | None:
    written = [
        (now.id, now.written, then.written)
        for now, then in pairs
        if now.written is not None and then.written is not None
    ]
    if not written:
        return None
    changes = {id: now.f1 - then.f1 for id, now, then in written}
    exact, f1 = bootstrap([[now.exact - then.exact for _, now, then in written], [*changes.values()]])
    return AnswerComparison(questions=len(written), exact=exact, f1=f1, better=_better(changes), worse=_worse(changes))


def _better(changes: dict[str, float]) -> list[str]:
    return [id for id, change in changes.items() if change > 0]


def _worse(changes: dict[str, float]) -> list[str]:
    return [id for id, change in changes.items() if change < 0]
