"""Judges the stop rules of a checkpoint on test sets: a JSON file, and Markdown tables of one or several of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from index.arrays import Float32Array, IntArray
from index.encoders.encoder import Encoder
from qrag.wire.rules import Rule
from trainer.datasets.question import Question
from trainer.errors import DataError, RecipeError
from trainer.evaluation.playing import Player, together
from trainer.evaluation.suites import TestSet
from trainer.stopping.calibration import BUDGET
from trainer.stopping.stops import (
    COSTS,
    Calibrated,
    Difference,
    Point,
    Stops,
    bootstrap,
    budget_curve,
    calibration,
    chunks_for,
    clustered,
    measure_stops,
    oracle_curve,
    point,
    stop_at,
    stop_at_budget,
    stop_with_oracle,
)
from trainer.stopping.traces import Trace, scores, trace

TARGETS = (0.9, 0.95, 0.98)
"""Wanted completeness that is checked."""

THRESHOLDS = 40
"""Points of a rule's curve."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Frozen):
    """What asking for a completeness brought."""

    wanted: float
    reached: float
    """Recall, as a share of the whole budget's."""
    chunks: float


class StopSet(_Frozen):
    """One test set."""

    task: str
    length: str
    tokens: int | None
    questions: int
    budgets: tuple[Stops, ...]
    """Of fixed budgets, from one selection on."""
    rules: Mapping[Rule, tuple[Stops, ...]]
    """Of each rule, calibrated for each of :data:`~trainer.stopping.stops.COSTS`."""
    oracle: Stops
    targets: tuple[Target, ...]
    """Of the default rule."""
    complete: Calibrated
    """The estimate of p(complete) in all states, each episode weighing the same."""
    complete_at_stop: Calibrated
    """The same where the default rule stops."""
    hopeless: Calibrated
    """The estimate of p(hopeless) in all states."""
    hopeless_at_stop: float
    """Its mean where the default rule stops."""


class Mixed(_Frozen):
    """All answerable test sets together, each task weighing the same."""

    questions: int
    curves: Mapping[str, tuple[Point, ...]]
    """Of fixed budgets, of the oracle, and of each rule."""
    chosen: Mapping[Rule, Point]
    """Each rule at the default cost."""
    budget_chunks: Mapping[Rule, float]
    """Mean chunks that a fixed budget needs for that recall."""
    fewer: Difference
    """Share of those chunks that the default rule saves."""
    best_budget: int
    """The fixed budget with the most utility at the default cost."""
    gain: Difference
    """Utility of the default rule above that."""


class StopReport(_Frozen):
    """The content of a file."""

    name: str
    fingerprint: str
    seed: int
    budget: int
    default_rule: Rule
    step_cost: float
    machine: dict[str, Any]
    sets: tuple[StopSet, ...]
    mixed: Mixed


