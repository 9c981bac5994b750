"""Storages with a history, and what has to be the same after they were moved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from index.arrays import Float32Array, TokenIds
from index.search.function import QFunction
from index.search.positions import Positions
from index.search.scoring import best
from index.search.signals.lexical import Lexical, Saturation
from index.search.states import State, States, TermWeights
from index.storage.documents import Description, Document, Place, StoredChunk
from index.storage.feedback import Feedback, JudgedChunk
from index.storage.moving.exporting import PartSize, export
from index.storage.moving.format import Manifest
from index.storage.moving.records import every_record
from index.storage.protocols import Storage
from index.storage.questions import Question
from qrag.wire.chunking import Chunking
from tests.index.storages import WordEncoder, index_all

MORNING = datetime(2026, 3, 1, 9, tzinfo=UTC)
"""The minute 0, in which questions are asked."""

SMALL = PartSize(documents=2)
"""Parts of which a small storage has several."""

ENCODER = WordEncoder()

FUNCTION = QFunction(
    0.7,
    -0.1,
    Positions(mode="none"),
    further=(Lexical(0.8, np.linspace(0, 1, 40, dtype=np.float32), Saturation(mean_length=3.0)),),
)


def terms(chunks: Sequence[StoredChunk]) -> Sequence[TokenIds]:
    return ENCODER.terms([ENCODER.chunk_text(chunk.heading, chunk.text) for chunk in chunks])


def exported(storage: Storage, folder: Path, **options: Any) -> Manifest:
    settings: dict[str, Any] = {"terms": terms, "properties": ["checkpoint"], "size": SMALL} | options
    return export(storage, folder, **settings)


def put(
    storage: Storage,
    id: str,
    text: str,
    *,
    collection: str = "default",
    title: str | None = None,
    replace: bool = False,
    places: Sequence[Place] = (),
) -> None:
    """A document with everything that one can have."""
    upload = storage.catalogue.begin_upload()
    upload.write(text)
    about = Description(
        id,
        collection,
        title,
        {"year": 2024, "ratio": 0.1, "tags": ["ä", None]},
        Chunking(mode="lines", max_tokens=50),
        (f"Page 3 of {id} has no text.",),
        places,
    )
    storage.catalogue.publish([(upload, about)], replace=replace, queue_limit=1000)


def judge(storage: Storage, *ids: str, question: str = "Who signed?") -> None:
    chunks = [JudgedChunk(id, 0, f"The text of {id}. \x00", number == 0) for number, id in enumerate(ids)]
    said = Feedback("default", question, chunks, "Ana.", None, "tiny", "f1")
    storage.feedback.add(said, [storage.catalogue.document(id).uid for id in ids])


def ask(storage: Storage, minute: int, *ids: str, collection: str = "default", question: str = "Who signed?") -> None:
    """Keep a question that was answered with the first chunks of these documents."""
    asked = Question(
        id=f"qu-{minute:024x}",
        collection=collection,
        question=question,
        asked_at=MORNING + timedelta(minutes=minute, milliseconds=minute),
        checkpoint="tiny",
        fingerprint="f1",
        chunks=[(id, 0) for id in ids],
        found_nothing=not ids,
        stopped_by="sufficient" if ids else "hopeless",
        complete=0.1 + 0.2 if ids else None,
        hopeless=0.7 if ids else None,
        seconds=1 / 3,
        request_id=f"r{minute} \x00",
    )
    storage.questions.add([asked])


def broken(_inputs: Sequence[Sequence[int]]) -> Float32Array:
    raise RuntimeError("no such luck")


def tell_story(storage: Storage) -> None:
    """A history with everything in it."""
    put(storage, "letter", "Ana signed it.\nÄrger im Büro. \x00\n👩\u200d👧", title="A letter", places=[
        Place(0, {"page": 1, "headings": ["One", "Two"]}), Place(15, {"page": 2, "headings": []}),
    ])  # fmt: skip
    put(storage, "gone", "It will be deleted.")
    put(storage, "alone", "Its collection will be empty.", collection="emptied")
    put(storage, "theirs", "six seven\n" * 3, collection="other")
    put(storage, "empty", " \n ")
    put(storage, "often", f"{'lo ' * 90}\n" * 4 + "so it is")
    put(storage, "changing", "the first of it\nstays")
    put(storage, "hopeful", "the present content")
    index_all(storage)
    put(storage, "changing", "the second of it\nstays", replace=True)  # it comes behind the others
    index_all(storage)
    put(storage, "broken", "nobody can read it")
    put(storage, "hopeful", "what fails to take its place", replace=True)
    index_all(storage, broken)
    storage.catalogue.describe("letter", lambda _: ("Quite another title", {"year": 1923}), collection="default")
    put(storage, "theirs", "what waits to take its place", collection="other", replace=True)
    put(storage, "late", "still waiting\nfor the indexer")
    ask(storage, 4, "gone", "letter")
    ask(storage, 2, "alone", collection="emptied")
    ask(storage, 3, question="Wer? 👩\u200d👧 \x00")
    storage.catalogue.delete_document("gone")
    storage.catalogue.delete_document("alone")
    judge(storage, "letter", "often")
    judge(storage, "theirs", question="Who else? ")
    storage.catalogue.write_properties({"checkpoint": "tuned", "else": "nothing"})


def contents(storage: Storage) -> list[Any]:
    """Everything that is to be the same after a move, versions, feedback and questions in order of arrival."""
    catalogue = storage.catalogue
    versions: list[Document] = []
    for document in catalogue.documents(limit=10**6):
        versions.append(document)
        versions += [version for version in catalogue.versions(document.id) if version.replaces == document.uid]
    rank = {version.uid: number for number, version in enumerate(sorted(versions, key=lambda each: each.uid))}
    found: list[Any] = [_version(storage, version, rank) for version in versions]
    found.append([stored.feedback for stored in every_record(storage.feedback.records)])
    found.append(
        [(kept.question, [said.feedback for said in kept.feedback]) for kept in every_record(storage.questions.records)]
    )
    found.append(catalogue.read_property("checkpoint"))
    return found


def _version(storage: Storage, version: Document, rank: dict[int, int]) -> Any:
    catalogue, uid = storage.catalogue, version.uid
    is_ready, has_failed = version.status == "ready", version.status == "failed"
    vectors = storage.vectors.rows(uid, np.arange((is_ready and version.chunks) or 0), storage.vectors.space)
    return (
        (rank[uid], version.id, version.collection, version.title, dict(version.metadata), version.chunking),
        (version.sha256, version.characters, version.bytes, version.warnings, catalogue.places(uid)),
        "queued" if version.status == "indexing" else version.status,
        version.error if has_failed else None,
        None if version.replaces is None else rank[version.replaces],
        "".join(catalogue.text_blocks(uid)),
        catalogue.chunks(uid, limit=10**6) if is_ready else None,
        None if vectors is None else vectors.tolist(),
    )


def answers(storage: Storage, *, steps: int = 4) -> list[list[tuple[str, int, float]]]:
    """What some questions find, chunk for chunk with their Q-values, by vectors and tokens."""
    random, found = np.random.default_rng(7), []
    for collection in [size.name for size in storage.catalogue.collections()]:
        searched = storage.vectors.scopes().scope(collection)
        documents = storage.catalogue.documents_at(searched.uids.tolist())
        for _ in range(5):
            embedding = random.standard_normal(storage.vectors.space.dimension).astype(np.float32)
            weights = TermWeights(np.arange(1, 12), random.random(11).astype(np.float32))
            selected: list[int] = []
            episode = []
            for _ in range(min(steps, searched.scope.size)):
                (estimate,) = searched.scope.estimate(States(embedding[None], (weights,)), [sorted(selected)], FUNCTION)
                state = State(embedding, weights)
                (candidate,) = best(estimate, 1, state, searched.scope, sorted(selected), FUNCTION)
                address = searched.address(candidate.position)
                episode.append((documents[address.uid].id, address.number, candidate.q))
                selected.append(candidate.position)
            found.append(episode)
    return found


def assert_same(one: Storage, other: Storage) -> None:
    """The same documents, and the same answers."""
    assert contents(other) == contents(one)
    for first, second in zip(answers(one), answers(other), strict=True):
        assert [(id, number) for id, number, _ in second] == [(id, number) for id, number, _ in first]
        np.testing.assert_allclose([q for *_, q in second], [q for *_, q in first], atol=1e-5)
