"""Knowing when to stop: what a state says about itself, and the rules that act on it.

A state is *complete* where all support is selected, *open* where something is missing that going on will find, and
*hopeless* where going on will not. Each rule stops an episode when its score falls below a threshold:

============  ================================================================================================
threshold     the largest Q: what the best chunk still adds
action        how far the largest Q is above that of STOP, a learned action that has no position
sufficiency   the probability that the state is open, by a small network on the state and the largest Q-values
============  ================================================================================================

A threshold need not be given. The checkpoint holds, for each rule, what every threshold brought on validation
questions; from that curve follow the threshold for a cost of a chunk and the one for a wanted completeness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from index.arrays import Float32Array, Float64Array
from index.search.scoring import QFunction
from qrag.wire.rules import Rule

SUMMARY = 6
"""Entries of :func:`features` beside the state embedding."""


class Sufficiency(NamedTuple):
    """What a state is, by its probabilities."""

    complete: float
    """All support is selected."""
    hopeless: float
    """Something is missing, and going on will not find it."""

    @property
    def open(self) -> float:
        """Something is missing, and going on will find it."""
        return max(0.0, 1.0 - self.complete - self.hopeless)


NOTHING_THERE = Sufficiency(complete=0.0, hopeless=1.0)
"""Of an episode over no chunks at all."""


class Moment(NamedTuple):
    """What is known in a state before the next selection."""

    state: Float32Array
    """Its embedding, shape ``[d]``."""
    best: tuple[float, ...]
    """The largest Q-values of the candidates that are left, two if there are so many, largest first."""
    taken: tuple[float, ...]
    """The Q-values of the selections so far, in the order they were made."""


class StopRule(NamedTuple):
    """Stop where the rule's score is below the threshold."""

    rule: Rule
    threshold: float


@dataclass(frozen=True, slots=True)
class Head:
    """One hidden layer over :func:`features`: complete, open or hopeless. ``h`` is its width, ``f`` theirs."""

    hidden_weight: Float64Array
    """Shape ``[h, f]``."""
    hidden_bias: Float64Array
    output_weight: Float64Array
    """Shape ``[3, h]``."""
    output_bias: Float64Array

    def probabilities(self, rows: Float64Array, can_be_open: bool = True) -> Float64Array:
        """Of complete, open and hopeless for each row of features, shape ``[rows, 3]``.

        Where no chunk is left (not ``can_be_open``) they are those given that the state is not open.
        """
        hidden = np.maximum(rows @ self.hidden_weight.T + self.hidden_bias, 0.0)
        logits = hidden @ self.output_weight.T + self.output_bias
        if not can_be_open:
            logits[:, 1] = -np.inf
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Float64Array = odds / odds.sum(axis=1, keepdims=True)
        return shares


@dataclass(frozen=True, slots=True)
class Stopping:
    """What a checkpoint has learned about stopping."""

    action: Float64Array | None
    """The embedding of STOP, shape ``[d]``; none where it was not learned."""
    head: Head | None
    """None where the checkpoint is not calibrated yet."""

    @property
    def assesses(self) -> bool:
        """Whether the last state of an episode is worth embedding, after which nothing is selected."""
        return self.head is not None

    def stop_value(self, state: Float32Array, function: QFunction) -> float | None:
        """``Q(s, STOP) = w · <s, STOP> + b``: an action like the others, but nowhere, so never rotated."""
        return (
            None if self.action is None else float(function.w * (state.astype(np.float64) @ self.action) + function.b)
        )

    def sufficiency(self, moment: Moment, function: QFunction) -> Sufficiency | None:
        """What the state is; none without a head."""
        if self.head is None:
            return None
        row = features(moment, self.stop_value(moment.state, function))
        complete, _, hopeless = self.head.probabilities(row[None], can_be_open=bool(moment.best))[0].tolist()
        return Sufficiency(complete, hopeless)

    def score(self, rule: Rule, moment: Moment, function: QFunction, sufficiency: Sufficiency | None = None) -> float:
        """How much speaks for going on; ``-inf`` where nothing is left.

        ``sufficiency`` is that of the moment, where it is known already. Raises :class:`ValueError` for a rule that was
        not learned.
        """
        if not moment.best:
            return -np.inf
        if rule == "threshold":
            return moment.best[0]
        if rule == "action" and (stop := self.stop_value(moment.state, function)) is not None:
            return moment.best[0] - stop
        if rule == "sufficiency" and (found := sufficiency or self.sufficiency(moment, function)) is not None:
            return found.open
        raise ValueError(f"the checkpoint has not learned the rule {rule}")


