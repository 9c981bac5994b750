"""The sufficiency head: a small network that classifies a state as complete, open or hopeless."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from index.arrays import Float64Array
from index.search.states import State

SUMMARY = 10
"""Entries of :func:`features` beside the state embedding."""

FORMER_SUMMARY = 6
"""Those of them, the first ones, that heads read which were fitted before there were more."""


class Sufficiency(NamedTuple):
    """The probabilities that a state is complete, hopeless or open."""

    complete: float
    """All support is selected."""
    hopeless: float
    """Something is missing, and going on will not find it."""

    @property
    def open(self) -> float:
        """Something is missing, and going on will find it."""
        return max(0.0, 1.0 - self.complete - self.hopeless)


NOTHING_THERE = Sufficiency(complete=0.0, hopeless=1.0)
"""The sufficiency of an episode over no chunks at all."""


class Moment(NamedTuple):
    """A state before the next selection: its embedding and the Q-values that the head and the stop rules read."""

    state: State
    best: tuple[float, ...]
    """The two largest Q-values of the remaining candidates, largest first; fewer where fewer remain."""
    selected: tuple[float, ...]
    """The Q-values of the chunks in the state, in the order they were selected."""
    covered: float
    """The share of the question's rare tokens that the chunks in the state have, each weighing as it is rare
    (:meth:`~index.search.signals.lexical.Lexical.covered`); 0 where no signal reads tokens."""
    candidates: int
    """How many chunks are searched."""


@dataclass(frozen=True, slots=True)
class Head:
    """One hidden layer of width ``h`` over the first ``f`` values of :func:`features`."""

    hidden_weight: Float64Array
    """Shape ``[h, f]``."""
    hidden_bias: Float64Array
    output_weight: Float64Array
    """Shape ``[3, h]``."""
    output_bias: Float64Array

    def probabilities(self, rows: Float64Array, can_be_open: bool = True) -> Float64Array:
        """The probabilities of complete, open and hopeless for each row of :func:`features`, shape ``[rows, 3]``.

        Where no chunk is left (not ``can_be_open``) they are conditioned on the state not being open.
        """
        read = rows[:, : self.hidden_weight.shape[1]]
        hidden = np.maximum(read @ self.hidden_weight.T + self.hidden_bias, 0.0)
        logits = hidden @ self.output_weight.T + self.output_bias
        if not can_be_open:
            logits[:, 1] = -np.inf
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Float64Array = odds / odds.sum(axis=1, keepdims=True)
        return probabilities


def features(moment: Moment, stop_value: float | None) -> Float64Array:
    """The features that :class:`Head` reads, shape ``[d + SUMMARY]``.

    They are the state embedding, the largest Q and its distance to the second, the Q of STOP, the Q of the last and of
    the least certain selection, and the number of selections; then the Q of the first selection, the mean Q of all,
    what of the question is covered, and how many chunks are searched, as a logarithm: the more there are, the larger is
    the largest Q of those that are worth nothing.
    """
    first, second = (*moment.best, *(moment.best[-1:] or (0.0,)), 0.0)[:2]
    summary = (
        first,
        first - second,
        stop_value or 0.0,
        moment.selected[-1] if moment.selected else 1.0,
        min(moment.selected, default=1.0),
        len(moment.selected) / 8,
        moment.selected[0] if moment.selected else 1.0,
        sum(moment.selected) / len(moment.selected) if moment.selected else 1.0,
        moment.covered,
        math.log1p(moment.candidates) / 8,
    )
    return np.concatenate((moment.state.embedding.astype(np.float64), summary))
