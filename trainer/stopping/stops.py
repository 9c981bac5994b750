"""How good the moment is at which a rule stops: measures over *all* episodes, found or not.

An episode ends in one of four ways. *exact*: all support and nothing after it. *over*: more than that. *under*: support
is missing that going on would have found. *not found*: going on to the budget would not have found it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from index.arrays import BoolArray, Float32Array, Float64Array, IntArray
from qrag.wire.models import FrozenModel
from trainer.stopping.traces import Trace

COSTS = (0.01, 0.02, 0.05, 0.1)
"""Costs of a chunk for which utility is reported, where complete evidence is worth 1."""

BINS = 10
"""Bins of the expected calibration error, of equal width."""

RESAMPLES = 1000


class Point(FrozenModel):
    """One point of a curve: share of the questions with all support, and mean number of chunks selected."""

    chunks: float
    recall: float


class Stops(FrozenModel):
    """What one way of stopping brings on one test set."""

    exact: float
    over: float
    under: float
    not_found: float
    recall: float
    precision: float
    f1: float
    chunks: float
    utility: tuple[float, ...]
    """``1{complete} - c · chunks`` on average, for each of :data:`COSTS`."""
    regret: tuple[float, ...]
    """How far that is below the oracle's, which stops at completion, and at once where it will not come."""

    @property
    def exact_of_found(self) -> float:
        """The share of the episodes that would find everything which stops right then."""
        return self.exact / (1 - self.not_found) if self.not_found < 1 else 0.0


class Calibrated(FrozenModel):
    """How far estimated probabilities can be believed."""

    states: int
    brier: float
    ece: float
    """Expected calibration error."""
    ece_by_chance: float
    """What it would be on average for so few episodes if the probabilities were exactly right."""


def stop_at(traces: Sequence[Trace], scores: Sequence[Sequence[float] | Float32Array], threshold: float) -> IntArray:
    """Selections after which each episode stops where the score is below the threshold."""
    both = zip(traces, scores, strict=True)
    return np.array([trace.stop(values, threshold) for trace, values in both], dtype=np.int64)


def stop_at_budget(traces: Sequence[Trace], budget: int) -> IntArray:
    """Selections of each episode with a fixed budget."""
    return np.array([min(budget, trace.budget) for trace in traces], dtype=np.int64)


def stop_with_oracle(traces: Sequence[Trace], budget: int | None = None) -> IntArray:
    """Selections of each episode where an oracle stops it: at completion, or at once where it will not come."""
    ends = (trace.found_after for trace in traces)
    return np.array(
        [0 if end is None or (budget is not None and end > budget) else end for end in ends], dtype=np.int64
    )


def completed(traces: Sequence[Trace], taken: IntArray) -> BoolArray:
    """Whether each episode had all support when it stopped."""
    ends = [np.inf if trace.found_after is None else trace.found_after for trace in traces]
    return taken >= np.array(ends)


def measure_stops(traces: Sequence[Trace], taken: IntArray) -> Stops:
    """All measures; ``taken`` says after how many selections each episode stopped."""
    after = np.array([-1 if trace.found_after is None else trace.found_after for trace in traces])
    complete = completed(traces, taken)
    both = zip(traces, taken, strict=True)
    hits = np.array([trace.hits[min(selections, len(trace.hits) - 1)] for trace, selections in both])
    support = np.array([trace.support for trace in traces])
    precision = np.where(taken > 0, hits / np.maximum(taken, 1), 0.0)
    best = stop_with_oracle(traces)
    utility = [float(np.mean(complete - cost * taken)) for cost in COSTS]
    # Where even complete evidence is not worth its chunks, an oracle takes none.
    oracle = [float(np.mean(np.maximum(0.0, (after >= 0) - cost * best))) for cost in COSTS]
    return Stops(
        exact=float(np.mean(complete & (taken == after))),
        over=float(np.mean(complete & (taken > after))),
        under=float(np.mean(~complete & (after >= 0))),
        not_found=float(np.mean(after < 0)),
        recall=float(np.mean(complete)),
        precision=float(np.mean(precision)),
        f1=float(np.mean(2 * hits / (taken + support))),
        chunks=float(np.mean(taken)),
        utility=tuple(utility),
        regret=tuple(most - reached for most, reached in zip(oracle, utility, strict=True)),
    )


