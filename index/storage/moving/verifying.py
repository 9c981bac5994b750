"""Comparing what a storage has with the export that was put into it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from index.arrays import IntArray
from index.chunking import Chunk
from index.errors import MovingError
from index.storage.documents import Document
from index.storage.moving.checking import Export, OpenPart
from index.storage.moving.format import FeedbackLine, QuestionLine, Record
from index.storage.moving.records import every_record
from index.storage.moving.searchable import Searchable, read_bags, searchable
from index.storage.protocols import Catalogue, Storage

log = logging.getLogger(__name__)

ROWS = 2048
"""Chunks that are compared together."""

NAMED = 5
"""Most documents that an error names."""


class Difference(NamedTuple):
    """In what a document differs from the export."""

    id: str
    what: str


def verify(
    storage: Storage,
    export: Export,
    find: Callable[[Record], Document | None],
    placed: Collection[int],
    progress: Callable[[int, int], None],
) -> list[Difference]:
    """Read everything back: texts by their checksums, chunks, vectors and bags number for number, and records by ids.

    ``find`` gives the version of a record. Returns how documents differ that this import has not ``placed``; raises
    :class:`~index.errors.MovingError` where one differs that it has, or anything is missing.
    """
    wrong: list[Difference] = []
    others: list[Difference] = []
    done = 0
    for part in export.parts():
        found = {at: find(record) for at, record in enumerate(part.records)}
        ready = [each for each in found.values() if each is not None and each.status == "ready" and each.chunks]
        places = searchable(storage.vectors.scopes(), [(document.collection, document.id) for document in ready])
        for at, record in enumerate(part.records):
            what = _difference(storage, part, at, found[at], places)
            if what is not None:
                of_this_import = record.number in placed or found[at] is None
                (wrong if of_this_import else others).append(Difference(record.id, what))
                log.warning("imported document differs id=%s: %s", record.id, what)
        done += len(part.records)
        progress(done, export.manifest.documents)
    feedback = _missing(export.feedback(), (stored.id for stored in every_record(storage.feedback.records)))
    questions = _missing(export.questions(), (stored.question.id for stored in every_record(storage.questions.records)))
    if wrong or feedback or questions:
        named = "; ".join(f"{id}: {what}" for id, what in wrong[:NAMED])
        raise MovingError(
            f"Not everything of the export is there: {len(wrong)} documents differ ({named or 'none'}), "
            f"{feedback} records of feedback and {questions} questions are missing. Does a running service write to "
            "it? Stop that and import again: what is there already is left as it is."
        )
    return others


def _missing(lines: Iterable[FeedbackLine | QuestionLine], stored: Iterable[str]) -> int:
    """How many lines have ids that are not among those of stored records."""
    return len({line.id for line in lines}.difference(stored))


def stored_cut(catalogue: Catalogue, uid: int) -> IntArray:
    """How a version is cut, shape ``[chunks, 3]``."""
    table: list[Chunk] = []
    while page := catalogue.chunks(uid, first=len(table), limit=ROWS):
        table += [stored.chunk for stored in page]
    return np.array(table, dtype=np.int64).reshape(-1, 3)


def _difference(
    storage: Storage, part: OpenPart, at: int, document: Document | None, places: Mapping[int, Searchable]
) -> str | None:
    """In what a version differs from the record ``at`` of a part; none where it does not."""
    record = part.records[at]
    if document is None:
        return "it is missing"
    digest = hashlib.sha256()
    for block in storage.catalogue.text_blocks(document.uid):
        digest.update(block.encode("utf-8"))
    if digest.hexdigest() != document.sha256:
        return "its text does not have its checksum"
    if document.sha256 != record.sha256:
        return None  # what waited in the export has taken its place
    if record.status != "ready":
        return None  # it may have been indexed meanwhile
    if document.status != "ready":
        return f"it is {document.status}"
    cut = part.cut(at)
    if not np.array_equal(stored_cut(storage.catalogue, document.uid), cut):
        return "it is cut otherwise"
    if not len(cut):
        return None
    stored = places.get(document.uid)
    if stored is None or stored.chunks != len(cut):
        return "its chunks are not searched"
    first = part.chunk_starts[at]
    for low in range(0, len(cut), ROWS):
        numbers = np.arange(low, min(low + ROWS, len(cut)))
        rows = storage.vectors.rows(document.uid, numbers, storage.vectors.space)
        if rows is None or not np.array_equal(rows, part.vectors[first + numbers[0] : first + numbers[-1] + 1]):
            return "its vectors are others"
        bags = [part.bag(first + number) for number in numbers.tolist()]
        read = read_bags(stored.scope, stored.positions(low, low + ROWS), bags)
        if any(sorted(kept) != sorted(bag) for kept, bag in zip(read, bags, strict=True)):
            return "its bags are others"
    return None
