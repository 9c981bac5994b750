"""A change of checkpoint: how far it is, and what the new one has to show before it is served."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from index.encoders.encoder import Encoder
from index.storage.vectors import Space
from service.engine.gates import Trial
from service.engine.loaded import Loaded

State = Literal["loading", "embedding", "gate", "canary", "failed", "refused"]


@dataclass
class Canary:
    """A share of requests that the new checkpoint answers too, and what came of it so far.

    The event loop alone writes it.
    """

    share: float
    compared: int = 0
    dropped: int = 0
    failed: int = 0
    overlaps: float = 0.0
    """The sum of the overlaps of those that were compared."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Those that are being played."""

    @property
    def overlap(self) -> float | None:
        """The mean overlap; none before the first."""
        return self.overlaps / self.compared if self.compared else None


@dataclass(frozen=True, slots=True)
class Change:
    """A change that is under way, or has failed or was refused for a reason."""

    name: str
    state: State
    encoder: Encoder | None = None
    space: Space | None = None
    trial: Trial | None = None
    """The questions of its gate, where it has one."""
    canary: Canary | None = None
    candidate: Loaded | None = None
    """The new checkpoint over its vectors, while none of them is missing."""
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it has no gate, or passed it."""
        return self.trial is None or (self.trial.outcome is not None and self.trial.outcome.passed)

    def progress(self) -> float | None:
        """The share of the gate's questions that are played; none at other times."""
        return self.trial.progress if self.trial is not None and self.state == "gate" else None