UNTAUGHT = Stopping(None, None)
"""Of a checkpoint that knows nothing about stopping: only the largest Q can be looked at."""


def features(moment: Moment, stop_value: float | None) -> Float64Array:
    """What :class:`Head` reads, shape ``[d + SUMMARY]``.

    Beside the state: the largest Q and its distance to the second, Q of STOP, the Q of the last and of the least
    certain selection, and how many there were.
    """
    first, second = (*moment.best, *(moment.best[-1:] or (0.0,)), 0.0)[:2]
    summary = (
        first,
        first - second,
        stop_value or 0.0,
        moment.taken[-1] if moment.taken else 1.0,
        min(moment.taken, default=1.0),
        len(moment.taken) / 8,
    )
    return np.concatenate((moment.state.astype(np.float64), summary))


# -- calibration ------------------------------------------------------------------------------------------------------


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CurvePoint(_Frozen):
    """What a threshold brought on the validation questions."""

    threshold: float = Field(allow_inf_nan=False)
    recall: float = Field(ge=0, le=1, description="share of the questions whose support was all selected")
    chunks: float = Field(ge=0, description="mean number of chunks selected")


Curve = Annotated[tuple[CurvePoint, ...], Field(min_length=1)]


class Calibration(_Frozen):
    """The curves of the rules, and what to do for a request that names none."""

    curves: Mapping[Rule, Curve]
    budget: int = Field(ge=1, description="most selections of the episodes that the curves and the head are about")
    default_rule: Rule
    step_cost: float = Field(ge=0, lt=1, description="what a chunk costs, where a complete evidence is worth 1")

    @model_validator(mode="after")
    def _has_its_default(self) -> Calibration:
        if self.default_rule not in self.curves:
            raise ValueError(f"the default rule {self.default_rule} has no curve")
        return self

    def rule_for(
        self, rule: Rule | None = None, *, step_cost: float | None = None, target_recall: float | None = None
    ) -> StopRule:
        """The rule, or the default one, with its threshold for the given wish, or for the default cost.

        Raises :class:`KeyError` for a rule without a curve.
        """
        rule = rule or self.default_rule
        curve = self.curves[rule]
        if target_recall is not None:
            return StopRule(rule, for_recall(curve, target_recall).threshold)
        return StopRule(rule, for_cost(curve, self.step_cost if step_cost is None else step_cost).threshold)


INDIFFERENT = 0.005
"""A difference of utility that a curve from a thousand questions or so cannot tell: its standard error is larger."""


def for_cost(curve: Curve, step_cost: float) -> CurvePoint:
    """The fewest chunks of the points whose utility ``recall - step_cost · chunks`` is largest, or not much less: by no
    more than :data:`INDIFFERENT`, or a quarter of what a chunk costs, if that is less."""

    def utility(point: CurvePoint) -> float:
        return point.recall - step_cost * point.chunks

    enough = max(utility(point) for point in curve) - min(INDIFFERENT, step_cost / 4)
    return min((point for point in curve if utility(point) >= enough), key=lambda point: (point.chunks, -point.recall))


def for_recall(curve: Curve, target: float) -> CurvePoint:
    """The fewest chunks that bring the ``target`` share of the recall that the whole budget brings."""
    most = max(point.recall for point in curve)
    enough = [point for point in curve if point.recall >= target * most]
    return min(enough, key=lambda point: (point.chunks, -point.recall))
