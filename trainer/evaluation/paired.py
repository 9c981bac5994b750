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
    differences = np.asarray(left, dtype=np.float64) - np.asarray(right, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = differences[generator.integers(len(differences), size=(RESAMPLES, len(differences)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5)).tolist()
    return Difference(float(differences.mean()), low, high)
