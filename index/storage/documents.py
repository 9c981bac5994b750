"""What the store says about documents and collections."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from qrag.wire.chunking import Chunking

Status = Literal["queued", "indexing", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class Document:
    """One document as the store knows it. ``progress`` is the share of its chunks that are embedded."""

    uid: int
    id: str
    collection: str
    title: str | None
    metadata: Mapping[str, Any]
    chunking: Chunking
    sha256: str
    characters: int
    bytes: int
    status: Status
    progress: float
    error: str | None
    chunks: int | None
    tokens: int | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class CollectionSize:
    """What a collection holds; ``bytes`` counts the texts in UTF-8."""

    name: str
    documents: int
    chunks: int
    bytes: int


class Piece(NamedTuple):
    """Chunks ``first_chunk..`` of a document, kept as rows ``first_row..`` of a segment."""

    uid: int
    first_chunk: int
    segment: int
    first_row: int
    rows: int


def document_of(row: sqlite3.Row, progress: float, stalled: str | None) -> Document:
    """The document of a row of the table; ``stalled`` says why those that wait do so, if there is a reason."""
    status: Status = row["status"]
    return Document(
        uid=row["uid"],
        id=row["id"],
        collection=row["collection"],
        title=row["title"],
        metadata=json.loads(row["metadata"]),
        chunking=Chunking(mode=row["mode"], max_tokens=row["max_tokens"]),
        sha256=row["sha256"],
        characters=row["characters"],
        bytes=row["bytes"],
        status=status,
        progress=1.0 if status == "ready" else progress,
        error=stalled if status in ("queued", "indexing") else row["error"],
        chunks=row["chunks"],
        tokens=row["tokens"],
        created_at=datetime.fromisoformat(row["created_at"]),
        updated_at=datetime.fromisoformat(row["updated_at"]),
    )
