"""What an objective is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from index.arrays import Float32Array
from index.encoders.encoder import ReadStates
from trainer.learning.transitions import Trajectory, Transition


class Objective(Protocol):
    """What the networks learn from episodes."""

    @property
    def looks_ahead(self) -> bool:
        """Whether a return depends on what follows in the episode."""

    @property
    def reads_negatives(self) -> bool:
        """Whether hard negatives are further candidates of the transitions."""

    @property
    def contrasts(self) -> bool:
        """Whether a loss depends on the other transitions that it is computed with: all of a step then go together."""

    def shows_support(self, progress: float, generator: np.random.Generator) -> bool:
        """Whether the next selection is one of the missing support, not the policy's.

        ``progress`` is the share of the training that is done.
        """

    def returns(self, trajectories: Sequence[Trajectory], alpha: float) -> Float32Array:
        """The return of every transition, one trajectory after the other; zeros where the losses do not read them.

        ``alpha`` is the temperature of the soft values.
        """

    def losses(self, states: ReadStates, transitions: Sequence[Transition], returns: torch.Tensor) -> torch.Tensor:
        """The loss of each transition, whose ``states`` were read with gradients, shape ``[transitions]``."""
