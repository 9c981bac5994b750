"""Putting the documents of an export into a storage, in order of arrival.

A document becomes searchable when all of it is there, by the same calls as after indexing; until then it waits, and
where the import dies it is gone on with by the next one, or indexed by a service that is started instead.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from index.arrays import IntArray
from index.errors import DocumentExists
from index.storage.documents import Document, content_of
from index.storage.moving.checking import Export, OpenPart, check, open_export
from index.storage.moving.format import Record
from index.storage.moving.records import every_record
from index.storage.moving.verifying import Difference, stored_cut, verify
from index.storage.protocols import APPEND_ROWS, Catalogue, Storage, Upload
from index.storage.vectors import ChunkAddress

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""A callback with what is being done (``check``, ``import`` or ``verify``), the documents that are done, and all."""

PUBLISHED_TOGETHER = 64
"""Documents that become known in one transaction."""

RESTORED_TOGETHER = 256
"""Questions that are stored in one transaction."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import has done."""

    documents: int
    """Versions of documents in the export."""
    created: int
    """Those that were not there before."""
    chunks: int
    """Chunks in the export."""
    vectors: int
    """Those whose vectors were stored now."""
    feedback: int
    """Records of feedback in the export."""
    questions: int
    """Records of questions in the export."""
    differences: Sequence[Difference]
    """Documents that were there before, with the same content and vectors, chunks or a state of their own."""


def import_export(
    storage: Storage,
    folder: Path,
    *,
    replace: bool = False,
    progress: Progress = lambda _what, _done, _all: None,
) -> Imported:
    """Put everything of an export into a storage, then compare what is there with it.

    Everything in the export is checked before anything is changed. What the storage has already is left as it is, so
    an import that was interrupted goes on. Raises :class:`~index.errors.MovingError` for an export that is unfinished,
    damaged, forged or of another action tower, and where not everything is there at the end; and
    :class:`~index.errors.DocumentExists` where the storage has other content under an id, unless ``replace``.
    """
    export = open_export(folder)
    export.require_tower(storage.vectors.space.fingerprint, storage.vectors.space.dimension)
    check(export, lambda done, total: progress("check", done, total))
    importer = _Importer(storage, replace=replace)
    importer.look_through(export)
    done = 0
    for part in export.parts():
        importer.place(part)
        done += len(part.records)
        progress("import", done, export.manifest.documents)
        log.info("imported part=%s documents=%d chunks=%d", part.path.name, len(part.records), len(part.chunks))
    _add_feedback(storage, export)
    _restore_questions(storage, export)
    storage.catalogue.write_properties(export.manifest.properties)
    differences = verify(
        storage, export, importer.find, importer.placed, lambda done, total: progress("verify", done, total)
    )
    manifest = export.manifest
    log.info(
        "import finished documents=%d created=%d chunks=%d vectors=%d feedback=%d questions=%d",
        *(manifest.documents, importer.created, manifest.chunks, importer.vectors),
        *(manifest.feedback_records, manifest.question_records),
    )
    return Imported(
        manifest.documents,
        importer.created,
        manifest.chunks,
        importer.vectors,
        manifest.feedback_records,
        manifest.question_records,
        differences,
    )


def _add_feedback(storage: Storage, export: Export) -> None:
    known = {stored.id for stored in every_record(storage.feedback.records)}
    for line in export.feedback():
        if line.id not in known:
            documents = {chunk.document_id for chunk in line.chunks}
            storage.feedback.add(line.feedback(), [storage.catalogue.document(id).uid for id in sorted(documents)])


def _restore_questions(storage: Storage, export: Export) -> None:
    lines = export.questions()
    while batch := list(islice(lines, RESTORED_TOGETHER)):
        storage.questions.restore([line.record() for line in batch])


