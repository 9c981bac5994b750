"""Embeddings as a scan reads them: mapped matrices, their codes or their halves, laid end to end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from index.arrays import Float32Array, IntArray
from index.search.scanning.bags import Frequencies, Postings, count_rows, counts_in
from index.search.scanning.codes import ROW_BLOCK, Codes, encode

CACHED_ROWS = 512
"""Rows of codes that stay in a core's cache while all states are multiplied with them."""

TASK_ROWS = 4096
"""Rows of codes that one thread takes at once."""


class Half(NamedTuple):
    """Embeddings in half precision, on a GPU, and their largest rounding error."""

    rows: torch.Tensor
    """Shape ``[rows, d]`` float16."""
    error: float
    """Euclidean distance."""


class Part(NamedTuple):
    """Candidates ``start <= position < start + len(matrix)``, backed by rows of one matrix.

    A search reads ``half`` or else ``codes`` instead of the matrix until few candidates are left.
    """

    start: int
    matrix: Float32Array
    """Chunk embeddings, shape ``[rows, d]``, memory-mapped."""
    codes: Codes | None = None
    """Codes of a whole segment, whose row ``first_row`` is the part's first; computed when they are missing."""
    first_row: int = 0
    half: Half | None = None
    """The same rows in half precision."""
    postings: Postings | None = None
    """The bags of the whole segment; none where no signal reads them, or they are not made yet."""


class Bags(NamedTuple):
    """Rows whose bags stand in the posting lists of a segment."""

    start: int
    """Where the first of them stands on the candidate axis."""
    postings: Postings
    first_row: int
    rows: int


class Runs(NamedTuple):
    """Runs of rows of one segment, and where on the candidate axis each stands; three arrays of one shape."""

    codes: Codes
    starts: IntArray
    """Increasing."""
    first_rows: IntArray
    counts: IntArray


