"""Chunks of the property tests' scopes, stored as points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.arrays import Float32Array, IntArray, TokenIds
from index.search.matrix_scope import MatrixScope
from index.search.scope import Scope
from index.storage.points import Membership, PointDocument, Points
from index.storage.vectors import ChunkAddress, Space

COLLECTION = "shelf"


def matrix_of(scope: MatrixScope) -> Float32Array:
    return np.concatenate([np.asarray(part.matrix) for part in scope.matrices.parts])


def store(
    points: Points,
    space: Space,
    matrix: Float32Array,
    bags: Sequence[TokenIds],
    uids: Sequence[int],
    counts: Sequence[int],
    *,
    collection: str = COLLECTION,
) -> None:
    """Documents laid end to end."""
    rows = [ChunkAddress(uid, number) for uid, count in zip(uids, counts, strict=True) for number in range(count)]
    documents = [PointDocument(uid, collection, count) for uid, count in zip(uids, counts, strict=True)]
    points.upsert(space, documents, rows, matrix, bags or [[]] * len(rows))


def membership(
    uids: Sequence[int], counts: Sequence[int], hidden: Sequence[int] | None = None, *, collection: str = COLLECTION
) -> Membership:
    def numbers(values: Sequence[int]) -> IntArray:
        return np.array(values, dtype=np.int64)

    return Membership(collection, numbers(uids), numbers(counts), None if hidden is None else numbers(hidden))


def scope_of(points: Points, space: Space, uids: Sequence[int], counts: Sequence[int]) -> Scope:
    return points.scope(space, membership(uids, counts))
