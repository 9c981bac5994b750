"""What every threshold of a rule brought on validation questions, and the threshold that follows from a wish.

A request need not give a threshold: from the rule's curve follows the one for a cost of a chunk, or for a wanted
recall.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from index.episodes.rules import STOP_RULES, StopBelow
from qrag.wire.models import FrozenModel
from qrag.wire.rules import Rule


class CurvePoint(FrozenModel):
    """What a threshold brought on the validation questions."""

    threshold: float = Field(allow_inf_nan=False)
    recall: float = Field(ge=0, le=1, description="share of the questions whose support was all selected")
    chunks: float = Field(ge=0, description="mean number of chunks selected")


Curve = Annotated[tuple[CurvePoint, ...], Field(min_length=1)]


class Calibration(FrozenModel):
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
    ) -> StopBelow:
        """The rule, or the default one, with its threshold for the given wish, or for the default cost.

        Raises :class:`KeyError` for a rule without a curve.
        """
        rule = rule or self.default_rule
        curve = self.curves[rule]
        if target_recall is not None:
            point = for_recall(curve, target_recall)
        else:
            point = for_cost(curve, self.step_cost if step_cost is None else step_cost)
        return StopBelow(STOP_RULES[rule], point.threshold)


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
