"""STOP, where it is learned: worth 1 in a complete state and 0 elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainer.learning.environment import Observation
from trainer.learning.networks import QNetwork


def completeness(observations: Sequence[Observation], device: torch.device) -> torch.Tensor:
    """Whether nothing is missing, shape ``[observations]``."""
    return torch.tensor([observation.complete for observation in observations], device=device)


def stop_errors(network: QNetwork, states: torch.Tensor, complete: torch.Tensor) -> torch.Tensor:
    """Squared errors of ``Q(s, STOP)`` against 1 in complete states and 0 elsewhere, shape ``[states]``."""
    return (network.stop_values(states) - complete.float()).square()
