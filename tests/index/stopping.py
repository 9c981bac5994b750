"""What a checkpoint could have learned about stopping."""

from __future__ import annotations

import numpy as np

from index.episodes.calibration import Calibration, CurvePoint
from index.episodes.head import SUMMARY, Head
from index.episodes.stopping import Stopping

HIDDEN = 5


def random_stopping(dimension: int, seed: int = 0, summary: int = SUMMARY) -> Stopping:
    """A STOP action and a head that have learned nothing, in the precision in which they are stored.

    The head reads so many features beside the state.
    """
    generator = np.random.default_rng(seed)

    def values(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return generator.standard_normal(shape).astype(np.float32).astype(np.float64)

    head = Head(values(HIDDEN, dimension + summary), values(HIDDEN), values(3, HIDDEN), values(3))
    return Stopping(values(dimension), head)


def curve(*points: tuple[float, float, float]) -> tuple[CurvePoint, ...]:
    """A curve of (threshold, recall, chunks) triples."""
    return tuple(CurvePoint(threshold=threshold, recall=recall, chunks=chunks) for threshold, recall, chunks in points)


CALIBRATION = Calibration(
    curves={
        "threshold": curve((-9.0, 1.0, 6.0), (0.1, 0.9, 2.0)),
        "action": curve((-9.0, 1.0, 6.0), (0.25, 0.9, 2.0)),
        "sufficiency": curve((0.0, 1.0, 6.0), (0.5, 0.9, 2.0), (1.0, 0.0, 0.0)),
    },
    budget=6,
    default_rule="sufficiency",
    step_cost=0.02,
)
"""At the default cost no rule ever stops; at one of .1 each does."""
