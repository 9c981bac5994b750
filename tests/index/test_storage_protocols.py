"""The storage protocols, by a second engine: whatever indexing and searching need, dictionaries can do as well."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from index.arrays import Float32Array
from index.errors import UnknownCollection, UnknownDocument
from index.indexing.indexer import Indexer
from index.indexing.reembedding import Reembedding
from index.search.function import QFunction
from index.search.positions import Positions
from index.search.scoring import best
from index.search.states import State, States
from index.storage.documents import Description, Place
from index.storage.protocols import Storage
from index.storage.vectors import ChunkAddress
from qrag.wire.chunking import Chunking
from qrag.wire.documents import Status
from qrag.wire.filters import Filter
from tests.index.storages import DIMENSION, WordEncoder, embed, expected, index_all, post, publish, searchable

WAITING: tuple[Status, ...] = ("queued", "indexing")


@pytest.fixture
def storage(either_storage: Storage) -> Storage:
    return either_storage


def test_the_same_text_again_is_the_same_document_whatever_it_is_called_now(storage: Storage) -> None:
    """Without an id: what was uploaded first has been given another title and metadata since."""
    first = publish(storage, None, "Ana signed it.")
    storage.catalogue.describe(first.document.id, lambda _: ("Letter", {"year": 1923}), collection="default")
    again = publish(storage, None, "Ana signed it.")
    assert (again.document.uid, again.created) == (first.document.uid, False)
    assert (again.document.title, again.document.metadata) == ("Letter", {"year": 1923})


def test_a_new_title_drops_what_other_towers_have_made_of_the_old_one(storage: Storage) -> None:
    publish(storage, "letter", "Ana signed it.\nÄrger im Büro.\n")
    publish(storage, "note", "Bruno kept bees.")
    index_all(storage)
    other = storage.vectors.open_space(fingerprint="other", dimension=DIMENSION)
    rows = {document.id: document.uid for document in storage.catalogue.documents()}
    for id, count in (("letter", 2), ("note", 1)):
        addresses = [ChunkAddress(rows[id], number) for number in range(count)]
        storage.vectors.append(addresses, embed([[number] for number in range(count)]), [[]] * count, other)
    assert storage.vectors.unembedded(other, 9) == []
    storage.catalogue.describe("letter", lambda letter: (letter.title, {"year": 1}), collection="default")
    assert storage.vectors.unembedded(other, 9) == []  # no tower reads metadata
    storage.catalogue.describe("letter", lambda _: ("New", {}), collection="default")
    assert [each.uid for each in storage.vectors.unembedded(other, 9)] == [rows["letter"]]
    assert not storage.vectors.activate(other, {})
    assert storage.vectors.unembedded(storage.vectors.space, 9) == []


def test_a_document_is_uploaded_indexed_chosen_searched_and_deleted(storage: Storage) -> None:
    catalogue, scopes = storage.catalogue, storage.vectors.scopes()
    letter = publish(storage, "letter", "Ana signed it.\nÄrger im Büro.\n")
    publish(storage, "note", "Bruno kept bees.")
    assert letter.created
    assert not publish(storage, "letter", "Ana signed it.\nÄrger im Büro.\n").created
    assert [document.status for document in catalogue.documents()] == ["queued", "queued"]
    assert scopes.scope("default").scope.size == 0
    index_all(storage)
    assert [document.status for document in catalogue.documents()] == ["ready", "ready"]

    chosen, found = catalogue.choose("default"), scopes.scope("default")
    np.testing.assert_array_equal(found.uids, chosen.uids)
    np.testing.assert_array_equal(np.diff(found.scope.offsets), chosen.counts)
    state = embed([[5, 2, 5]])[0]  # as the second line is embedded
    function = QFunction(1.0, 0.0, Positions(mode="none"))
    (estimated,) = found.scope.estimate(States(state[None]), [[]], function)
    (candidate,) = best(estimated, 1, State(state), found.scope, [], function)
    address = found.address(candidate.position)
    assert address == ChunkAddress(letter.document.uid, 1)
    (chunk,) = catalogue.chunks(address.uid, first=address.number, limit=1)
    assert (chunk.number, chunk.text) == (1, "Ärger im Büro.")
    assert catalogue.text(address.uid, chunk.chunk.start, chunk.chunk.end) == chunk.text
    assert "".join(catalogue.text_blocks(address.uid)) == "Ana signed it.\nÄrger im Büro.\n"

    catalogue.delete_document("letter")
    assert catalogue.versions("letter") == []
    assert searchable(storage).keys() == {"note"}
    for forgotten in (catalogue.document, catalogue.delete_document, catalogue.retry_document):
        with pytest.raises(UnknownDocument):
            forgotten("letter")
    with pytest.raises(UnknownDocument):
        catalogue.documents_at([address.uid])
    assert publish(storage, "letter", "Ana signed it.").document.uid > chosen.uids.max()
    catalogue.delete_collection("default")
    with pytest.raises(UnknownCollection):
        scopes.scope("default")
    assert catalogue.collections() == []
    assert not Indexer(storage, WordEncoder(), embed, threading.Event()).work()


def test_chunks_know_where_they_stand_in_their_file(storage: Storage) -> None:
    catalogue = storage.catalogue
    upload = catalogue.begin_upload()
    upload.write("zero\none\ntwo two\nthree")
    places = [Place(5, {"page": 1}), Place(9, {"page": 2, "headings": ["A"]})]
    about = Description("a", "default", None, {}, Chunking(mode="lines"), ("Page 3 has no text.",), places)
    ((document, _),) = catalogue.publish([(upload, about)], replace=False, queue_limit=10)
    assert document.warnings == ("Page 3 has no text.",)
    assert catalogue.places(document.uid) == places
    assert catalogue.starts(document.uid).tolist() == []
    index_all(storage)
    assert catalogue.starts(document.uid).tolist() == [0, 5, 9, 17]
    later = {"page": 2, "headings": ["A"]}
    assert [chunk.location for chunk in catalogue.chunks(document.uid)] == [{}, {"page": 1}, later, later]
    assert [chunk.location for chunk in catalogue.chunks(document.uid, first=1, limit=1)] == [{"page": 1}]
    catalogue.delete_document("a")
    while storage.reclaim_space():
        pass
    assert storage.catalogue.documents() == []


def test_a_request_sees_what_it_may_and_asks_for(storage: Storage) -> None:
    publish(storage, "old", "one two", year=1923)
    publish(storage, "new", "three four\nfive", year=2024)
    post(storage, "theirs", "six", collection="other")
    index_all(storage)
    scopes = storage.vectors.scopes()
    recent = TypeAdapter[Filter](Filter).validate_json('{"field": "year", "gte": 2000}')
    sizes = {
        "all": scopes.scope("default").scope.size,
        "named": scopes.scope("default", ["old", "old"]).scope.size,
        "none": scopes.scope("default", []).scope.size,
        "recent": scopes.scope("default", filter=recent).scope.size,
        "named and recent": scopes.scope("default", ["old"], recent).scope.size,
        "other": scopes.scope("other").scope.size,
    }
    assert sizes == {"all": 3, "named": 1, "none": 0, "recent": 2, "named and recent": 0, "other": 1}
    with pytest.raises(UnknownDocument):
        scopes.scope("default", ["theirs"])
    with pytest.raises(UnknownDocument):
        storage.catalogue.choose("default", ["theirs"])


def test_vectors_are_found_only_when_the_catalogue_calls_their_document_ready(storage: Storage) -> None:
    uid = publish(storage, "letter", "one two\nthree").document.uid
    catalogue, vectors = storage.catalogue, storage.vectors
    catalogue.save_chunks(uid, np.array([[0, 7, 2], [8, 13, 1]]))
    vectors.append([ChunkAddress(uid, 0)], expected("one two"), [[1, 2]], vectors.space)
    assert vectors.stored(uid, vectors.space) == 1
    vectors.append([ChunkAddress(uid, 1)], expected("three"), [[3]], vectors.space)
    assert searchable(storage) == {}
    assert list(catalogue.waiting(10)) == [catalogue.document("letter")]
    assert list(catalogue.choose("default").uids) == []
    # As after a crash at this moment: the next round finds nothing left to embed, and finishes.
    index_all(storage, lambda inputs: pytest.fail(f"embedded again: {inputs}"))
    np.testing.assert_array_equal(searchable(storage)["letter"], expected("one two\nthree"))


def test_another_tower_gets_a_space_of_its_own_and_is_searched_when_that_is_complete(storage: Storage) -> None:
    def other(inputs: Sequence[Sequence[int]]) -> Float32Array:
        return -embed(inputs)[:, :6]

    publish(storage, "letter", "one two\nthree")
    publish(storage, "note", "four")
    index_all(storage)
    vectors, former = storage.vectors, storage.vectors.scopes()
    space = vectors.open_space(fingerprint="other", dimension=6, properties={"wanted": "other"})
    assert storage.catalogue.read_property("wanted") == "other"
    assert vectors.share_embedded(space) == 0
    assert not vectors.activate(space, {})
    work = Reembedding(storage, WordEncoder(), other, threading.Event(), space, round_chunks=2)
    while work.work():
        assert searchable(storage)["letter"].shape == (2, DIMENSION)
    assert vectors.share_embedded(space) == 1
    assert vectors.activate(space, {"wanted": None})
    assert storage.catalogue.read_property("wanted") is None
    np.testing.assert_array_equal(searchable(storage)["letter"], -expected("one two\nthree")[:, :6])
    assert former.scope("default").scope.rows(np.arange(3)).shape == (3, DIMENSION)
    vectors.forget_other_spaces()
    assert list(vectors.spaces) == [vectors.space] == [space]


def test_whoever_waits_hears_of_every_change(storage: Storage) -> None:
    calls: list[int] = []
    storage.news.listeners.append(partial(calls.append, 1))
    news, version = storage.news.number, storage.news.version
    waiting = threading.Thread(target=storage.news.wait, args=(news, 600))
    waiting.start()
    publish(storage, "letter", "one two")
    waiting.join(60)
    assert not waiting.is_alive()
    assert calls
    index_all(storage)
    assert storage.news.version > version, "a search would see the document"
    version = storage.news.version
    storage.catalogue.delete_document("letter")
    assert storage.news.version > version


def test_who_indexes_says_why_it_cannot_until_something_is_deleted(storage: Storage) -> None:
    publish(storage, "letter", "one two")
    storage.catalogue.stall("no space")
    assert (storage.catalogue.stalled, storage.catalogue.stalls) == ("no space", 1)
    storage.catalogue.delete_document("letter")
    assert (storage.catalogue.stalled, storage.catalogue.stalls) == (None, 1)


def test_each_engine_is_known_to_its_own_folder_alone() -> None:
    root = Path(__file__).parents[2]
    packages = ("index", "service", "trainer", "benchmarks", "client")
    sources = [path for package in packages for path in (root / package).rglob("*.py")]

    def using(library: str) -> set[Path]:
        imports = re.compile(rf"^\s*(?:import|from) {library}\b", re.MULTILINE)
        return {path.relative_to(root) for path in sources if imports.search(path.read_text(encoding="utf-8"))}

    def outside(folder: str, library: str) -> set[Path]:
        found = using(library)
        assert any(path.is_relative_to(folder) for path in found)
        return {path.parent for path in found if not path.is_relative_to(folder)}

    # The trainer keeps what a language model said in a file of its own, which no service knows.
    assert outside("index/storage/local", "sqlite3") == {Path("trainer/readers")}
    assert not outside("index/storage/postgres", "psycopg")
    assert not outside("index/storage/qdrant", "qdrant_client")


def test_a_service_on_one_machine_loads_no_other_engine() -> None:
    engines = {"psycopg", "qdrant_client"}
    program = f"import sys, service.services; print(*{engines} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
