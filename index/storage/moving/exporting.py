"""Writing an export: part by part, each of them whole or not there.

When it is called again on a folder that it did not finish, parts stay as far as their files are undamaged and the
storage still has exactly their documents, in the same order; what comes after them is written again. The same
comparison is made at the end, so an export of a storage that others write to is one of a moment, or fails.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from index.arrays import TokenIds
from index.errors import MovingError, UnknownCollection, UnknownDocument
from index.storage.documents import StoredChunk
from index.storage.local.files.durable import sync, write_durably
from index.storage.moving.files import begin_array, checksum, read_lines, read_model, write_line, write_lines
from index.storage.moving.format import (
    CHUNKS,
    DOCUMENTS,
    FEEDBACK,
    LENGTHS,
    MANIFEST,
    PART_FILES,
    PART_MANIFEST,
    PLACES,
    QUESTIONS,
    TEXTS,
    TOKENS,
    VECTORS,
    Manifest,
    Part,
    PartManifest,
    PlaceLine,
    Record,
    feedback_line,
    part_name,
    question_line,
    record_of,
)
from index.storage.moving.records import every_record
from index.storage.moving.searchable import Searchable, read_bags, searchable
from index.storage.protocols import Catalogue, Storage

log = logging.getLogger(__name__)

Terms = Callable[[Sequence[StoredChunk]], Sequence[TokenIds]]
"""The tokens that chunks have by their present texts and headings, as indexing would find them."""

Progress = Callable[[int, int], None]
"""A callback with the documents that are done, and all of them."""

PAGE = 256
"""Documents that are read at once."""

ROWS = 512
"""Chunks that are read at once."""

ATTEMPTS = 5
"""How often what has changed meanwhile is written again before the export gives up."""


@dataclass(frozen=True, slots=True)
class PartSize:
    """How large a part may become; one document alone may be larger."""

    documents: int = 1024
    chunks: int = 1 << 15
    bytes: int = 64 << 20
    """The bytes of its texts in UTF-8."""


class _Changed(Exception):
    """The storage was changed while it was read; the message is for one that is not written to."""


def export(
    storage: Storage,
    folder: Path,
    *,
    terms: Terms,
    properties: Sequence[str] = (),
    size: PartSize = PartSize(),
    progress: Progress = lambda _done, _all: None,
) -> Manifest:
    """Export everything of a storage, and the properties of these names, into a folder that is new, empty or its own.

    Raises :class:`~index.errors.MovingError` where the folder holds something else or a finished export, where the
    storage is damaged, and where it changes all the time; an export that was not finished stays to be gone on with.
    """
    _require_own(folder)
    parts: list[Part] = []
    trouble = ""
    for attempt in range(ATTEMPTS):
        parts = _still_true(storage, folder, known=parts)
        for path in folder.glob("part-*"):
            if path.name not in {part_name(number + 1) for number in range(len(parts))}:
                shutil.rmtree(path)
        done = sum(part.documents for part in parts)
        if parts and not attempt:
            log.info("export goes on parts=%d documents=%d", len(parts), done)
        records = _Records(storage.catalogue, skipped=done)
        try:
            following = records.take(size)
            if not following:  # nothing is missing, and nothing has changed since it was written
                return _finish(storage, folder, parts, properties)
            while following:
                parts.append(_write_part(storage, folder, len(parts) + 1, following, terms))
                done += len(following)
                progress(done, max(done, sum(storage.catalogue.count_by_status().values())))
                following = records.take(size)
        except (_Changed, UnknownDocument, UnknownCollection) as error:
            trouble = f"{error} "
            log.info("documents have changed during the export: %s", error)
    raise MovingError(
        f"The documents change faster than they are exported, or are damaged. {trouble}Stop writing to the service, "
        "and call this again: it goes on where it was."
    )


def _require_own(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()}
    if MANIFEST in names:
        raise MovingError(f"There is a finished export in {folder} already. Give another folder.")
    if any(not name.startswith("part-") for name in names - {FEEDBACK, QUESTIONS, f"{MANIFEST}.tmp"}):
        raise MovingError(f"There is something in {folder} already. Give an empty folder, or one that is not there.")


class _Records:
    """The versions that a catalogue shows, in order of arrival, behind the first ``skipped`` ones."""

    def __init__(self, catalogue: Catalogue, *, skipped: int = 0) -> None:
        self._records = islice(_in_order(catalogue), skipped, None)
        self._next = next(self._records, None)

    def take(self, size: PartSize) -> list[Record]:
        """The records of the next part, at least one if there is any."""
        taken: list[Record] = []
        chunks = length = 0
        while (record := self._next) is not None:
            chunks, length = chunks + record.chunks, length + record.bytes
            if taken and (len(taken) == size.documents or chunks > size.chunks or length > size.bytes):
                break
            taken.append(record)
            self._next = next(self._records, None)
        return taken


def _in_order(catalogue: Catalogue) -> Iterator[Record]:
    waiting: list[tuple[int, Record]] = []  # replacements, which came after what they replace
    last = 0
    while page := catalogue.documents(after=last, limit=PAGE):
        for document in page:
            while waiting and waiting[0][0] < document.uid:
                yield heapq.heappop(waiting)[1]
            yield record_of(document)
            if document.replacement is not None:
                for version in catalogue.versions(document.id):
                    if version.replaces == document.uid:
                        heapq.heappush(waiting, (version.uid, record_of(version)))
        last = page[-1].uid
    while waiting:
        yield heapq.heappop(waiting)[1]


def _still_true(storage: Storage, folder: Path, *, known: Sequence[Part]) -> list[Part]:
    """The first parts that hold exactly what the storage has. The files of ``known`` ones are undamaged."""
    parts: list[Part] = []
    space, records = storage.vectors.space, _in_order(storage.catalogue)
    while (path := folder / part_name(len(parts) + 1) / PART_MANIFEST).is_file():
        try:
            manifest = read_model(path, PartManifest)
            if manifest.part not in known and not _is_whole(path.parent, manifest.part):
                break
            stored = list(read_lines(path.with_name(DOCUMENTS), Record))
        except (MovingError, OSError):
            break
        of_space = (manifest.fingerprint, manifest.dimension) == (space.fingerprint, space.dimension)
        if not of_space or list(islice(records, len(stored))) != stored:
            break
        parts.append(manifest.part)
    return parts


def _is_whole(folder: Path, part: Part) -> bool:
    return set(part.files) == set(PART_FILES) and all(
        checksum(folder / name) == stored for name, stored in part.files.items()
    )


def _write_part(storage: Storage, folder: Path, number: int, records: Sequence[Record], terms: Terms) -> Part:
    """Write a part under a temporary name, and give it its own when all of it is on the disk."""
    partial = folder / f"{part_name(number)}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    space = storage.vectors.space
    chunks = sum(record.chunks for record in records)
    ready = [(record.collection, record.id) for record in records if record.chunks]
    places = searchable(storage.vectors.scopes(), ready)
    with ExitStack() as opened:
        files = {name: opened.enter_context((partial / name).open("wb")) for name in PART_FILES}
        begin_array(files[CHUNKS], "<i8", (chunks, 3))
        begin_array(files[VECTORS], "<f4", (chunks, space.dimension))
        begin_array(files[LENGTHS], "<i4", (chunks,))
        tokens: list[NDArray[np.int32]] = []
        for record in records:
            write_line(files[DOCUMENTS], record)
            _write_text(storage.catalogue, record, files[TEXTS])
            for place in storage.catalogue.places(record.number):
                line = PlaceLine(number=record.number, start=place.start, location=dict(place.location))
                write_line(files[PLACES], line)
            if record.chunks:
                document = places.get(record.number)
                if document is None or document.chunks != record.chunks:
                    raise _Changed(f"Document {record.id!r} has other chunks than it had.")
                tokens += _write_chunks(storage.catalogue, record, document, files, terms)
        flat = np.concatenate([np.empty(0, dtype="<i4"), *tokens])
        begin_array(files[TOKENS], "<i4", flat.shape)
        files[TOKENS].write(flat.tobytes())
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    part = Part(documents=len(records), chunks=chunks, files={name: checksum(partial / name) for name in PART_FILES})
    manifest = PartManifest(fingerprint=space.fingerprint, dimension=space.dimension, part=part)
    write_durably(partial / PART_MANIFEST, manifest.model_dump_json(indent=1).encode())
    partial.rename(folder / part_name(number))
    sync(folder)
    log.info("exported part=%d documents=%d chunks=%d", number, part.documents, chunks)
    return part


def _write_text(catalogue: Catalogue, record: Record, file: IO[bytes]) -> None:
    digest = hashlib.sha256()
    for block in catalogue.text_blocks(record.number):
        content = block.encode("utf-8")
        digest.update(content)
        file.write(content)
    if digest.hexdigest() != record.sha256:
        raise _Changed(f"The text of document {record.id!r} does not have its checksum.")


def _write_chunks(
    catalogue: Catalogue, record: Record, document: Searchable, files: Mapping[str, IO[bytes]], terms: Terms
) -> list[NDArray[np.int32]]:
    """Write how a document is cut, its vectors and the lengths of its bags; returns their tokens."""
    tokens: list[NDArray[np.int32]] = []
    for low in range(0, record.chunks, ROWS):
        stored = catalogue.chunks(record.number, first=low, limit=min(ROWS, record.chunks - low))
        positions = document.positions(low, low + ROWS)
        if len(stored) != len(positions):
            raise _Changed(f"Document {record.id!r} has lost its chunks.")
        rows = document.scope.rows(positions)
        read = read_bags(document.scope, positions, terms(stored))
        files[CHUNKS].write(np.array([chunk.chunk for chunk in stored], dtype="<i8").tobytes())
        files[VECTORS].write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        files[LENGTHS].write(np.array([len(bag) for bag in read], dtype="<i4").tobytes())
        tokens.append(np.fromiter(chain.from_iterable(read), dtype="<i4"))
    return tokens


def _finish(storage: Storage, folder: Path, parts: Sequence[Part], properties: Sequence[str]) -> Manifest:
    """Write feedback, questions and manifest."""
    feedback_records = write_lines(folder / FEEDBACK, map(feedback_line, every_record(storage.feedback.records)))
    question_records = write_lines(folder / QUESTIONS, map(question_line, every_record(storage.questions.records)))
    values = {name: storage.catalogue.read_property(name) for name in properties}
    manifest = Manifest(
        fingerprint=storage.vectors.space.fingerprint,
        dimension=storage.vectors.space.dimension,
        documents=sum(part.documents for part in parts),
        chunks=sum(part.chunks for part in parts),
        feedback_records=feedback_records,
        feedback=checksum(folder / FEEDBACK),
        question_records=question_records,
        questions=checksum(folder / QUESTIONS),
        properties={name: value for name, value in values.items() if value is not None},
        parts=list(parts),
    )
    write_durably(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())
    log.info(
        "export finished documents=%d chunks=%d feedback=%d questions=%d",
        *(manifest.documents, manifest.chunks, feedback_records, question_records),
    )
    return manifest
