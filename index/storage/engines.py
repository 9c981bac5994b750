"""Where the engines of a storage beyond one machine are."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Engines:
    """PostgreSQL and Qdrant, and how vectors are kept in new collections of the latter."""

    database_url: str = field(repr=False)
    """It may hold a password."""
    qdrant_url: str
    qdrant_api_key: str | None = field(default=None, repr=False)
    prefix: str = "qrag"
    """The names of the collections begin with it."""
    shards: int | None = None
    """Parts of a new collection; none: as many as there are nodes."""
    copies: int = 1
    """Copies of each part of a new collection."""
    written_copies: int = 1
    """Copies that must have taken a write: more than half of them. Where it is not all, reads ask all copies."""
    seconds: int = 10
    """How long a search or a read may take."""
