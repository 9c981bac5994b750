"""A report beside an earlier one: what changed on the questions that both asked."""

from __future__ import annotations

from qrag.evaluation.figures import bootstrap
from qrag.evaluation.report import Comparison, MethodComparison, Report


def compare(report: Report, earlier: Report) -> Comparison:
    """Compare each method that both measured, by paired bootstrap over the questions that both asked.

    A question is the same if its id and its words are; the reports have to share one.
    """
    before = {(result.id, result.question): result for result in earlier.questions}
    pairs = [
        (result, before[result.id, result.question])
        for result in report.questions
        if (result.id, result.question) in before
    ]
    known = {method.name for method in earlier.methods}
    methods = []
    for name in (method.name for method in report.methods if method.name in known):
        scores = [(now.scores[name], then.scores[name]) for now, then in pairs]
        shares = [now.share() - then.share() for now, then in scores]
        recall, share = bootstrap([[now.recall() - then.recall() for now, then in scores], shares])
        ids = [now.id for now, _ in pairs]
        methods.append(
            MethodComparison(
                name=name,
                recall=recall,
                share=share,
                better=[id for id, change in zip(ids, shares, strict=True) if change > 0],
                worse=[id for id, change in zip(ids, shares, strict=True) if change < 0],
            )
        )
    return Comparison(
        created_at=earlier.created_at,
        model=earlier.model,
        max_steps=earlier.max_steps,
        questions=len(pairs),
        only_now=len(report.questions) - len(pairs),
        only_before=len(earlier.questions) - len(pairs),
        methods=methods,
    )
