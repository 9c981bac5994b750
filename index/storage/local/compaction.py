"""Merging small or mostly dead segments, so that their number stays small however documents arrive.

Segments of similar size are merged eight at a time, so a vector is copied about once for every
eightfold growth; a segment of which more than half belongs to deleted documents is rewritten.
"""

from __future__ import annotations

import logging
import math
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from index.arrays import Float32Array
from index.search.scanning.bags import Postings, merged_bags
from index.storage.local.database import Database
from index.storage.local.rows import Piece
from index.storage.local.vectors import LocalVectors
from index.storage.news import News
from index.storage.protocols import APPEND_ROWS

log = logging.getLogger(__name__)

MERGE = 8
"""Segments of similar size that are merged at once."""


class _Segment(NamedTuple):
    space: int
    segment: int
    rows: int
    live: int


def compact(database: Database, vectors: LocalVectors, news: News, *, segment_rows: int = APPEND_ROWS) -> bool:
    """Do one merge if one is due; returns whether one was.

    Segments of ``segment_rows`` rows are full. Must not run beside indexing (one thread does both). Searching goes on:
    a scope built before keeps the old segments mapped.
    """
    with database.read() as connection:
        space, merged = _choose(_segments(connection), segment_rows)
        if not merged:
            return False
        marks = ",".join("?" * len(merged))
        pieces = [
            Piece(*row)
            for row in connection.execute(
                "SELECT uid, first_chunk, segment, first_row, rows FROM pieces "
                f"WHERE segment IN ({marks}) ORDER BY segment, first_row",
                merged,
            )
        ]
    matrix = np.concatenate([_rows(vectors, piece) for piece in pieces])
    ends = accumulate(piece.rows for piece in pieces)
    moved = [
        (piece.uid, piece.first_chunk, end - piece.rows, piece.rows) for piece, end in zip(pieces, ends, strict=True)
    ]
    with vectors.new_segment(matrix, _bags(vectors, pieces), space) as (connection, target):
        # A document deleted meanwhile has no piece to update, and its rows stay dead.
        connection.executemany(
            "UPDATE pieces SET segment = ?, first_row = ? WHERE uid = ? AND space = ? AND first_chunk = ?",
            [(target, first_row, uid, space, first_chunk) for uid, first_chunk, first_row, _ in moved],
        )
    news.announce(searchable=True)
    vectors.remove_unused()
    log.info("merged segments=%s rows=%d into=%d", merged, len(matrix), target)
    return True


def _segments(connection: sqlite3.Connection) -> list[_Segment]:
    return [
        _Segment(*row)
        for row in connection.execute(
            "SELECT s.space, segment, s.rows, SUM(p.rows) FROM segments s JOIN pieces p USING (segment) "
            "GROUP BY segment ORDER BY segment"
        )
    ]


def _choose(segments: list[_Segment], segment_rows: int) -> tuple[int, list[int]]:
    """Segments to be merged, and their space; none where nothing is due."""
    for candidate in segments:
        if candidate.live * 2 < candidate.rows:
            return candidate.space, [candidate.segment]
    tiers: defaultdict[tuple[int, int], list[_Segment]] = defaultdict(list)
    for candidate in segments:
        if candidate.live * MERGE <= segment_rows:
            tiers[int(math.log(candidate.live, MERGE)), candidate.space].append(candidate)
    for tier in sorted(tiers):
        if len(tiers[tier]) >= MERGE:
            return tier[1], [member.segment for member in tiers[tier][:MERGE]]
    return 0, []


def _bags(vectors: LocalVectors, pieces: Sequence[Piece]) -> Postings | None:
    """The posting lists of the pieces; none where a segment lacks its own: those are made from the text again."""
    parts: list[tuple[Postings, int, int]] = []
    for piece in pieces:
        postings = vectors.segments[piece.segment].postings
        if postings is None:
            return None
        parts.append((postings, piece.first_row, piece.rows))
    return merged_bags(parts)


def _rows(vectors: LocalVectors, piece: Piece) -> Float32Array:
    return vectors.segments[piece.segment].matrix[piece.first_row : piece.first_row + piece.rows]
