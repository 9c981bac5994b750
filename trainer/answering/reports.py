"""What the end-to-end evaluation leaves behind: a JSON file and a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from qrag.wire.models import FrozenModel
from trainer.errors import DataError, ResumeError
from trainer.evaluation.paired import RESAMPLES, Difference, mean_difference


class AnswerRow(FrozenModel):
    """The questions of a task, answered from the evidence of one way of retrieving; values of each, in order."""

    task: str
    chunks: tuple[int, ...]
    """Chunks found."""
    tokens: tuple[int, ...]
    """Tokens that the reader read before it wrote, the question included."""
    cut: int
    """Questions of which it could not read all the chunks."""
    exact_match: tuple[float, ...]
    f1: tuple[float, ...]
    log_probability: tuple[float, ...]
    """The log-probability of the most probable gold answer, in nats."""


class AnswerResult(FrozenModel):
    """One way of retrieving on all tasks."""

    name: str
    rows: tuple[AnswerRow, ...]


class AnswerReport(FrozenModel):
    """The content of a file."""

    machine: dict[str, Any]
    reader: str
    """Its identity: weights, precision, wording, limits."""
    checkpoint: str
    """The checksum of the checkpoint whose evidence is :attr:`compared`."""
    reranker: str | None
    """The checksum of the cross-encoder's weights; none without one."""
    seed: int
    compared: str
    """The way of retrieving that the others are compared with."""
    results: tuple[AnswerResult, ...]

    def rows_for(self, other: AnswerReport, counts: Mapping[str, int]) -> dict[tuple[str, str], AnswerRow]:
        """The rows by way and task for a report that goes on from this one, with so many questions in each task.

        Raises :class:`~trainer.errors.ResumeError` where the other's rows would be of something else.
        """
        kept: dict[str, Any] = {name: getattr(self, name) for name in ("reader", "checkpoint", "compared", "seed")}
        wanted: dict[str, Any] = {name: getattr(other, name) for name in kept}
        if self.reranker and other.reranker:
            kept["reranker"], wanted["reranker"] = self.reranker, other.reranker
        for result in self.results:
            kept |= {f"questions of {row.task}": len(row.f1) for row in result.rows if row.task in counts}
        wanted |= {name: counts[name.removeprefix("questions of ")] for name in kept if name not in wanted}
        if differing := [name for name in kept if kept[name] != wanted[name]]:
            changes = ", ".join(f"{name} {kept[name]!r} instead of {wanted[name]!r}" for name in differing)
            raise ResumeError(f"The report has rows with {changes}. Name another --out.")
        return {(result.name, row.task): row for result in self.results for row in result.rows}

    def with_rows(self, rows: Mapping[tuple[str, str], AnswerRow], order: Sequence[str]) -> AnswerReport:
        """This report of these rows, the ways in that order."""
        results = [
            AnswerResult(name=way, rows=tuple(row for (of, _), row in rows.items() if of == way)) for way in order
        ]
        return self.model_copy(update={"results": tuple(result for result in results if result.rows)})


def read_answer_report(path: Path) -> AnswerReport | None:
    """The report in the file, none without a file; raises :class:`~trainer.errors.DataError` for another file."""
    if not path.exists():
        return None
    try:
        return AnswerReport.model_validate_json(path.read_bytes())
    except ValidationError:
        raise DataError(path, None, "is no report on answers: name another file, or delete it") from None


def write_answer_report(path: Path, report: AnswerReport) -> None:
    """Write the file, whole or not at all, and its table; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)
    path.with_suffix(".md").write_text(answer_table(report), encoding="utf-8")


def answer_table(report: AnswerReport) -> str:
    """F1 of each task and way, then the means over the tasks, then what the compared one has more than the others.

    Tasks that some way has not been asked yet are left out.
    """
    tasks = [
        row.task
        for row in report.results[0].rows
        if all(any(other.task == row.task for other in result.rows) for result in report.results)
    ]
    results = [
        AnswerResult(name=result.name, rows=tuple(row for task in tasks for row in result.rows if row.task == task))
        for result in report.results
    ]
    lines = [_line("F1", [result.name for result in results]), "|" + "---|" * (len(results) + 1)]
    for place, task in enumerate(tasks):
        name = f"{task} ({len(results[0].rows[place].f1)})"
        lines.append(_line(name, [f"{np.mean(result.rows[place].f1):.3f}" for result in results]))
    for label, field, form in (
        ("mean F1", "f1", ".3f"),
        ("mean exact match", "exact_match", ".3f"),
        ("mean log-probability, nats", "log_probability", ".2f"),
        ("mean tokens read", "tokens", ",.0f"),
        ("mean chunks", "chunks", ".1f"),
    ):
        lines.append(_line(label, [format(_mean(result, field), form) for result in results]))
    own = next((result for result in results if result.name == report.compared), None)
    if own is None:
        return "\n".join(lines) + "\n"
    differences, shares = [], []
    for other in results:
        difference = mean_difference([(a.f1, b.f1) for a, b in zip(own.rows, other.rows, strict=True)])
        share = token_share(own, other)
        differences.append("" if other is own else _interval(difference, "+.3f"))
        shares.append("" if other is own else _interval(share, ".2f"))
    lines.append(_line(f"F1 of {own.name}, more than", differences))
    lines.append(_line(f"tokens of {own.name}, share of", shares))
    return "\n".join(lines) + "\n"


def token_share(own: AnswerResult, other: AnswerResult, seed: int = 0) -> Difference:
    """The ratio of the mean tokens read, each task weighing the same, with its 95% bootstrap interval."""
    generator = np.random.default_rng(seed)
    left, right = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for a, b in zip(own.rows, other.rows, strict=True):
        drawn = generator.integers(len(a.tokens), size=(RESAMPLES, len(a.tokens)))
        left += np.array(a.tokens)[drawn].mean(axis=1)
        right += np.array(b.tokens)[drawn].mean(axis=1)
    low, high = np.percentile(left / right, (2.5, 97.5)).tolist()
    return Difference(_mean(own, "tokens") / _mean(other, "tokens"), low, high)


def _mean(result: AnswerResult, field: str) -> float:
    """The mean over the tasks, each weighing the same."""
    return float(np.mean([np.mean(getattr(row, field)) for row in result.rows]))


def _interval(difference: Difference, form: str) -> str:
    mean, low, high = (format(value, form) for value in difference)
    return f"{mean} ({low} to {high})"


def _line(label: str, cells: Sequence[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"
