"""Texts on their way in: received block by block, then published as documents in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from contextlib import suppress

from index.errors import DiskFull, DocumentExists, StorageUnavailable
from index.storage.documents import Description, content_of, derived_id, is_same
from index.storage.postgres.database import Connection, Database
from index.storage.postgres.deletion import delete
from index.storage.postgres.rows import (
    NOW,
    TEXT_BLOCK,
    document_of,
    find_row,
    replacement_row,
    retry,
    stored_json,
    stored_text,
)

UPLOAD_HOURS = 24
"""A text of which nothing more has been stored for so long is given up: its process may have died."""


class PostgresUpload:
    """A text on its way in (:class:`~index.storage.protocols.Upload`).

    A long text is stored as it arrives, a short one waits in memory for the transaction that publishes it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._digest = hashlib.sha256()
        self._pending: list[str] = []
        self._pending_characters = 0
        self._stored_characters = 0
        self._text: int | None = None
        self._bytes = 0

    def write(self, text: str) -> None:
        """Append to the text."""
        encoded = text.encode("utf-8")
        self._digest.update(encoded)
        self._bytes += len(encoded)
        self._pending.append(text)
        self._pending_characters += len(text)
        if self._pending_characters >= 16 * TEXT_BLOCK:
            with self._database.write_lightly() as connection:
                number, stored = self._store(connection, whole_blocks_only=True)
            self._text = number
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

    def finish(self, connection: Connection) -> int:
        """Store the rest inside the publishing transaction; returns the number of the text."""
        text, _ = self._store(connection, whole_blocks_only=False)
        connection.execute("DELETE FROM uploads WHERE text = %s", (text,))
        return text

    def discard(self) -> None:
        """Remove what was stored; where that fails, it is removed later (:func:`remove_given_up`)."""
        self._pending, self._pending_characters = [], 0
        if self._text is not None:
            with suppress(DiskFull, StorageUnavailable), self._database.write_lightly() as connection:
                if connection.execute("DELETE FROM uploads WHERE text = %s", (self._text,)).rowcount:
                    connection.execute("DELETE FROM texts WHERE text = %s", (self._text,))

    def _store(self, connection: Connection, *, whole_blocks_only: bool) -> tuple[int, int]:
        """Write what is pending; returns the text's number and the number of characters. Does not change this object.

        Raises :class:`~index.errors.StorageUnavailable` where what was stored before is lost.
        """
        if self._text is None:
            row = connection.execute("INSERT INTO uploads DEFAULT VALUES RETURNING text").fetchone()
        else:
            row = connection.execute(
                # What the death of the server has undone is missing at the end: blocks are stored in order.
                "UPDATE uploads SET touched = now() WHERE text = %(text)s AND %(characters)s = COALESCE("
                "(SELECT MAX(start) + %(block)s FROM texts WHERE text = %(text)s), 0) RETURNING text",
                {"text": self._text, "characters": self._stored_characters, "block": TEXT_BLOCK},
            ).fetchone()
        if row is None:
            raise StorageUnavailable("The database has lost what was received of the text. Send it again.")
        number = int(row["text"])
        text = "".join(self._pending)
        stop = len(text) - len(text) % TEXT_BLOCK if whole_blocks_only else len(text)
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO texts VALUES (%s, %s, %b)",
                [
                    (number, self._stored_characters + start, stored_text(text[start : min(start + TEXT_BLOCK, stop)]))
                    for start in range(0, stop, TEXT_BLOCK)
                ],
            )
        return number, stop


def remove_given_up(database: Database) -> bool:
    """Remove a text whose upload was given up; returns whether there was one."""
    with database.write_lightly() as connection:
        row = connection.execute(
            "DELETE FROM uploads WHERE text = (SELECT text FROM uploads WHERE touched < now() - make_interval("
            "hours => %s) LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING text",
            (UPLOAD_HOURS,),
        ).fetchone()
        if row is not None:
            connection.execute("DELETE FROM texts WHERE text = %s", (row["text"],))
    return row is not None


def publish(
    connection: Connection,
    upload: PostgresUpload,
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
            if version is not None and is_same(
                content_of(document_of(version, 0.0, None), version["sha256"]),
                content,
                named=description.id is not None,
            ):
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
    text = upload.finish(connection)
    row = connection.execute(
        "INSERT INTO documents (uid, id, collection, title, metadata, mode, max_tokens, sha256, characters, bytes, "
        "status, created_at, updated_at, warnings, replaces, text) VALUES (nextval('uids'), %s, %s, %s, %s, %s, %s, "
        f"%s, %s, %s, 'queued', {NOW}, {NOW}, %s, %s, %s) RETURNING uid",
        (
            *(id, description.collection, stored_text(description.title), stored_json(description.metadata)),
            *(description.chunking.mode, description.chunking.max_tokens, upload.sha256, characters, upload.bytes),
            *(stored_json(description.warnings), replaced, text),
        ),
    ).fetchone()
    assert row is not None
    uid = int(row["uid"])
    places = {place.start: stored_json(dict(place.location)) for place in description.places}  # the last of each start
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO places VALUES (%s, %s, %s)", [(uid, start, location) for start, location in places.items()]
        )
    return uid, True
