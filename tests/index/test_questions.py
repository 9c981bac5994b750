"""Questions that were asked, by every engine: what is kept, found again, joined to feedback, and forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from index.errors import UnknownCollection, UnknownQuestion
from index.storage.feedback import Feedback, JudgedChunk
from index.storage.local.deletion import RECORDS_AT_ONCE
from index.storage.protocols import Storage
from index.storage.questions import Question
from tests.index.storages import open_local, post, publish

MORNING = datetime(2026, 3, 1, 9, tzinfo=UTC)


@pytest.fixture
def storage(either_storage: Storage) -> Storage:
    publish(either_storage, "letter", "Ana signed.\nBruno came.")
    post(either_storage, "theirs", "Clara signed.", collection="other")
    return either_storage


def asked(
    number: int,
    question: str = "Who signed?",
    *,
    collection: str = "default",
    chunks: Sequence[tuple[str, int]] = (("letter", 1), ("letter", 0)),
    fingerprint: str = "f1",
) -> Question:
    """A question of the minute ``number``; every fourth finds nothing."""
    return Question(
        id=f"qu-{number}",
        collection=collection,
        question=question,
        asked_at=MORNING + timedelta(minutes=number),
        checkpoint="tiny",
        fingerprint=fingerprint,
        chunks=[] if number % 4 == 3 else list(chunks),
        found_nothing=number % 4 == 3,
        stopped_by="sufficient",
        complete=None if number % 2 else 0.75,
        hopeless=None if number % 2 else 0.125,
        seconds=0.5,
        request_id=f"r{number}",
    )


def say(storage: Storage, question: str = "Who signed?", *, chunk: int = 0, fingerprint: str = "f1") -> str:
    judged = [JudgedChunk("letter", chunk, "Ana signed.", True)]
    feedback = Feedback("default", question, judged, None, None, "tiny", fingerprint)
    return storage.feedback.add(feedback, [storage.catalogue.document("letter").uid]).id


def kept(storage: Storage) -> list[Question]:
    return [record.question for record in storage.questions.records()]


def test_questions_are_given_back_as_they_were_in_order_of_arrival(storage: Storage) -> None:
    asked_twice = [asked(2), asked(0, "Wer? \x00 👩\u200d👧"), asked(1)]
    storage.questions.add(asked_twice[:2])
    storage.questions.add(asked_twice[2:])
    storage.questions.add([])
    assert kept(storage) == asked_twice
    first, *_ = storage.questions.records(limit=1)
    assert [record.question for record in storage.questions.records(after=first.number)] == asked_twice[1:]
    assert [record.feedback for record in storage.questions.records()] == [[], [], []]


def test_questions_of_a_collection_that_is_gone_are_left_out(storage: Storage) -> None:
    storage.questions.add([asked(0, collection="nowhere"), asked(1)])
    assert kept(storage) == [asked(1)]


def test_questions_of_another_storage_are_restored_once_whatever_became_of_their_collection(storage: Storage) -> None:
    storage.questions.add([asked(5)])
    moved = [asked(3), asked(0, collection="nowhere"), asked(1)]
    storage.questions.restore(moved[:2])
    storage.questions.restore([asked(5, "Something else"), *moved])
    storage.questions.restore([])
    assert kept(storage) == [asked(5), *moved]
    storage.questions.forget(MORNING + timedelta(minutes=2))
    assert kept(storage) == [asked(5), asked(3)]


def test_filters_hold_together(storage: Storage) -> None:
    asked_all = [asked(number, collection="other" if number % 3 == 0 else "default") for number in range(16)]
    storage.questions.add(asked_all)
    moment = (MORNING + timedelta(minutes=5)).astimezone(timezone(timedelta(hours=-7)))
    for collections in (None, [], ["default"], ["default", "other"]):
        for since in (None, moment):
            for found_nothing in (False, True):
                found = storage.questions.records(collections, since=since, found_nothing=found_nothing)
                assert [record.question for record in found] == [
                    each
                    for each in asked_all
                    if (collections is None or each.collection in collections)
                    and (since is None or each.asked_at >= since)
                    and (each.found_nothing or not found_nothing)
                ]


def test_feedback_is_shown_with_the_answers_that_it_judges(storage: Storage) -> None:
    questions = [
        asked(0),
        asked(1, chunks=[("letter", 1)]),
        asked(2, "Who came?"),
        asked(3),
        asked(4, fingerprint="f2"),
        asked(5, collection="other"),
    ]
    storage.questions.add(questions)
    first, second = say(storage), say(storage, chunk=1)
    third = say(storage, "Who came?", chunk=1)
    say(storage, "Who left?")
    found = {record.question.id: [said.id for said in record.feedback] for record in storage.questions.records()}
    assert found == {
        "qu-0": [first, second],
        "qu-1": [second],
        "qu-2": [third],
        "qu-3": [],
        "qu-4": [],
        "qu-5": [],
    }
    judged = storage.questions.records(with_feedback=True)
    assert [record.question for record in judged] == questions[:3]
    assert judged[2].feedback == [said for said in storage.feedback.records() if said.id == third]
    assert storage.questions.records(with_feedback=True, after=judged[0].number, limit=1) == judged[1:2]
    storage.feedback.delete(third)
    assert [record.question for record in storage.questions.records(with_feedback=True)] == questions[:2]


def test_a_deleted_collection_takes_its_questions_and_a_deleted_document_none(storage: Storage) -> None:
    publish(storage, "note", "Ana came.")
    ours, theirs = asked(0), asked(1, collection="other")
    storage.questions.add([ours, theirs])
    storage.catalogue.delete_document("letter")
    assert kept(storage) == [ours, theirs]
    storage.catalogue.delete_collection("default")
    assert kept(storage) == [theirs]


def test_questions_are_deleted_one_by_one_or_those_of_a_collection(storage: Storage) -> None:
    questions = [asked(number) for number in range(3)]
    theirs = asked(3, collection="other")
    storage.questions.add([*questions, theirs])
    for within in ([], ["default"]):
        with pytest.raises(UnknownQuestion):
            storage.questions.delete(theirs.id, within)
    storage.questions.delete("qu-1", ["default"])
    with pytest.raises(UnknownQuestion):
        storage.questions.delete("qu-1")
    assert kept(storage) == [questions[0], questions[2], theirs]
    storage.questions.delete_all("default")
    storage.questions.delete_all("default")  # there is nothing left, but the collection is there
    with pytest.raises(UnknownCollection):
        storage.questions.delete_all("nowhere")
    assert kept(storage) == [theirs]


def test_what_is_older_is_forgotten(storage: Storage) -> None:
    questions = [asked(number, collection="other" if number % 2 else "default") for number in range(6)]
    storage.questions.add(questions)
    storage.questions.forget(MORNING + timedelta(minutes=2))
    assert kept(storage) == questions[2:]
    storage.questions.forget(MORNING + timedelta(minutes=5), ["other"])
    assert kept(storage) == [questions[2], questions[4], questions[5]]
    storage.questions.forget(within=["default"])
    assert kept(storage) == [questions[5]]
    storage.questions.forget()
    assert kept(storage) == []


def test_more_than_one_transaction_removes_goes_whole_and_a_restart_keeps_the_rest(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        publish(storage, "letter", "Ana signed.")
        post(storage, "theirs", "Clara signed.", collection="other")
        many = 2 * RECORDS_AT_ONCE + 1
        last = asked(9999, collection="other")
        storage.questions.add([asked(number) for number in range(many)])
        storage.questions.delete_all("default")
        storage.questions.add([asked(number) for number in range(many)])
        storage.questions.forget(MORNING + timedelta(minutes=many - 1))
        assert kept(storage) == [asked(many - 1)]
        storage.questions.add([last, *(asked(number) for number in range(RECORDS_AT_ONCE))])
        storage.catalogue.delete_collection("default")
        assert kept(storage) == [last]
        (record,) = storage.questions.records()
    with closing(open_local(tmp_path)) as storage:
        assert storage.questions.records() == [record]
        storage.questions.delete(last.id)
        storage.questions.add([last])
        assert storage.questions.records()[0].number > record.number
