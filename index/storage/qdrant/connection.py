"""Calls to Qdrant: where it is, how much of it must have taken part, and what becomes of a call that fails."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http import models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from index.errors import StorageUnavailable
from index.storage.engines import Engines
from index.storage.vectors import EngineCalls

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""Tries of a call that fails for a moment: a connection is lost, a node is restarting or overloaded."""

FIRST_WAIT = 0.1
"""Seconds before the second try; each further wait is three times as long."""

Kind = Literal["search", "read", "write"]
"""What a call is for: ranking points, reading some by their ids, or changing them."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of a Qdrant cluster, and how its collections are kept.

    A search sees what was written where every copy has taken it, or most of them and reads take what stands on most:
    a read of several copies returns only what stands on all of these.
    """

    url: str
    api_key: str | None = None
    prefix: str = "qrag"
    """The names of the collections begin with it, so that several services can share a cluster."""
    shards: int | None = None
    """Parts of a new collection; none: as many as there are nodes."""
    replicas: int = 1
    """Copies of each part of a new collection."""
    write_consistency: int = 1
    """Copies that must have taken a write before it counts."""
    read_consistency: int | models.ReadConsistencyType | None = None
    """Copies that a read asks; none: one."""
    write_ordering: models.WriteOrdering = models.WriteOrdering.WEAK
    """Which node orders the writes of several processes."""
    seconds: int = 10
    """How long a search or a read may take."""


def connection_to(engines: Engines) -> Connection:
    """The connection to the cluster of these engines, with reads that see every write."""
    read = models.ReadConsistencyType.QUORUM if engines.written_copies < engines.copies else None
    return Connection(
        engines.qdrant_url,
        engines.qdrant_api_key,
        engines.prefix,
        engines.shards,
        engines.copies,
        engines.written_copies,
        read,
        seconds=engines.seconds,
    )


class MissingSpace(Exception):
    """There is no collection of this name."""


@dataclass
class Calls:
    """A client, with calls that are tried again, given up after a time, and counted."""

    client: QdrantClient
    seconds: int = 10
    counts: Counter[Kind] = field(default_factory=Counter)
    """How many calls of each kind were made."""
    spent: defaultdict[Kind, float] = field(default_factory=lambda: defaultdict(float))
    """The seconds of those that have ended, what was waited between their tries among them."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def so_far(self) -> list[EngineCalls]:
        """The calls of each kind."""
        with self._lock:
            return [EngineCalls(kind, count, self.spent[kind]) for kind, count in sorted(self.counts.items())]

    def make(self, kind: Kind, call: Callable[[QdrantClient, int], Result], seconds: float | None = None) -> Result:
        """The result of ``call``, which gets the client and the seconds that are left.

        Only calls that may be repeated are made this way. Raises :class:`~index.errors.StorageUnavailable` where
        Qdrant does not answer in time or refuses, and :class:`MissingSpace` where it lacks the collection.
        """
        with self._lock:
            self.counts[kind] += 1
        began = time.monotonic()
        try:
            return self._tried(call, began + (seconds or self.seconds))
        finally:
            with self._lock:
                self.spent[kind] += time.monotonic() - began

    def _tried(self, call: Callable[[QdrantClient, int], Result], end: float) -> Result:
        """The result of the first try that succeeds before the ``end``."""
        wait = FIRST_WAIT
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call(self.client, max(1, int(end - time.monotonic())))
            except (ResponseHandlingException, ResourceExhaustedResponse, UnexpectedResponse) as error:
                if isinstance(error, UnexpectedResponse) and error.status_code == 404:
                    raise MissingSpace from error
                if attempt == ATTEMPTS or not _is_passing(error) or time.monotonic() + wait > end:
                    raise StorageUnavailable(
                        f"Qdrant does not answer as it should ({_reason(error)}): see that it runs, that its address "
                        "and key are the service's, and that it has memory and disk space left"
                    ) from error
                log.warning("a call to Qdrant failed, it is made again: %s", _reason(error))
            time.sleep(wait)
            wait *= 3
        raise AssertionError("the last attempt returns or raises")


def _is_passing(error: Exception) -> bool:
    """Whether the same call may succeed a moment later."""
    return (
        not isinstance(error, UnexpectedResponse) or error.status_code in (408, 429) or (error.status_code or 0) > 499
    )


def _reason(error: Exception) -> str:
    if isinstance(error, UnexpectedResponse):
        return f"status {error.status_code}: {error.content.decode(errors='replace')[:200]}"
    return f"{type(error).__name__}: {str(error)[:200]}"