class Played(_Frozen):
    """A test set with the traces of its questions."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    task: str
    length: str
    tokens: int | None
    part: bool
    """Whether the questions are in another set too."""
    traces: tuple[Trace, ...]


def play_sets(player: Player, sets: Iterable[TestSet]) -> Iterator[Played]:
    """Trace the questions of each test set."""
    for one in sets:
        player.read(one.background)
        traces: list[Trace] = []
        with tqdm(total=one.count, desc=f"{one.task} {one.length}", unit="question", leave=False, disable=None) as bar:
            for questions in together(one.draw()):
                asked = [question for question in questions if question.chunks]  # some were deprived of their only one
                traces += trace(player.encoder, asked, player.vectors(asked), BUDGET)
                bar.update(len(questions))
        yield Played(task=one.task, length=one.length, tokens=one.tokens, part=one.part, traces=tuple(traces))


def unanswerable(one: TestSet, seed: int) -> TestSet:
    """The questions of a test set, each without one chunk of its support; not a set of its own."""

    def draw() -> Iterator[Question]:
        generator = np.random.default_rng(seed)
        for question in one.draw():
            gone = int(generator.choice(sorted(question.support)))
            task = f"{question.task}_removed"
            yield replace(question.without([gone]), task=task)

    return replace(one, task=f"{one.task}_removed", draw=draw, part=True)


def judge(encoder: Encoder, played: Sequence[Played], **described: Any) -> StopReport:
    """Judge all rules that the checkpoint is calibrated for; ``described`` are the report's other fields.

    Raises :class:`~trainer.errors.RecipeError` for a checkpoint that is not calibrated, and without questions.
    """
    source = encoder.config.stopping
    if source is None or source.calibration is None or encoder.stopping.head is None:
        raise RecipeError(f"{encoder.config.name} is not calibrated. Run `python -m trainer calibrate` first.")
    judged = [_Judged(encoder, one) for one in played if one.traces]
    if not any(not one.played.part for one in judged):
        raise RecipeError("There are no questions to judge stop rules on.")
    whole = [one for one in judged if not one.played.part]
    calibrated = source.calibration
    return StopReport(
        default_rule=calibrated.default_rule,
        step_cost=calibrated.step_cost,
        budget=BUDGET,
        sets=tuple(one.result() for one in judged),
        mixed=_mixed(whole, calibrated.default_rule, calibrated.step_cost),
        **described,
    )


class _Judged:
    """The traces of a test set with the scores of all rules."""

    def __init__(self, encoder: Encoder, played: Played) -> None:
        source = encoder.config.stopping
        assert source is not None
        assert source.calibration is not None
        self.played, self.traces, self.calibration = played, played.traces, source.calibration
        self.scores: dict[Rule, list[Float32Array]] = {
            rule: scores(played.traces, encoder.stopping, rule, encoder.function) for rule in self.calibration.curves
        }
        self.estimates = [
            [encoder.stopping.sufficiency(moment, encoder.function) for moment in one.moments] for one in self.traces
        ]

    def taken(self, rule: Rule, **wish: float) -> IntArray:
        """Where each episode stops."""
        return stop_at(self.traces, self.scores[rule], self.calibration.rule_for(rule, **wish).threshold)

    def result(self) -> StopSet:
        """All measures."""
        default = self.calibration.default_rule
        stopped = self.taken(default)
        most = point(self.traces, stop_at_budget(self.traces, BUDGET)).recall
        targets = []
        for wanted in TARGETS:
            found = point(self.traces, self.taken(default, target_recall=wanted))
            targets.append(Target(wanted=wanted, reached=found.recall / most if most else 0.0, chunks=found.chunks))
        # A trace may end before the rule stops: then its last state stands for the later ones.
        last = [(at, min(int(taken), len(self.traces[at].moments) - 1)) for at, taken in enumerate(stopped)]
        every = [(at, taken) for at, one in enumerate(self.traces) for taken in range(len(one.moments))]
        at_stop = [self.estimates[at][taken] for at, taken in last]
        return StopSet(
            task=self.played.task,
            length=self.played.length,
            tokens=self.played.tokens,
            questions=len(self.traces),
            budgets=tuple(
                measure_stops(self.traces, stop_at_budget(self.traces, budget)) for budget in range(1, BUDGET + 1)
            ),
            rules={
                rule: tuple(measure_stops(self.traces, self.taken(rule, step_cost=cost)) for cost in COSTS)
                for rule in self.scores
            },
            oracle=measure_stops(self.traces, stop_with_oracle(self.traces)),
            targets=tuple(targets),
            complete=self._believed(every, "complete", 0),
            complete_at_stop=self._believed(last, "complete", 0),
            hopeless=self._believed(every, "hopeless", 2),
            hopeless_at_stop=statistics.fmean(found.hopeless for found in at_stop if found is not None),
        )

    def _believed(self, states: Sequence[tuple[int, int]], name: str, label: int) -> Calibrated:
        estimates = np.array([getattr(self.estimates[at][taken], name) for at, taken in states])
        truths = np.array([self.traces[at].label(taken) == label for at, taken in states])
        episodes = np.array([at for at, _ in states])
        return calibration(estimates, truths, 1 / np.bincount(episodes)[episodes], episodes)


def saved(chunks: float, fixed: float) -> float:
    """Share of a fixed budget's chunks that was not needed; none where nothing was needed at all."""
    return 1 - chunks / fixed if fixed else 0.0


