"""Markdown tables of one or several reports on stop rules."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from trainer.errors import RecipeError
from trainer.stopping.mixed import saved
from trainer.stopping.stop_reports import StopReport, StopSet
from trainer.stopping.stops import COSTS


def stop_tables(reports: Sequence[StopReport]) -> str:
    """Tables of the default rule; of several reports mean and standard deviation between them.

    Raises :class:`~trainer.errors.RecipeError` for reports that cannot be merged.
    """
    if len({(report.default_rule, report.step_cost, report.budget) for report in reports}) > 1:
        raise RecipeError("These reports are about different default rules, costs or budgets. Merge those of one kind.")
    rule = reports[0].default_rule
    cost = COSTS.index(reports[0].step_cost)
    columns: dict[str, Callable[[StopSet], float | None]] = {
        "found": lambda result: 1 - result.rules[rule][cost].not_found,
        "recall": lambda result: result.rules[rule][cost].recall,
        "exact": lambda result: result.rules[rule][cost].exact,
        "over": lambda result: result.rules[rule][cost].over,
        "under": lambda result: result.rules[rule][cost].under,
        "exact of found": lambda result: result.rules[rule][cost].exact_of_found,
        "precision": lambda result: result.rules[rule][cost].precision,
        "F1": lambda result: result.rules[rule][cost].f1,
        "chunks": lambda result: result.rules[rule][cost].chunks,
        "regret": lambda result: result.rules[rule][cost].regret[cost],
        "Brier": lambda result: result.complete.brier,
        "ECE": lambda result: result.complete.ece,
        "ECE by chance": lambda result: result.complete.ece_by_chance,
        "ECE at stop": lambda result: result.complete_at_stop.ece,
        "ECE at stop by chance": lambda result: result.complete_at_stop.ece_by_chance,
        "hopeless": lambda result: result.hopeless_at_stop,
        "ECE of hopeless": lambda result: result.hopeless.ece,
        "told apart": lambda result: None if result.told_apart is None else result.told_apart.mean,
    }
    lines = [
        f"Rule `{rule}` at a cost of {reports[0].step_cost} a chunk, at most {reports[0].budget} chunks.",
        "",
        f"| task | length | questions | {' | '.join(columns)} |",
        "|" + "---|" * (len(columns) + 3),
    ]
    by_set: dict[tuple[str, str], list[StopSet]] = {}
    for report in reports:
        for result in report.sets:
            by_set.setdefault((result.task, result.length), []).append(result)
    for (task, length), results in by_set.items():
        cells = [_cell([measure(result) for result in results]) for measure in columns.values()]
        lines.append(f"| {task} | {length} | {results[0].questions} | {' | '.join(cells)} |")
    lines += ["", *_rules_table(by_set, cost), "", *_mixed_table(reports)]
    return "\n".join(lines) + "\n"


def _rules_table(by_set: Mapping[tuple[str, str], Sequence[StopSet]], cost: int) -> Iterator[str]:
    """Utility of each rule beside the best fixed budget and the oracle, at the cost of this number."""
    rules = list(next(iter(by_set.values()))[0].rules)
    yield f"Utility at a cost of {COSTS[cost]} a chunk: rules, the best fixed budget of each set, the oracle."
    yield ""
    yield f"| task | length | {' | '.join(rules)} | fixed budget | oracle |"
    yield "|" + "---|" * (len(rules) + 4)
    for (task, length), results in by_set.items():
        cells = [_cell([result.rules[rule][cost].utility[cost] for result in results]) for rule in rules]
        cells.append(_cell([max(budget.utility[cost] for budget in result.budgets) for result in results]))
        cells.append(_cell([result.oracle.utility[cost] for result in results]))
        yield f"| {task} | {length} | {' | '.join(cells)} |"


def _mixed_table(reports: Sequence[StopReport]) -> Iterator[str]:
    yield "All answerable sets together, each task weighing the same: chunks at equal all-support recall."
    yield ""
    yield "| rule | recall | chunks | fixed budget's chunks | fewer |"
    yield "|---|---|---|---|---|"
    for rule in reports[0].mixed.chosen:
        chosen = [report.mixed.chosen[rule] for report in reports]
        fixed = [report.mixed.budget_chunks[rule] for report in reports]
        shares = [saved(point.chunks, budget) for point, budget in zip(chosen, fixed, strict=True)]
        cells = [[point.recall for point in chosen], [point.chunks for point in chosen], fixed, shares]
        yield f"| {rule} | {' | '.join(map(_cell, cells))} |"
    yield ""
    for report in reports:
        fewer, gain = report.mixed.fewer, report.mixed.gain
        yield (
            f"{report.name}, seed {report.seed}, paired bootstrap: `{report.default_rule}` takes {fewer.mean:.1%} "
            f"fewer chunks (95%: {fewer.low:.1%} to {fewer.high:.1%}); its utility is {gain.mean:.3f} ({gain.low:.3f} "
            f"to {gain.high:.3f}) above that of the best fixed budget, {report.mixed.best_budget}."
        )


def _cell(measured: Sequence[float | None]) -> str:
    values = [value for value in measured if value is not None]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"
