"""Feedback: which chunks helped with a question, as a person judged it: values and the protocol of their store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class JudgedChunk:
    """A chunk, with its text as it was when it was judged."""

    document_id: str
    index: int
    text: str
    helpful: bool


@dataclass(frozen=True, slots=True)
class Feedback:
    """What was said about the chunks of an answer, and the checkpoint that was served then."""

    collection: str
    question: str
    chunks: Sequence[JudgedChunk]
    """At least one, each once, by document and index."""
    answer: str | None
    """The right answer, where the person knows it."""
    comment: str | None
    checkpoint: str
    fingerprint: str

    @property
    def identity(self) -> str:
        """The id of its record, derived from what was said: a repeated request does not make a second record."""
        said = asdict(self)
        del said["checkpoint"], said["fingerprint"]
        return f"fb-{hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]}"


class StoredFeedback(NamedTuple):
    """A record; ``number`` grows with each that is stored, and none is used twice."""

    number: int
    id: str
    created_at: datetime
    feedback: Feedback


class FeedbackStore(Protocol):
    """Records of feedback.

    Content that replaces other content leaves them as they are. A deletion
    (:meth:`~index.storage.protocols.Catalogue.delete_document`,
    :meth:`~index.storage.protocols.Catalogue.delete_collection`) removes every record that names a deleted document,
    and a deleted collection's.
    """

    def add(self, feedback: Feedback, uids: Iterable[int]) -> StoredFeedback:
        """Store feedback about these versions of documents. The same again is the same record, the latest from then on.

        Raises :class:`~index.errors.UnknownDocument` where one of the versions was deleted.
        """

    def records(
        self, collections: Collection[str] | None = None, *, after: int = 0, limit: int = 100
    ) -> list[StoredFeedback]:
        """Records (of some collections) in order of arrival with a ``number`` greater than ``after``."""

    def delete(self, id: str, within: Collection[str] | None = None) -> None:
        """Remove a record, on a full disk too.

        Raises :class:`~index.errors.UnknownFeedback`, also where its collection is not in ``within``, if that is given.
        """

    def delete_all(self, collection: str) -> None:
        """Remove every record of a collection, on a full disk too.

        Raises :class:`~index.errors.UnknownCollection` where there is neither a record nor a document in it.
        """
