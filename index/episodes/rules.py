"""Stop rules: each ends an episode where its score falls below a threshold.

============  ================================================================================================
threshold     the largest Q: what the best chunk still adds
action        how far the largest Q is above that of STOP, a learned action that has no position
sufficiency   the probability that the state is open, by a small network on the state and the largest Q-values
============  ================================================================================================

A rule is a class with the members of :class:`StopRule` and an entry in :data:`STOP_RULES`; its name and the words for
its endings stand in :mod:`qrag.wire.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from index.episodes.head import Moment, Sufficiency
from index.episodes.stopping import Stopping
from index.search.function import QFunction
from qrag.wire.rules import Rule, StoppedBy

Need = Literal["action", "head"]
"""A field of :class:`~index.episodes.stopping.Stopping` that a rule needs."""


class StopRule(Protocol):
    """A score for going on: the episode ends where it falls below a threshold."""

    @property
    def name(self) -> str:
        """The name in requests and calibrations."""

    @property
    def needs(self) -> frozenset[Need]:
        """The fields that a checkpoint must have learned for it."""

    def score(self, moment: Moment, sufficiency: Sufficiency | None, stopping: Stopping, function: QFunction) -> float:
        """The score for going on. A candidate is left: ``moment.best`` is not empty.

        ``sufficiency`` is the moment's, where the checkpoint has a head.
        """

    def ending(self, sufficiency: Sufficiency | None) -> StoppedBy:
        """Why the episode ended, where the score was below the threshold."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The largest Q itself."""

    name: Rule = "threshold"
    needs: frozenset[Need] = frozenset()

    def score(
        self,
        moment: Moment,
        sufficiency: Sufficiency | None,  # noqa: ARG002
        stopping: Stopping,  # noqa: ARG002
        function: QFunction,  # noqa: ARG002
    ) -> float:
        """The largest Q."""
        return moment.best[0]

    def ending(self, sufficiency: Sufficiency | None) -> StoppedBy:  # noqa: ARG002
        """Always the rule's name."""
        return "threshold"


@dataclass(frozen=True, slots=True)
class AboveStop:
    """The learned STOP action."""

    name: Rule = "action"
    needs: frozenset[Need] = frozenset({"action"})

    def score(
        self,
        moment: Moment,
        sufficiency: Sufficiency | None,  # noqa: ARG002
        stopping: Stopping,
        function: QFunction,
    ) -> float:
        """How far the largest Q is above that of STOP."""
        stop = stopping.stop_value(moment.state, function)
        assert stop is not None
        return moment.best[0] - stop

    def ending(self, sufficiency: Sufficiency | None) -> StoppedBy:  # noqa: ARG002
        """Always the rule's name."""
        return "action"


@dataclass(frozen=True, slots=True)
class StillOpen:
    """The sufficiency head."""

    name: Rule = "sufficiency"
    needs: frozenset[Need] = frozenset({"head"})

    def score(
        self,
        moment: Moment,
        sufficiency: Sufficiency | None,
        stopping: Stopping,
        function: QFunction,
    ) -> float:
        """The probability that something is missing that going on will find."""
        sufficiency = sufficiency or stopping.sufficiency(moment, function)
        assert sufficiency is not None
        return sufficiency.open

    def ending(self, sufficiency: Sufficiency | None) -> StoppedBy:
        """The likeliest class of the state; the rule's name where that is open and stopping was merely cheaper."""
        assert sufficiency is not None
        if sufficiency.open > max(sufficiency.complete, sufficiency.hopeless):
            return "sufficiency"
        return "sufficient" if sufficiency.complete >= sufficiency.hopeless else "hopeless"


STOP_RULES: dict[str, StopRule] = {rule.name: rule for rule in (Threshold(), AboveStop(), StillOpen())}
"""Every rule by its name."""


class StopBelow(NamedTuple):
    """Stop where the rule's score is below the threshold."""

    rule: StopRule
    threshold: float


def has_learned(stopping: Stopping, rule: StopRule) -> bool:
    """Whether a checkpoint has what the rule needs."""
    return all(getattr(stopping, need) is not None for need in rule.needs)


def score_of(
    rule: StopRule, moment: Moment, stopping: Stopping, function: QFunction, sufficiency: Sufficiency | None = None
) -> float:
    """The score for going on; ``-inf`` where no candidate is left.

    ``sufficiency`` is the moment's, where it is known already. Raises :class:`ValueError` where the checkpoint has not
    learned what the rule needs.
    """
    if not moment.best:
        return float("-inf")
    if not has_learned(stopping, rule):
        raise ValueError(f"the checkpoint has not learned the rule {rule.name}")
    return rule.score(moment, sufficiency, stopping, function)
