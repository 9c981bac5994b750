"""Distributed storages with a cheap stand-in for the model."""

from __future__ import annotations

from pathlib import Path

from index.storage.distributed.opening import DistributedStorage, open_storage
from index.storage.points import Points
from tests.index.storages import DIMENSION


def open_distributed(
    url: str, points: Points, folder: Path, *, fingerprint: str = "words", embed_again: bool = False
) -> DistributedStorage:
    """A storage for vectors of this tower; each one open at a time has a folder of its own."""
    return open_storage(url, points, folder, dimension=DIMENSION, fingerprint=fingerprint, embed_again=embed_again)
