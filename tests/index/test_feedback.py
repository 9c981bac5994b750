"""Feedback, by every engine: what is stored, in which order, and what goes with documents and collections."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from index.errors import UnknownCollection, UnknownDocument, UnknownFeedback
from index.storage.documents import Description
from index.storage.feedback import Feedback, JudgedChunk
from index.storage.local.deletion import RECORDS_AT_ONCE
from index.storage.protocols import Storage
from tests.index.storages import index_all, open_local, post, publish


@pytest.fixture
def storage(either_storage: Storage) -> Storage:
    return either_storage


def about(
    ids: Sequence[str], *, question: str = "Who signed?", collection: str = "default", helpful: bool = True
) -> Feedback:
    chunks = [JudgedChunk(id, 0, f"The text of {id}.", helpful) for id in ids]
    return Feedback(collection, question, chunks, "Ana.", "Good.", "tiny", "f1")


def give(storage: Storage, feedback: Feedback) -> str:
    uids = [storage.catalogue.document(chunk.document_id).uid for chunk in feedback.chunks]
    return storage.feedback.add(feedback, uids).id


def kept(storage: Storage) -> list[Feedback]:
    return [record.feedback for record in storage.feedback.records()]


def test_feedback_is_given_back_as_it_was_said_in_order_of_arrival(storage: Storage) -> None:
    for id in ("letter", "note"):
        publish(storage, id, "Ana signed.")
    first, second = about(["letter", "note"]), about(["note"], question="Wer? \x00 👩\u200d👧", helpful=False)
    assert give(storage, first) != give(storage, second)
    assert kept(storage) == [first, second]
    (page,) = storage.feedback.records(limit=1)
    assert [record.feedback for record in storage.feedback.records(after=page.number)] == [second]
    assert storage.feedback.records([]) == storage.feedback.records(["other"]) == []
    assert len(storage.feedback.records(["default", "other"])) == 2


def test_the_same_again_is_one_record_and_the_latest(storage: Storage) -> None:
    publish(storage, "letter", "Ana signed.")
    up, down = about(["letter"]), about(["letter"], helpful=False)
    ids = [give(storage, said) for said in (up, down, up)]
    assert ids[0] == ids[2] != ids[1]
    assert kept(storage) == [down, up]


def test_feedback_about_a_version_that_is_gone_is_not_stored(storage: Storage) -> None:
    publish(storage, "letter", "Ana signed.")
    uid = storage.catalogue.document("letter").uid
    storage.catalogue.delete_document("letter")
    publish(storage, "letter", "Bruno signed.")
    with pytest.raises(UnknownDocument):
        storage.feedback.add(about(["letter"]), [uid])
    assert kept(storage) == []


def test_a_deleted_document_takes_what_names_it_and_a_replaced_one_does_not(storage: Storage) -> None:
    for id in ("letter", "note"):
        publish(storage, id, "Ana signed.")
    index_all(storage)
    both, letter, note = about(["letter", "note"]), about(["letter"]), about(["note"])
    for said in (both, letter, note):
        give(storage, said)
    publish(storage, "letter", "Bruno signed.", replace=True)
    index_all(storage)
    assert kept(storage) == [both, letter, note]
    storage.catalogue.delete_document("letter")
    assert kept(storage) == [note]
    publish(storage, "letter", "Bruno signed.")
    assert kept(storage) == [note]


def test_a_deleted_collection_takes_its_feedback_and_a_waiting_replacement_none(storage: Storage) -> None:
    publish(storage, "letter", "Ana signed.")
    post(storage, "theirs", "Clara signed.", collection="other")
    index_all(storage)
    ours, theirs = about(["letter"]), about(["theirs"], collection="other")
    for said in (ours, theirs):
        give(storage, said)
    upload = storage.catalogue.begin_upload()
    upload.write("Bruno signed.")
    moving = storage.catalogue.document("letter")
    description = Description("letter", "other", None, {}, moving.chunking)
    storage.catalogue.publish([(upload, description)], replace=True, queue_limit=10)
    storage.catalogue.delete_collection("other")
    assert kept(storage) == [ours]
    storage.catalogue.delete_collection("default")
    assert kept(storage) == []


def test_records_are_deleted_one_by_one_or_those_of_a_collection(storage: Storage) -> None:
    publish(storage, "letter", "Ana signed.")
    post(storage, "theirs", "Clara signed.", collection="other")
    theirs = about(["theirs"], collection="other")
    id, other = give(storage, about(["letter"])), give(storage, theirs)
    for within in ([], ["default"]):
        with pytest.raises(UnknownFeedback):
            storage.feedback.delete(other, within)
    storage.feedback.delete(id, ["default"])
    with pytest.raises(UnknownFeedback):
        storage.feedback.delete(id)
    for number in range(3):
        give(storage, about(["letter"], question=f"Who signed {number}?"))
    storage.feedback.delete_all("default")
    assert kept(storage) == [theirs]
    storage.feedback.delete_all("default")  # there is nothing left, but the collection is there
    with pytest.raises(UnknownCollection):
        storage.feedback.delete_all("nowhere")
    storage.feedback.delete(other)
    assert kept(storage) == []


def test_more_than_one_transaction_removes_goes_whole_and_a_restart_keeps_the_rest(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        for id in ("letter", "note"):
            publish(storage, id, "Ana signed.")
        for number in range(2 * RECORDS_AT_ONCE + 1):
            give(storage, about(["letter"], question=f"Who signed {number}?"))
        note = about(["note"])
        give(storage, note)
        storage.catalogue.delete_document("letter")
        assert kept(storage) == [note]
        for number in range(RECORDS_AT_ONCE + 1):
            give(storage, about(["note"], question=f"Who signed {number}?"))
        storage.feedback.delete_all("default")
        assert kept(storage) == []
        give(storage, note)
        last = storage.feedback.records()
    with closing(open_local(tmp_path)) as storage:
        assert storage.feedback.records() == last
        give(storage, note)
        assert storage.feedback.records()[0].number > last[0].number
