"""The death of the database server: what was acknowledged is there and whole, and nothing is half there."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from index.errors import StorageUnavailable, UnknownDocument
from index.storage.distributed.opening import DistributedStorage
from index.storage.documents import Description
from index.storage.postgres import database
from index.storage.postgres.rows import TEXT_BLOCK
from qrag.wire.chunking import Chunking
from service.http.problems import problem_of
from tests.engines.memory_points import MemoryPoints
from tests.engines.postgres import PostgresServer, postgres_server
from tests.engines.storages import open_distributed
from tests.engines.threads import at_once
from tests.index.storages import WordEncoder, embed, index_all, publish, searchable

KILLS = 4


@pytest.fixture(scope="module")
def durable() -> Iterator[PostgresServer]:
    with postgres_server(durable=True) as server:
        yield server


def text_of(number: int) -> str:
    """A document's text; of every tenth one a part is stored before it is published."""
    return f"{number} one\n{number} two\n" + f"{'x' * 5000} " * (17 * TEXT_BLOCK // 5000) * (number % 10 == 9)


class Client:
    """Publishes documents three at a time, and deletes some, until it hears of the server's death."""

    def __init__(self, storage: DistributedStorage, numbers: Iterator[int]) -> None:
        self._storage, self._numbers = storage, numbers
        self.batches: list[list[int]] = []
        self.acknowledged: set[int] = set()
        self.deleted: set[int] = set()
        self.perhaps_deleted: set[int] = set()

    def run(self, enough: threading.Semaphore, killed: threading.Event) -> None:
        with suppress(StorageUnavailable):
            while not killed.is_set():
                batch = [next(self._numbers) for _ in range(3)]
                self.batches.append(batch)
                uploads = []
                for number in batch:
                    upload = self._storage.catalogue.begin_upload()
                    upload.write(text_of(number))
                    about = Description(str(number), "default", None, {}, Chunking(mode="lines"))
                    uploads.append((upload, about))
                self._storage.catalogue.publish(uploads, replace=False, queue_limit=10**6)
                self.acknowledged.update(batch)
                enough.release()
                self.perhaps_deleted.add(batch[0])
                self._storage.catalogue.delete_document(str(batch[0]))
                self.deleted.add(batch[0])


def test_what_was_acknowledged_survives_and_nothing_is_half_there(durable: PostgresServer, tmp_path: Path) -> None:
    numbers, chance = count(), random.Random(1)
    clients: list[Client] = []
    with closing(open_distributed(durable.new_url(), MemoryPoints(), tmp_path / "incoming")) as storage:
        for _ in range(KILLS):
            enough, killed = threading.Semaphore(0), threading.Event()
            working = [Client(storage, numbers) for _ in range(3)]
            clients += working

            def work(killed: threading.Event = killed) -> None:
                with suppress(StorageUnavailable):
                    while not killed.is_set():
                        index_all(storage)

            def kill(
                enough: threading.Semaphore = enough,
                killed: threading.Event = killed,
                batches: int = chance.randrange(2, 9),
            ) -> None:
                for _ in range(batches):
                    assert enough.acquire(timeout=60)
                durable.kill()
                durable.start()
                killed.set()  # whose calls have waited for a connection has noticed nothing

            answers = at_once([kill, work, *(partial(client.run, enough, killed) for client in working)])
            assert answers == [None] * 5
        check(storage, clients)
    assert sum(len(client.acknowledged) for client in clients) >= 2 * KILLS


def check(storage: DistributedStorage, clients: list[Client]) -> None:
    there: set[int] = set()
    for client in clients:
        for batch in client.batches:
            found = {number for number in batch if has(storage, number)}
            assert found >= set(batch) & client.acknowledged - client.perhaps_deleted, "what was acknowledged"
            assert not found & client.deleted, "nothing comes back"
            assert len(found - client.perhaps_deleted) in (0, len(set(batch) - client.perhaps_deleted)), "all or none"
            there |= found
    for number in there:
        uid = storage.catalogue.document(str(number)).uid
        assert "".join(storage.catalogue.text_blocks(uid)) == text_of(number)
    with storage.database.read() as connection:
        known = "SELECT text FROM documents UNION SELECT text FROM deleted UNION SELECT text FROM uploads"
        lost = connection.execute(f"SELECT COUNT(*) AS blocks FROM texts WHERE text NOT IN ({known})").fetchone()
    assert lost == {"blocks": 0}
    index_all(storage)
    found_vectors = searchable(storage)
    assert set(map(int, found_vectors)) == there
    for number in there:
        chunks = storage.catalogue.chunks(storage.catalogue.document(str(number)).uid, limit=10_000)
        inputs = WordEncoder().action_inputs([chunk.text for chunk in chunks])
        np.testing.assert_array_equal(found_vectors[str(number)], embed(inputs))


def has(storage: DistributedStorage, number: int) -> bool:
    try:
        storage.catalogue.document(str(number))
    except UnknownDocument:
        return False
    return True


def test_while_the_server_is_gone_every_call_says_so_and_news_are_made_up_for(
    durable: PostgresServer, tmp_path: Path
) -> None:
    with closing(open_distributed(durable.new_url(), MemoryPoints(), tmp_path / "incoming")) as storage:
        publish(storage, "letter", "one two")
        version = storage.news.version
        durable.kill()
        with pytest.raises(StorageUnavailable) as lost:
            storage.catalogue.document("letter")
        problem, headers = problem_of(lost.value)
        assert (problem.status, problem.code, headers) == (503, "storage_unavailable", {"Retry-After": "5"})
        with pytest.raises(StorageUnavailable):
            publish(storage, "note", "three")
        storage.catalogue.set_progress(1, 0.5)  # nothing that anybody misses
        durable.start()
        while storage.news.version == version:
            storage.news.wait(storage.news.number, 60)
        publish(storage, "note", "three")
        assert [document.id for document in storage.catalogue.documents()] == ["letter", "note"]


def test_a_server_that_stands_still_is_not_waited_for(
    durable: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_distributed(durable.new_url(), MemoryPoints(), tmp_path / "incoming")) as storage:
        publish(storage, "letter", "one two")
        monkeypatch.setattr(database, "ANSWER_SECONDS", 0.5)
        processes = durable.processes()
        try:
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            with pytest.raises(StorageUnavailable):
                storage.catalogue.document("letter")
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)
        monkeypatch.undo()
        assert storage.catalogue.document("letter").characters == 7
