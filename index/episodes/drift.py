"""Drift: what served questions get, beside what those got that the checkpoint was calibrated on.

A calibration holds no distribution of Q-values, but three means of its validation questions can be read from its
curves, and the same three can be read from an episode that its rule has ended:

========  ============================================================================================================
complete  the probability that the evidence is complete at the end, beside the share of questions whose support was all
          selected at the rule's threshold
chunks    the number of chunks, beside its mean at that threshold
q         the number of first chunks whose Q reached a reference, beside its mean at that reference: the threshold of
          the rule ``threshold`` at which :data:`LEADING` chunks are selected on average
========  ============================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Literal, NamedTuple, get_args

from index.episodes.calibration import Calibration
from index.episodes.episode import Episode
from index.episodes.rules import StopBelow

Figure = Literal["complete", "chunks", "q"]
"""What is compared."""

FIGURES: tuple[Figure, ...] = get_args(Figure)
"""Every figure."""

LEADING = 0.5
"""Mean number of chunks at the reference of ``q``: high enough a Q for a rule to end hardly any episode before it."""


class Compared(NamedTuple):
    """A figure of one question, and its mean over those of the calibration."""

    served: float
    calibrated: float


def compared(episode: Episode, stop: StopBelow, calibration: Calibration) -> Mapping[Figure, Compared]:
    """The figures of a greedy episode that has ended and could take as many steps as the calibration's.

    None where its rule had another threshold than the calibration knows, or where it ended for want of chunks or room.
    """
    known = (point for rule, curve in calibration.curves.items() if rule == stop.rule.name for point in curve)
    point = next((point for point in known if point.threshold == stop.threshold), None)
    if point is None or episode.stopped_by in ("exhausted", "context"):
        return {}
    steps = episode.steps[: calibration.budget]
    figures: dict[Figure, Compared] = {"chunks": Compared(len(steps), point.chunks)}
    longer = len(episode.steps) > len(steps)
    sufficiency = episode.steps[len(steps)].sufficiency if longer else episode.sufficiency
    if sufficiency is not None:
        figures["complete"] = Compared(sufficiency.complete, point.recall)
    if largest_q := calibration.curves.get("threshold"):
        reference = min(largest_q, key=lambda point: abs(point.chunks - LEADING))
        leading = sum(1 for _ in takewhile(lambda step: step.q >= reference.threshold, steps))
        figures["q"] = Compared(leading, reference.chunks)
    return figures