@dataclass(frozen=True)
class Matrices:
    """The embeddings of the chunks of some documents, laid end to end on the candidate axis.

    ``offsets`` has shape ``[documents + 1]``: document ``d`` has the positions ``offsets[d] <= position < offsets[d +
    1]``. ``parts`` cover the axis in order. ``norm_bound`` bounds the Euclidean norm of every embedding.
    """

    offsets: IntArray
    parts: tuple[Part, ...]
    norm_bound: float = 1.0
    counted: Matrices | None = None
    """Those among whose chunks tokens are counted, where these are some of them; none: these."""

    @property
    def size(self) -> int:
        """Number of candidates."""
        return int(self.offsets[-1])

    @cached_property
    def read_error(self) -> float:
        """Largest Euclidean distance of an embedding from what a search reads instead of it."""
        halves = [part.half.error for part in self.parts if part.half is not None]
        return max(halves + [runs.codes.error for runs in self.runs], default=0.0)

    @cached_property
    def runs(self) -> list[Runs]:
        """The candidates that no GPU holds, in tasks for threads; each run is short enough for a core's cache."""
        runs_of_segment: dict[int, tuple[Codes, list[tuple[int, int, int]]]] = {}
        for part in self.parts:
            for start, codes, first_row, count in _coded(part):
                _, segment_runs = runs_of_segment.setdefault(id(codes.numbers), (codes, []))
                segment_runs.extend(
                    (start + low, first_row + low, min(CACHED_ROWS, count - low))
                    for low in range(0, count, CACHED_ROWS)
                )
        tasks: list[Runs] = []
        for codes, segment_runs in runs_of_segment.values():
            columns = np.array(segment_runs, dtype=np.int64).T
            task = (columns[2].cumsum() - 1) // TASK_ROWS
            borders = np.flatnonzero(np.diff(task, prepend=-1, append=-1)).tolist()
            tasks += [Runs(codes, *np.ascontiguousarray(columns[:, low:high])) for low, high in pairwise(borders)]
        return tasks

    @cached_property
    def bags(self) -> list[Bags]:
        """The candidates that have bags, in order."""
        return [
            Bags(part.start, part.postings, part.first_row, len(part.matrix))
            for part in self.parts
            if part.postings is not None
        ]

    @cached_property
    def plans(self) -> dict[tuple[str, str, int], Any]:
        """A cache of what a scan computes once."""
        return {}

    def document_of(self, position: int) -> int:
        """The document that the candidate at ``position`` belongs to."""
        return int(np.searchsorted(self.offsets, position, side="right")) - 1

    def rows(self, positions: IntArray) -> Float32Array:
        """The embeddings at ``positions``, shape ``[len(positions), d]`` float32."""
        part_of = np.searchsorted(self._part_starts, positions, side="right") - 1
        rows = np.empty((len(positions), self.parts[0].matrix.shape[1]), dtype=np.float32)
        for number in np.unique(part_of).tolist():
            part, inside = self.parts[number], part_of == number
            rows[inside] = part.matrix[positions[inside] - part.start]
        return rows

    def term_counts(self, tokens: IntArray, positions: IntArray) -> IntArray:
        """How often each candidate has each token, shape ``[len(tokens), len(positions)]``; 0 where it has no bag."""
        counts = np.zeros((len(tokens), len(positions)), dtype=np.int64)
        for postings, inside, rows in self._in_bags(positions):
            counts[:, inside] = counts_in(postings, tokens, rows)
        return counts

    def frequencies(self, tokens: IntArray) -> Frequencies:
        """In how many candidates that have bags each token stands."""
        if self.counted is not None:
            return self.counted.frequencies(tokens)
        known = self._frequencies
        if unknown := [token for token in tokens.tolist() if token not in known]:
            counts = np.zeros(len(unknown), dtype=np.int64)
            for _, postings, first_row, rows in self.bags:
                count_rows(postings, first_row, rows, np.array(unknown, dtype=np.int64), counts)
            known.update(zip(unknown, counts.tolist(), strict=True))
        of_tokens = np.array([known[token] for token in tokens.tolist()], dtype=np.int64)
        return Frequencies(of_tokens, *self._totals)

    @cached_property
    def _totals(self) -> tuple[int, int]:
        """How many candidates have bags, and how many tokens."""
        lengths = [postings.lengths[first : first + rows] for _, postings, first, rows in self.bags]
        return sum(map(len, lengths)), sum(int(some.sum()) for some in lengths)

    @cached_property
    def _frequencies(self) -> dict[int, int]:
        """In how many candidates tokens that were searched stand."""
        return {}

    def lengths(self, positions: IntArray) -> IntArray:
        """The number of tokens of each candidate, shape ``[len(positions)]``; 0 where it has no bag."""
        lengths = np.zeros(len(positions), dtype=np.int64)
        for postings, inside, rows in self._in_bags(positions):
            lengths[inside] = postings.lengths[rows]
        return lengths

    def _in_bags(self, positions: IntArray) -> Iterator[tuple[Postings, IntArray, IntArray]]:
        """The posting lists that have some of the positions, which of them, and their rows there."""
        number = np.searchsorted(self._bag_starts, positions, side="right") - 1
        for held in np.unique(number[number >= 0]).tolist():
            start, postings, first_row, count = self.bags[held]
            inside = np.flatnonzero((number == held) & (positions < start + count))
            yield postings, inside, positions[inside] - start + first_row

    @cached_property
    def _bag_starts(self) -> IntArray:
        return np.array([bags.start for bags in self.bags], dtype=np.int64)

    @cached_property
    def _part_starts(self) -> IntArray:
        return np.array([part.start for part in self.parts], dtype=np.int64)


def _coded(part: Part) -> Iterator[tuple[int, Codes, int, int]]:
    """A part's coded rows, as ``(start, codes, first row, number of rows)``; none where a GPU has them."""
    if part.half is not None:
        return
    if part.codes is not None:
        yield part.start, part.codes, part.first_row, len(part.matrix)
        return
    for low in range(0, len(part.matrix), ROW_BLOCK):
        block = part.matrix[low : low + ROW_BLOCK]
        yield part.start + low, encode(block), 0, len(block)
