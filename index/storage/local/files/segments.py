"""Chunk embeddings on disk: FAISS files and, beside them, their codes; memory-mapped.

Embeddings are kept in *segments*: files of up to :data:`~index.storage.protocols.APPEND_ROWS` rows that never change
once written. Each is a FAISS ``IndexFlatIP``, written to a temporary name, fsynced and renamed, so
a file either exists whole or not at all. Reading maps it: no copy is made, and a restart with
gigabytes of vectors is immediate. A GPU holds a copy in half precision of each segment.

A search reads the codes (:mod:`index.search.scanning.codes`) of all chunks, or on a GPU their halves, and the
embeddings of a few. Codes follow from the embeddings: where their file is missing or truncated, it is written again.

:mod:`index.search.scoring` says which part computes what with them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from index.arrays import Float32Array
from index.errors import DamagedStore
from index.search.scanning.bags import Postings
from index.search.scanning.codes import Codes, encode
from index.search.scanning.matrices import Half
from index.storage.local.files.durable import write_durably
from index.storage.local.files.postings import open_postings, postings_path, write_postings

log = logging.getLogger(__name__)

TAIL_BYTES = 16
"""Scale and error, at the end of a file of codes."""


class Segment(NamedTuple):
    """The embeddings of a segment, and what a search reads of them: codes, or half precision on a GPU; bags."""

    matrix: Float32Array
    codes: Codes | None
    half: Half | None
    postings: Postings | None
    """None where they must be made again."""


def write_segment(path: Path, vectors: Float32Array, postings: Postings | None) -> int:
    """Write embeddings, shape ``[rows, d]``, their codes and their posting lists durably.

    Returns the bytes of the embeddings' file.

    Raises :class:`OSError` (for example ``ENOSPC``) and then leaves nothing behind.
    """
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    content: NDArray[np.uint8] = faiss.serialize_index(index)
    try:
        _write_codes(path, encode(vectors))
        if postings is not None:
            write_postings(path, postings)
        write_durably(path, content.data)
    except OSError:
        remove_segment(path)
        raise
    return len(content)


def remove_segment(path: Path) -> None:
    """Remove a segment's files, where they exist."""
    for file in (path, *derived_files(path)):
        file.unlink(missing_ok=True)


def derived_files(path: Path) -> tuple[Path, Path]:
    """The files beside a segment: its codes and its posting lists. They can be made again."""
    return codes_path(path), postings_path(path)


def codes_path(path: Path) -> Path:
    """The file with the codes of the segment at ``path``."""
    return path.with_suffix(".codes")


def _write_codes(path: Path, codes: Codes) -> None:
    """Write the codes of the segment at ``path``: the numbers, then scale and error."""
    tail = np.array([codes.scale, codes.error], dtype="<f8")
    write_durably(codes_path(path), codes.numbers.tobytes() + tail.tobytes())


def open_segment(path: Path, *, rows: int, dimension: int, size: int, device: torch.device) -> Segment:
    """A segment with embeddings of shape ``[rows, dimension]``; raises :class:`DamagedStore`.

    Only headers are read here; ``size`` in bytes reveals a truncated file.
    """
    remedy = "Restore it from a backup, or run `python -m service reindex` to compute it from the stored text."
    try:
        actual = path.stat().st_size
    except FileNotFoundError:
        raise DamagedStore(f"The vector file {path.name} is missing. {remedy}") from None
    if actual != size:
        raise DamagedStore(f"The vector file {path.name} has {actual} bytes instead of {size}. {remedy}")
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise DamagedStore(f"The vector file {path.name} cannot be read. {remedy}") from error
    if not isinstance(index, faiss.IndexFlat) or (index.ntotal, index.d) != (rows, dimension):
        raise DamagedStore(
            f"The vector file {path.name} holds {index.ntotal} vectors of dimension {index.d} instead of "
            f"{rows} of {dimension}. {remedy}"
        )
    matrix: Float32Array = np.asarray(_MappedMatrix(index))
    if device.type != "cpu":
        try:
            return Segment(matrix, None, to_half(matrix, device), open_postings(path, rows))
        except torch.OutOfMemoryError:
            log.warning("the device has no memory for segment=%s, which is read by the CPU", path.name)
    return Segment(matrix, _open_codes(path, matrix), None, open_postings(path, rows))


def to_half(matrix: Float32Array, device: torch.device) -> Half:
    """Embeddings in half precision on a device."""
    rows = torch.from_numpy(matrix.astype(np.float16))
    difference = rows.numpy().astype(np.float64) - matrix
    return Half(rows.to(device), float(np.sqrt(np.einsum("nd,nd->n", difference, difference).max(initial=0.0))))


def _open_codes(path: Path, matrix: Float32Array) -> Codes:
    """The codes of the segment at ``path``, written again where they are missing or truncated."""
    file = codes_path(path)
    if not file.exists() or file.stat().st_size != matrix.size + TAIL_BYTES:
        codes = encode(matrix)
        try:
            _write_codes(path, codes)
        except OSError as failure:  # the service starts on a full disk, too
            log.warning("the codes of segment=%s stay in memory: %s", path.name, failure)
            return codes
        log.info("wrote the codes of segment=%s", path.name)
    content = np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))
    scale, error = np.frombuffer(content[-TAIL_BYTES:].tobytes(), dtype="<f8").tolist()
    return Codes(content[:-TAIL_BYTES].view(np.int8).reshape(matrix.shape), scale, error)


class _MappedMatrix:
    """Shows a FAISS index's vectors to NumPy; arrays made of it keep the mapping alive."""

    def __init__(self, index: faiss.IndexFlat) -> None:
        self._index = index
        address = int(faiss.rev_swig_ptr(index.get_xb(), 1).ctypes.data)
        self.__array_interface__ = {
            "version": 3,
            "shape": (index.ntotal, index.d),
            "typestr": "<f4",
            "data": (address, True),
        }
