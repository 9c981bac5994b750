"""A second storage engine, in memory: written against the protocols alone. It keeps former versions."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np

from index.arrays import Float32Array, IntArray, TokenIds
from index.errors import UnknownCollection, UnknownFeedback
from index.search.matrix_scope import MatrixScope
from index.search.scanning.bags import index_bags
from index.search.scanning.matrices import Matrices, Part
from index.search.turning import Turning
from index.storage.feedback import Feedback, StoredFeedback
from index.storage.news import News
from index.storage.protocols import Capacity
from index.storage.vectors import ChunkAddress, EngineCalls, SearchScope, Space, Unbagged, Unembedded
from qrag.wire.filters import Filter
from tests.index.memory_catalogue import MemoryCatalogue
from tests.index.memory_questions import MemoryQuestions

Embedded = tuple[Float32Array, TokenIds]
"""A chunk's vector and bag."""


class MemoryVectors:
    """The vectors of each document in a list, one dictionary a space; any scope is built when it is asked for."""

    def __init__(self, catalogue: MemoryCatalogue, news: News, *, fingerprint: str, dimension: int) -> None:
        self._catalogue = catalogue
        self._news = news
        self.space = Space(1, fingerprint, dimension)
        catalogue.renamed = self._forget_elsewhere
        self._spaces = {self.space: dict[int, list[Embedded]]()}

    def _forget_elsewhere(self, uid: int) -> None:
        for space, kept in self._spaces.items():
            if space != self.space:
                kept.pop(uid, None)

    @property
    def spaces(self) -> Collection[Space]:
        return self._spaces.keys()

    def append(
        self, rows: Sequence[ChunkAddress], vectors: Float32Array, bags: Sequence[TokenIds], space: Space
    ) -> None:
        for address, vector, bag in zip(rows, vectors, bags, strict=True):
            kept = self._spaces.get(space, {}).setdefault(address.uid, [])
            assert address.number == len(kept)
            kept.append((vector, bag))

    def unbagged(self, space: Space) -> Unbagged | None:  # noqa: ARG002
        return None

    def add_bags(self, unbagged: Unbagged, bags: Sequence[TokenIds]) -> None:  # noqa: ARG002
        raise AssertionError("no chunk of this engine lacks a bag")

    def stored(self, uid: int, space: Space) -> int:
        return len(self._spaces[space].get(uid, []))

    def rows(self, uid: int, numbers: IntArray, space: Space) -> Float32Array | None:
        kept = self._spaces[space].get(uid, [])
        if any(number >= len(kept) for number in numbers.tolist()):
            return None
        return np.array([kept[number][0] for number in numbers.tolist()], dtype=np.float32)

    def unembedded(self, space: Space, limit: int) -> list[Unembedded]:
        ready = [document for document in self._catalogue.documents(limit=10**9) if document.status == "ready"]
        states = [Unembedded(each.uid, each.chunks or 0, self.stored(each.uid, space)) for each in ready]
        return [state for state in states if state.embedded < state.chunks][:limit]

    def share_embedded(self, space: Space) -> float:
        sizes = [size.chunks for size in self._catalogue.collections()]
        missing = sum(state.chunks - state.embedded for state in self.unembedded(space, 10**9))
        return 1 - missing / sum(sizes) if sum(sizes) else 1.0

    def open_space(self, *, fingerprint: str, dimension: int, properties: Mapping[str, str | None] = {}) -> Space:
        known = {space.fingerprint: space for space in self._spaces}
        number = max(space.number for space in self._spaces) + 1
        opened = known.get(fingerprint, Space(number, fingerprint, dimension))
        self._spaces = {space: self._spaces.get(space, {}) for space in (self.space, opened)}
        self._catalogue.write_properties(properties)
        return opened

    def activate(self, space: Space, properties: Mapping[str, str | None]) -> bool:
        if self.unembedded(space, 1):
            return False
        self.space = space
        self._catalogue.write_properties(properties)
        self._catalogue.cut_again()
        self._news.announce(searchable=True)
        return True

    def follow(self, fingerprint: str) -> bool:
        return self.space.fingerprint == fingerprint

    def forget_other_spaces(self) -> None:
        self._spaces = {self.space: self._spaces[self.space]}

    def scopes(self, space: Space | None = None, *, preselect_above: float = math.inf) -> MemoryScopes:
        del preselect_above  # everything is read
        searched = space or self.space
        return MemoryScopes(self._catalogue, self._spaces[searched], searched.dimension)

    def has_room(self) -> bool:
        return True


@dataclass(frozen=True)
class MemoryScopes:
    """A matrix of its own for each scope."""

    catalogue: MemoryCatalogue
    vectors: Mapping[int, list[Embedded]]
    dimension: int

    def scope(
        self, collection: str, document_ids: Sequence[str] | None = None, filter: Filter | None = None
    ) -> SearchScope:
        chosen = self.catalogue.choose(collection, document_ids, filter)
        rows = [row for uid in chosen.uids.tolist() for row in self.vectors[uid]]
        matrix = np.array([vector for vector, _ in rows], dtype=np.float32).reshape(-1, self.dimension)
        part = Part(0, matrix, postings=index_bags([bag for _, bag in rows]))
        offsets = np.cumsum([0, *chosen.counts.tolist()], dtype=np.int64)
        norm = float(np.linalg.norm(matrix, axis=1).max(initial=1.0))
        return SearchScope(MatrixScope(Matrices(offsets, (part,) if rows else (), norm)), chosen.uids)

    def preselect(self, turning: Turning, stopped: Callable[[], bool], seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


class MemoryFeedback:
    """Feedback in the catalogue's dictionary, the latest at its end."""

    def __init__(self, catalogue: MemoryCatalogue) -> None:
        self._catalogue = catalogue
        self._numbers = count(1)

    def add(self, feedback: Feedback, uids: Iterable[int]) -> StoredFeedback:
        self._catalogue.documents_at(uids)
        self._catalogue.feedback.pop(feedback.identity, None)
        stored = StoredFeedback(next(self._numbers), feedback.identity, datetime.now(UTC), feedback)
        self._catalogue.feedback[stored.id] = stored
        return stored

    def records(
        self, collections: Collection[str] | None = None, *, after: int = 0, limit: int = 100
    ) -> list[StoredFeedback]:
        return [
            stored
            for stored in self._catalogue.feedback.values()
            if stored.number > after and (collections is None or stored.feedback.collection in collections)
        ][:limit]

    def delete(self, id: str, within: Collection[str] | None = None) -> None:
        stored = self._catalogue.feedback.get(id)
        if stored is None or (within is not None and stored.feedback.collection not in within):
            raise UnknownFeedback(id)
        del self._catalogue.feedback[id]

    def delete_all(self, collection: str) -> None:
        known = {size.name for size in self._catalogue.collections()}
        if not self.records([collection]) and collection not in known:
            raise UnknownCollection(collection)
        self._catalogue.forget_feedback(lambda said: said.collection == collection)


@dataclass(frozen=True)
class MemoryStorage:
    """An engine of dictionaries."""

    catalogue: MemoryCatalogue
    vectors: MemoryVectors
    feedback: MemoryFeedback
    questions: MemoryQuestions
    news: News
    incoming_directory: Path

    def check(self) -> None:
        pass

    def calls(self) -> Sequence[EngineCalls]:
        return ()

    def capacity(self) -> Capacity:
        return Capacity(1, 2)

    def reclaim_space(self) -> bool:
        return False

    def maintain(self) -> bool:
        return False

    def close(self) -> None:
        pass
