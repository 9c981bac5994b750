"""Posting lists on disk, a file beside each segment; memory-mapped.

They follow from the stored text: where a file is missing or truncated, it is written again in the background
(:mod:`index.indexing.bagging`), and the chunks have no bags until then.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from index.search.scanning.bags import Postings
from index.storage.local.files.durable import write_durably

HEADER = 3
"""Numbers at the beginning: distinct tokens, entries, rows."""


def postings_path(segment: Path) -> Path:
    """The file with the posting lists of a segment."""
    return segment.with_suffix(".bags")


def write_postings(segment: Path, postings: Postings) -> None:
    """Write the posting lists of a segment durably. Raises :class:`OSError` and then leaves nothing behind."""
    header = np.array([len(postings.tokens), len(postings.rows), len(postings.lengths)], dtype="<i8")
    # Wide numbers first, so that all are aligned.
    parts = [header, postings.tokens, postings.borders, postings.rows, postings.lengths, postings.counts]
    write_durably(postings_path(segment), b"".join(np.ascontiguousarray(part).tobytes() for part in parts))


def open_postings(segment: Path, rows: int) -> Postings | None:
    """The posting lists of a segment with so many rows; none where the file is missing or truncated."""
    file = postings_path(segment)
    if not file.exists() or file.stat().st_size < HEADER * 8:
        return None
    content = np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))
    tokens, entries, stored = np.frombuffer(content[: HEADER * 8].tobytes(), dtype="<i8").tolist()
    sizes = [8 * HEADER, 8 * tokens, 8 * (tokens + 1), 4 * entries, 4 * stored, entries]
    if stored != rows or len(content) != sum(sizes):
        return None
    parts = np.split(content, np.cumsum(sizes)[:-1])
    return Postings(parts[1].view("<i8"), parts[2].view("<i8"), parts[3].view("<i4"), parts[5], parts[4].view("<i4"))
