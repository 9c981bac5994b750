"""Merging small or mostly dead segments, so that their number stays small however documents arrive.

Segments of similar size are merged eight at a time, so a vector is copied about once for every
eightfold growth; a segment of which more than half belongs to deleted documents is written anew.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from index.arrays import Float32Array
from index.storage.documents import Piece
from index.storage.local.segments import SEGMENT_ROWS
from index.storage.local.store import Store

log = logging.getLogger(__name__)

MERGE = 8


class _Segment(NamedTuple):
    space: int
    segment: int
    rows: int
    live: int


def compact(store: Store) -> bool:
    """Do one merge if one is due; whether there was.

    Must not run beside indexing (one thread does both). Searching goes on: a scope built before keeps
    the old segments mapped.
    """
    space, chosen = _choose(_segments(store))
    if not chosen:
        return False
    marks = ",".join("?" * len(chosen))
    with store.database.read() as connection:
        pieces = [
            Piece(*row)
            for row in connection.execute(
                "SELECT uid, first_chunk, segment, first_row, rows FROM pieces "
                f"WHERE segment IN ({marks}) ORDER BY segment, first_row",
                chosen,
            )
        ]
    if not pieces:
        return True  # all deleted meanwhile
    vectors = np.concatenate([_rows(store, piece) for piece in pieces])
    ends = accumulate(piece.rows for piece in pieces)
    moved = [
        (piece.uid, piece.first_chunk, end - piece.rows, piece.rows) for piece, end in zip(pieces, ends, strict=True)
    ]
    with store.new_segment(vectors, space) as (connection, merged):
        # Of a document deleted meanwhile there is no piece to update, and its rows stay dead.
        connection.executemany(
            "UPDATE pieces SET segment = ?, first_row = ? WHERE uid = ? AND space = ? AND first_chunk = ?",
            [(merged, first_row, uid, space, first_chunk) for uid, first_chunk, first_row, _ in moved],
        )
    store.announce(searchable=True)
    store.remove_deleted()
    log.info("merged segments=%s rows=%d into=%d", chosen, len(vectors), merged)
    return True


def _segments(store: Store) -> list[_Segment]:
    with store.database.read() as connection:
        return [
            _Segment(*row)
            for row in connection.execute(
                "SELECT s.space, segment, s.rows, SUM(p.rows) FROM segments s JOIN pieces p USING (segment) "
                "GROUP BY segment ORDER BY segment"
            )
        ]


def _choose(segments: list[_Segment]) -> tuple[int, list[int]]:
    """Segments to be merged, and their space; none where nothing is due."""
    for each in segments:
        if each.live * 2 < each.rows:
            return each.space, [each.segment]
    tiers: defaultdict[tuple[int, int], list[_Segment]] = defaultdict(list)
    for each in segments:
        if each.live * MERGE <= SEGMENT_ROWS:
            tiers[int(math.log(each.live, MERGE)), each.space].append(each)
    for tier in sorted(tiers):
        if len(tiers[tier]) >= MERGE:
            return tier[1], [each.segment for each in tiers[tier][:MERGE]]
    return 0, []


def _rows(store: Store, piece: Piece) -> Float32Array:
    return store.segments[piece.segment].matrix[piece.first_row : piece.first_row + piece.rows]
