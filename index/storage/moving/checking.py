"""Reading an export that a stranger may have made: it is checked whole before anything of it is used."""

from __future__ import annotations

import codecs
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.arrays import Float32Array, IntArray, TokenIds
from index.errors import MovingError
from index.storage.documents import Place
from index.storage.moving.files import BLOCK, checksum, damaged, open_array, read_lines, read_model, readable
from index.storage.moving.format import (
    CHUNKS,
    DOCUMENTS,
    FEEDBACK,
    FORMAT_VERSION,
    LENGTHS,
    MANIFEST,
    OLDEST_VERSION,
    PART_FILES,
    PLACES,
    QUESTIONS,
    TEXTS,
    TOKENS,
    VECTORS,
    Checksum,
    FeedbackLine,
    Manifest,
    ManifestVersion,
    Part,
    PlaceLine,
    QuestionLine,
    Record,
    part_name,
)

ROWS = 8192
"""Vectors that are looked at together."""

MOST_TOKENS = 1 << 31
"""Most tokens of one chunk."""


@dataclass(frozen=True, slots=True)
class OpenPart:
    """A part with its arrays mapped; document ``d`` is ``records[d]``."""

    path: Path
    records: list[Record]
    places: dict[int, list[Place]]
    """By number of the record."""
    chunks: IntArray
    """Start, end and tokens of each chunk, shape ``[chunks, 3]``."""
    vectors: Float32Array
    tokens: NDArray[np.int32]
    bags: IntArray
    """Bag ``c`` is ``tokens[bags[c] : bags[c + 1]]``, shape ``[chunks + 1]``."""
    text_starts: list[int]
    """The first byte of each document's text, and the end of the last."""
    chunk_starts: list[int]
    """The first chunk of each document, and the end of the last."""

    def text_blocks(self, document: int) -> Iterator[str]:
        """A document's text from its beginning, in blocks; raises :class:`UnicodeDecodeError`."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        start, end = self.text_starts[document : document + 2]
        with (self.path / TEXTS).open("rb") as file:
            file.seek(start)
            while start < end:
                block = file.read(min(BLOCK, end - start))
                if not block:
                    raise damaged(self.path / TEXTS, "has become shorter")
                start += len(block)
                yield decoder.decode(block, final=start >= end)

    def cut(self, document: int) -> IntArray:
        """How a document is cut, shape ``[chunks, 3]``."""
        return np.array(self.chunks[self.chunk_starts[document] : self.chunk_starts[document + 1]], dtype=np.int64)

    def bag(self, chunk: int) -> TokenIds:
        """The bag of a chunk of the part."""
        tokens: list[int] = self.tokens[self.bags[chunk] : self.bags[chunk + 1]].tolist()
        return tokens


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export."""

    folder: Path
    manifest: Manifest

    def part(self, number: int) -> OpenPart:
        """A part, the first of which is 0. Raises :class:`~index.errors.MovingError` where its files do not fit."""
        return _open_part(self.folder, number, self.manifest)

    def parts(self) -> Iterator[OpenPart]:
        """The parts in order."""
        return (self.part(number) for number in range(len(self.manifest.parts)))

    def feedback(self) -> Iterator[FeedbackLine]:
        """What people said."""
        return read_lines(readable(self.folder, FEEDBACK), FeedbackLine)

    def questions(self) -> Iterator[QuestionLine]:
        """What people asked."""
        if self.manifest.questions is None:
            return iter(())
        return read_lines(readable(self.folder, QUESTIONS), QuestionLine)

    def require_tower(self, fingerprint: str, dimension: int) -> None:
        """Raise :class:`~index.errors.MovingError` where its vectors are not those of this action tower."""
        if (self.manifest.fingerprint, self.manifest.dimension) != (fingerprint, dimension):
            raise MovingError(
                f"The vectors in the export {self.folder} were made by another action tower (fingerprint "
                f"{self.manifest.fingerprint[:12]}, dimension {self.manifest.dimension}) than the checkpoint's "
                f"({fingerprint[:12]}, {dimension}). Set QRAG_CHECKPOINT to the one that made them. "
                "Nothing was changed."
            )


