"""A checkpoint in memory, with the vectors that it searches."""

from __future__ import annotations

from dataclasses import dataclass

from index.encoders.encoder import Encoder
from index.storage.protocols import Scopes
from index.storage.vectors import Space


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in memory, and the vectors that it searches."""

    name: str
    encoder: Encoder
    space: Space
    scopes: Scopes
