"""Stop rules and endings: the words that service, clients and command line share.

Light to import, unlike what applies the rules (:mod:`index.episodes`): a client of the service needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import ConfigDict, Field, JsonValue, model_validator

from qrag.wire.models import NUMBER, RequestModel, never

Rule = Literal["threshold", "action", "sufficiency"]
"""The name of a stop rule."""

RULES: tuple[Rule, ...] = get_args(Rule)
"""The names of all stop rules."""

StoppedBy = Literal["budget", "threshold", "action", "sufficiency", "sufficient", "hopeless", "context", "exhausted"]
"""Why an episode ended: the budget is spent; a rule's score fell below its threshold; the best chunk does not fit the
context; no chunk is left. The rule ``sufficiency`` ends with ``sufficient`` or ``hopeless`` where the state most likely
is one of the two."""

ENDINGS: Mapping[StoppedBy, str] = {
    "budget": "as many chunks as asked for are selected",
    "threshold": "another chunk would not be worth its cost",
    "action": "another chunk would not be worth its cost",
    "sufficiency": "another chunk would not be worth its cost",
    "sufficient": "the evidence is most likely complete",
    "hopeless": "the rest of the evidence is most likely not there",
    "context": "the next chunk does not fit into the context",
    "exhausted": "no chunk is left",
}
"""Each ending in words that follow "because"; an ending without an entry is printed by its name."""

_STOP_SAYS_ONE_THING: list[JsonValue] = [
    never(step_cost=NUMBER, target_recall=NUMBER),
    never(step_cost=NUMBER, threshold=NUMBER),
    never(target_recall=NUMBER, threshold=NUMBER),
    never(rule={"const": "budget"}, step_cost=NUMBER),
    never(rule={"const": "budget"}, target_recall=NUMBER),
    never(rule={"const": "budget"}, threshold=NUMBER),
    {"not": {"properties": {"rule": {"type": "null"}, "threshold": NUMBER}, "required": ["threshold"]}},
]
"""The checks of `Stop._says_one_thing` as JSON Schema."""


class Stop(RequestModel):
    """When to stop: by the cost of a chunk, by the recall to reach, or by the threshold of a rule.

    A rule ends the episode where its score falls below the threshold. The score of `threshold` is the largest Q-value,
    that of `action` the distance of the largest Q-value from the Q-value of the learned STOP action, that of
    `sufficiency` the probability that going on will complete the evidence. `budget` selects `max_steps` chunks.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"step_cost": 0.05}, {"target_recall": 0.95}, {"rule": "budget"}],
            "allOf": _STOP_SAYS_ONE_THING,
        }
    )

    rule: Literal["budget"] | Rule | None = Field(
        default=None, description="by default the one that the checkpoint prefers"
    )
    step_cost: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="cost of a chunk, where complete evidence is worth 1; selects the calibrated threshold with the "
        "largest gain",
    )
    target_recall: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share to answer of the questions whose evidence the calibrated budget would find; selects the "
        "calibrated threshold with the fewest chunks",
    )
    threshold: float | None = Field(
        default=None, allow_inf_nan=False, description="a threshold of your own; needs a `rule`"
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> Stop:
        given = [name for name in ("step_cost", "target_recall", "threshold") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give {given[0]} or {given[1]}, not both")
        if self.rule == "budget" and given:
            raise ValueError(f"the rule budget has no {given[0]}: max_steps is the budget")
        if self.threshold is not None and self.rule is None:
            raise ValueError("a threshold is one of a rule: name the rule")
        return self