def open_export(folder: Path) -> Export:
    """A finished export. Raises :class:`~index.errors.MovingError` where there is none of a version that is read."""
    if not (folder / MANIFEST).exists():
        raise MovingError(f"{folder} is no finished export: it has no {MANIFEST}. Call export again: it goes on.")
    path = readable(folder, MANIFEST)
    version = read_model(path, ManifestVersion).version
    if not OLDEST_VERSION <= version <= FORMAT_VERSION:
        raise MovingError(
            f"The export {folder} has version {version}; this version of the software reads {OLDEST_VERSION} to "
            f"{FORMAT_VERSION}. Export again with this one."
        )
    manifest = read_model(path, Manifest)
    if (manifest.questions is None) != (version == 1):
        raise damaged(path, f"does not say of questions what version {version} says")
    if any(set(part.files) != set(PART_FILES) for part in manifest.parts):
        raise damaged(path, "does not name the files that each part has")
    return Export(folder, manifest)


@dataclass(slots=True)
class _Totals:
    """What was seen so far of an export."""

    documents: int = 0
    chunks: int = 0
    last: int = 0
    own: dict[str, Record] = field(default_factory=dict)
    """By id, what replaces nothing."""
    replaced: set[int] = field(default_factory=set)


def check(export: Export, progress: Callable[[int, int], None]) -> None:
    """Check everything; raises :class:`~index.errors.MovingError` naming the file that is damaged or does not fit."""
    manifest, totals = export.manifest, _Totals()
    for number, part in enumerate(manifest.parts):
        for name, stored in part.files.items():
            _require_checksum(readable(export.folder, part_name(number + 1), name), stored)
        opened = export.part(number)
        _check_records(opened, totals)
        _check_chunks(opened)
        progress(totals.documents, manifest.documents)
    if (totals.documents, totals.chunks) != (manifest.documents, manifest.chunks):
        raise damaged(export.folder / MANIFEST, "counts other documents or chunks than there are")
    _check_feedback(export, totals)
    _check_questions(export)


def _check_feedback(export: Export, totals: _Totals) -> None:
    path = readable(export.folder, FEEDBACK)
    _require_checksum(path, export.manifest.feedback)
    records = 0
    for line in export.feedback():
        records += 1
        if line.feedback().identity != line.id:
            raise damaged(path, f"has a record {line.id!r} that is not what it says")
        for chunk in line.chunks:
            if chunk.document_id not in totals.own:
                raise damaged(path, f"speaks of document {chunk.document_id!r}, which is not there")
        if len({(chunk.document_id, chunk.index) for chunk in line.chunks}) < len(line.chunks):
            raise damaged(path, f"judges a chunk twice in {line.id!r}")
    _require_count(path, records, export.manifest.feedback_records)


def _check_questions(export: Export) -> None:
    """Each is there once. They may be about documents that are not: a deletion leaves them."""
    path, stored = export.folder / QUESTIONS, export.manifest.questions
    if stored is not None:
        _require_checksum(readable(export.folder, QUESTIONS), stored)
    ids: set[str] = set()
    for line in export.questions():
        if line.id in ids:
            raise damaged(path, f"has question {line.id!r} twice")
        ids.add(line.id)
    _require_count(path, len(ids), export.manifest.question_records)


def _require_checksum(path: Path, stored: Checksum) -> None:
    if path.stat().st_size != stored.bytes or checksum(path) != stored:
        raise damaged(path, "is damaged: it does not have its checksum")


def _require_count(path: Path, records: int, stored: int) -> None:
    if records != stored:
        raise damaged(path, f"has {records} records instead of {stored}")


