"""What a request may search: the catalogue names the documents, the engine of the points searches them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from index.search.turning import Turning
from index.storage.points import Membership, Points
from index.storage.postgres.database import Connection, Database
from index.storage.postgres.rows import first_row, narrowed
from index.storage.vectors import SearchScope, Space
from qrag.wire.filters import Filter

CACHED_SCOPES = 64
"""Scopes that are kept while nothing changes."""


class _Cached(NamedTuple):
    version: int
    scope: SearchScope


class DistributedScopes:
    """The scopes of one space (:class:`~index.storage.protocols.Scopes`), the latest of them cached.

    A cached one is used while the database says that nothing searchable has changed, whoever might have changed it.
    """

    def __init__(self, database: Database, points: Points, space: Space) -> None:
        self._database = database
        self._points = points
        self._space = space
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def scope(
        self, collection: str, document_ids: Sequence[str] | None = None, filter: Filter | None = None
    ) -> SearchScope:
        """The chunks of a collection's ready documents, in order of arrival.

        Raises :class:`~index.errors.UnknownCollection` or :class:`~index.errors.UnknownDocument`.
        """
        ids = None if document_ids is None else sorted(set(document_ids))
        key = repr((collection, ids, filter and filter.model_dump(by_alias=True, exclude_unset=True)))
        with self._database.read() as connection:
            row = first_row(connection, "SELECT searchable FROM changes")
            version = 0 if row is None else int(row["searchable"])
            with self._lock:
                cached = self._cache.get(key)
                if cached is not None and cached.version == version:
                    self._cache.move_to_end(key)
                    return cached.scope
            allowed = narrowed(connection, collection, ids, filter)
            membership = _membership(connection, collection, allowed, self._space.number)
        scope = SearchScope(self._points.scope(self._space, membership), membership.uids)
        with self._lock:
            if not self._closed.is_set():
                self._cache[key] = _Cached(version, scope)
                while len(self._cache) > CACHED_SCOPES:
                    self._cache.popitem(last=False)
        return scope

    def preselect(self, turning: Turning, stopped: Callable[[], bool], seconds: float) -> None:  # noqa: ARG002
        """Wait: the engine keeps its own indexes."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """Cache nothing more."""
        self._closed.set()
        with self._lock:
            self._cache.clear()


def _membership(connection: Connection, collection: str, allowed: set[int] | None, space: int) -> Membership:
    """The searchable documents of a collection, of which only some may be ``allowed``."""
    rows = connection.execute(
        "SELECT d.uid, d.chunks, d.status = 'ready' AND d.chunks > 0 AND d.chunks = e.rows AS searchable "
        "FROM documents d LEFT JOIN embedded e ON e.uid = d.uid AND e.space = %(space)s "
        "WHERE d.collection = %(collection)s "
        "UNION ALL SELECT uid, 0, false FROM deleted WHERE collection = %(collection)s ORDER BY uid",
        {"collection": collection, "space": space},
    ).fetchall()
    chosen = [row for row in rows if row["searchable"] and (allowed is None or row["uid"] in allowed)]
    uids = np.array([row["uid"] for row in chosen], dtype=np.int64)
    hidden = None
    if allowed is None:
        others = [row["uid"] for row in rows if not row["searchable"] and len(uids) and row["uid"] < uids[-1]]
        hidden = np.array(others, dtype=np.int64)
    return Membership(collection, uids, np.array([row["chunks"] for row in chosen], dtype=np.int64), hidden)
