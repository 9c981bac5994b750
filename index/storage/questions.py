"""Questions that were asked, as they are kept where the operator wants it: values and the protocol of their store."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from index.storage.feedback import StoredFeedback


@dataclass(frozen=True, slots=True)
class Question:
    """A question, what it was answered with, and by which checkpoint."""

    id: str
    """Different for each time that a question is asked."""
    collection: str
    question: str
    asked_at: datetime
    """In UTC, to the millisecond."""
    checkpoint: str
    fingerprint: str
    chunks: Sequence[tuple[str, int]]
    """Document and number of each chunk that was returned, in the order in which they were selected."""
    found_nothing: bool
    stopped_by: str
    complete: float | None
    hopeless: float | None
    """Probabilities at the end; none where the checkpoint has no head."""
    seconds: float
    request_id: str


class StoredQuestion(NamedTuple):
    """A record; ``number`` grows with each that is stored, and none is used twice."""

    number: int
    question: Question
    feedback: Sequence[StoredFeedback]
    """What was said about its answer, in order of arrival: feedback on the same question, in the same collection, with
    the same checkpoint, that judges a chunk which was returned."""


class QuestionStore(Protocol):
    """Records of questions.

    They go with their collection (:meth:`~index.storage.protocols.Catalogue.delete_collection`); those about a deleted
    document stay, for they have nothing of its text.
    """

    def add(self, questions: Sequence[Question]) -> None:
        """Store questions, all at once; those of collections that no longer have a document are left out."""

    def restore(self, questions: Sequence[Question]) -> None:
        """Store questions that another storage kept, all at once, also those of collections without a document.

        Those whose id is there already are left as they are.
        """

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
        """Records (of some collections) in order of arrival with a ``number`` greater than ``after``.

        Only those asked at ``since`` or later, only those that found nothing, only those with feedback, where that is
        asked for.
        """

    def delete(self, id: str, within: Collection[str] | None = None) -> None:
        """Remove a record, on a full disk too.

        Raises :class:`~index.errors.UnknownQuestion`, also where its collection is not in ``within``, if that is given.
        """

    def delete_all(self, collection: str) -> None:
        """Remove every record of a collection, on a full disk too.

        Raises :class:`~index.errors.UnknownCollection` where there is neither a record nor a document in it.
        """

    def forget(self, before: datetime | None = None, within: Collection[str] | None = None) -> None:
        """Remove the records that were asked ``before``, or all (of some collections), on a full disk too."""