def _open_part(folder: Path, number: int, manifest: Manifest) -> OpenPart:
    part: Part = manifest.parts[number]
    name = part_name(number + 1)
    paths = {file: readable(folder, name, file) for file in PART_FILES}
    records = list(read_lines(paths[DOCUMENTS], Record))
    text_starts = list(accumulate((record.bytes for record in records), initial=0))
    chunk_starts = list(accumulate((record.chunks for record in records), initial=0))
    if (len(records), chunk_starts[-1]) != (part.documents, part.chunks):
        raise damaged(paths[DOCUMENTS], f"does not hold {part.documents} documents with {part.chunks} chunks")
    if paths[TEXTS].stat().st_size != text_starts[-1]:
        raise damaged(paths[TEXTS], f"does not have the {text_starts[-1]} bytes of its documents")
    places: dict[int, list[Place]] = defaultdict(list)
    for line in read_lines(paths[PLACES], PlaceLine):
        places[line.number].append(Place(line.start, line.location))
    if places.keys() - {record.number for record in records}:
        raise damaged(paths[PLACES], "speaks of documents that are not in it")
    lengths = open_array(paths[LENGTHS], "<i4", (part.chunks,))
    if (lengths < 0).any():
        raise damaged(paths[LENGTHS], "has negative lengths")
    bags = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return OpenPart(
        paths[DOCUMENTS].parent,
        records,
        places,
        chunks=open_array(paths[CHUNKS], "<i8", (part.chunks, 3)),
        vectors=open_array(paths[VECTORS], "<f4", (part.chunks, manifest.dimension)),
        tokens=open_array(paths[TOKENS], "<i4", (int(bags[-1]),)),
        bags=bags,
        text_starts=text_starts,
        chunk_starts=chunk_starts,
    )


def _check_records(part: OpenPart, totals: _Totals) -> None:
    """Texts have their checksums, and versions fit together."""
    path = part.path / DOCUMENTS
    for at, record in enumerate(part.records):
        if record.number <= totals.last:
            raise damaged(path, f"does not have its documents in order: {record.number} is behind {totals.last}")
        own = totals.own.get(record.id)
        if record.replaces is None:
            if own is not None:
                raise damaged(path, f"has document {record.id!r} twice")
            totals.own[record.id] = record
        else:
            fits = own is not None and (own.number, own.status) == (record.replaces, "ready")
            if not fits or record.replaces in totals.replaced or record.status == "ready":
                raise damaged(path, f"has a replacement of {record.id!r} that replaces nothing")
            totals.replaced.add(record.replaces)
        if record.chunks and record.status != "ready":
            raise damaged(path, f"has chunks of {record.id!r}, which is not ready")
        _check_text(part, at, record)
        totals.last = record.number
    totals.documents += len(part.records)
    totals.chunks += part.chunk_starts[-1]


def _check_text(part: OpenPart, at: int, record: Record) -> None:
    digest, characters = hashlib.sha256(), 0
    try:
        for block in part.text_blocks(at):
            digest.update(block.encode("utf-8"))
            characters += len(block)
    except UnicodeDecodeError:
        raise damaged(part.path / TEXTS, f"is no UTF-8 in the text of {record.id!r}") from None
    if digest.hexdigest() != record.sha256 or characters != record.characters:
        raise damaged(part.path / TEXTS, f"has a text of {record.id!r} that does not have its checksum")
    table = part.chunks[part.chunk_starts[at] : part.chunk_starts[at + 1]]
    starts, ends, tokens = np.asarray(table).T
    if len(table) and not (
        starts[0] >= 0 and (np.diff(starts) >= 0).all() and (starts <= ends).all() and ends.max() <= characters
    ):
        raise damaged(part.path / CHUNKS, f"has chunks of {record.id!r} that are not in its text")
    if ((tokens < 0) | (tokens > MOST_TOKENS)).any():
        raise damaged(part.path / CHUNKS, f"has impossible numbers of tokens in {record.id!r}")


def _check_chunks(part: OpenPart) -> None:
    for low in range(0, len(part.vectors), ROWS):
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(part.vectors[low : low + ROWS], axis=1)
        if not np.isfinite(norms).all():
            raise damaged(part.path / VECTORS, "has vectors without a length: numbers that are none, or too large")
    if len(part.tokens) and part.tokens.min() < 0:
        raise damaged(part.path / TOKENS, "has negative tokens")
