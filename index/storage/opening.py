"""The choice of the storage engine: storages are opened here, and callers see only the protocols.

What the engines beyond one machine need is imported only where they are chosen.
"""

from __future__ import annotations

from pathlib import Path

import torch

from index.storage.engines import Engines
from index.storage.local import opening as local
from index.storage.protocols import Storage


def open_storage(
    directory: Path,
    *,
    dimension: int,
    fingerprint: str,
    device: torch.device,
    embed_again: bool = False,
    engines: Engines | None = None,
) -> Storage:
    """Open a storage for the action tower with this fingerprint, whose embeddings have this dimension.

    It is in the ``directory``, or in ``engines``: then the directory is for files being received. What a search reads
    of a directory is kept on the ``device``. With ``embed_again``, documents with another tower's vectors are queued,
    and each is found once it is embedded again. Raises :class:`~index.errors.StoreInUse`,
    :class:`~index.errors.FormatError`, :class:`~index.errors.DamagedStore`,
    :class:`~index.errors.CheckpointMismatch`, :class:`~index.errors.DiskFull` or
    :class:`~index.errors.StorageUnavailable`; nothing is changed then, and nothing stays open.
    """
    if engines is None:
        return local.open_storage(
            directory, dimension=dimension, fingerprint=fingerprint, device=device, embed_again=embed_again
        )
    from index.storage.distributed import opening as distributed
    from index.storage.qdrant.connection import connection_to
    from index.storage.qdrant.points import QdrantPoints

    return distributed.open_storage(
        engines.database_url,
        QdrantPoints(connection_to(engines)),
        directory,
        dimension=dimension,
        fingerprint=fingerprint,
        embed_again=embed_again,
    )


def read_properties(directory: Path, engines: Engines | None = None) -> dict[str, str]:
    """The properties of a storage before it is opened; none of a new one. Raises like :func:`open_storage`."""
    if engines is None:
        return local.read_properties(directory)
    from index.storage.distributed import opening as distributed

    return distributed.read_properties(engines.database_url)
