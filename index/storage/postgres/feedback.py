"""Feedback in PostgreSQL: a record, and a row for each chunk that it judges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC
from typing import Any

from psycopg.rows import DictRow

from index.errors import UnknownCollection, UnknownFeedback
from index.storage.feedback import Feedback, JudgedChunk, StoredFeedback
from index.storage.postgres.database import Connection, Database
from index.storage.postgres.rows import NOW, first_row, has_documents, read_text, row_of, stored_text


class PostgresFeedback:
    """The feedback of a database (:class:`~index.storage.feedback.FeedbackStore`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, feedback: Feedback, uids: Iterable[int]) -> StoredFeedback:
        """Store feedback in one transaction; raises :class:`~index.errors.UnknownDocument`."""
        id = feedback.identity
        with self._database.write() as connection:
            for uid in uids:
                row_of(connection, uid)
            connection.execute("DELETE FROM feedback WHERE id = %s", (id,))
            row = first_row(
                connection,
                "INSERT INTO feedback VALUES (nextval('feedback_numbers'), %s, %s, %s, %s, %s, %s, %s, "
                f"{NOW}) RETURNING number, created_at",
                (
                    *(id, feedback.collection, stored_text(feedback.question), stored_text(feedback.answer)),
                    *(stored_text(feedback.comment), feedback.checkpoint, feedback.fingerprint),
                ),
            )
            assert row is not None
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO judgements VALUES (%s, %s, %s, %s, %s)",
                    [
                        (row["number"], chunk.document_id, chunk.index, stored_text(chunk.text), chunk.helpful)
                        for chunk in feedback.chunks
                    ],
                )
        return StoredFeedback(row["number"], id, row["created_at"].astimezone(UTC), feedback)

    def records(
        self, collections: Collection[str] | None = None, *, after: int = 0, limit: int = 100
    ) -> list[StoredFeedback]:
        """Records (of some collections) in order of arrival with a ``number`` greater than ``after``."""
        condition = "" if collections is None else "AND collection = ANY(%(collections)s)"
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT * FROM feedback WHERE number > %(after)s {condition} ORDER BY number LIMIT %(limit)s",
                {"after": after, "collections": list(collections or ()), "limit": limit},
            ).fetchall()
            return with_judgements(connection, rows)

    def delete(self, id: str, within: Collection[str] | None = None) -> None:
        """Remove a record; raises :class:`~index.errors.UnknownFeedback`."""
        with self._database.write() as connection:
            row = first_row(connection, "SELECT collection FROM feedback WHERE id = %s", (id,))
            if row is None or (within is not None and row["collection"] not in within):
                raise UnknownFeedback(f"There is no feedback {id!r}.")
            connection.execute("DELETE FROM feedback WHERE id = %s", (id,))

    def delete_all(self, collection: str) -> None:
        """Remove every record of a collection; raises :class:`~index.errors.UnknownCollection`."""
        with self._database.write() as connection:
            removed = connection.execute("DELETE FROM feedback WHERE collection = %s", (collection,)).rowcount
            if not removed and not has_documents(connection, collection):
                raise UnknownCollection(f"There is no collection {collection!r}.")


def with_judgements(connection: Connection, rows: Sequence[DictRow]) -> list[StoredFeedback]:
    """Records by their rows, each with the chunks that it judges."""
    judgements = connection.execute(
        "SELECT * FROM judgements WHERE feedback = ANY(%s) ORDER BY feedback, document_id, chunk",
        ([row["number"] for row in rows],),
    )
    chunks: dict[int, list[JudgedChunk]] = defaultdict(list)
    for judged in judgements:
        text = read_text(judged["text"]) or ""
        chunks[judged["feedback"]].append(JudgedChunk(judged["document_id"], judged["chunk"], text, judged["helpful"]))
    return [_stored(row, chunks[row["number"]]) for row in rows]


def _stored(row: Mapping[str, Any], chunks: list[JudgedChunk]) -> StoredFeedback:
    feedback = Feedback(
        collection=row["collection"],
        question=read_text(row["question"]) or "",
        chunks=chunks,
        answer=read_text(row["answer"]),
        comment=read_text(row["comment"]),
        checkpoint=row["checkpoint"],
        fingerprint=row["fingerprint"],
    )
    return StoredFeedback(row["number"], row["id"], row["created_at"].astimezone(UTC), feedback)
