"""What a checkpoint has learned about stopping: the STOP action and the sufficiency head.

A state is *complete* where all support is selected, *open* where something is missing that going on will find, and
*hopeless* where going on will not. The rules that act on it are in :mod:`index.episodes.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.arrays import Float64Array
from index.episodes.head import Head, Moment, Sufficiency, features
from index.search.function import QFunction
from index.search.states import State


@dataclass(frozen=True, slots=True)
class Stopping:
    """What a checkpoint has learned about stopping."""

    action: Float64Array | None
    """The embedding of STOP, shape ``[d]``; none where it was not learned."""
    head: Head | None
    """None where the checkpoint is not calibrated yet."""

    @property
    def assesses(self) -> bool:
        """Whether there is a head, for which the last state of an episode is embedded too."""
        return self.head is not None

    def stop_value(self, state: State, function: QFunction) -> float | None:
        """``Q(s, STOP) = w · <s, STOP> + b``: an action without a position, so it is never rotated."""
        if self.action is None:
            return None
        return float(function.w * (state.embedding.astype(np.float64) @ self.action) + function.b)

    def sufficiency(self, moment: Moment, function: QFunction) -> Sufficiency | None:
        """The probabilities that the state is complete, hopeless or open; none without a head."""
        if self.head is None:
            return None
        row = features(moment, self.stop_value(moment.state, function))
        complete, _, hopeless = self.head.probabilities(row[None], can_be_open=bool(moment.best))[0].tolist()
        return Sufficiency(complete, hopeless)


UNTAUGHT = Stopping(None, None)
"""Nothing learned about stopping: the rule ``threshold``, on the largest Q, is all there is."""
