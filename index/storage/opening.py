"""The choice of the storage engine: storages are opened here, and callers see only the protocols."""

from __future__ import annotations

from pathlib import Path

import torch

from index.storage.local import opening as engine
from index.storage.protocols import Storage


def open_storage(
    directory: Path, *, dimension: int, fingerprint: str, device: torch.device, embed_again: bool = False
) -> Storage:
    """Open a storage for the action tower with this fingerprint, whose embeddings have this dimension.

    What a search reads is kept on the ``device``. With ``embed_again``, documents with another tower's vectors are
    queued, and each is found once it is embedded again. Raises :class:`~index.errors.StoreInUse`,
    :class:`~index.errors.FormatError`, :class:`~index.errors.DamagedStore`,
    :class:`~index.errors.CheckpointMismatch` or :class:`~index.errors.DiskFull`; nothing is changed then, and nothing
    stays open.
    """
    return engine.open_storage(
        directory, dimension=dimension, fingerprint=fingerprint, device=device, embed_again=embed_again
    )


def read_properties(directory: Path) -> dict[str, str]:
    """The properties of a storage before it is opened; none of a new one. Raises like :func:`open_storage`."""
    return engine.read_properties(directory)
