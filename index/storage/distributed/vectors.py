"""Embeddings as points of an engine, counted in the catalogue's database."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

import numpy as np

from index.arrays import Float32Array, IntArray, TokenIds
from index.storage.distributed.scopes import DistributedScopes
from index.storage.points import Points
from index.storage.postgres import spaces as bookkeeping
from index.storage.postgres.database import Database
from index.storage.postgres.deletion import remove_points
from index.storage.vectors import ChunkAddress, Space, Unbagged, Unembedded


class DistributedVectors:
    """The embeddings of a distributed storage (:class:`~index.storage.protocols.VectorStore`).

    The space is this process's: another one that makes another space the active one does not change it. Nothing is
    indexed by this process then, until it follows (:meth:`follow`). Raises :class:`~index.errors.CheckpointMismatch`
    (unless the texts may be embedded again).
    """

    def __init__(
        self, database: Database, points: Points, *, dimension: int, fingerprint: str, embed_again: bool = False
    ) -> None:
        self._database = database
        self._points = points
        with database.write(searchable=True) as connection:
            self._space = bookkeeping.require_active(
                connection, dimension=dimension, fingerprint=fingerprint, embed_again=embed_again
            )
            points.open(self._space)
        database.space = self._space.number
        self.remove_unused()

    @property
    def space(self) -> Space:
        """The active space."""
        return self._space

    @property
    def spaces(self) -> Collection[Space]:
        """Every space."""
        with self._database.read() as connection:
            return bookkeeping.read_spaces(connection).values()

    def append(
        self, rows: Sequence[ChunkAddress], vectors: Float32Array, bags: Sequence[TokenIds], space: Space
    ) -> None:
        """Store the vectors of chunks, shape ``[len(rows), space.dimension]``, and their bags; then count them."""
        first = {uid: next(group).number for uid, group in groupby(rows, key=lambda row: row.uid)}
        replica = self._database.replica
        with self._database.read() as connection:
            fillable = bookkeeping.fillable(connection, list(first), space.number, replica)
        # Another replica may have stored more of a document meanwhile.
        continued = {uid: each for uid, each in fillable.items() if each.embedded == first[uid]}
        kept = [place for place, row in enumerate(rows) if row.uid in continued]
        if not kept:
            return
        outdated = [uid for uid, each in continued.items() if each.outdated]
        if outdated:
            self._points.delete(outdated)
            with self._database.write() as connection:
                connection.execute("DELETE FROM outdated WHERE uid = ANY(%s)", (outdated,))
        self._points.upsert(
            space,
            [each.document for each in continued.values()],
            [rows[place] for place in kept],
            vectors[kept],
            [bags[place] for place in kept],
        )
        counts = dict.fromkeys(continued, 0)
        for place in kept:
            counts[rows[place].uid] += 1
        with self._database.write() as connection:
            filled = [(each, counts[uid]) for uid, each in continued.items()]
            gone = bookkeeping.count_embedded(connection, filled, space.number, replica)
        if gone:
            self._points.delete(gone)

    def stored(self, uid: int, space: Space) -> int:
        """How many of a document's first chunks have a vector in a space."""
        with self._database.read() as connection:
            return bookkeeping.stored(connection, uid, space.number)

    def rows(self, uid: int, numbers: IntArray, space: Space) -> Float32Array | None:
        """The vectors of some chunks of a document; none where one of them is missing."""
        if not len(numbers):
            return np.empty((0, space.dimension), dtype=np.float32)
        # Points that are not counted may be those of a former cut.
        return self._points.rows(space, uid, numbers) if numbers.max() < self.stored(uid, space) else None

    def unembedded(self, space: Space, limit: int) -> list[Unembedded]:
        """The first searchable documents for which a space lacks vectors."""
        with self._database.read() as connection:
            return bookkeeping.unembedded(connection, space.number, limit)

    def share_embedded(self, space: Space) -> float:
        """The share of all searchable chunks that a space has vectors of."""
        with self._database.read() as connection:
            return bookkeeping.share_embedded(connection, space.number)

    def unbagged(self, space: Space) -> Unbagged | None:  # noqa: ARG002
        """None: points have had their bags ever since there are any."""
        return None

    def add_bags(self, unbagged: Unbagged, bags: Sequence[TokenIds]) -> None:
        """Do nothing: no chunk lacks a bag."""

    def open_space(self, *, fingerprint: str, dimension: int, properties: Mapping[str, str | None] = {}) -> Space:
        """The space of an action tower; all others but the active one are dropped."""
        with self._database.write(searchable=False) as connection:
            space = bookkeeping.find_or_add(connection, fingerprint=fingerprint, dimension=dimension)
            self._points.open(space)
            active = bookkeeping.active(connection)
            dropped = bookkeeping.forget_others(connection, {space.number, active or space.number})
            bookkeeping.write_properties(connection, properties)
        self._drop(dropped)
        return space

    def activate(self, space: Space, properties: Mapping[str, str | None]) -> bool:
        """Search a space from now on; returns false while it lacks vectors."""
        if self.unembedded(space, 1):
            return False
        with self._database.write(searchable=True) as connection:
            if not bookkeeping.activate(connection, space.number):
                return False
            bookkeeping.write_properties(connection, properties)
        self._space = space
        self._database.space = space.number
        return True

    def follow(self, fingerprint: str) -> bool:
        """Whether the space that the database names is that of this action tower; it is this process's from then on."""
        with self._database.read() as connection:
            space = bookkeeping.read_spaces(connection)[bookkeeping.active(connection) or self._space.number]
        if space.fingerprint != fingerprint:
            return False
        self._space = space
        self._database.space = space.number
        return True

    def forget_other_spaces(self) -> None:
        """Drop the vectors of all spaces but the active one."""
        with self._database.write(searchable=False) as connection:
            active = bookkeeping.active(connection)
            dropped = bookkeeping.forget_others(connection, {active or self._space.number})
        self._drop(dropped)

    def scopes(self, space: Space | None = None, *, preselect_above: float = math.inf) -> DistributedScopes:  # noqa: ARG002
        """The scopes of a space, by default this process's; the engine decides how a large one is searched."""
        return DistributedScopes(self._database, self._points, space or self._space)

    def has_room(self) -> bool:
        """True: how full the engine is, it says when points are stored."""
        return True

    # Beyond the protocol

    def remove_deleted(self) -> bool:
        """Remove points of documents that were deleted a while ago; returns whether there were any."""
        return remove_points(self._database, self._points.delete)

    def remove_unused(self) -> bool:
        """Remove spaces of the engine that nobody knows, as a crash leaves them; returns whether there were any."""
        with self._database.read() as connection:
            known = bookkeeping.read_spaces(connection).keys()
        if not set(self._points.spaces()) - known:
            return False
        with self._database.write() as connection:  # no space is being opened
            unused = set(self._points.spaces()) - bookkeeping.read_spaces(connection).keys()
            self._drop(sorted(unused))
        return bool(unused)

    def _drop(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._points.drop(number)
