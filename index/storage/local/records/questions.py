"""Questions in SQLite: a row each, with the chunks of the answer as JSON."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from index.errors import UnknownCollection, UnknownQuestion
from index.storage.local.deletion import RECORDS_AT_ONCE, forget_records
from index.storage.local.directory import DataDirectory
from index.storage.local.records.feedback import stored_feedback
from index.storage.local.rows import has_documents
from index.storage.questions import Question, StoredQuestion

_COLUMNS = (
    *("id", "collection", "question", "asked_at", "checkpoint", "fingerprint", "chunks", "found_nothing"),
    *("stopped_by", "complete", "hopeless", "seconds", "request_id"),
)

_INSERT = f"INSERT INTO questions ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' for _ in _COLUMNS)})"

_ABOUT = """
said.question = asked.question AND said.collection = asked.collection AND said.fingerprint = asked.fingerprint
AND EXISTS (
    SELECT 1 FROM judgements JOIN json_each(asked.chunks) chunk ON document_id = json_extract(chunk.value, '$[0]')
    AND judgements.chunk = json_extract(chunk.value, '$[1]') WHERE feedback = said.number
)
"""
"""The condition on which a row of feedback, ``said``, is about the answer of a row of questions, ``asked``."""

_OF_COLLECTIONS = "(:names IS NULL OR collection IN (SELECT value FROM json_each(:names)))"


class LocalQuestions:
    """The questions of a data directory (:class:`~index.storage.questions.QuestionStore`)."""

    def __init__(self, directory: DataDirectory) -> None:
        self._database = directory.database
        self._reserve = directory.reserve

    def add(self, questions: Sequence[Question]) -> None:
        """Store questions of collections that are there, in one transaction."""
        with self._database.write() as connection:
            there = {name for name in {each.collection for each in questions} if has_documents(connection, name)}
            connection.executemany(_INSERT, (_row(each) for each in questions if each.collection in there))

    def restore(self, questions: Sequence[Question]) -> None:
        """Store questions whose ids are not there, in one transaction."""
        with self._database.write() as connection:
            connection.executemany(f"{_INSERT} ON CONFLICT (id) DO NOTHING", map(_row, questions))

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
        conditions = ["number > :after", _OF_COLLECTIONS]
        if since is not None:
            conditions.append("asked_at >= :since")
        if found_nothing:
            conditions.append("found_nothing")
        if with_feedback:
            conditions.append(f"EXISTS (SELECT 1 FROM feedback said WHERE {_ABOUT})")
        values = {
            "after": after,
            "names": _names(collections),
            "since": None if since is None else _written(since),
            "limit": limit,
        }
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT * FROM questions asked WHERE {' AND '.join(conditions)} ORDER BY number LIMIT :limit", values
            ).fetchall()
            return [_stored(connection, row) for row in rows]

    def delete(self, id: str, within: Collection[str] | None = None) -> None:
        """Remove a record, on a full disk too; raises :class:`~index.errors.UnknownQuestion`."""

        def remove() -> None:
            with self._database.write() as connection:
                values = {"id": id, "names": _names(within)}
                removed = connection.execute(f"DELETE FROM questions WHERE id = :id AND {_OF_COLLECTIONS}", values)
                if not removed.rowcount:
                    raise UnknownQuestion(f"There is no question {id!r}.")

        self._reserve.use_for(remove)

    def delete_all(self, collection: str) -> None:
        """Remove every record of a collection, in small transactions, on a full disk too.

        Raises :class:`~index.errors.UnknownCollection`.
        """
        with self._database.read() as connection:
            known = has_documents(connection, collection)

        def remove() -> bool:
            with self._database.write() as connection:
                return forget_records(connection, "questions", collection)

        while self._reserve.use_for(remove):
            self._database.merge_log()
            known = True
        if not known:
            raise UnknownCollection(f"There is no collection {collection!r}.")

    def forget(self, before: datetime | None = None, within: Collection[str] | None = None) -> None:
        """Remove the records that were asked ``before``, or all, in small transactions, on a full disk too."""
        values = {
            "before": None if before is None else _written(before),
            "names": _names(within),
            "limit": RECORDS_AT_ONCE,
        }

        def remove() -> bool:
            with self._database.write() as connection:
                removed = connection.execute(
                    "DELETE FROM questions WHERE number IN (SELECT number FROM questions "
                    f"WHERE (:before IS NULL OR asked_at < :before) AND {_OF_COLLECTIONS} LIMIT :limit)",
                    values,
                )
                return removed.rowcount > 0

        while self._reserve.use_for(remove):
            self._database.merge_log()


def _names(collections: Collection[str] | None) -> str | None:
    return None if collections is None else json.dumps(sorted(collections))


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _row(question: Question) -> tuple[object, ...]:
    """The values of :data:`_COLUMNS`."""
    written = {"asked_at": _written(question.asked_at), "chunks": json.dumps(question.chunks)}
    return tuple(written.get(name, getattr(question, name)) for name in _COLUMNS)


def _stored(connection: sqlite3.Connection, row: sqlite3.Row) -> StoredQuestion:
    said = connection.execute(
        f"SELECT said.* FROM questions asked JOIN feedback said ON {_ABOUT} WHERE asked.number = ? "
        "ORDER BY said.number",
        (row["number"],),
    ).fetchall()
    fields = {name: row[name] for name in _COLUMNS} | {
        "asked_at": datetime.fromisoformat(row["asked_at"]),
        "chunks": [(document_id, index) for document_id, index in json.loads(row["chunks"])],
        "found_nothing": bool(row["found_nothing"]),
    }
    return StoredQuestion(row["number"], Question(**fields), [stored_feedback(connection, each) for each in said])
