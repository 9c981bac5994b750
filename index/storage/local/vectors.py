"""Embeddings in segments on disk, and in SQLite the document of each row.

A segment file is written and fsynced *before* the transaction that mentions it, and removed *after* the one that last
did; whatever a crash leaves in between is mentioned nowhere and is swept away at the next start.
"""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from index.arrays import Float32Array, IntArray, TokenIds
from index.search.scanning.bags import Postings, index_bags
from index.storage.local.database import upgrade
from index.storage.local.deletion import remove_unused_segments, unused_segments
from index.storage.local.directory import DataDirectory
from index.storage.local.files.postings import open_postings, write_postings
from index.storage.local.files.segments import Segment, derived_files, open_segment, remove_segment, write_segment
from index.storage.local.scopes import LocalScopes
from index.storage.local.spaces import (
    activate,
    find_or_add,
    forget_others,
    read_spaces,
    require_active,
    share_embedded,
    stored,
    unembedded,
    write_properties,
)
from index.storage.protocols import APPEND_ROWS
from index.storage.vectors import ChunkAddress, Space, Unbagged, Unembedded

BAG_BYTES = 512
"""About what the posting lists take of a chunk of 64 tokens."""


class LocalVectors:
    """The embeddings of a data directory (:class:`~index.storage.protocols.VectorStore`).

    Opening brings the database to the current format and maps all segments. Raises
    :class:`~index.errors.CheckpointMismatch` (unless the texts may be embedded again) or
    :class:`~index.errors.DamagedStore`, and then holds no segment.
    """

    def __init__(
        self,
        directory: DataDirectory,
        device: torch.device,
        *,
        dimension: int,
        fingerprint: str,
        embed_again: bool = False,
    ) -> None:
        self._directory = directory
        self._database = directory.database
        self._device = device
        self.segments: dict[int, Segment] = {}
        try:
            with self._database.write() as connection:
                upgrade(connection)
                self._space = require_active(
                    connection, directory.path, dimension=dimension, fingerprint=fingerprint, embed_again=embed_again
                )
                self._spaces = read_spaces(connection)
                # Before anything is changed for good: a damaged segment ends the start.
                rows = connection.execute("SELECT segment, rows, bytes, space FROM segments").fetchall()
                for segment, count, size, number in rows:
                    if number in self._spaces:  # otherwise it was dropped, and is removed as unused
                        dimensions = self._spaces[number].dimension
                        self.segments[segment] = self._open_segment(segment, count, size, dimensions)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the segments; scopes that were handed out keep theirs mapped."""
        self.segments.clear()

    @property
    def space(self) -> Space:
        """The active space."""
        return self._space

    @property
    def spaces(self) -> Collection[Space]:
        """Every space."""
        return self._spaces.values()

    def append(
        self, rows: Sequence[ChunkAddress], vectors: Float32Array, bags: Sequence[TokenIds], space: Space
    ) -> None:
        """Store the vectors of chunks as a segment, shape ``[len(rows), space.dimension]``, and their bags."""
        with self.new_segment(vectors, index_bags(bags), space.number) as (connection, segment):
            connection.executemany(
                # What was embedded of a document whose vectors were dropped meanwhile continues nothing.
                "INSERT INTO pieces SELECT uid, space, ?1, ?, ?, ? FROM documents, spaces WHERE uid = ? AND space = ? "
                "AND ?1 = (SELECT COALESCE(MAX(first_chunk + rows), 0) FROM pieces p "
                "WHERE p.uid = documents.uid AND p.space = spaces.space)",
                [
                    (first_chunk, segment, first_row, count, uid, space.number)
                    for uid, first_chunk, first_row, count in _runs(rows)
                ],
            )

    def stored(self, uid: int, space: Space) -> int:
        """How many of a document's first chunks have a vector in a space."""
        with self._database.read() as connection:
            return stored(connection, uid, space.number)

    def rows(self, uid: int, numbers: IntArray, space: Space) -> Float32Array | None:
        """The vectors of some chunks of a document; none where one of them is missing."""
        vectors = np.empty((len(numbers), space.dimension), dtype=np.float32)
        remaining = len(numbers)
        with self._database.read() as connection:
            pieces = connection.execute(
                "SELECT first_chunk, segment, first_row, rows FROM pieces WHERE uid = ? AND space = ?",
                (uid, space.number),
            ).fetchall()
        for first_chunk, segment, first_row, count in pieces:
            inside = (first_chunk <= numbers) & (numbers < first_chunk + count)
            if inside.any():
                try:
                    matrix = self.segments[segment].matrix
                except KeyError:
                    return None  # merged meanwhile
                vectors[inside] = matrix[numbers[inside] - first_chunk + first_row]
                remaining -= int(inside.sum())
        return None if remaining else vectors

    def unembedded(self, space: Space, limit: int) -> list[Unembedded]:
        """The first searchable documents for which a space lacks vectors."""
        with self._database.read() as connection:
            return unembedded(connection, space.number, limit)

    def share_embedded(self, space: Space) -> float:
        """The share of all searchable chunks that a space has vectors of."""
        with self._database.read() as connection:
            return share_embedded(connection, space.number)

    def open_space(self, *, fingerprint: str, dimension: int, properties: Mapping[str, str | None] = {}) -> Space:
        """The space of an action tower; all others but the active one are dropped."""
        with self._database.write() as connection:
            space = find_or_add(connection, fingerprint=fingerprint, dimension=dimension)
            forget_others(connection, {space.number, self._space.number})
            write_properties(connection, properties)
            spaces = read_spaces(connection)
        self._spaces = spaces
        self._directory.news.announce()
        return space

    def activate(self, space: Space, properties: Mapping[str, str | None]) -> bool:
        """Search a space from now on; returns false while it lacks vectors."""
        with self._database.write() as connection:
            if not activate(connection, space.number):
                return False
            write_properties(connection, properties)
        self._space = space
        self._directory.news.announce(searchable=True)
        return True

    def follow(self, fingerprint: str) -> bool:
        """Whether the active space, which no other process changes, is that of this action tower."""
        return self._space.fingerprint == fingerprint

    def forget_other_spaces(self) -> None:
        """Drop the vectors of all spaces but the active one."""
        with self._database.write() as connection:
            forget_others(connection, {self._space.number})
            spaces = read_spaces(connection)
        self._spaces = spaces
        self._directory.news.announce()

    def scopes(self, space: Space | None = None, *, preselect_above: float = math.inf) -> LocalScopes:
        """The scopes of a space, by default the active one."""
        return LocalScopes(
            self._database, self.segments, self._directory.news, space or self._space, preselect_above=preselect_above
        )

    def unbagged(self, space: Space) -> Unbagged | None:
        """The rows of one segment of a space that has no posting lists."""
        with self._database.read() as connection:
            of_space = connection.execute(
                "SELECT segment FROM segments WHERE space = ? ORDER BY segment", (space.number,)
            ).fetchall()
            for (number,) in of_space:
                if (segment := self.segments[number]).postings is None:
                    rows: list[ChunkAddress | None] = [None] * len(segment.matrix)
                    for uid, first_chunk, first_row, count in connection.execute(
                        "SELECT uid, first_chunk, first_row, rows FROM pieces WHERE segment = ?", (number,)
                    ):
                        rows[first_row : first_row + count] = [
                            ChunkAddress(uid, first_chunk + at) for at in range(count)
                        ]
                    return Unbagged(number, rows)
        return None

    def add_bags(self, unbagged: Unbagged, bags: Sequence[TokenIds]) -> None:
        """Write the posting lists of that segment."""
        segment, path = self.segments[unbagged.batch], self.segment_path(unbagged.batch)
        with self._database.write():  # tells a full disk
            write_postings(path, index_bags(bags))
        self.segments[unbagged.batch] = segment._replace(postings=open_postings(path, len(segment.matrix)))
        self._directory.news.announce(searchable=True)

    def has_room(self) -> bool:
        """Whether the disk takes another full segment: four bytes a number for embeddings, one for codes, and bags."""
        dimension = max(space.dimension for space in self.spaces)
        return shutil.disk_usage(self._directory.path).free >= APPEND_ROWS * (5 * dimension + BAG_BYTES)

    # Beyond the protocol

    @contextmanager
    def new_segment(
        self, vectors: Float32Array, postings: Postings | None, space: int
    ) -> Iterator[tuple[sqlite3.Connection, int]]:
        """A transaction with a new segment in it; if it fails, nothing of the segment is left.

        The caller records the documents of the rows.
        """
        segment: int | None = None
        try:
            with self._database.write() as connection:
                max_norm = float(np.linalg.norm(vectors, axis=1).max())
                segment = (
                    connection.execute(
                        "INSERT INTO segments (rows, bytes, max_norm, space) VALUES (?, 0, ?, ?)",
                        (len(vectors), max_norm, space),
                    ).lastrowid
                    or 0
                )
                size = write_segment(self.segment_path(segment), vectors, postings)
                connection.execute("UPDATE segments SET bytes = ? WHERE segment = ?", (size, segment))
                self.segments[segment] = self._open_segment(segment, len(vectors), size, vectors.shape[1])
                yield connection, segment
        except BaseException:
            if segment is not None:
                self.segments.pop(segment, None)
                remove_segment(self.segment_path(segment))
            raise

    def remove_unused(self) -> bool:
        """Remove segments without rows of any document, on a full disk too; returns whether there were any."""
        with self._database.read() as connection:
            if not unused_segments(connection):
                return False
        self._directory.reserve.use_for(self._remove_unused)
        return True

    def _remove_unused(self) -> None:
        with self._database.write() as connection:
            unused = remove_unused_segments(connection)
        for segment in unused:
            self.segments.pop(segment, None)
            remove_segment(self.segment_path(segment))

    def segment_path(self, segment: int) -> Path:
        """The path of a segment's file."""
        return self._directory.segments / f"{segment:08d}.faiss"

    def files(self) -> set[Path]:
        """The files of all segments."""
        paths = [self.segment_path(segment) for segment in self.segments]
        return {*paths, *(derived for path in paths for derived in derived_files(path))}

    def _open_segment(self, segment: int, rows: int, size: int, dimension: int) -> Segment:
        path = self.segment_path(segment)
        return open_segment(path, rows=rows, dimension=dimension, size=size, device=self._device)


def _runs(rows: Sequence[ChunkAddress]) -> Iterator[tuple[int, int, int, int]]:
    """Runs of rows of one document, as ``(uid, first_chunk, first_row, rows)``."""
    for uid, group in groupby(enumerate(rows), key=lambda row: row[1].uid):
        members = list(group)
        first_row, first = members[0]
        yield uid, first.number, first_row, len(members)
