"""The storage protocols, by a second engine: whatever indexing and searching need, dictionaries can do as well."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from index.arrays import Float32Array, IntArray
from index.chunking import Chunk
from index.errors import DocumentExists, QueueFull, UnknownCollection, UnknownDocument
from index.indexing.indexer import Indexer
from index.indexing.reembedding import Reembedding
from index.search.function import QFunction
from index.search.matrices import Matrices, Part
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions
from index.search.scoring import best
from index.search.states import State, States
from index.storage.documents import Chosen, CollectionSize, Description, Document, Published, StoredChunk
from index.storage.news import News
from index.storage.protocols import Capacity, Storage, Upload
from index.storage.vectors import ChunkAddress, SearchScope, Space, Unembedded
from qrag.wire.chunking import Chunking
from qrag.wire.documents import Status
from qrag.wire.filters import Filter
from tests.index.storages import DIMENSION, WordEncoder, embed, expected, index_all, open_local, post, searchable

WAITING: tuple[Status, ...] = ("queued", "indexing")


class MemoryUpload:
    """A text in a string."""

    def __init__(self) -> None:
        self.text = ""

    @property
    def characters(self) -> int:
        return len(self.text)

    @property
    def bytes(self) -> int:
        return len(self.text.encode())

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def write(self, text: str) -> None:
        self.text += text

    def discard(self) -> None:
        pass


class MemoryCatalogue:
    """Documents in dictionaries; former versions are kept until the document is deleted."""

    stalled: str | None = None
    stalls = 0

    def __init__(self, news: News) -> None:
        self._news = news
        self._uids = count(1)
        self._versions: dict[str, list[Document]] = {}
        self._texts: dict[int, str] = {}
        self._chunks: dict[int, list[Chunk]] = {}
        self._properties: dict[str, str] = {}

    def begin_upload(self) -> MemoryUpload:
        return MemoryUpload()

    def publish(
        self,
        uploads: Sequence[tuple[Upload, Description]],
        *,
        replace: bool,
        queue_limit: int,
        within: Collection[str] | None = None,
    ) -> list[Published]:
        published = [self._publish(upload, about, replace, within) for upload, about in uploads]
        created = [document for document, is_new in published if is_new]
        if len(list(self.waiting(0))) + len(created) > queue_limit:
            raise QueueFull("too many")
        for document in created:
            self._versions.setdefault(document.id, []).insert(0, document)
        self._news.announce(searchable=replace)
        return published

    def _publish(self, upload: Upload, about: Description, replace: bool, within: Collection[str] | None) -> Published:
        assert isinstance(upload, MemoryUpload)
        id = about.id or f"doc-{upload.sha256}"
        if former := self.versions(id):
            if former[0].sha256 == upload.sha256:
                return Published(former[0], created=False)
            if not replace or (within is not None and former[0].collection not in within):
                raise DocumentExists(id)
        uid, now = next(self._uids), datetime.now(UTC)
        self._texts[uid] = upload.text
        document = Document(
            uid, id, about.collection, about.title, about.metadata, about.chunking, upload.sha256, upload.characters,
            upload.bytes, "queued", 0.0, None, None, None, now, now,
        )  # fmt: skip
        return Published(document, created=True)

    def document(self, id: str) -> Document:
        if id not in self._versions:
            raise UnknownDocument(id)
        return self._versions[id][0]

    def versions(self, id: str) -> list[Document]:
        return list(self._versions.get(id, []))

    def documents_at(self, uids: Iterable[int]) -> dict[int, Document]:
        known = {document.uid: document for versions in self._versions.values() for document in versions}
        try:
            return {uid: known[uid] for uid in uids}
        except KeyError as error:
            raise UnknownDocument(str(error)) from None

    def documents(
        self, collections: Collection[str] | None = None, *, after: int = 0, limit: int = 100
    ) -> list[Document]:
        newest = sorted((versions[0] for versions in self._versions.values()), key=lambda document: document.uid)
        inside = (document for document in newest if collections is None or document.collection in collections)
        return [document for document in inside if document.uid > after][:limit]

    def delete_document(self, id: str, *, collection: str | None = None) -> None:
        if collection not in (None, self.document(id).collection):
            raise UnknownDocument(id)
        del self._versions[id]
        self.resume()
        self._news.announce(searchable=True)

    def retry_document(self, id: str, *, collection: str | None = None) -> Document:
        document = self.document(id)
        if collection not in (None, document.collection):
            raise UnknownDocument(id)
        if document.status == "failed":
            self._set(document.uid, status="queued", error=None)
        return self.document(id)

    def count_by_status(self) -> dict[Status, int]:
        counts: dict[Status, int] = {"queued": 0, "indexing": 0, "ready": 0, "failed": 0}
        for document in self.documents(limit=10**9):
            counts[document.status] += 1
        return counts

    def collections(self) -> list[CollectionSize]:
        sizes: dict[str, CollectionSize] = {}
        for document in self.documents(limit=10**9):
            size = sizes.get(document.collection, CollectionSize(document.collection, 0, 0, 0))
            sizes[size.name] = CollectionSize(
                size.name, size.documents + 1, size.chunks + (document.chunks or 0), size.bytes + document.bytes
            )
        return [sizes[name] for name in sorted(sizes)]

    def delete_collection(self, name: str) -> None:
        for document in self._members(name):
            self.delete_document(document.id)

    def text_blocks(self, uid: int) -> Iterator[str]:
        yield self._texts[uid]

    def text(self, uid: int, start: int, end: int) -> str:
        return self._texts[uid][start:end]

    def chunks(self, uid: int, *, first: int = 0, limit: int = 100) -> list[StoredChunk]:
        chunks = list(enumerate(self._chunks.get(uid, [])))[first : first + limit]
        return [StoredChunk(number, chunk, self.text(uid, chunk.start, chunk.end)) for number, chunk in chunks]

    def choose(
        self, collection: str, document_ids: Sequence[str] | None = None, filter: Filter | None = None
    ) -> Chosen:
        members = {document.id: document for document in self._members(collection)}
        for id in document_ids or []:
            if id not in members:
                raise UnknownDocument(id)
        chosen = [
            document
            for document in members.values()
            if document.status == "ready" and document.chunks
            if document_ids is None or document.id in document_ids
            if filter is None or filter.matches(document.metadata)
        ]
        uids, counts = [document.uid for document in chosen], [document.chunks for document in chosen]
        return Chosen(np.array(uids, dtype=np.int64), np.array(counts, dtype=np.int64))

    def _members(self, collection: str) -> list[Document]:
        members = self.documents([collection], limit=10**9)
        if not members:
            raise UnknownCollection(collection)
        return members

    def waiting(self, long_characters: int) -> Iterator[Document]:
        documents = self.documents(limit=10**9)
        for document in sorted(documents, key=lambda document: (document.characters > long_characters, document.uid)):
            if document.status in WAITING:
                yield document

    def save_chunks(self, uid: int, chunks: IntArray) -> None:
        self._chunks[uid] = [Chunk(*row) for row in chunks.tolist()]
        self._set(uid, status="indexing", chunks=len(chunks), tokens=int(chunks[:, 2].sum()))

    def set_progress(self, uid: int, progress: float) -> None:
        self._set(uid, progress=progress)

    def finish(self, uids: Iterable[int]) -> None:
        for uid in uids:
            self._set(uid, status="ready", progress=1.0)
        self._news.announce(searchable=True)

    def fail(self, uids: Iterable[int], reason: str) -> None:
        for uid in uids:
            self._set(uid, status="failed", error=reason)

    def stall(self, reason: str) -> None:
        self.stalled, self.stalls = reason, self.stalls + 1

    def resume(self) -> None:
        self.stalled = None

    def read_property(self, name: str) -> str | None:
        return self._properties.get(name)

    def write_properties(self, properties: Mapping[str, str | None]) -> None:
        for name, value in properties.items():
            self._properties.pop(name, None)
            if value is not None:
                self._properties[name] = value

    def cut_again(self) -> None:
        """Forget how documents are cut that are not ready."""
        for document in self.documents(limit=10**9):
            if document.status != "ready":
                self._set(document.uid, chunks=None, tokens=None)

    def _set(self, uid: int, **fields: object) -> None:
        for versions in self._versions.values():
            versions[:] = [replace(each, **fields) if each.uid == uid else each for each in versions]  # type: ignore[arg-type]


class MemoryVectors:
    """The vectors of each document in a list, one dictionary a space; any scope is built when it is asked for."""

    def __init__(self, catalogue: MemoryCatalogue, news: News, *, fingerprint: str, dimension: int) -> None:
        self._catalogue = catalogue
        self._news = news
        self.space = Space(1, fingerprint, dimension)
        self._spaces = {self.space: dict[int, list[Float32Array]]()}

    @property
    def spaces(self) -> Collection[Space]:
        return self._spaces.keys()

    def append(self, rows: Sequence[ChunkAddress], vectors: Float32Array, space: Space) -> None:
        for address, vector in zip(rows, vectors, strict=True):
            kept = self._spaces.get(space, {}).setdefault(address.uid, [])
            assert address.number == len(kept)
            kept.append(vector)

    def stored(self, uid: int, space: Space) -> int:
        return len(self._spaces[space].get(uid, []))

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

    def forget_other_spaces(self) -> None:
        self._spaces = {self.space: self._spaces[self.space]}

    def scopes(self, *, preselect_above: float = math.inf) -> MemoryScopes:
        del preselect_above  # everything is read
        return MemoryScopes(self._catalogue, self._spaces[self.space], self.space.dimension)

    def has_room(self) -> bool:
        return True


@dataclass(frozen=True)
class MemoryScopes:
    """A matrix of its own for each scope."""

    catalogue: MemoryCatalogue
    vectors: Mapping[int, list[Float32Array]]
    dimension: int

    def scope(
        self, collection: str, document_ids: Sequence[str] | None = None, filter: Filter | None = None
    ) -> SearchScope:
        chosen = self.catalogue.choose(collection, document_ids, filter)
        rows = [vector for uid in chosen.uids.tolist() for vector in self.vectors[uid]]
        matrix = np.array(rows, dtype=np.float32).reshape(-1, self.dimension)
        offsets = np.cumsum([0, *chosen.counts.tolist()], dtype=np.int64)
        norm = float(np.linalg.norm(matrix, axis=1).max(initial=1.0))
        return SearchScope(MatrixScope(Matrices(offsets, (Part(0, matrix),) if rows else (), norm)), chosen.uids)

    def preselect(self, positions: Positions, stopped: Callable[[], bool], seconds: float) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class MemoryStorage:
    """An engine of dictionaries."""

    catalogue: MemoryCatalogue
    vectors: MemoryVectors
    news: News
    incoming_directory: Path

    def capacity(self) -> Capacity:
        return Capacity(1, 2)

    def reclaim_space(self) -> bool:
        return False

    def maintain(self) -> bool:
        return False

    def close(self) -> None:
        pass


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    opened: Storage
    if request.param == "local":
        opened = open_local(tmp_path)
    else:
        news = News()
        catalogue = MemoryCatalogue(news)
        vectors = MemoryVectors(catalogue, news, fingerprint="words", dimension=DIMENSION)
        opened = MemoryStorage(catalogue, vectors, news, tmp_path)
    with closing(opened):
        yield opened


def publish(storage: Storage, id: str, text: str, *, replace: bool = False, year: int = 2024) -> Published:
    upload = storage.catalogue.begin_upload()
    for line in text.splitlines(keepends=True):
        upload.write(line)
    assert (upload.characters, upload.bytes) == (len(text), len(text.encode()))
    about = Description(id, "default", None, {"year": year}, Chunking(mode="lines"))
    (published,) = storage.catalogue.publish([(upload, about)], replace=replace, queue_limit=10)
    return published


def test_a_document_is_uploaded_indexed_chosen_searched_and_deleted(storage: Storage) -> None:
    catalogue, scopes = storage.catalogue, storage.vectors.scopes()
    letter = publish(storage, "letter", "Ana signed it.\nÄrger im Büro.\n")
    publish(storage, "note", "Bruno kept bees.")
    assert letter.created
    assert not publish(storage, "letter", "Ana signed it.\nÄrger im Büro.\n").created
    assert [document.status for document in catalogue.documents()] == ["queued", "queued"]
    assert scopes.scope("default").scope.size == 0
    index_all(storage)
    assert [document.status for document in catalogue.documents()] == ["ready", "ready"]

    chosen, found = catalogue.choose("default"), scopes.scope("default")
    np.testing.assert_array_equal(found.uids, chosen.uids)
    np.testing.assert_array_equal(np.diff(found.scope.offsets), chosen.counts)
    state = embed([[5, 2, 5]])[0]  # as the second line is embedded
    function = QFunction(1.0, 0.0, Positions(mode="none"))
    (estimated,) = found.scope.estimate(States(state[None]), [[]], function)
    (candidate,) = best(estimated, 1, State(state), found.scope, [], function)
    address = found.address(candidate.position)
    assert address == ChunkAddress(letter.document.uid, 1)
    (chunk,) = catalogue.chunks(address.uid, first=address.number, limit=1)
    assert (chunk.number, chunk.text) == (1, "Ärger im Büro.")
    assert catalogue.text(address.uid, chunk.chunk.start, chunk.chunk.end) == chunk.text
    assert "".join(catalogue.text_blocks(address.uid)) == "Ana signed it.\nÄrger im Büro.\n"

    catalogue.delete_document("letter")
    assert catalogue.versions("letter") == []
    assert searchable(storage).keys() == {"note"}
    for forgotten in (catalogue.document, catalogue.delete_document, catalogue.retry_document):
        with pytest.raises(UnknownDocument):
            forgotten("letter")
    with pytest.raises(UnknownDocument):
        catalogue.documents_at([address.uid])
    assert publish(storage, "letter", "Ana signed it.").document.uid > chosen.uids.max()
    catalogue.delete_collection("default")
    with pytest.raises(UnknownCollection):
        scopes.scope("default")
    assert catalogue.collections() == []
    assert not Indexer(storage, WordEncoder(), embed, threading.Event()).work()


def test_content_that_replaces_other_content_is_a_version_with_a_greater_uid(storage: Storage) -> None:
    catalogue = storage.catalogue
    first = publish(storage, "letter", "Ana signed it.").document
    index_all(storage)
    with pytest.raises(DocumentExists):
        publish(storage, "letter", "Bruno signed it.")
    second = publish(storage, "letter", "Bruno signed it.", replace=True).document
    assert second.uid > first.uid
    assert catalogue.document("letter").uid == second.uid
    uids = [version.uid for version in catalogue.versions("letter")]
    assert uids[0] == second.uid
    assert uids == sorted(uids, reverse=True)
    assert len(catalogue.documents()) == 1
    assert searchable(storage) == {}, "the former version is not searched, the new one not yet"
    index_all(storage)
    np.testing.assert_array_equal(searchable(storage)["letter"], expected("Bruno signed it."))


def test_a_request_sees_what_it_may_and_asks_for(storage: Storage) -> None:
    publish(storage, "old", "one two", year=1923)
    publish(storage, "new", "three four\nfive", year=2024)
    post(storage, "theirs", "six", collection="other")
    index_all(storage)
    scopes = storage.vectors.scopes()
    recent = TypeAdapter[Filter](Filter).validate_json('{"field": "year", "gte": 2000}')
    sizes = {
        "all": scopes.scope("default").scope.size,
        "named": scopes.scope("default", ["old", "old"]).scope.size,
        "none": scopes.scope("default", []).scope.size,
        "recent": scopes.scope("default", filter=recent).scope.size,
        "named and recent": scopes.scope("default", ["old"], recent).scope.size,
        "other": scopes.scope("other").scope.size,
    }
    assert sizes == {"all": 3, "named": 1, "none": 0, "recent": 2, "named and recent": 0, "other": 1}
    with pytest.raises(UnknownDocument):
        scopes.scope("default", ["theirs"])
    with pytest.raises(UnknownDocument):
        storage.catalogue.choose("default", ["theirs"])


def test_vectors_are_found_only_when_the_catalogue_calls_their_document_ready(storage: Storage) -> None:
    uid = publish(storage, "letter", "one two\nthree").document.uid
    catalogue, vectors = storage.catalogue, storage.vectors
    catalogue.save_chunks(uid, np.array([[0, 7, 2], [8, 13, 1]]))
    vectors.append([ChunkAddress(uid, 0)], expected("one two"), vectors.space)
    assert vectors.stored(uid, vectors.space) == 1
    vectors.append([ChunkAddress(uid, 1)], expected("three"), vectors.space)
    assert searchable(storage) == {}
    assert list(catalogue.waiting(10)) == [catalogue.document("letter")]
    assert list(catalogue.choose("default").uids) == []
    # As after a crash at this moment: the next round finds nothing left to embed, and finishes.
    index_all(storage, lambda inputs: pytest.fail(f"embedded again: {inputs}"))
    np.testing.assert_array_equal(searchable(storage)["letter"], expected("one two\nthree"))


def test_another_tower_gets_a_space_of_its_own_and_is_searched_when_that_is_complete(storage: Storage) -> None:
    def other(inputs: Sequence[Sequence[int]]) -> Float32Array:
        return -embed(inputs)[:, :6]

    publish(storage, "letter", "one two\nthree")
    publish(storage, "note", "four")
    index_all(storage)
    vectors, former = storage.vectors, storage.vectors.scopes()
    space = vectors.open_space(fingerprint="other", dimension=6, properties={"wanted": "other"})
    assert storage.catalogue.read_property("wanted") == "other"
    assert vectors.share_embedded(space) == 0
    assert not vectors.activate(space, {})
    work = Reembedding(storage, WordEncoder(), other, threading.Event(), space, round_chunks=2)
    while work.work():
        assert searchable(storage)["letter"].shape == (2, DIMENSION)
    assert vectors.share_embedded(space) == 1
    assert vectors.activate(space, {"wanted": None})
    assert storage.catalogue.read_property("wanted") is None
    np.testing.assert_array_equal(searchable(storage)["letter"], -expected("one two\nthree")[:, :6])
    assert former.scope("default").scope.rows(np.arange(3)).shape == (3, DIMENSION)
    vectors.forget_other_spaces()
    assert list(vectors.spaces) == [vectors.space] == [space]


def test_whoever_waits_hears_of_every_change(storage: Storage) -> None:
    calls: list[int] = []
    storage.news.listeners.append(partial(calls.append, 1))
    news, version = storage.news.number, storage.news.version
    waiting = threading.Thread(target=storage.news.wait, args=(news, 600))
    waiting.start()
    publish(storage, "letter", "one two")
    waiting.join(60)
    assert not waiting.is_alive()
    assert calls
    index_all(storage)
    assert storage.news.version > version, "a search would see the document"
    version = storage.news.version
    storage.catalogue.delete_document("letter")
    assert storage.news.version > version


def test_who_indexes_says_why_it_cannot_until_something_is_deleted(storage: Storage) -> None:
    publish(storage, "letter", "one two")
    storage.catalogue.stall("no space")
    assert (storage.catalogue.stalled, storage.catalogue.stalls) == ("no space", 1)
    storage.catalogue.delete_document("letter")
    assert (storage.catalogue.stalled, storage.catalogue.stalls) == (None, 1)


def test_sql_stands_in_the_local_engine_alone() -> None:
    root = Path(__file__).parents[2]
    packages = ("index", "service", "trainer", "benchmarks", "client")
    sources = [path for package in packages for path in (root / package).rglob("*.py")]
    using = {path.relative_to(root).parent for path in sources if "sqlite3" in path.read_text(encoding="utf-8")}
    assert using == {Path("index/storage/local")}
