"""Calibration: the recall and the chunks of every threshold of a rule, measured on validation questions.

A request need not give a threshold: the rule's curve yields one for a cost of a chunk, or for a target recall.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from index.episodes.rules import STOP_RULES, StopBelow
from qrag.wire.models import FrozenModel
from qrag.wire.rules import Rule


class CurvePoint(FrozenModel):
    """A threshold, and its recall and number of chunks on the validation questions."""

    threshold: float = Field(allow_inf_nan=False)
    recall: float = Field(ge=0, le=1, description="share of the questions whose support was all selected")
    chunks: float = Field(ge=0, description="mean number of chunks selected")


Curve = Annotated[tuple[CurvePoint, ...], Field(min_length=1)]
"""The points of one rule."""


class Calibration(FrozenModel):
    """The curves of the rules, and the defaults for requests that name none."""

    curves: Mapping[Rule, Curve]
    budget: int = Field(ge=1, description="most selections of the episodes that the curves and the head were made from")
    default_rule: Rule
    step_cost: float = Field(ge=0, lt=1, description="cost of a chunk, where complete evidence is worth 1")

    @model_validator(mode="after")
    def _has_its_default(self) -> Calibration:
        if self.default_rule not in self.curves:
            raise ValueError(f"the default rule {self.default_rule} has no curve")
        return self

    def rule_for(
        self, rule: Rule | None = None, *, step_cost: float | None = None, target_recall: float | None = None
    ) -> StopBelow:
        """The rule, by default the default one, with its threshold for the target recall or the (default) cost.

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
"""Difference of utility that is not significant: less than the standard error of a curve from a thousand questions."""


def for_cost(curve: Curve, step_cost: float) -> CurvePoint:
    """The point with the fewest chunks among those whose utility is hardly less than the largest.

    The utility is ``recall - step_cost · chunks``. It may be less by :data:`INDIFFERENT`, or by a quarter of
    ``step_cost`` if that is less.
    """

    def utility(point: CurvePoint) -> float:
        return point.recall - step_cost * point.chunks

    least_utility = max(utility(point) for point in curve) - min(INDIFFERENT, step_cost / 4)
    candidates = [point for point in curve if utility(point) >= least_utility]
    return min(candidates, key=lambda point: (point.chunks, -point.recall))


def for_recall(curve: Curve, target: float) -> CurvePoint:
    """The point with the fewest chunks that reaches the share ``target`` of the largest recall on the curve."""
    largest_recall = max(point.recall for point in curve)
    candidates = [point for point in curve if point.recall >= target * largest_recall]
    return min(candidates, key=lambda point: (point.chunks, -point.recall))