def _mixed(judged: Sequence[_Judged], default: Rule, step_cost: float) -> Mixed:
    traces = [one for own in judged for one in own.traces]
    tasks = [own.played.task for own in judged for _ in own.traces]
    shares = {task: 1 / tasks.count(task) for task in set(tasks)}
    weights = np.array([shares[task] for task in tasks])
    curves: dict[str, list[Point]] = {
        "budget": budget_curve(traces, BUDGET, weights),
        "oracle": oracle_curve(traces, BUDGET, weights),
    }
    chosen: dict[Rule, Point] = {}
    stopped: dict[Rule, IntArray] = {}
    for rule in judged[0].scores:
        values = [found for own in judged for found in own.scores[rule]]
        seen = np.concatenate(values)
        thresholds = np.unique(np.quantile(seen[np.isfinite(seen)], np.linspace(0, 1, THRESHOLDS)))
        curves[rule] = [point(traces, stop_at(traces, values, float(at)), weights) for at in thresholds]
        stopped[rule] = np.concatenate([own.taken(rule) for own in judged])
        chosen[rule] = point(traces, stopped[rule], weights)

    def utilities(taken: IntArray) -> Float32Array:
        after = np.array([np.inf if one.found_after is None else one.found_after for one in traces])
        found: Float32Array = (taken >= after) - step_cost * taken
        return found

    fixed = [utilities(stop_at_budget(traces, budget)) for budget in range(BUDGET + 1)]
    best_budget = int(np.argmax([np.average(values, weights=weights) for values in fixed]))
    own_utility = utilities(stopped[default])

    def gain(picked: IntArray) -> float:
        return float(np.average((own_utility - fixed[best_budget])[picked], weights=weights[picked]))

    after = np.array([np.inf if one.found_after is None else one.found_after for one in traces])
    most = np.stack([stop_at_budget(traces, budget) for budget in range(BUDGET + 1)])

    def fewer(picked: IntArray) -> float:
        own = weights[picked] / weights[picked].sum()
        points = [
            Point(chunks=float(own @ taken[picked]), recall=float(own @ (taken >= after)[picked])) for taken in most
        ]
        taken = stopped[default]
        return saved(float(own @ taken[picked]), chunks_for(points, float(own @ (taken >= after)[picked])))

    return Mixed(
        questions=len(traces),
        curves={name: tuple(points) for name, points in curves.items()},
        chosen=chosen,
        budget_chunks={rule: chunks_for(curves["budget"], found.recall) for rule, found in chosen.items()},
        fewer=bootstrap(clustered(traces), fewer),
        best_budget=best_budget,
        gain=bootstrap(clustered(traces), gain),
    )


# -- files ------------------------------------------------------------------------------------------------------------


