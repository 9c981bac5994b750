"""The candidate axis: the chunks that one request may select from, and where their embeddings are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from index.codes import Codes, SortedCodes
from index.positions import IntArray

Float32Array = NDArray[np.float32]


class Half(NamedTuple):
    """Embeddings in half precision, on a GPU, and how far the farthest is from what it stands for."""

    rows: torch.Tensor
    """Shape ``[rows, d]`` float16."""
    error: float
    """Euclidean distance."""


class Part(NamedTuple):
    """Candidates ``start <= position < start + len(matrix)``, backed by rows of one matrix.

    A search reads ``half``, ``codes`` or ``sorted_codes``, where there are any, instead of the matrix until few
    candidates are left.
    """

    start: int
    matrix: Float32Array
    """Chunk embeddings, shape ``[rows, d]``, memory-mapped."""
    codes: Codes | None = None
    """Of the same rows: of long documents, which are scored run by run."""
    sorted_codes: SortedCodes | None = None
    """Of a whole segment, whose row ``first_row`` is the part's first: of short documents."""
    first_row: int = 0
    half: Half | None = None
    """Of the same rows."""

    def cut(self, start: int, stop: int) -> Part:
        """The candidates ``start <= position < stop`` of it."""
        low, high = max(start - self.start, 0), min(stop - self.start, len(self.matrix))
        codes = None if self.codes is None else self.codes.cut(low, high)
        half = None if self.half is None else self.half._replace(rows=self.half.rows[low:high])
        return Part(self.start + low, self.matrix[low:high], codes, self.sorted_codes, self.first_row + low, half)


@dataclass(frozen=True)
class Scope:
    """The chunks one request may select from.

    The documents' chunks are laid end to end. ``offsets`` has shape ``[documents + 1]``; document
    ``d`` has the positions ``offsets[d] <= position < offsets[d + 1]``. ``parts`` cover the axis in
    order. ``norm_bound`` bounds the Euclidean norm of every chunk embedding.
    """

    offsets: IntArray
    parts: tuple[Part, ...]
    norm_bound: float = 1.0

    @property
    def size(self) -> int:
        """Number of candidates."""
        return int(self.offsets[-1])

    @cached_property
    def read_error(self) -> float:
        """Largest Euclidean distance of an embedding from what a search reads instead of it."""
        found = [part.half.error for part in self.parts if part.half is not None]
        found += [part.codes.error for part in self.parts if part.codes is not None]
        found += [part.sorted_codes.codes.error for part in self.parts if part.sorted_codes is not None]
        return max(found, default=0.0)

    @cached_property
    def plans(self) -> dict[tuple[int | str, str, int], Any]:
        """What a scan has worked out once for this scope."""
        return {}

    def document_of(self, position: int) -> int:
        """The document that the candidate at ``position`` belongs to."""
        return int(np.searchsorted(self.offsets, position, side="right")) - 1

    def pieces(self, start: int, stop: int) -> Iterable[Part]:
        """The parts that cover ``start <= position < stop``, cut to it."""
        first = int(np.searchsorted(self._part_starts, start, side="right")) - 1
        for part in self.parts[max(first, 0) :]:
            if part.start >= stop:
                return
            if start < part.start + len(part.matrix):
                yield part.cut(start, stop)

    def rows(self, positions: IntArray) -> Float32Array:
        """The embeddings at ``positions``, shape ``[len(positions), d]`` float32."""
        part_of = np.searchsorted(self._part_starts, positions, side="right") - 1
        rows = np.empty((len(positions), self.parts[0].matrix.shape[1]), dtype=np.float32)
        for number in np.unique(part_of).tolist():
            part, inside = self.parts[number], part_of == number
            rows[inside] = part.matrix[positions[inside] - part.start]
        return rows

    @cached_property
    def _part_starts(self) -> IntArray:
        return np.array([part.start for part in self.parts], dtype=np.int64)
