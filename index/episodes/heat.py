"""Heat maps of whole documents: the largest Q-value in each of their stretches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from index.arrays import Float32Array
from index.search.scope import Candidate, Estimate, Scope

MAPPED_DOCUMENTS = 8
"""Most documents of a step that are mapped."""


class HeatMap(NamedTuple):
    """One document of a scope in one state."""

    document: int
    chunks: int
    selected: tuple[int, ...]
    """Its chunks that were selected before, in increasing order: where its intervals meet."""
    largest: Float32Array
    """The largest Q-value of each stretch, ``-inf`` where nothing was scored; chunk ``i`` is in stretch ``i *
    len(largest) // chunks``."""


def heat_maps(
    estimate: Estimate, scope: Scope, candidates: Sequence[Candidate], selected: Sequence[int], stretches: int
) -> tuple[HeatMap, ...]:
    """Heat maps of the documents that hold the best candidate, a selected chunk, or another candidate, in this order.

    ``candidates`` come best first, ``selected`` are increasing positions. A document with fewer chunks than
    ``stretches`` has one for each chunk; with none, nothing is mapped.
    """
    if not stretches:
        return ()
    candidate_positions = [candidate.position for candidate in candidates]
    positions = (*candidate_positions[:1], *selected, *candidate_positions[1:])
    documents = dict.fromkeys(map(scope.document_of, positions))
    return tuple(
        _map(estimate, scope, document, selected, stretches) for document in islice(documents, MAPPED_DOCUMENTS)
    )


def _map(estimate: Estimate, scope: Scope, document: int, selected: Sequence[int], stretches: int) -> HeatMap:
    start, stop = scope.offsets[document : document + 2].tolist()
    chunks = stop - start
    if estimate.positions is None:
        index, values = np.arange(chunks), estimate.values[start:stop]
    else:
        inside = (estimate.positions >= start) & (estimate.positions < stop)
        index, values = estimate.positions[inside] - start, estimate.values[inside]
    largest = np.full(min(stretches, chunks), -np.inf, dtype=np.float32)
    np.maximum.at(largest, index * len(largest) // chunks, values)
    return HeatMap(
        document, chunks, tuple(position - start for position in selected if start <= position < stop), largest
    )