def point(traces: Sequence[Trace], taken: IntArray, weights: Float64Array | None = None) -> Point:
    """Recall and mean chunks; each episode counts by its weight."""
    recall = np.average(completed(traces, taken), weights=weights)
    return Point(chunks=float(np.average(taken, weights=weights)), recall=float(recall))


def budget_curve(traces: Sequence[Trace], budget: int, weights: Float64Array | None = None) -> list[Point]:
    """What each fixed budget brings, from none on."""
    return [point(traces, stop_at_budget(traces, selections), weights) for selections in range(budget + 1)]


def oracle_curve(traces: Sequence[Trace], budget: int, weights: Float64Array | None = None) -> list[Point]:
    """What the oracle brings with each budget, from none on."""
    return [point(traces, stop_with_oracle(traces, selections), weights) for selections in range(budget + 1)]


def chunks_for(curve: Sequence[Point], recall: float) -> float:
    """Mean chunks that a fixed budget needs for this recall, a share of the questions having one more than the rest."""
    earlier = curve[0]
    for later in curve[1:]:
        if later.recall >= recall:
            share = (
                (recall - earlier.recall) / (later.recall - earlier.recall) if later.recall > earlier.recall else 0.0
            )
            return earlier.chunks + max(0.0, share) * (later.chunks - earlier.chunks)
        earlier = later
    return earlier.chunks


def calibration(
    estimates: Float64Array, truths: BoolArray, weights: Float64Array | None = None, episodes: IntArray | None = None
) -> Calibrated:
    """Brier score and expected calibration error of probabilities.

    ``episodes`` numbers the episode of each state, from 0 on: what is true of one says much about the others. Default:
    each state has its own.
    """
    weights = np.ones(len(estimates)) if weights is None else weights
    episodes = np.arange(len(estimates)) if episodes is None else episodes
    share = weights / weights.sum()
    binned = np.minimum((estimates * BINS).astype(np.int64), BINS - 1)[:, None] == np.arange(BINS)

    def error(supposed: BoolArray) -> float:
        return float(np.abs((share * (estimates - supposed)) @ binned).sum())

    # Truths that are each as probable as was estimated; one throw of the dice decides a whole episode.
    luck = np.random.default_rng(0).random((RESAMPLES, episodes.max() + 1))
    return Calibrated(
        states=len(estimates),
        brier=float((share * (estimates - truths) ** 2).sum()),
        ece=error(truths),
        ece_by_chance=statistics.fmean(error(drawn[episodes] < estimates) for drawn in luck),
    )


def area_under_curve(positive: Float64Array, negative: Float64Array) -> Difference | None:
    """How often a positive value is above a negative one, ties counting half, with its 95% interval by bootstrap.

    None where there are no values of one kind.
    """
    if not len(positive) or not len(negative):
        return None
    above = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    generator = np.random.default_rng(0)
    areas = [
        above[np.ix_(*(generator.integers(count, size=count) for count in above.shape))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(areas, [2.5, 97.5]).tolist()
    return Difference(float(above.mean()), low, high)


class Difference(NamedTuple):
    """A mean difference with its 95% interval, from a paired bootstrap."""

    mean: float
    low: float
    high: float


def bootstrap(strata: Iterable[Sequence[IntArray]], measure: Callable[[IntArray], float], seed: int = 0) -> Difference:
    """``measure`` of all episodes, and of resamples of them; it gets the numbers of episodes.

    Each stratum is resampled by itself, by clusters: the numbers of episodes that are about one question, and so not
    independent of each other.
    """
    generator = np.random.default_rng(seed)
    strata = list(strata)

    def resampled() -> IntArray:
        drawn = (clusters[i] for clusters in strata for i in generator.integers(len(clusters), size=len(clusters)))
        return np.concatenate(list(drawn))

    values = [measure(resampled()) for _ in range(RESAMPLES)]
    low, high = np.percentile(values, [2.5, 97.5])
    everything = np.concatenate([cluster for clusters in strata for cluster in clusters])
    return Difference(measure(np.sort(everything)), float(low), float(high))


def clustered(traces: Sequence[Trace]) -> list[list[IntArray]]:
    """The strata and clusters of traces: by data set, and by question, in whatever form and length it was asked."""
    strata: dict[str, dict[str, list[int]]] = {}
    for number, trace in enumerate(traces):
        strata.setdefault(trace.task.removesuffix("_sentences"), {}).setdefault(trace.question, []).append(number)
    return [[np.array(cluster) for cluster in clusters.values()] for clusters in strata.values()]
