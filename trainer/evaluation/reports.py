"""What an evaluation leaves behind: a JSON file, and Markdown tables of one or several of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from qrag.wire.models import FrozenModel
from trainer.errors import DataError
from trainer.evaluation.counting import Outcome, outcome, summary
from trainer.evaluation.paired import Difference, mean_difference, paired_difference
from trainer.evaluation.playing import Retriever, together
from trainer.evaluation.suites import TestSet


class Row(FrozenModel):
    """One test set answered in one way."""

    task: str
    length: str
    tokens: int | None
    questions: int
    budget: int
    """The most selections that a question of it allows."""
    least_budget: int
    recall_by_step: tuple[float, ...]
    at_budget: float
    standard_error: float
    support_f1: float
    seconds: float
    share_by_step: tuple[float, ...] = ()
    """Mean share of the evidence among the first ``k`` selections, for each ``k`` up to the budget."""
    shares: tuple[float, ...] = ()
    """Each question's share at the budget, in order, to compare two ways question by question."""


class Result(FrozenModel):
    """One way of retrieving on one suite."""

    name: str
    """The name of the checkpoint or the baseline."""
    fingerprint: str | None
    """The checksum of the checkpoint; none where there is none."""
    beam_width: int = 1
    suite: str
    seed: int
    machine: dict[str, Any]
    rows: tuple[Row, ...]


class Report(FrozenModel):
    """The content of a file."""

    results: tuple[Result, ...]


def measure(retriever: Retriever, test_set: TestSet) -> Row:
    """Let a way of retrieving answer a test set; reading the background is not in the ``seconds``."""
    retriever.read(test_set.background)
    outcomes: list[Outcome] = []
    budgets: set[int] = set()
    began = time.monotonic()
    with tqdm(
        total=test_set.count, desc=f"{test_set.task} {test_set.length}", unit="question", leave=False, disable=None
    ) as bar:
        for questions in together(test_set.draw()):
            selections = retriever.select(questions)
            outcomes += [outcome(question, selected) for question, selected in zip(questions, selections, strict=True)]
            budgets.update(question.budget for question in questions)
            bar.update(len(questions))
    recall = summary(outcomes)
    return Row(
        task=test_set.task,
        length=test_set.length,
        tokens=test_set.tokens,
        questions=recall.questions,
        budget=max(budgets),
        least_budget=min(budgets),
        recall_by_step=tuple(round(value, 5) for value in recall.by_step),
        at_budget=round(recall.at_budget, 5),
        standard_error=round(recall.standard_error, 5),
        support_f1=round(recall.support_f1, 5),
        seconds=round(time.monotonic() - began, 2),
        share_by_step=tuple(round(value, 5) for value in recall.share_by_step),
        shares=tuple(round(episode.shares[-1], 4) if episode.shares else 0.0 for episode in outcomes),
    )


def write_report(path: Path, results: Iterable[Result]) -> None:
    """Write a file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Report(results=tuple(results)).model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """Read what :func:`write_report` wrote; raises :class:`~trainer.errors.DataError` for another file."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(path, None, f"cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(path, None, f"is no result of an evaluation ({place}: {first['msg']})") from None


def joined(results: Iterable[Result]) -> list[Result]:
    """Results of the same weights, suite and seed as one: long documents are often measured with fewer questions.

    Rows that two of them have are kept from the first.
    """
    merged: dict[tuple[object, ...], Result] = {}
    for result in results:
        key = (result.name, result.fingerprint, result.beam_width, result.suite, result.seed)
        if (first := merged.setdefault(key, result)) is not result:
            known = {(row.task, row.length) for row in first.rows}
            new = tuple(row for row in result.rows if (row.task, row.length) not in known)
            merged[key] = first.model_copy(update={"rows": first.rows + new})
    return list(merged.values())


# -- tables -----------------------------------------------------------------------------------------------------------

AVERAGED = ("babilong", "ruler", "ruler-files", "evidence")
"""Suites whose tasks are of one kind, so that their mean says something."""

SHARED = ("evidence", "reader")
"""Suites with questions of much evidence: of these the share that is found is reported."""