class _Importer:
    """Places the parts of an export one after the other."""

    def __init__(self, storage: Storage, *, replace: bool) -> None:
        self._catalogue, self._vectors, self._replace = storage.catalogue, storage.vectors, replace
        self._later: dict[str, Record] = {}
        """By id, what waits in the export to take a document's place: it may have done so here already."""
        self.placed: set[int] = set()
        """Numbers of the records that were published, or given vectors."""
        self.created = 0
        self.vectors = 0

    def look_through(self, export: Export) -> None:
        """Raise :class:`~index.errors.DocumentExists`, before anything is changed, where content is in the way."""
        self._later = {record.id: record for part in export.parts() for record in part.records if record.replaces}
        if self._replace:
            return
        for part in export.parts():
            for record in part.records:
                if self.find(record) is None and self._is_in_the_way(record):
                    raise DocumentExists(
                        f"Document {record.id!r} is there with other content, title, metadata, chunking or collection. "
                        "Say --replace to put that of the export in its place. Nothing was changed."
                    )

    def find(self, record: Record) -> Document | None:
        """The version here with the content of a record; where that has been replaced as it should be, the new one."""
        document, waiting = _versions(self._catalogue, record.id)
        for version in (document, waiting):
            if version is not None and _same(version, record):
                return version
        later = self._later.get(record.id)
        is_replaced = document is not None and later is not None and _same(document, later)
        return document if is_replaced else None

    def _is_in_the_way(self, record: Record) -> bool:
        document, waiting = _versions(self._catalogue, record.id)
        return (document if record.replaces is None else waiting) is not None

    def place(self, part: OpenPart) -> None:
        """Store a part: what it replaces is searchable before a replacement is published."""
        for _, run in groupby(range(len(part.records)), key=lambda at: part.records[at].replaces):
            # Versions that replace nothing stand together; each replacement is a run of its own.
            documents = list(run)
            for low in range(0, len(documents), PUBLISHED_TOGETHER):
                self._publish(part, documents[low : low + PUBLISHED_TOGETHER])
            self._fill(part, documents)

    def _publish(self, part: OpenPart, documents: Sequence[int]) -> None:
        missing = [at for at in documents if self._is_missing(part.records[at])]
        if not missing:
            return
        uploads = []
        for at in missing:
            upload: Upload = self._catalogue.begin_upload()
            uploads.append((upload, part.records[at].description(part.places.get(part.records[at].number, []))))
            for block in part.text_blocks(at):
                upload.write(block)
        replace = self._replace or part.records[missing[0]].replaces is not None
        self._catalogue.publish(uploads, replace=replace, queue_limit=sys.maxsize)
        self.placed.update(part.records[at].number for at in missing)
        self.created += len(missing)

    def _is_missing(self, record: Record) -> bool:
        if record.replaces is not None:
            document, _ = _versions(self._catalogue, record.id)
            if document is None or document.status != "ready":  # it would be gone at once
                return False
        return self.find(record) is None

    def _fill(self, part: OpenPart, documents: Sequence[int]) -> None:
        """Bring versions into the state that they have in the export, as far as they are not beyond it."""
        complete: list[int] = []
        rows: list[tuple[OpenPart, ChunkAddress, int]] = []
        for at in documents:
            record = part.records[at]
            document = self.find(record)
            if document is None or not _same(document, record) or document.status == "ready":
                continue
            if record.status == "failed":
                if document.status != "failed":
                    self._catalogue.fail([document.uid], record.error or "Indexing failed. Retry the document.")
            elif record.status == "ready" and self._cut(document, part.cut(at)):
                self.placed.add(record.number)
                stored = self._vectors.stored(document.uid, self._vectors.space)
                first = part.chunk_starts[at]
                for number in range(stored, record.chunks):
                    rows.append((part, ChunkAddress(document.uid, number), first + number))
                    if len(rows) == APPEND_ROWS:
                        self._append(rows)
                complete.append(document.uid)
        self._append(rows)
        self._catalogue.finish(complete)

    def _cut(self, document: Document, chunks: IntArray) -> bool:
        """Cut a version, shape ``[chunks, 3]``. Returns false where a running service has cut it otherwise."""
        if document.status == "failed":
            self._catalogue.retry_document(document.id)
        if document.chunks is None:
            self._catalogue.save_chunks(document.uid, chunks)
        return np.array_equal(stored_cut(self._catalogue, document.uid), chunks)

    def _append(self, rows: list[tuple[OpenPart, ChunkAddress, int]]) -> None:
        if rows:
            part = rows[0][0]
            chunks = [chunk for _, _, chunk in rows]
            self._vectors.append(
                [address for _, address, _ in rows],
                np.array(part.vectors[chunks], dtype=np.float32),
                [part.bag(chunk) for chunk in chunks],
                self._vectors.space,
            )
            self.vectors += len(rows)
            rows.clear()


def _versions(catalogue: Catalogue, id: str) -> tuple[Document | None, Document | None]:
    """The document of an id and what waits to take its place, each none where it is not there."""
    versions = catalogue.versions(id)  # the newest first; an engine may keep former ones
    document = next((version for version in versions if version.replaces is None), None)
    waiting = next((version for version in versions if version.replaces is not None), None)
    return document, waiting


def _same(document: Document, record: Record) -> bool:
    """Whether a version has the content of a record."""
    return content_of(document, document.sha256) == content_of(record.description([]), record.sha256)
