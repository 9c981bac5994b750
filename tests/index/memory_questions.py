"""Questions of the engine in memory: a dictionary that the catalogue holds, because its collections take them along."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from itertools import count

from index.errors import UnknownCollection, UnknownQuestion
from index.storage.feedback import StoredFeedback
from index.storage.questions import Question, StoredQuestion
from tests.index.memory_catalogue import MemoryCatalogue


class MemoryQuestions:
    """Records in order of arrival; feedback is looked up when they are read."""

    def __init__(self, catalogue: MemoryCatalogue) -> None:
        self._catalogue = catalogue
        self._numbers = count(1)

    def add(self, questions: Sequence[Question]) -> None:
        self.restore([question for question in questions if question.collection in self._collections()])

    def restore(self, questions: Sequence[Question]) -> None:
        for question in questions:
            if question.id not in self._catalogue.questions:
                self._catalogue.questions[question.id] = StoredQuestion(next(self._numbers), question, [])

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
        found = [
            stored._replace(feedback=[said for said in self._catalogue.feedback.values() if _is_about(said, stored)])
            for stored in self._catalogue.questions.values()
            if stored.number > after and (collections is None or stored.question.collection in collections)
        ]
        return [
            stored
            for stored in found
            if (since is None or stored.question.asked_at >= since)
            and (not found_nothing or stored.question.found_nothing)
            and (not with_feedback or stored.feedback)
        ][:limit]

    def delete(self, id: str, within: Collection[str] | None = None) -> None:
        stored = self._catalogue.questions.get(id)
        if stored is None or (within is not None and stored.question.collection not in within):
            raise UnknownQuestion(id)
        del self._catalogue.questions[id]

    def delete_all(self, collection: str) -> None:
        if not self.records([collection]) and collection not in self._collections():
            raise UnknownCollection(collection)
        self._forget(lambda question: question.collection == collection)

    def forget(self, before: datetime | None = None, within: Collection[str] | None = None) -> None:
        self._forget(
            lambda question: (
                (before is None or question.asked_at < before) and (within is None or question.collection in within)
            )
        )

    def _forget(self, doomed: Callable[[Question], bool]) -> None:
        kept = {id: stored for id, stored in self._catalogue.questions.items() if not doomed(stored.question)}
        self._catalogue.questions = kept

    def _collections(self) -> set[str]:
        return {size.name for size in self._catalogue.collections()}


def _is_about(said: StoredFeedback, asked: StoredQuestion) -> bool:
    feedback, question = said.feedback, asked.question
    judged = {(chunk.document_id, chunk.index) for chunk in feedback.chunks}
    return (feedback.question, feedback.collection, feedback.fingerprint) == (
        question.question,
        question.collection,
        question.fingerprint,
    ) and not judged.isdisjoint(question.chunks)
