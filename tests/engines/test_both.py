"""The whole storage beyond one machine, PostgreSQL and Qdrant's engine, beside a data directory: the same answers."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from index.errors import DocumentExists, UnknownCollection, UnknownDocument
from index.search.function import QFunction
from index.search.positions import Positions
from index.search.scoring import best
from index.search.states import State, States
from index.storage.documents import Description
from index.storage.protocols import Storage
from index.storage.qdrant.connection import Connection
from index.storage.qdrant.points import QdrantPoints
from index.storage.vectors import SearchScope
from qrag.wire.chunking import Chunking
from qrag.wire.filters import Filter
from tests.engines.edge import EdgeClient
from tests.engines.postgres import PostgresServer
from tests.engines.storages import open_distributed
from tests.index.storages import embed, index_all, open_local

RECENT: Filter = TypeAdapter[Filter](Filter).validate_python({"field": "year", "gte": 2})
STEPS = 3

Step = tuple[Literal["put", "delete", "drop", "index"], str, int, str]

steps = st.tuples(
    st.sampled_from(["put", "put", "put", "delete", "drop", "index", "index"]),
    st.sampled_from("abcd"),
    st.integers(0, 4),
    st.sampled_from(["x", "y"]),
)


@pytest.fixture
def pair(postgres: PostgresServer, tmp_path: Path) -> Iterator[Generator[tuple[Storage, Storage]]]:
    """Any number of pairs of empty storages, of which the latest is open."""

    def pairs() -> Generator[tuple[Storage, Storage]]:
        for number in count():
            folder = tmp_path / str(number)
            (folder / "shards").mkdir(parents=True)
            points = QdrantPoints(Connection("", prefix="test"), EdgeClient(folder / "shards"))  # type: ignore[arg-type]
            with ExitStack() as opened:
                local = opened.enter_context(closing(open_local(folder / "local")))
                distributed = open_distributed(postgres.new_url(), points, folder / "incoming")
                yield local, opened.enter_context(closing(distributed))

    with closing(pairs()) as made:
        yield made


def test_the_same_answers_after_any_history(pair: Iterator[tuple[Storage, Storage]]) -> None:
    @settings(max_examples=8)
    @given(st.lists(steps, min_size=3, max_size=12))
    def agree(history: list[Step]) -> None:
        storages = next(pair)
        for step in history:
            outcomes = [play(storage, step) for storage in storages]
            assert outcomes[0] == outcomes[1]
        for storage in storages:
            index_all(storage)
        for collection in ("x", "y"):
            for filter in (None, RECENT):
                answers = [answer(storage, collection, filter) for storage in storages]
                assert [chunk for chunk, _ in answers[0]] == [chunk for chunk, _ in answers[1]]
                np.testing.assert_allclose([q for _, q in answers[0]], [q for _, q in answers[1]], atol=1e-5)

    agree()


def play(storage: Storage, step: Step) -> object:
    """What a client sees of one step of a history."""
    kind, id, number, collection = step
    try:
        if kind == "put":
            upload = storage.catalogue.begin_upload()
            upload.write("\n".join(f"{id * (1 + line)} {'w' * (1 + number)}" for line in range(1 + number)))
            about = Description(id, collection, None, {"year": number}, Chunking(mode="lines"))
            ((document, created),) = storage.catalogue.publish([(upload, about)], replace=number > 0, queue_limit=100)
            return created, document.status, document.collection
        if kind == "delete":
            storage.catalogue.delete_document(id)
        elif kind == "drop":
            storage.catalogue.delete_collection(collection)
        else:
            index_all(storage)
        return storage.catalogue.count_by_status(), storage.catalogue.collections()
    except (DocumentExists, UnknownDocument, UnknownCollection) as error:
        return type(error)


def answer(storage: Storage, collection: str, filter: Filter | None) -> list[tuple[Any, float]]:
    """The chunks that an episode of some steps selects, and their Q-values."""
    try:
        found = storage.vectors.scopes().scope(collection, filter=filter)
    except UnknownCollection:
        return []
    function = QFunction(1.0, 0.0, Positions(mode="none"))
    state = embed([[3, 2]])[0]
    chosen: list[tuple[Any, float]] = []
    selected: list[int] = []
    while len(chosen) < min(STEPS, found.scope.size):
        (estimated,) = found.scope.estimate(States(state[None]), [sorted(selected)], function)
        (candidate,) = best(estimated, 1, State(state), found.scope, sorted(selected), function)
        selected.append(candidate.position)
        chosen.append((named(storage, found, candidate.position), candidate.q))
    return chosen


def named(storage: Storage, found: SearchScope, position: int) -> tuple[str, int, str]:
    uid, number = found.address(position)
    (chunk,) = storage.catalogue.chunks(uid, first=number, limit=1)
    return storage.catalogue.documents_at([uid])[uid].id, number, chunk.text
