"""Two ways of retrieving compared question by question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000


class Difference(NamedTuple):
    """The mean of ``left - right`` and its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(left: Sequence[float], right: Sequence[float], seed: int = 0) -> Difference:
    """The difference between two ways on the same questions, by bootstrap over the questions (percentiles)."""
    return mean_difference([(left, right)], seed)


def mean_difference(sets: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int = 0) -> Difference:
    """The difference between two ways on several sets, each weighing the same, by bootstrap over each set's questions.

    Each of ``sets`` has the values of either way on the same questions.
    """
    generator = np.random.default_rng(seed)
    mean, means = 0.0, np.zeros(RESAMPLES)
    for left, right in sets:
        differences = np.asarray(left, dtype=np.float64) - np.asarray(right, dtype=np.float64)
        mean += differences.mean() / len(sets)
        drawn = generator.integers(len(differences), size=(RESAMPLES, len(differences)))
        means += differences[drawn].mean(axis=1) / len(sets)
    low, high = np.percentile(means, (2.5, 97.5)).tolist()
    return Difference(float(mean), low, high)
