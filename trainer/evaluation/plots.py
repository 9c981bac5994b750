"""Plots of results: recall against length, recall against budget, learning curves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.errors import DataError
from trainer.evaluation.reports import Result, Row


def recall_by_length(result: Result, path: Path) -> None:
    """One line a task over the lengths of the documents, with the standard error as a band."""
    rows = [row for row in result.rows if row.tokens is not None]
    ticks = sorted({(row.tokens or 0, row.length) for row in rows})
    with figure(path, f"{result.name} on {result.suite}") as axes:
        for task, rows_of_task in _by_task(rows):
            tokens = [row.tokens or 0 for row in rows_of_task]
            values = [row.at_budget for row in rows_of_task]
            (line,) = axes.plot(
                tokens, values, marker="o", markersize=4, label=f"{task} (budget {rows_of_task[0].budget})"
            )
            low = [max(0.0, row.at_budget - row.standard_error) for row in rows_of_task]
            high = [min(1.0, row.at_budget + row.standard_error) for row in rows_of_task]
            axes.fill_between(tokens, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.set_xticks([tokens for tokens, _ in ticks], [label for _, label in ticks])
        axes.minorticks_off()
        axes.set_xlabel("length of the documents, tokens")
        _recall_axis(axes, [row.at_budget for row in rows])


def recall_by_budget(result: Result, path: Path) -> None:
    """One line a task over the number of selections, at the longest of several lengths."""
    longest = {row.task: row for row in sorted(result.rows, key=lambda row: row.tokens or 0)}
    with figure(path, f"{result.name} on {result.suite}") as axes:
        for task in dict.fromkeys(row.task for row in result.rows):
            row = longest[task]
            steps = range(1, len(row.recall_by_step) + 1)
            axes.plot(steps, row.recall_by_step, marker="o", markersize=4, label=f"{task} {row.length}".strip())
        axes.set_xticks(range(1, max(len(row.recall_by_step) for row in longest.values()) + 1))
        axes.set_xlabel("selections")
        _recall_axis(axes, [value for row in longest.values() for value in row.recall_by_step])


def learning_curves(runs: Sequence[Path], path: Path) -> None:
    """Validation recall over the transitions trained on: the tasks of a single run, or the means of several.

    Raises :class:`~trainer.errors.DataError` where a run has not been validated yet.
    """
    curves: list[tuple[str, list[dict[str, Any]], str]] = []
    for run in runs:
        records = _validations(run / "validation.jsonl")
        if len(runs) == 1:
            tasks = [name for name in records[0] if name not in ("transitions", "seconds", "mean")]
            curves += [(task, records, task) for task in tasks]
        curves.append(("mean" if len(runs) == 1 else run.name, records, "mean"))
    with figure(path, "validation while training") as axes:
        for label, records, field in curves:
            known = [record for record in records if field in record]
            (line,) = axes.plot([r["transitions"] for r in known], [r[field] for r in known], label=label)
            if len(runs) == 1 and field == "mean":
                line.set(color="black", linewidth=2)
        axes.set_xlabel("transitions")
        _recall_axis(axes, [record[field] for _, records, field in curves for record in records if field in record])


def _validations(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise DataError(path, None, "is not there: the run has not been validated yet, or this is no run") from None
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(path, number, f"is not JSON ({error})") from None
        if not isinstance(record, dict) or not {"transitions", "mean"} <= set(record):
            raise DataError(path, number, "must be an object with transitions, mean and a recall for each task")
        records.append(record)
    if not records:
        raise DataError(path, None, "is empty: the run has not been validated yet")
    return records


def _by_task(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    for task in dict.fromkeys(row.task for row in rows):
        yield task, sorted((row for row in rows if row.task == task), key=lambda row: row.tokens or 0)


def _recall_axis(axes: Axes, values: Sequence[float]) -> None:
    """From 0, or from where there is something to see when everything is near 1."""
    lowest = min(values, default=0.0)
    axes.set_ylim(0.9 if lowest >= 0.92 else 0.5 if lowest >= 0.55 else 0.0, 1.004)
    axes.set_ylabel("all-support recall")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)


@contextmanager
def figure(path: Path, title: str) -> Iterator[Axes]:
    """One pair of axes, saved as ``path`` at the end; drawn without a screen."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        canvas = Figure(figsize=(7, 3.6), dpi=130, layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        axes.grid(visible=True, alpha=0.25)
        axes.set_title(title, fontsize=10)
        yield axes
        canvas.savefig(path)
