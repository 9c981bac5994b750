"""Several processes on one database: nothing is done twice, each sees what others change, and the dead are replaced."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import pytest

from index.arrays import Float32Array
from index.errors import DocumentExists, QueueFull, UnknownCollection, UnknownDocument
from index.indexing.indexer import Indexer
from index.storage.documents import Description, Document, Published
from index.storage.protocols import Storage
from index.storage.vectors import ChunkAddress
from qrag.wire.chunking import Chunking
from tests.engines.conftest import Cluster
from tests.engines.threads import at_once
from tests.index.storages import WordEncoder, embed, expected, index_all, post, publish, searchable

CUT = np.array([[0, 7, 2], [8, 13, 1]])


def test_of_many_publications_of_an_id_one_wins(cluster: Cluster) -> None:
    replicas = [cluster.replica(), cluster.replica()]
    answers = at_once([partial(publish, replicas[number % 2], "letter", f"Text {number % 3}.") for number in range(12)])
    published = [answer for answer in answers if isinstance(answer, Published)]
    assert sum(answer.created for answer in published) == 1
    assert len({answer.document.uid for answer in published}) == 1
    assert {type(answer) for answer in answers} == {Published, DocumentExists}
    assert len(published) == 4, "the same content is the same document"


def test_of_many_replacements_one_waits_and_the_others_are_gone(cluster: Cluster) -> None:
    replicas = [cluster.replica(), cluster.replica()]
    publish(replicas[0], "letter", "First.")
    index_all(replicas[0])
    answers = at_once([partial(publish, replicas[n % 2], "letter", f"Text {n}.", replace=True) for n in range(10)])
    uids = [answer.document.uid for answer in answers if isinstance(answer, Published)]
    assert len(set(uids)) == 10
    assert [version.uid for version in replicas[0].catalogue.versions("letter")][:1] == [max(uids)]
    index_all(replicas[1])
    assert replicas[0].catalogue.document("letter").uid == max(uids)


def test_the_limit_of_the_queue_holds_for_all_together(cluster: Cluster) -> None:
    replicas = [cluster.replica(), cluster.replica()]
    answers = at_once([partial(post, replicas[n % 2], str(n), "text", queue_limit=5) for n in range(12)])
    assert Counter(map(type, answers)) == {type(None): 5, QueueFull: 7}
    assert replicas[0].catalogue.count_by_status()["queued"] == 5


def test_who_pages_through_documents_misses_none_that_arrives_meanwhile(cluster: Cluster) -> None:
    replicas = [cluster.replica(), cluster.replica()]
    done = threading.Event()

    def write(storage: Storage, name: str) -> None:
        for number in range(40):
            post(storage, f"{name}-{number}", "text" * (1 + 10_000 * (number % 2)))

    def page() -> list[int]:
        seen: list[int] = []
        while True:
            last = done.is_set()
            seen += [document.uid for document in replicas[0].catalogue.documents(after=max(seen, default=0))]
            if last:
                return seen

    def write_all() -> None:
        at_once([partial(write, storage, name) for storage, name in zip(replicas * 2, "abcd", strict=True)])
        done.set()

    _, seen = at_once([write_all, page])
    assert seen == [document.uid for document in replicas[1].catalogue.documents(limit=1000)]
    assert isinstance(seen, list)
    assert len(seen) == 160


def test_several_processes_divide_the_work(cluster: Cluster) -> None:
    replicas = [cluster.replica(), cluster.replica()]
    for number in range(30):
        publish_many = f"{number} one\n{number} two two\n{number} three"
        post(replicas[0], str(number), publish_many)
    embedded: list[list[int]] = []

    def counting(inputs: Sequence[Sequence[int]]) -> Float32Array:
        embedded.extend(map(list, inputs))
        return embed(inputs)

    def work(storage: Storage) -> None:
        indexer = Indexer(storage, WordEncoder(), counting, threading.Event(), round_chunks=6, batch_chunks=4)
        while indexer.work():
            pass

    assert at_once([partial(work, storage) for storage in replicas]) == [None, None]
    assert len(embedded) == 90, "each chunk once"
    for storage in replicas:
        assert storage.catalogue.count_by_status() == {"queued": 0, "indexing": 0, "ready": 30, "failed": 0}
        found = searchable(storage)
        for number in range(30):
            text = f"{number} one\n{number} two two\n{number} three"
            np.testing.assert_array_equal(found[str(number)], expected(text))


def test_each_waiting_document_is_claimed_by_one(cluster: Cluster) -> None:
    replicas = [cluster.replica() for _ in range(3)]
    for number in range(30):
        post(replicas[0], str(number), "text" * (1 + number % 3))

    def claim(storage: Storage) -> list[Document]:
        return list(storage.catalogue.waiting(5))

    claims = at_once([partial(claim, storage) for storage in replicas])
    claimed: list[int] = []
    for documents in claims:
        assert isinstance(documents, list), documents
        order = [(document.characters > 5, document.uid) for document in documents]
        assert order == sorted(order)
        claimed += [document.uid for document in documents]
    assert sorted(claimed) == [document.uid for document in replicas[0].catalogue.documents()]
    assert claim(replicas[1]) == claims[1], "one's own again"


def test_what_was_looked_at_and_not_begun_is_free(cluster: Cluster) -> None:
    first, second = cluster.replica(), cluster.replica()
    post(first, "letter", "text")
    waiting = first.catalogue.waiting(10)
    assert next(waiting).id == "letter"
    assert list(second.catalogue.waiting(10)) == []
    waiting.close()  # type: ignore[attr-defined]
    assert [document.id for document in second.catalogue.waiting(10)] == ["letter"]


def test_a_process_that_ends_gives_its_work_back(cluster: Cluster) -> None:
    first, second = cluster.replica(), cluster.replica()
    post(first, "letter", "text")
    assert len(list(first.catalogue.waiting(10))) == 1
    first.close()
    assert [document.id for document in second.catalogue.waiting(10)] == ["letter"]


def test_work_of_a_process_that_was_taken_for_dead_counts_for_nothing(cluster: Cluster) -> None:
    late, heir = cluster.replica(), cluster.replica()
    uid = publish(late, "letter", "one two\nthree").document.uid
    other = publish(late, "note", "one two\nthree").document.uid
    whole = publish(late, "memo", "one two\nthree").document.uid
    assert len(list(late.catalogue.waiting(100))) == 3
    late.catalogue.save_chunks(uid, CUT)
    late.catalogue.save_chunks(whole, CUT)
    rows = [ChunkAddress(whole, 0), ChunkAddress(whole, 1)]
    late.vectors.append(rows, expected("one two\nthree"), [[1], [2]], late.vectors.space)
    late.vectors.append([ChunkAddress(uid, 0)], expected("one two"), [[1]], late.vectors.space)
    assert list(heir.catalogue.waiting(100)) == []
    cluster.expire(late)
    assert [document.uid for document in heir.catalogue.waiting(100)] == [uid, other, whole]
    assert heir.vectors.stored(uid, heir.vectors.space) == 1, "what it had stored before is kept"

    late.catalogue.save_chunks(other, CUT[:1])
    late.vectors.append([ChunkAddress(uid, 1)], -expected("three"), [[1]], late.vectors.space)
    late.catalogue.finish([uid, other, whole])
    late.catalogue.fail([uid, other, whole], "too late")
    assert heir.vectors.stored(uid, heir.vectors.space) == 1
    assert [document.status for document in heir.catalogue.documents()] == ["indexing", "queued", "indexing"]
    index_all(heir)
    assert [document.status for document in late.catalogue.documents()] == ["ready"] * 3
    late.catalogue.fail([uid, other, whole], "too late")
    np.testing.assert_array_equal(searchable(late)["letter"], expected("one two\nthree"))
    for id in ("note", "memo"):
        np.testing.assert_array_equal(searchable(late)[id], expected("one two\nthree"))


def test_vectors_of_a_document_that_was_deleted_meanwhile_are_removed(cluster: Cluster) -> None:
    first, second = cluster.replica(), cluster.replica()
    uid = publish(first, "letter", "one two\nthree").document.uid
    first.catalogue.save_chunks(uid, CUT)
    stored, deleted = threading.Event(), threading.Event()

    def wait_for_the_deletion() -> None:
        stored.set()
        assert deleted.wait(60)

    cluster.points.listeners.append(wait_for_the_deletion)

    def append() -> None:
        rows = [ChunkAddress(uid, 0), ChunkAddress(uid, 1)]
        first.vectors.append(rows, expected("one two\nthree"), [[1], [2]], first.vectors.space)

    def delete() -> None:
        assert stored.wait(60)
        second.catalogue.delete_document("letter")
        deleted.set()

    assert at_once([append, delete]) == [None, None]
    assert cluster.points.rows(first.vectors.space, uid, np.array([0])) is None
    first.catalogue.finish([uid])
    with pytest.raises(UnknownCollection):
        first.vectors.scopes().scope("default")


def test_a_deletion_reaches_scopes_that_others_keep(cluster: Cluster) -> None:
    first, second = cluster.replica(), cluster.replica()
    publish(first, "letter", "one two")
    publish(first, "note", "three")
    index_all(first)
    scopes = second.vectors.scopes()
    before = scopes.scope("default")
    assert before.scope.size == 2
    assert scopes.scope("default") is before, "kept while nothing changes"
    first.catalogue.delete_document("letter")
    assert scopes.scope("default").scope.size == 1, "when the deletion has returned, whether it was heard of or not"
    post(first, "other", "text")
    assert scopes.scope("default").scope.size == 1


def test_what_one_changes_wakes_who_waits_at_another(cluster: Cluster) -> None:
    first, second = cluster.replica(), cluster.replica()
    for change, is_searchable in (
        (lambda: publish(first, "letter", "one two"), False),
        (lambda: index_all(first), True),
        (lambda: first.catalogue.write_properties({"a": "b"}), False),
        (lambda: first.catalogue.delete_document("letter"), True),
    ):
        version, heard = second.news.version, threading.Event()
        second.news.listeners.append(heard.set)
        change()
        assert heard.wait(60)
        while is_searchable and second.news.version == version:
            second.news.wait(second.news.number, 60)
        second.news.listeners.clear()


def test_of_many_values_for_a_property_all_get_the_same(cluster: Cluster) -> None:
    replicas = [cluster.replica(), cluster.replica()]
    answers = at_once(
        [partial(replicas[number % 2].catalogue.settle_property, "key", str(number)) for number in range(8)]
    )
    assert len(set(map(str, answers))) == 1
    assert replicas[0].catalogue.read_property("key") == answers[0]


def test_a_process_searches_its_own_space_until_it_follows(cluster: Cluster) -> None:
    first, second = cluster.replica(), cluster.replica()
    publish(first, "letter", "one two")
    index_all(first)
    space = first.vectors.open_space(fingerprint="other", dimension=6)
    uid = first.catalogue.document("letter").uid
    first.vectors.append([ChunkAddress(uid, 0)], expected("one two")[:, :6], [[1]], space)
    assert first.vectors.activate(space, {})
    assert not second.vectors.follow("words"), "it is not the active one any more"
    np.testing.assert_array_equal(searchable(second)["letter"], expected("one two"))
    post(second, "note", "text")
    assert list(second.catalogue.waiting(10)) == []
    assert second.vectors.follow("other")
    assert second.vectors.space == space
    np.testing.assert_array_equal(searchable(second)["letter"], expected("one two")[:, :6])
    assert [document.id for document in second.catalogue.waiting(10)] == ["note"]


def test_what_one_that_stays_behind_has_claimed_is_free(cluster: Cluster) -> None:
    first, second = cluster.replica(), cluster.replica()
    publish(first, "letter", "one two")
    index_all(first)
    post(second, "note", "text")
    assert [document.id for document in second.catalogue.waiting(10)] == ["note"]
    space = first.vectors.open_space(fingerprint="other", dimension=6)
    uid = first.catalogue.document("letter").uid
    first.vectors.append([ChunkAddress(uid, 0)], expected("one two")[:, :6], [[1]], space)
    assert first.vectors.activate(space, {})
    # The second one cannot load the other checkpoint, and lives on.
    assert [document.id for document in first.catalogue.waiting(10)] == ["note"]


def test_progress_is_seen_by_others(cluster: Cluster) -> None:
    first, second = cluster.replica(), cluster.replica()
    uid = publish(first, "letter", "one two\nthree").document.uid
    first.catalogue.save_chunks(uid, CUT)
    first.catalogue.set_progress(uid, 0.5)
    shown: list[Document] = [storage.catalogue.document("letter") for storage in (first, second)]
    assert [(document.status, document.progress) for document in shown] == [("indexing", 0.5)] * 2


def test_deleting_while_others_index_and_publish_leaves_nothing_half(cluster: Cluster) -> None:
    replicas = [cluster.replica(), cluster.replica()]
    scopes = replicas[1].vectors.scopes()
    stop = threading.Event()

    def publish_some(storage: Storage) -> None:
        for round in range(6):
            for number in range(5):
                upload = storage.catalogue.begin_upload()
                upload.write(f"{number} one\n{number} two {'x' * round}")
                about = Description(str(number), "default", None, {}, Chunking(mode="lines"))
                storage.catalogue.publish([(upload, about)], replace=True, queue_limit=1000)

    def delete_some(storage: Storage) -> None:
        for number in [0, 1, 2, 3, 4] * 4:
            with suppress(UnknownDocument):
                storage.catalogue.delete_document(str(number))

    def work(storage: Storage) -> None:
        while not stop.is_set():
            index_all(storage, round_chunks=3, batch_chunks=2)

    def look() -> None:
        while not stop.is_set():
            try:
                found = scopes.scope("default")
            except UnknownCollection:
                continue
            assert set(np.diff(found.scope.offsets).tolist()) <= {2}, "each document whole"

    def change() -> None:
        answers = at_once(
            [partial(publish_some, replicas[0]), partial(publish_some, replicas[1]), partial(delete_some, replicas[0])]
        )
        stop.set()
        assert answers == [None, None, None]

    assert at_once([change, partial(work, replicas[0]), partial(work, replicas[1]), look]) == [None] * 4
    index_all(replicas[0])
    counts = replicas[0].catalogue.count_by_status()
    assert counts["queued"] == counts["indexing"] == counts["failed"] == 0
