"""Results of evaluations, as reports and plots have them."""

from __future__ import annotations

from trainer.evaluation.reports import Result, Row


def row(task: str, recall: float, length: str = "", tokens: int | None = None, budget: int = 4) -> Row:
    return Row(
        task=task,
        length=length,
        tokens=tokens,
        questions=100,
        budget=budget,
        least_budget=2,
        recall_by_step=(0.0, recall),
        at_budget=recall,
        standard_error=0.01,
        support_f1=0.5,
        seconds=1.0,
    )


def result(name: str, suite: str, *rows: Row) -> Result:
    return Result(name=name, fingerprint=None, suite=suite, seed=0, machine={}, rows=rows)
