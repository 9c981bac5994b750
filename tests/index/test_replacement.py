"""Content that replaces other content: the old is searched until the new is ready, and nothing is embedded twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.arrays import Float32Array
from index.errors import DocumentExists, UnknownCollection, UnknownDocument
from index.storage.documents import Description, Document, Place, Replacement
from index.storage.protocols import Storage
from qrag.wire.chunking import Chunking
from tests.index.storages import WordEncoder, embed, expected, index_all, open_local, post, publish, searchable


@pytest.fixture
def storage(either_storage: Storage) -> Storage:
    return either_storage


def broken(_inputs: Sequence[Sequence[int]]) -> Float32Array:
    raise RuntimeError("no such luck")


def test_the_former_version_is_searched_until_the_new_one_is_ready(storage: Storage) -> None:
    catalogue = storage.catalogue
    first = publish(storage, "letter", "Ana signed it.").document
    index_all(storage)
    with pytest.raises(DocumentExists):
        publish(storage, "letter", "Bruno signed it.")
    second = publish(storage, "letter", "Bruno signed it.", replace=True)
    assert second.created
    assert (second.document.uid > first.uid, second.document.replaces) == (True, first.uid)
    shown = catalogue.document("letter")
    assert (shown.uid, shown.status) == (first.uid, "ready")
    assert shown.replacement == Replacement("queued", 0.0, None)
    assert [version.uid for version in catalogue.versions("letter")][:2] == [second.document.uid, first.uid]
    assert [document.uid for document in catalogue.documents()] == [first.uid]
    assert [size.documents for size in catalogue.collections()] == [1]
    assert catalogue.count_by_status() == {"queued": 1, "indexing": 0, "ready": 1, "failed": 0}
    np.testing.assert_array_equal(searchable(storage)["letter"], expected("Ana signed it."))
    index_all(storage)
    shown = catalogue.document("letter")
    assert (shown.uid, shown.status, shown.replaces, shown.replacement) == (second.document.uid, "ready", None, None)
    assert catalogue.count_by_status() == {"queued": 0, "indexing": 0, "ready": 1, "failed": 0}
    np.testing.assert_array_equal(searchable(storage)["letter"], expected("Bruno signed it."))


def test_a_version_that_nobody_could_search_is_gone_at_once(storage: Storage) -> None:
    publish(storage, "letter", "Ana signed it.")
    second = publish(storage, "letter", "Bruno signed it.", replace=True).document
    assert (second.replaces, storage.catalogue.document("letter").uid) == (None, second.uid)
    index_all(storage, broken)
    assert storage.catalogue.document("letter").status == "failed"
    third = publish(storage, "letter", "Clara signed it.", replace=True).document
    assert (third.replaces, storage.catalogue.document("letter").uid) == (None, third.uid)


def test_a_replacement_that_fails_keeps_the_former_version_and_can_be_tried_again(storage: Storage) -> None:
    publish(storage, "letter", "Ana signed it.")
    index_all(storage)
    publish(storage, "letter", "Bruno signed it.", replace=True)
    index_all(storage, broken)
    replacement = storage.catalogue.document("letter").replacement
    assert replacement is not None
    assert (replacement.status, "RuntimeError" in (replacement.error or "")) == ("failed", True)
    np.testing.assert_array_equal(searchable(storage)["letter"], expected("Ana signed it."))
    retried = storage.catalogue.retry_document("letter")
    assert retried.replacement == Replacement("queued", 0.0, None)
    index_all(storage)
    np.testing.assert_array_equal(searchable(storage)["letter"], expected("Bruno signed it."))


def test_a_further_replacement_takes_the_place_of_one_that_waits_and_the_same_again_changes_nothing(
    storage: Storage,
) -> None:
    catalogue = storage.catalogue
    first = publish(storage, "letter", "Ana signed it.").document
    index_all(storage)
    second = publish(storage, "letter", "Bruno signed it.", replace=True).document
    third = publish(storage, "letter", "Clara signed it.", replace=True).document
    assert third.replaces == first.uid
    with pytest.raises(UnknownDocument):
        catalogue.documents_at([second.uid])
    again = publish(storage, "letter", "Clara signed it.")
    assert (again.document.uid, again.created) == (third.uid, False)
    assert publish(storage, "letter", "Ana signed it.").document.replacement == Replacement("queued", 0.0, None)
    back = publish(storage, "letter", "Ana signed it.", replace=True)
    assert (back.document.uid, back.created) == (first.uid, False)
    assert catalogue.document("letter").replacement is None, "what is searched is what was sent last"
    index_all(storage, broken)
    np.testing.assert_array_equal(searchable(storage)["letter"], expected("Ana signed it."))


def test_deleting_removes_both_versions_and_a_collection_what_would_come_into_it(storage: Storage) -> None:
    catalogue = storage.catalogue
    publish(storage, "letter", "Ana signed it.")
    index_all(storage)
    waiting = publish(storage, "letter", "Bruno signed it.", replace=True).document
    catalogue.delete_document("letter")
    assert catalogue.versions("letter") == []
    with pytest.raises(UnknownDocument):
        catalogue.documents_at([waiting.uid])
    index_all(storage)
    assert catalogue.documents() == [], "what waited does not come back"
    first = publish(storage, "letter", "Ana signed it.").document
    post(storage, "other", "Clara kept bees.", collection="other")
    index_all(storage)
    upload = catalogue.begin_upload()
    upload.write("Bruno signed it.")
    about = Description("letter", "other", None, {}, Chunking(mode="lines"))
    (moved,) = catalogue.publish([(upload, about)], replace=True, queue_limit=10)
    assert [size.documents for size in catalogue.collections()] == [1, 1]
    catalogue.delete_collection("other")
    assert [version.uid for version in catalogue.versions("letter")] == [first.uid]
    with pytest.raises(UnknownDocument):
        catalogue.documents_at([moved.document.uid])
    with pytest.raises(UnknownCollection):
        storage.vectors.scopes().scope("other")


def test_chunks_that_stay_are_not_embedded_again(storage: Storage) -> None:
    publish(storage, "letter", "one\ntwo two\nthree\nfour")
    index_all(storage)
    embedded: list[list[int]] = []

    def counting(inputs: Sequence[Sequence[int]]) -> Float32Array:
        embedded.extend(map(list, inputs))
        return embed(inputs)

    publish(storage, "letter", "zero\none\nthree\nthree\nfive five", replace=True)
    index_all(storage, counting, round_chunks=2, batch_chunks=2)
    assert embedded == [[4], [4, 4]], "only what was not there"
    np.testing.assert_array_equal(searchable(storage)["letter"], expected("zero\none\nthree\nthree\nfive five"))
    publish(storage, "letter", "four\none", replace=True)
    index_all(storage, counting)
    np.testing.assert_array_equal(searchable(storage)["letter"], expected("four\none"))
    assert embedded == [[4], [4, 4], [4]], "of the version that is replaced, not of earlier ones"


def test_a_title_that_towers_read_is_part_of_what_stays(storage: Storage) -> None:
    publish(storage, "letter", "one\ntwo", title="A")
    index_all(storage)
    publish(storage, "letter", "one\ntwo", title="B", replace=True)
    index_all(storage)
    inputs = WordEncoder().action_inputs(["B one", "B two"])
    np.testing.assert_array_equal(searchable(storage)["letter"], embed(inputs))


def test_headings_stand_above_a_chunk_below_its_title(storage: Storage) -> None:
    upload = storage.catalogue.begin_upload()
    upload.write("zero\none\ntwo")
    places = [Place(5, {"headings": ["Guide", "Bees"]}), Place(9, {"headings": ["Costs"]})]
    about = Description("guide", "default", "Guide", {}, Chunking(mode="lines"), (), places)
    storage.catalogue.publish([(upload, about)], replace=False, queue_limit=10)
    index_all(storage)
    uid = storage.catalogue.document("guide").uid
    headings = [chunk.heading for chunk in storage.catalogue.chunks(uid)]
    assert headings == ["Guide", "Guide > Bees", "Guide > Costs"]


def test_title_and_metadata_change_in_place_also_of_what_waits(storage: Storage) -> None:
    first = publish(storage, "letter", "Ana signed it.", title="Letter").document
    index_all(storage)
    publish(storage, "letter", "Bruno signed it.", title="Letter", replace=True, year=2025)
    version = storage.news.version

    def later(document: Document) -> tuple[str | None, Mapping[str, Any]]:
        return "Letters", {**document.metadata, "read": True}

    changed = storage.catalogue.describe("letter", later, collection="default")
    assert (changed.uid, changed.title, changed.metadata) == (first.uid, "Letters", {"year": 2024, "read": True})
    assert storage.news.version > version, "a filter sees the change"
    assert [document.id for document in storage.catalogue.documents(title="Letters")] == ["letter"]
    assert storage.catalogue.documents(title="Letter") == []
    with pytest.raises(UnknownDocument):
        storage.catalogue.describe("letter", later, collection="other")

    def refused(_document: Document) -> tuple[str | None, Mapping[str, Any]]:
        raise ValueError("too long")

    with pytest.raises(ValueError, match="too long"):
        storage.catalogue.describe("letter", refused, collection="default")
    index_all(storage)
    changed = storage.catalogue.document("letter")
    assert (changed.title, changed.metadata) == ("Letters", {"year": 2025, "read": True})


def test_replacements_outlive_the_process(tmp_path: Path) -> None:
    with closing(open_local(tmp_path)) as storage:
        publish(storage, "letter", "Ana signed it.\nBruno kept bees.")
        index_all(storage)
        publish(storage, "letter", "Ana signed it.\nClara kept bees.", replace=True)
    with closing(open_local(tmp_path)) as storage:
        np.testing.assert_array_equal(searchable(storage)["letter"], expected("Ana signed it.\nBruno kept bees."))
        index_all(storage)
        while storage.reclaim_space() or storage.maintain():
            pass
    with closing(open_local(tmp_path)) as storage:
        np.testing.assert_array_equal(searchable(storage)["letter"], expected("Ana signed it.\nClara kept bees."))
        assert len(storage.catalogue.versions("letter")) == 1
