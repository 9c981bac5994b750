"""Replicas, PostgreSQL and the vector process are killed again and again while clients upload and delete."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.engines.services import Site, ready, site_in, until
from tests.engines.threads import at_once
from tests.servers import running_server
from tests.service.helpers import add, ask, pages, text_of
from tests.service.library import SENTENCES

KILLS = int(os.environ.get("QRAG_TEST_KILLS", "6"))
COLLECTION = "kept"
WORDS = " ".join(SENTENCES).replace(".", "").split()


def text_for(id: int, version: int) -> str:
    """Lines that nothing else has, so that no two chunks are nearly as good."""
    chance = random.Random(f"{id} {version}")
    return "\n".join(" ".join(chance.sample(WORDS, 6)) + f" {id} {version} {line}." for line in range(1 + id % 7))


@dataclass
class Known:
    """What a client knows of a document."""

    acknowledged: int | None = None
    """The version that must be there, unless something newer may be."""
    deleted: bool = False
    perhaps: set[int | None] = field(default_factory=set)
    """Versions that may be there instead, and none where it may be deleted: calls without an answer."""


class Client:
    """Uploads, replaces and deletes documents of its own, at whatever replica answers."""

    def __init__(self, site: Site, documents: Iterator[int], seed: int) -> None:
        self._site, self._documents = site, documents
        self._chance = random.Random(seed)
        self.known: dict[int, Known] = {}

    def run(self, operations: threading.Semaphore, stop: threading.Event) -> None:
        while not stop.is_set():
            self._operate()
            operations.release()

    def _operate(self) -> None:
        kind = self._chance.choice(["upload", "upload", "replace", "delete"])
        there = [id for id, known in self.known.items() if not known.deleted]
        if kind == "upload" or not there:
            id = next(self._documents)
            self.known[id] = Known()
            self._put(id, 0)
        elif kind == "replace":
            id = self._chance.choice(there)
            known = self.known[id]
            self._put(id, 1 + max([known.acknowledged or 0, *(version or 0 for version in known.perhaps)]))
        else:
            self._delete(self._chance.choice(there))

    def _put(self, id: int, version: int) -> None:
        body = {"id": str(id), "collection": COLLECTION, "text": text_for(id, version), "chunking": {"mode": "lines"}}
        known = self.known[id]
        answer = self._send("POST", "/documents", json=body, params={"replace": True})
        if answer is None:
            known.perhaps.add(version)
        else:
            assert answer.status_code in (200, 202), answer.text
            self.known[id] = Known(acknowledged=version)

    def _delete(self, id: int) -> None:
        answer = self._send("DELETE", f"/documents/{id}")
        if answer is None:
            self.known[id].perhaps.add(None)
        else:
            assert answer.status_code in (204, 404), answer.text
            known = self.known[id]
            if answer.status_code == 404:
                assert known.acknowledged is None or None in known.perhaps, "what was acknowledged is there"
            self.known[id] = Known(deleted=True)

    def _send(self, method: str, path: str, **request: object) -> httpx.Response | None:
        """The answer; none where nobody knows what has come of the call."""
        replicas = self._site.running[:2]
        client = self._chance.choice([each for each in replicas if not each.client.is_closed] or replicas).client
        try:
            answer = client.request(method, path, **request)  # type: ignore[arg-type]
        except (httpx.TransportError, RuntimeError):  # RuntimeError: the client was closed with its process
            return None
        if answer.status_code == 503:
            assert answer.json()["code"] in ("storage_unavailable", "overloaded"), answer.text
            assert int(answer.headers["Retry-After"]) > 0
            return None
        return answer


@pytest.fixture
def site(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[Site]:
    with site_in(tmp_path, tiny_checkpoint) as site:
        yield site


def test_nothing_is_lost_half_there_or_back_again(site: Site, tmp_path: Path, tiny_checkpoint: Path) -> None:
    chance = random.Random(2)
    for _ in range(2):
        site.replica()
    documents = iter(range(10**6))
    clients = [Client(site, documents, seed) for seed in range(3)]
    operations, stop = threading.Semaphore(0), threading.Event()

    def kill_and_start() -> None:
        try:
            for _ in range(KILLS):
                for _ in range(chance.randrange(2, 12)):
                    assert operations.acquire(timeout=120)
                what = chance.choice(["replica", "replica", "postgres", "vectors"])
                if what == "replica":
                    number = chance.randrange(2)
                    site.running[number].kill()
                    replica = site.replica()  # appends itself
                    site.running[number] = site.running.pop()
                    assert site.running[number] is replica
                else:
                    engine = site.engine("postgres" if what == "postgres" else "vectors")
                    engine.kill()
                    for _ in range(chance.randrange(3)):
                        operations.acquire(timeout=120)
                    engine.start()
        finally:
            stop.set()

    assert at_once([kill_and_start, *(partial(client.run, operations, stop) for client in clients)]) == [None] * 4
    site.expire()
    check(site, clients, tmp_path / "embedded", tiny_checkpoint)


def check(site: Site, clients: list[Client], folder: Path, checkpoint: Path) -> None:
    first, second = (replica.client for replica in site.running)
    for replica in (first, second):
        until(replica, "/readyz", lambda answer: answer.status_code == 200)
    add(first, "Something that wakes both.", collection="other")
    there: dict[int, str] = {}
    for id, known in ((id, known) for client in clients for id, known in client.known.items()):
        answer = second.get(f"/documents/{id}")
        possible = {None if known.deleted else known.acknowledged, *known.perhaps}
        if answer.status_code == 404:
            assert None in possible, f"{id}: {known}"
            continue
        until(second, f"/documents/{id}", lambda answer: ready(answer) and answer.json()["replacement"] is None)
        there[id] = text_of(second, str(id))
        assert there[id] in [text_for(id, version) for version in possible if version is not None], f"{id}: {known}"
    assert len(there) > KILLS
    with running_server(folder, checkpoint) as alone:
        # In the same order: the state of an episode holds its chunks in that of their documents.
        documents = [
            document
            for page in pages(second, "/documents", "documents", 1000, collection=COLLECTION)
            for document in page
        ]
        assert {int(document["id"]) for document in documents} == there.keys()
        for document in documents:
            text = there[int(document["id"])]
            add(alone, text, id=document["id"], collection=COLLECTION, chunking={"mode": "lines"})
        for question in ("Which clerk wrote line 3?", "What is in version 1?"):
            expected = ask(alone, question, collection=COLLECTION, max_steps=8)["chunks"]
            for replica in (first, second):
                chunks = ask(replica, question, collection=COLLECTION, max_steps=8)["chunks"]
                assert [chunk["q"] for chunk in chunks] == pytest.approx([c["q"] for c in expected], abs=1e-5)
                assert [chunk["text"] for chunk in chunks] == [chunk["text"] for chunk in expected]