Cell = tuple[str, str, str]
"""Task, length, and the name of what retrieved."""


def markdown(results: Sequence[Result]) -> str:
    """Tables of all-support recall at the budget, or of the share of the evidence, one a suite.

    Results of one name are merged: mean and, with more than one, the standard deviation between them.
    """
    suites = dict.fromkeys(result.suite for result in results)
    return "\n".join(_table(suite, [result for result in results if result.suite == suite]) for suite in suites)


def _table(suite: str, results: Sequence[Result]) -> str:
    cells: dict[Cell, list[Row]] = {}
    for result in results:
        for row in result.rows:
            cells.setdefault((row.task, row.length, result.name), []).append(row)
    tasks, lengths, names = (list(dict.fromkeys(key[part] for key in cells)) for part in range(3))
    tokens = {key[1]: rows[0].tokens or 0 for key, rows in cells.items()}
    lengths.sort(key=lambda length: tokens[length])
    values = {
        key: [row.share_by_step[-1] if suite in SHARED else row.at_budget for row in rows]
        for key, rows in cells.items()
    }
    if suite in AVERAGED and len(tasks) > 1:
        for length in lengths:
            for name in names:
                by_task = [values.get((task, length, name), []) for task in tasks]
                # Only where every run has every task.
                if len({len(runs) for runs in by_task}) == 1:
                    values["mean", length, name] = [statistics.fmean(run) for run in zip(*by_task, strict=True)]
        tasks.append("mean")
    # The longer of the two becomes columns where there is a choice: lengths, or else the ways of retrieving.
    wide = len(lengths) > 1
    columns = lengths if wide else names
    lines = [f"**{suite}**", "", f"| task | budget | {'retrieval | ' if wide else ''}{' | '.join(columns)} |"]
    lines.append("|" + "---|" * (len(columns) + 2 + wide))
    for task in tasks:
        budget = next((_budget(rows[0]) for key, rows in cells.items() if key[0] == task), "")
        if wide:
            for name in names:
                shown = [_cell(values.get((task, length, name), [])) for length in lengths]
                lines.append(f"| {task} | {budget} | {name} | {' | '.join(shown)} |")
        else:
            shown = [_cell(values.get((task, lengths[0], name), [])) for name in names]
            lines.append(f"| {task} | {budget} | {' | '.join(shown)} |")
    table = "\n".join(lines) + "\n"
    return table + _differences(cells, tasks, names) if suite in SHARED and len(names) > 1 else table


def _differences(cells: Mapping[Cell, Sequence[Row]], tasks: Sequence[str], names: Sequence[str]) -> str:
    """By how much the last way finds more than each other one, with the 95% interval over the questions."""
    last, others = names[-1], names[:-1]
    lines = ["", f"| {last}, more than | {' | '.join(others)} |", "|" + "---|" * (1 + len(others))]
    pairs: dict[str, list[tuple[Sequence[float], Sequence[float]]]] = {other: [] for other in others}
    compared = [task for task in tasks if (task, "", last) in cells]
    for task in compared:
        own = cells[task, "", last][0].shares
        shown = []
        for other in others:
            rows = cells.get((task, "", other), ())
            same = bool(rows) and len(rows[0].shares) == len(own)
            pairs[other] += [(own, rows[0].shares)] if same else []
            shown.append(_difference(paired_difference(own, rows[0].shares)) if same else "")
        lines.append(f"| {task} | {' | '.join(shown)} |")
    if len(compared) > 1:
        whole = [_difference(mean_difference(some)) if len(some) == len(compared) else "" for some in pairs.values()]
        lines.append(f"| mean | {' | '.join(whole)} |")
    return "\n".join(lines) + "\n"


def _difference(difference: Difference) -> str:
    """With its interval, and bold where it is a loss that is none of chance."""
    mean, low, high = difference
    text = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{text}**" if difference.significant and mean < 0 else text


def _budget(row: Row) -> str:
    return str(row.budget) if row.budget == row.least_budget else f"{row.least_budget}-{row.budget}"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"
