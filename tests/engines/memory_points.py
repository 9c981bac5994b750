"""Points in memory, shared by the storages of one process as an engine is by many."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

import numpy as np

from index.arrays import Float32Array, IntArray, TokenIds
from index.search.matrix_scope import MatrixScope
from index.search.scanning.bags import index_bags
from index.search.scanning.matrices import Matrices, Part
from index.storage.points import Membership, PointDocument
from index.storage.vectors import ChunkAddress, EngineCalls, Space

Point = tuple[Float32Array, TokenIds]


class MemoryPoints:
    """Vectors and bags in dictionaries; a scope reads them when it is made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spaces: dict[int, dict[ChunkAddress, Point]] = {}
        self._documents: dict[int, PointDocument] = {}
        self.listeners: list[Callable[[], None]] = []
        """Called whenever points were stored."""

    def open(self, space: Space) -> None:
        with self._lock:
            self._spaces.setdefault(space.number, {})

    def spaces(self) -> Collection[int]:
        return list(self._spaces)

    def drop(self, number: int) -> None:
        with self._lock:
            self._spaces.pop(number, None)

    def upsert(
        self,
        space: Space,
        documents: Sequence[PointDocument],
        rows: Sequence[ChunkAddress],
        vectors: Float32Array,
        bags: Sequence[TokenIds],
    ) -> None:
        assert {document.uid for document in documents} == {row.uid for row in rows}
        assert vectors.shape == (len(rows), space.dimension)
        with self._lock:
            self._documents.update((document.uid, document) for document in documents)
            points = self._spaces.get(space.number, {})
            points.update(zip(rows, zip(vectors, bags, strict=True), strict=True))
        for listener in self.listeners:
            listener()

    def delete(self, uids: Collection[int]) -> None:
        with self._lock:
            for points in self._spaces.values():
                for address in [address for address in points if address.uid in uids]:
                    del points[address]

    def rows(self, space: Space, uid: int, numbers: IntArray) -> Float32Array | None:
        points = self._spaces.get(space.number, {})
        try:
            return np.array([points[ChunkAddress(uid, number)][0] for number in numbers.tolist()], dtype=np.float32)
        except KeyError:
            return None

    def scope(self, space: Space, membership: Membership) -> MatrixScope:
        with self._lock:
            points = dict(self._spaces[space.number])
        uids, counts = membership.uids.tolist(), membership.counts.tolist()
        if membership.hidden is not None:
            assert self._not_hidden(points.keys(), membership) == set(uids), "both conditions name the same documents"
        rows = [points[ChunkAddress(uid, at)] for uid, count in zip(uids, counts, strict=True) for at in range(count)]
        matrix = np.array([vector for vector, _ in rows], dtype=np.float32).reshape(-1, space.dimension)
        part = Part(0, matrix, postings=index_bags([bag for _, bag in rows]))
        offsets = np.cumsum([0, *counts], dtype=np.int64)
        norm = float(np.linalg.norm(matrix, axis=1).max(initial=1.0))
        return MatrixScope(Matrices(offsets, (part,) if rows else (), norm))

    def _not_hidden(self, addresses: Collection[ChunkAddress], membership: Membership) -> set[int]:
        assert membership.hidden is not None
        last, hidden = max(membership.uids.tolist(), default=0), set(membership.hidden.tolist())
        uids = {address.uid for address in addresses if address.uid <= last} - hidden
        return {uid for uid in uids if self._documents[uid].collection == membership.collection}

    def called(self) -> Sequence[EngineCalls]:
        return ()

    def close(self) -> None:
        pass
