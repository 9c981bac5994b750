"""Questions in PostgreSQL: a row each, with the chunks of the answer as JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from index.errors import UnknownCollection, UnknownQuestion
from index.storage.postgres.database import Connection, Database
from index.storage.postgres.feedback import with_judgements
from index.storage.postgres.rows import first_row, has_documents, read_text, stored_text
from index.storage.questions import Question, StoredQuestion

_COLUMNS = (
    *("id", "collection", "question", "asked_at", "checkpoint", "fingerprint", "chunks", "found_nothing"),
    *("stopped_by", "complete", "hopeless", "seconds", "request_id"),
)

_INSERT = (
    f"INSERT INTO questions (number, {', '.join(_COLUMNS)}) "
    f"VALUES (nextval('question_numbers'), {', '.join('%s' for _ in _COLUMNS)})"
)

_ABOUT = """
said.question = asked.question AND said.collection = asked.collection AND said.fingerprint = asked.fingerprint
AND EXISTS (
    SELECT 1 FROM judgements JOIN jsonb_array_elements(asked.chunks) answered ON document_id = answered->>0
    AND judgements.chunk = (answered->>1)::bigint WHERE feedback = said.number
)
"""
"""The condition on which a row of feedback, ``said``, is about the answer of a row of questions, ``asked``."""

_OF_COLLECTIONS = "(%(names)s::text[] IS NULL OR collection = ANY(%(names)s))"


class PostgresQuestions:
    """The questions of a database (:class:`~index.storage.questions.QuestionStore`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, questions: Sequence[Question]) -> None:
        """Store questions of collections that are there, in one transaction."""
        with self._database.write() as connection:
            there = {name for name in {each.collection for each in questions} if has_documents(connection, name)}
            with connection.cursor() as cursor:
                cursor.executemany(_INSERT, [_row(each) for each in questions if each.collection in there])

    def restore(self, questions: Sequence[Question]) -> None:
        """Store questions whose ids are not there, in one transaction."""
        with self._database.write() as connection, connection.cursor() as cursor:
            cursor.executemany(f"{_INSERT} ON CONFLICT (id) DO NOTHING", [_row(each) for each in questions])

    def records(
        self,
        collections: Collection[str] | None = None,
        *,
        since: datetime | None = None,
        found_nothing: bool = False,
        with_feedback: bool = False,
        after: int = 0,
        limit: int = 100,
    ) -> list[StoredQuestion]:
        """Records (of some collections) in order of arrival with a ``number`` greater than ``after``."""
        conditions = ["number > %(after)s", _OF_COLLECTIONS]
        if since is not None:
            conditions.append("asked_at >= %(since)s")
        if found_nothing:
            conditions.append("found_nothing")
        if with_feedback:
            conditions.append(f"EXISTS (SELECT 1 FROM feedback said WHERE {_ABOUT})")
        values = {"after": after, "names": _names(collections), "since": since, "limit": limit}
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT * FROM questions asked WHERE {' AND '.join(conditions)} "
                "ORDER BY number LIMIT %(limit)s".encode(),
                values,
            ).fetchall()
            return [_stored(connection, row) for row in rows]

    def delete(self, id: str, within: Collection[str] | None = None) -> None:
        """Remove a record; raises :class:`~index.errors.UnknownQuestion`."""
        with self._database.write() as connection:
            row = first_row(
                connection,
                f"DELETE FROM questions WHERE id = %(id)s AND {_OF_COLLECTIONS} RETURNING number",
                {"id": id, "names": _names(within)},
            )
            if row is None:
                raise UnknownQuestion(f"There is no question {id!r}.")

    def delete_all(self, collection: str) -> None:
        """Remove every record of a collection; raises :class:`~index.errors.UnknownCollection`."""
        with self._database.write() as connection:
            removed = connection.execute("DELETE FROM questions WHERE collection = %s", (collection,)).rowcount
            if not removed and not has_documents(connection, collection):
                raise UnknownCollection(f"There is no collection {collection!r}.")

    def forget(self, before: datetime | None = None, within: Collection[str] | None = None) -> None:
        """Remove the records that were asked ``before``, or all (of some collections)."""
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM questions WHERE (%(before)s::timestamptz IS NULL OR asked_at < %(before)s) "
                f"AND {_OF_COLLECTIONS}".encode(),
                {"before": before, "names": _names(within)},
            )


def _names(collections: Collection[str] | None) -> list[str] | None:
    return None if collections is None else sorted(collections)


def _row(question: Question) -> tuple[object, ...]:
    """The values of :data:`_COLUMNS`."""
    written: dict[str, object] = {
        "question": stored_text(question.question),
        "request_id": stored_text(question.request_id),
        "chunks": json.dumps(question.chunks),
    }
    return tuple(written.get(name, getattr(question, name)) for name in _COLUMNS)


def _stored(connection: Connection, row: Mapping[str, Any]) -> StoredQuestion:
    said = connection.execute(
        f"SELECT said.* FROM questions asked JOIN feedback said ON {_ABOUT} WHERE asked.number = %s "
        "ORDER BY said.number".encode(),
        (row["number"],),
    ).fetchall()
    fields = {name: row[name] for name in _COLUMNS} | {
        "question": read_text(row["question"]),
        "request_id": read_text(row["request_id"]),
        "asked_at": row["asked_at"].astimezone(UTC),
        "chunks": [(document_id, index) for document_id, index in row["chunks"]],
    }
    return StoredQuestion(row["number"], Question(**fields), with_judgements(connection, said))
