"""The catalogue of the storage engine in memory, former versions included."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import numpy as np

from index.arrays import IntArray
from index.chunking import Chunk
from index.errors import DocumentExists, QueueFull, UnknownCollection, UnknownDocument
from index.storage.documents import (
    Chosen,
    CollectionSize,
    Description,
    Document,
    Place,
    Published,
    Replacement,
    StoredChunk,
    heading,
)
from index.storage.feedback import Feedback, StoredFeedback
from index.storage.news import News
from index.storage.protocols import Upload
from index.storage.questions import StoredQuestion
from qrag.wire.documents import Status
from qrag.wire.filters import Filter

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
        self.renamed: Callable[[int], None] = lambda _uid: None
        """Called for a document that gets another title."""
        self._uids = count(1)
        self._versions: dict[str, list[Document]] = {}
        self._texts: dict[int, str] = {}
        self._chunks: dict[int, list[Chunk]] = {}
        self._places: dict[int, Sequence[Place]] = {}
        self._properties: dict[str, str] = {}
        self.feedback: dict[str, StoredFeedback] = {}
        self.questions: dict[str, StoredQuestion] = {}

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
        for document, is_new in published:
            versions = self._versions.setdefault(document.id, [])
            if is_new or (replace and document.replaces is None):
                versions[:] = [version for version in versions if version.replaces is None]
            if is_new:
                versions.insert(0, document)
        self._news.announce(searchable=replace)
        return published

    def _publish(self, upload: Upload, about: Description, replace: bool, within: Collection[str] | None) -> Published:
        assert isinstance(upload, MemoryUpload)
        id = about.id or f"doc-{upload.sha256}"
        replaces: int | None = None
        if versions := self.versions(id):
            own = self.document(id)
            for version in versions:
                if version.sha256 == upload.sha256 and (version is versions[0] or version.uid == own.uid):
                    return Published(own if version.uid == own.uid else version, created=False)
            if not replace or (within is not None and own.collection not in within):
                raise DocumentExists(id)
            replaces = own.uid if own.status == "ready" else None
        uid, now = next(self._uids), datetime.now(UTC)
        self._texts[uid] = upload.text
        document = Document(
            uid, id, about.collection, about.title, about.metadata, about.chunking, upload.sha256, upload.characters,
            upload.bytes, "queued", 0.0, None, None, None, now, now, about.warnings, replaces,
        )  # fmt: skip
        self._places[uid] = tuple(about.places)
        return Published(document, created=True)

    def document(self, id: str) -> Document:
        if id not in self._versions:
            raise UnknownDocument(id)
        return self._own(self._versions[id])

    def _own(self, versions: Sequence[Document]) -> Document:
        pending = versions[0]
        if pending.replaces is None:
            return pending
        replacement = Replacement(pending.status, pending.progress, pending.error)
        return replace(versions[1], replacement=replacement)

    def versions(self, id: str) -> list[Document]:
        return list(self._versions.get(id, []))

    def documents_at(self, uids: Iterable[int]) -> dict[int, Document]:
        known = {document.uid: document for versions in self._versions.values() for document in versions}
        try:
            return {uid: known[uid] for uid in uids}
        except KeyError as error:
            raise UnknownDocument(str(error)) from None

    def documents(
        self,
        collections: Collection[str] | None = None,
        *,
        title: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[Document]:
        documents = sorted(map(self._own, self._versions.values()), key=lambda document: document.uid)
        return [
            document
            for document in documents
            if document.uid > after
            and (collections is None or document.collection in collections)
            and (title is None or document.title == title)
        ][:limit]

    def describe(
        self, id: str, description: Callable[[Document], tuple[str | None, Mapping[str, Any]]], *, collection: str
    ) -> Document:
        own = self.document(id)
        if own.collection != collection:
            raise UnknownDocument(id)
        changes = {
            version.uid: description(version)
            for version in self._versions[id]
            if version.uid == own.uid or version.replaces == own.uid
        }
        for uid, (title, metadata) in changes.items():
            if any(version.uid == uid and version.title != title for version in self._versions[id]):
                self.renamed(uid)
            self._set(uid, title=title, metadata=metadata)
        self._news.announce(searchable=True)
        return self.document(id)

    def delete_document(self, id: str, *, collection: str | None = None) -> None:
        if collection not in (None, self.document(id).collection):
            raise UnknownDocument(id)
        del self._versions[id]
        self.forget_feedback(lambda said: id in {chunk.document_id for chunk in said.chunks})
        self.resume()
        self._news.announce(searchable=True)

    def retry_document(self, id: str, *, collection: str | None = None) -> Document:
        document = self.document(id)
        if collection not in (None, document.collection):
            raise UnknownDocument(id)
        for version in self._versions[id]:
            if version.status == "failed":
                self._set(version.uid, status="queued", error=None)
        return self.document(id)

    def count_by_status(self) -> dict[Status, int]:
        counts: dict[Status, int] = {"queued": 0, "indexing": 0, "ready": 0, "failed": 0}
        for document in self._searchable_and_waiting():
            counts[document.status] += 1
        return counts

    def _searchable_and_waiting(self) -> list[Document]:
        pending = [versions[0] for versions in self._versions.values() if versions[0].replaces is not None]
        return self.documents(limit=10**9) + pending

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
        for versions in self._versions.values():
            versions[:] = [version for version in versions if version.collection != name]
        self.forget_feedback(lambda said: said.collection == name)
        self.questions = {id: stored for id, stored in self.questions.items() if stored.question.collection != name}

    def forget_feedback(self, doomed: Callable[[Feedback], bool]) -> None:
        self.feedback = {id: stored for id, stored in self.feedback.items() if not doomed(stored.feedback)}

    def text_blocks(self, uid: int) -> Iterator[str]:
        yield self._texts[uid]

    def text(self, uid: int, start: int, end: int) -> str:
        return self._texts[uid][start:end]

    def chunks(self, uid: int, *, first: int = 0, limit: int = 100) -> list[StoredChunk]:
        chunks = list(enumerate(self._chunks.get(uid, [])))[first : first + limit]
        title = self.documents_at([uid])[uid].title if chunks else None
        stored: list[StoredChunk] = []
        for number, chunk in chunks:
            places = [place.location for place in self._places[uid] if place.start <= chunk.start]
            location = places[-1] if places else {}
            text = self.text(uid, chunk.start, chunk.end)
            stored.append(StoredChunk(number, chunk, text, heading(title, location), location))
        return stored

    def starts(self, uid: int) -> IntArray:
        return np.array([chunk.start for chunk in self._chunks.get(uid, [])], dtype=np.int64)

    def places(self, uid: int) -> list[Place]:
        return list(self._places.get(uid, []))

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
        documents = self._searchable_and_waiting()
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
            self._set(uid, status="ready", progress=1.0, replaces=None)
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

    def settle_property(self, name: str, value: str) -> str:
        return self._properties.setdefault(name, value)

    def cut_again(self) -> None:
        """Forget how documents are cut that are not ready."""
        for document in self._searchable_and_waiting():
            if document.status != "ready":
                self._set(document.uid, chunks=None, tokens=None)

    def _set(self, uid: int, **fields: object) -> None:
        for versions in self._versions.values():
            versions[:] = [replace(each, **fields) if each.uid == uid else each for each in versions]  # type: ignore[arg-type]
