"""The stop rules on all answerable test sets together, each task weighing the same, beside fixed budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from index.arrays import BoolArray, Float32Array, Float64Array, IntArray
from qrag.wire.rules import Rule
from trainer.stopping.stop_reports import Mixed
from trainer.stopping.stops import (
    Point,
    bootstrap,
    budget_curve,
    chunks_for,
    clustered,
    completed,
    oracle_curve,
    point,
    stop_at,
    stop_at_budget,
)
from trainer.stopping.traces import Trace

THRESHOLDS = 40
"""Points of a rule's curve."""


def compare(
    traces: Sequence[Trace],
    scores: Mapping[Rule, Sequence[Float32Array]],
    stopped: Mapping[Rule, IntArray],
    default_rule: Rule,
    step_cost: float,
    budget: int,
) -> Mixed:
    """What each rule brings, and by how much the default rule is better than fixed budgets of at most ``budget``.

    ``scores`` are those of each rule in the moments of each trace. ``stopped`` says after how many selections each
    rule, at the default cost, stops each episode.
    """
    weights = task_weights(traces)
    curves: dict[str, list[Point]] = {
        "budget": budget_curve(traces, budget, weights),
        "oracle": oracle_curve(traces, budget, weights),
    }
    for rule, values in scores.items():
        curves[rule] = _rule_curve(traces, values, weights)
    chosen = {rule: point(traces, taken, weights) for rule, taken in stopped.items()}
    comparison = _Comparison(traces, weights, stopped[default_rule], step_cost, budget)
    clusters = clustered(traces)
    return Mixed(
        questions=len(traces),
        curves={name: tuple(points) for name, points in curves.items()},
        chosen=chosen,
        budget_chunks={rule: chunks_for(curves["budget"], reached.recall) for rule, reached in chosen.items()},
        fewer=bootstrap(clusters, comparison.fewer),
        best_budget=comparison.best_budget,
        gain=bootstrap(clusters, comparison.gain),
    )


def task_weights(traces: Sequence[Trace]) -> Float64Array:
    """A weight for each trace, so that each task weighs the same."""
    tasks = [trace.task for trace in traces]
    shares = {task: 1 / tasks.count(task) for task in set(tasks)}
    return np.array([shares[task] for task in tasks])


def saved(chunks: float, fixed: float) -> float:
    """Share of a fixed budget's chunks that was not needed; none where nothing was needed at all."""
    return 1 - chunks / fixed if fixed else 0.0


def _rule_curve(traces: Sequence[Trace], scores: Sequence[Float32Array], weights: Float64Array) -> list[Point]:
    """What thresholds between the scores that occur bring."""
    seen = np.concatenate(scores)
    thresholds = np.unique(np.quantile(seen[np.isfinite(seen)], np.linspace(0, 1, THRESHOLDS)))
    return [point(traces, stop_at(traces, scores, float(threshold)), weights) for threshold in thresholds]


class _Comparison:
    """One way of stopping beside every fixed budget, on any sample of the episodes."""

    def __init__(
        self, traces: Sequence[Trace], weights: Float64Array, taken: IntArray, step_cost: float, budget: int
    ) -> None:
        """``taken`` says after how many selections each episode stops."""
        self._weights, self._taken, self._complete = weights, taken, completed(traces, taken)
        self._budgets = [stop_at_budget(traces, selections) for selections in range(budget + 1)]
        self._complete_at = [completed(traces, selections) for selections in self._budgets]
        utilities = [
            _utility(complete, selections, step_cost)
            for complete, selections in zip(self._complete_at, self._budgets, strict=True)
        ]
        self.best_budget = int(np.argmax([np.average(values, weights=weights) for values in utilities]))
        """The fixed budget with the most utility."""
        self._gains = _utility(self._complete, taken, step_cost) - utilities[self.best_budget]

    def gain(self, sample: IntArray) -> float:
        """Mean utility above that of the best fixed budget; ``sample`` are numbers of episodes."""
        return float(np.average(self._gains[sample], weights=self._weights[sample]))

    def fewer(self, sample: IntArray) -> float:
        """Share of the chunks saved that a fixed budget needs for the same recall; ``sample`` as for :meth:`gain`."""
        weights = self._weights[sample] / self._weights[sample].sum()

        def brought(complete: BoolArray, taken: IntArray) -> Point:
            return Point(chunks=float(weights @ taken[sample]), recall=float(weights @ complete[sample]))

        budgets = [brought(complete, taken) for complete, taken in zip(self._complete_at, self._budgets, strict=True)]
        reached = brought(self._complete, self._taken)
        return saved(reached.chunks, chunks_for(budgets, reached.recall))


def _utility(complete: BoolArray, taken: IntArray, step_cost: float) -> Float64Array:
    """``1{complete} - c · chunks`` of each episode."""
    utilities: Float64Array = complete - step_cost * taken
    return utilities