def write_stop_report(path: Path, report: StopReport) -> None:
    """Write a file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = _rounded(report.model_dump(mode="json"))
    path.write_text(StopReport.model_validate(rounded).model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_stop_report(path: Path) -> StopReport:
    """Read what :func:`write_stop_report` wrote; raises :class:`~trainer.errors.DataError` for another file."""
    try:
        return StopReport.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(path, None, f"cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        raise DataError(path, None, f"is no report on stop rules ({error.errors()[0]['msg']})") from None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {name: _rounded(member) for name, member in value.items()}
    return [_rounded(member) for member in value] if isinstance(value, list) else value


def stop_tables(reports: Sequence[StopReport]) -> str:
    """Tables of the default rule; of several reports mean and standard deviation between them.

    Raises :class:`~trainer.errors.RecipeError` for reports that cannot be merged.
    """
    if len({(report.default_rule, report.step_cost, report.budget) for report in reports}) > 1:
        raise RecipeError("These reports are about different default rules, costs or budgets. Merge those of one kind.")
    rule = reports[0].default_rule
    at = COSTS.index(reports[0].step_cost)
    columns: dict[str, Callable[[StopSet], float]] = {
        "found": lambda one: 1 - one.rules[rule][at].not_found,
        "recall": lambda one: one.rules[rule][at].recall,
        "exact": lambda one: one.rules[rule][at].exact,
        "over": lambda one: one.rules[rule][at].over,
        "under": lambda one: one.rules[rule][at].under,
        "exact of found": lambda one: one.rules[rule][at].exact_of_found,
        "precision": lambda one: one.rules[rule][at].precision,
        "F1": lambda one: one.rules[rule][at].f1,
        "chunks": lambda one: one.rules[rule][at].chunks,
        "regret": lambda one: one.rules[rule][at].regret[at],
        "Brier": lambda one: one.complete.brier,
        "ECE": lambda one: one.complete.ece,
        "ECE by chance": lambda one: one.complete.ece_by_chance,
        "ECE at stop": lambda one: one.complete_at_stop.ece,
        "hopeless": lambda one: one.hopeless_at_stop,
        "ECE of hopeless": lambda one: one.hopeless.ece,
    }
    lines = [
        f"Rule `{rule}` at a cost of {reports[0].step_cost} a chunk, at most {reports[0].budget} chunks.",
        "",
        f"| task | length | questions | {' | '.join(columns)} |",
        "|" + "---|" * (len(columns) + 3),
    ]
    by_set: dict[tuple[str, str], list[StopSet]] = {}
    for report in reports:
        for one in report.sets:
            by_set.setdefault((one.task, one.length), []).append(one)
    for (task, length), found in by_set.items():
        cells = [_cell([measure(one) for one in found]) for measure in columns.values()]
        lines.append(f"| {task} | {length} | {found[0].questions} | {' | '.join(cells)} |")
    lines += ["", *_rules_table(by_set, at), "", *_mixed_table(reports)]
    return "\n".join(lines) + "\n"


def _rules_table(by_set: Mapping[tuple[str, str], Sequence[StopSet]], at: int) -> Iterator[str]:
    """Utility of each rule beside the best fixed budget and the oracle."""
    rules = list(next(iter(by_set.values()))[0].rules)
    yield f"Utility at a cost of {COSTS[at]} a chunk: rules, the best fixed budget of each set, the oracle."
    yield ""
    yield f"| task | length | {' | '.join(rules)} | fixed budget | oracle |"
    yield "|" + "---|" * (len(rules) + 4)
    for (task, length), found in by_set.items():
        cells = [_cell([one.rules[rule][at].utility[at] for one in found]) for rule in rules]
        cells.append(_cell([max(budget.utility[at] for budget in one.budgets) for one in found]))
        cells.append(_cell([one.oracle.utility[at] for one in found]))
        yield f"| {task} | {length} | {' | '.join(cells)} |"


def _mixed_table(reports: Sequence[StopReport]) -> Iterator[str]:
    yield "All answerable sets together, each task weighing the same: chunks at equal all-support recall."
    yield ""
    yield "| rule | recall | chunks | fixed budget's chunks | fewer |"
    yield "|---|---|---|---|---|"
    for rule in reports[0].mixed.chosen:
        chosen = [report.mixed.chosen[rule] for report in reports]
        fixed = [report.mixed.budget_chunks[rule] for report in reports]
        shares = [saved(own.chunks, most) for own, most in zip(chosen, fixed, strict=True)]
        cells = [[own.recall for own in chosen], [own.chunks for own in chosen], fixed, shares]
        yield f"| {rule} | {' | '.join(map(_cell, cells))} |"
    yield ""
    for report in reports:
        fewer, gain = report.mixed.fewer, report.mixed.gain
        yield (
            f"{report.name}, seed {report.seed}, paired bootstrap: `{report.default_rule}` takes {fewer.mean:.1%} "
            f"fewer chunks (95%: {fewer.low:.1%} to {fewer.high:.1%}); its utility is {gain.mean:.3f} ({gain.low:.3f} "
            f"to {gain.high:.3f}) above that of the best fixed budget, {report.mixed.best_budget}."
        )


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"
