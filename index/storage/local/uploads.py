"""Texts on their way in: received block by block, then published as documents in one transaction."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection
from contextlib import suppress

from index.errors import DiskFull, DocumentExists
from index.storage.documents import Description, content_of, derived_id, is_same
from index.storage.local.database import Database
from index.storage.local.deletion import delete
from index.storage.local.rows import TEXT_BLOCK, find_row, now, replacement_row, retry


class LocalUpload:
    """A text on its way in (:class:`~index.storage.protocols.Upload`).

    A long text is stored as it arrives, a short one waits in memory for the transaction that publishes it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._digest = hashlib.sha256()
        self._pending: list[str] = []
        self._pending_characters = 0
        self._stored_characters = 0
        self._uid: int | None = None
        self._bytes = 0

    def write(self, text: str) -> None:
        """Append to the text."""
        encoded = text.encode("utf-8")
        self._digest.update(encoded)
        self._bytes += len(encoded)
        self._pending.append(text)
        self._pending_characters += len(text)
        if self._pending_characters >= 16 * TEXT_BLOCK:
            with self._database.write() as connection:
                uid, stored = self._store(connection, whole_blocks_only=True)
            # Recorded only now: had the transaction been rolled back, the uid would be given to another upload.
            self._uid = uid
            self._stored_characters += stored
            pending = "".join(self._pending)[stored:]
            self._pending, self._pending_characters = [pending], len(pending)

    @property
    def characters(self) -> int:
        """Length of the text so far."""
        return self._stored_characters + self._pending_characters

    @property
    def bytes(self) -> int:
        """Length of the text so far in UTF-8."""
        return self._bytes

    @property
    def sha256(self) -> str:
        """Checksum of the text so far in UTF-8, hexadecimal."""
        return self._digest.hexdigest()

    def finish(self, connection: sqlite3.Connection) -> int:
        """Store the rest inside the publishing transaction; returns the document's ``uid``."""
        uid, _ = self._store(connection, whole_blocks_only=False)
        connection.execute("DELETE FROM uploads WHERE uid = ?", (uid,))
        return uid

    def discard(self) -> None:
        """Remove what was stored; on a full disk the next start does."""
        self._pending, self._pending_characters = [], 0
        if self._uid is not None:
            with suppress(DiskFull), self._database.write() as connection:
                if connection.execute("DELETE FROM uploads WHERE uid = ?", (self._uid,)).rowcount:
                    connection.execute("DELETE FROM texts WHERE uid = ?", (self._uid,))

    def _store(self, connection: sqlite3.Connection, *, whole_blocks_only: bool) -> tuple[int, int]:
        """Write what is pending; returns the ``uid`` and the number of characters. Does not change this object."""
        uid = self._uid
        if uid is None:
            uid = connection.execute("INSERT INTO uploads DEFAULT VALUES").lastrowid or 0
        text = "".join(self._pending)
        stop = len(text) - len(text) % TEXT_BLOCK if whole_blocks_only else len(text)
        connection.executemany(
            "INSERT INTO texts VALUES (?, ?, ?)",
            (
                (uid, self._stored_characters + start, text[start : min(start + TEXT_BLOCK, stop)])
                for start in range(0, stop, TEXT_BLOCK)
            ),
        )
        return uid, stop


def publish(
    connection: sqlite3.Connection,
    upload: LocalUpload,
    description: Description,
    *,
    replace: bool,
    within: Collection[str] | None,
    fresh: Collection[int],
) -> tuple[int, bool]:
    """Turn an upload into a queued document inside the caller's transaction; returns its ``uid`` and whether it is new.

    ``fresh`` are the documents that this transaction has created: none of them is replaced. For one document it does
    and raises what :meth:`index.storage.protocols.Catalogue.publish` says.
    """
    content = content_of(description, upload.sha256)
    id = description.id if description.id is not None else derived_id(content)
    existing = find_row(connection, id)
    replaced: int | None = None
    if existing is not None:
        pending = replacement_row(connection, existing["uid"])
        for version in (pending, existing):
            if version is not None and is_same(dict(version), content, named=description.id is not None):
                if replace and version is existing and pending is not None:
                    delete(connection, [pending["uid"]])  # back to what is there
                retry(connection, version)
                return version["uid"], False
        if any(version["uid"] in fresh for version in (pending, existing) if version is not None):
            raise DocumentExists(f"Document {id!r} occurs twice in this request, with different content.")
        if within is not None and existing["collection"] not in within:
            raise DocumentExists(f"The id {id!r} is taken in another collection. Choose another id.")
        if not replace:
            raise DocumentExists(
                f"Document {id!r} exists with other content. Send replace=true to put this in its place, "
                "or choose another id."
            )
        if existing["status"] == "ready":
            replaced = existing["uid"]
        outdated = pending if existing["status"] == "ready" else existing
        if outdated is not None:
            delete(connection, [outdated["uid"]])
    characters = upload.characters
    uid = upload.finish(connection)
    created_at = now()
    connection.execute(
        "INSERT INTO documents (uid, id, collection, title, metadata, mode, max_tokens, sha256, characters, bytes, "
        "status, created_at, updated_at, warnings, replaces) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?)",
        (
            *(uid, id, *content.values(), characters, upload.bytes, created_at, created_at),
            *(json.dumps(description.warnings, ensure_ascii=False), replaced),
        ),
    )
    connection.executemany(
        "INSERT OR REPLACE INTO places VALUES (?, ?, ?)",
        (
            (uid, place.start, json.dumps(dict(place.location), ensure_ascii=False, separators=(",", ":")))
            for place in description.places
        ),
    )
    return uid, True
