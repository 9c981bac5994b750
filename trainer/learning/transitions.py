"""What a rollout brings: transitions, whole episodes of them, and batches to regress on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from index.arrays import Float32Array, IntArray
from trainer.datasets.question import Question
from trainer.learning.environment import Observation


class Transition(NamedTuple):
    """One selection of an episode. Arrays have shape ``[candidates]``."""

    question: Question
    observation: Observation
    candidates: IntArray
    """Positions among the question's chunks followed by its pool."""
    rows: IntArray
    """Rows of the candidates in the chunk table."""
    action: int
    """The selected candidate."""
    q: Float32Array
    """Q by the behaviour policy's network."""


class Trajectory(NamedTuple):
    """An episode as it was played."""

    transitions: list[Transition]
    rewards: list[float]
    final: tuple[Observation, IntArray] | None
    """The last state and its candidates' rows where the budget cut the episode off; none where it was completed."""


class Batch(NamedTuple):
    """Transitions with their returns, side by side."""

    transitions: list[Transition]
    returns: Float32Array
    """Shape ``[transitions]``."""


class HardNegatives(NamedTuple):
    """Texts of a pool that a state is drawn to. Arrays have shape ``[texts]``."""

    places: IntArray
    """Positions in the pool."""
    rows: IntArray
    """Rows in the chunk table."""
    q: Float32Array


def with_negatives(transition: Transition, level: int, negatives: HardNegatives) -> Transition:
    """The same selection, had these texts stood in the document too, at this level."""
    observation, count = transition.observation, len(negatives.rows)
    longer = observation._replace(
        levels=np.concatenate((observation.levels, np.full(count, level))),
        available=np.concatenate((observation.available, np.ones(count, dtype=np.bool_))),
        support=np.concatenate((observation.support, np.zeros(count, dtype=np.bool_))),
    )
    places = len(transition.question.chunks) + negatives.places
    return transition._replace(
        observation=longer,
        candidates=np.concatenate((transition.candidates, places)),
        rows=np.concatenate((transition.rows, negatives.rows)),
        q=np.concatenate((transition.q, negatives.q)),
    )
