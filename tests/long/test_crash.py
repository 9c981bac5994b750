"""SIGKILL at any moment: what was acknowledged is there afterwards, whole, and what was deleted is not."""

from __future__ import annotations

import contextlib
import random
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from tests.servers import Server
from tests.service.helpers import until

ROUNDS = 40
WRITERS = 3
WORDS = "the keeper of a lamp walked to town and sold nine apples near an old stone bridge".split()

Text = str | None
"""What an id stands for: a text, or nothing."""


@dataclass
class Truth:
    """What each id may stand for: one state once it was acknowledged, two while a request is on its way."""

    states: dict[str, set[Text]] = field(default_factory=dict)
    acknowledged: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def settle(self, id: str, state: Text) -> None:
        with self.changed:
            self.states[id] = {state}
            self.acknowledged += 1
            self.changed.notify_all()

    def wait_for(self, acknowledged: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.acknowledged >= acknowledged, 60)


def make_text(rng: random.Random) -> str:
    sentences = rng.choice([1, 3, 40, 4000])
    return " ".join(f"{rng.random():.9f} " + " ".join(rng.choices(WORDS, k=8)) + "." for _ in range(sentences))


def write_until_killed(address: str, name: str, truth: Truth, rng: random.Random) -> None:
    """Upload, replace and delete documents of one writer until the server is gone."""
    with contextlib.suppress(httpx.TransportError), httpx.Client(base_url=address, timeout=60) as client:
        while True:
            id = f"{name}-{rng.randrange(6)}"
            before = truth.states.get(id, {None})
            if rng.random() < 0.3:
                truth.states[id] = before | {None}
                assert client.delete(f"/documents/{id}").status_code in (204, 404)
                truth.settle(id, None)
            else:
                text = make_text(rng)
                truth.states[id] = before | {text}
                wait = rng.choice(["true", "false"])
                answer = client.post(
                    f"/documents?id={id}&replace=true&wait={wait}", content=text, headers={"Content-Type": "text/plain"}
                )
                # Another request cannot have changed it: each writer has ids of its own.
                assert answer.status_code in (201, 202), answer.text
                truth.settle(id, text)


def is_whole(client: httpx.Client, id: str) -> bool:
    """Whether no newer content of a document waits to be searched."""
    return client.get(f"/documents/{id}").json()["replacement"] is None


def check(client: httpx.Client, truth: Truth) -> int:
    """Compare the server with what was acknowledged; returns how many documents it had to finish."""
    unfinished = 0
    for id, states in truth.states.items():
        answer = client.get(f"/documents/{id}")
        found: Text = None
        if answer.status_code == 200 and answer.json()["replacement"] is not None:
            unfinished += 1
            until(partial(is_whole, client, id))
            answer = client.get(f"/documents/{id}")
        if answer.status_code == 200:
            found = client.get(f"/documents/{id}/text").text
            unfinished += answer.json()["status"] != "ready"
        assert found in states, f"{id}: acknowledged {states!r:.200}, found {found!r:.200}"
        truth.states[id] = {found}
        if found is not None:
            body = {"question": "who sold apples?", "document_ids": [id], "max_steps": 1}
            candidates = client.post("/retrieve", json=body).raise_for_status().json()["usage"]["candidates"]
            document = client.get(f"/documents/{id}").json()
            assert candidates in (0, document["chunks"]), "half of a document is visible"

    chunks = 0
    for id, states in truth.states.items():
        (text,) = states
        if text is None:
            continue
        # The same content again: waits until it is searchable, changes nothing.
        again = client.post(f"/documents?id={id}&wait=true", content=text, headers={"Content-Type": "text/plain"})
        assert again.status_code == 200
        assert again.json()["status"] == "ready"
        chunks += again.json()["chunks"]
        page = client.get(f"/documents/{id}/chunks?limit=1000").json()["chunks"]
        assert all(chunk["text"] == text[chunk["start"] : chunk["end"]] for chunk in page)
    answer = client.post("/retrieve", json={"question": "who sold apples?", "max_steps": 1})
    searchable = answer.json()["usage"]["candidates"] if answer.status_code == 200 else 0
    assert searchable == chunks, "something deleted is searchable, or something acknowledged is not"
    return unfinished


def test_nothing_acknowledged_is_lost(tmp_path: Path, tiny_checkpoint: Path) -> None:
    rng = random.Random(20251107)
    truth = Truth()
    resumed = 0
    for round_number in range(ROUNDS + 1):
        server = Server(tmp_path, tiny_checkpoint)
        try:
            address = server.wait_until_listening()
            with httpx.Client(base_url=address, timeout=60) as client:
                resumed += check(client, truth)
            if round_number == ROUNDS:
                break
            goal = truth.acknowledged + rng.randrange(1, 25)
            writers = [
                threading.Thread(
                    target=write_until_killed, args=(address, f"w{number}", truth, random.Random(rng.random()))
                )
                for number in range(WRITERS)
            ]
            for writer in writers:
                writer.start()
            truth.wait_for(goal)
        finally:
            server.kill()
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive()
    assert resumed > 0, "no kill hit a document that was being indexed: the test shows less than it should"
