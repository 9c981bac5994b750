"""Feedback in SQLite: a record, and a row for each chunk that it judges."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from datetime import datetime

from index.errors import UnknownCollection, UnknownFeedback
from index.storage.feedback import Feedback, JudgedChunk, StoredFeedback
from index.storage.local.deletion import forget_records
from index.storage.local.directory import DataDirectory
from index.storage.local.rows import has_documents, now, row_of


class LocalFeedback:
    """The feedback of a data directory (:class:`~index.storage.feedback.FeedbackStore`)."""

    def __init__(self, directory: DataDirectory) -> None:
        self._database = directory.database
        self._reserve = directory.reserve

    def add(self, feedback: Feedback, uids: Iterable[int]) -> StoredFeedback:
        """Store feedback in one transaction; raises :class:`~index.errors.UnknownDocument`."""
        id, created_at = feedback.identity, now()
        with self._database.write() as connection:
            for uid in uids:
                row_of(connection, uid)
            connection.execute("DELETE FROM feedback WHERE id = ?", (id,))
            number = connection.execute(
                "INSERT INTO feedback (id, collection, question, answer, comment, checkpoint, fingerprint, created_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(id, feedback.collection, feedback.question, feedback.answer, feedback.comment),
                    *(feedback.checkpoint, feedback.fingerprint, created_at),
                ),
            ).lastrowid
            connection.executemany(
                "INSERT INTO judgements VALUES (?, ?, ?, ?, ?)",
                ((number, chunk.document_id, chunk.index, chunk.text, chunk.helpful) for chunk in feedback.chunks),
            )
        return StoredFeedback(number or 0, id, datetime.fromisoformat(created_at), feedback)

    def records(
        self, collections: Collection[str] | None = None, *, after: int = 0, limit: int = 100
    ) -> list[StoredFeedback]:
        """Records (of some collections) in order of arrival with a ``number`` greater than ``after``."""
        names = None if collections is None else json.dumps(sorted(collections))
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM feedback WHERE number > ?1 "
                "AND (?2 IS NULL OR collection IN (SELECT value FROM json_each(?2))) ORDER BY number LIMIT ?3",
                (after, names, limit),
            ).fetchall()
            return [stored_feedback(connection, row) for row in rows]

    def delete(self, id: str, within: Collection[str] | None = None) -> None:
        """Remove a record, on a full disk too; raises :class:`~index.errors.UnknownFeedback`."""

        def remove() -> None:
            with self._database.write() as connection:
                row = connection.execute("SELECT collection FROM feedback WHERE id = ?", (id,)).fetchone()
                if row is None or (within is not None and row["collection"] not in within):
                    raise UnknownFeedback(f"There is no feedback {id!r}.")
                connection.execute("DELETE FROM feedback WHERE id = ?", (id,))

        self._reserve.use_for(remove)

    def delete_all(self, collection: str) -> None:
        """Remove every record of a collection, in small transactions, on a full disk too.

        Raises :class:`~index.errors.UnknownCollection`.
        """
        with self._database.read() as connection:
            known = has_documents(connection, collection)

        def remove() -> bool:
            with self._database.write() as connection:
                return forget_records(connection, "feedback", collection)

        while self._reserve.use_for(remove):
            self._database.merge_log()
            known = True
        if not known:
            raise UnknownCollection(f"There is no collection {collection!r}.")


def stored_feedback(connection: sqlite3.Connection, row: sqlite3.Row) -> StoredFeedback:
    """The record that a row is about."""
    chunks = connection.execute(
        "SELECT document_id, chunk, text, helpful FROM judgements WHERE feedback = ? ORDER BY document_id, chunk",
        (row["number"],),
    )
    feedback = Feedback(
        collection=row["collection"],
        question=row["question"],
        chunks=[JudgedChunk(document_id, index, text, bool(helpful)) for document_id, index, text, helpful in chunks],
        answer=row["answer"],
        comment=row["comment"],
        checkpoint=row["checkpoint"],
        fingerprint=row["fingerprint"],
    )
    return StoredFeedback(row["number"], row["id"], datetime.fromisoformat(row["created_at"]), feedback)
