"""A full disk: a clear 507, nothing lost, and everything works again once there is space."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import Server
from tests.service.helpers import metric, pages

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


def small_disk(directory: Path) -> list[str]:
    """A command prefix that mounts a 25 MB file system over the directory, for one process alone."""
    return [*UNSHARE, "sh", "-c", 'mount -t tmpfs -o size=25m tmpfs "$0" && exec "$@"', str(directory)]


def can_mount() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run(
            [*UNSHARE, "sh", "-c", "mount -t tmpfs tmpfs /tmp"], capture_output=True, check=False
        ).returncode
        == 0
    )


pytestmark = pytest.mark.skipif(not can_mount(), reason="needs user namespaces to mount a small file system")


@pytest.fixture
def full_disk_client(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[httpx.Client]:
    server = Server(tmp_path, tiny_checkpoint, prefix=small_disk(tmp_path), min_free_bytes=0, keep_questions_days=1)
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=120) as client:
            yield client
    finally:
        server.stop()


def make_text(rng: random.Random, characters: int) -> str:
    return " ".join(f"Number {rng.random()} is {rng.random()}." for _ in range(characters // 45))


def test_full_disk_is_507_and_loses_nothing(full_disk_client: httpx.Client) -> None:
    client, rng = full_disk_client, random.Random(5)
    stored: dict[str, str] = {}
    refused = None
    for number in range(200):
        text = make_text(rng, 400_000)
        answer = client.post(f"/documents?id=d{number}&wait=true", content=text, headers={"Content-Type": "text/plain"})
        if answer.status_code == 201:
            stored[f"d{number}"] = text
            continue
        refused = answer
        break
    assert refused is not None
    assert refused.status_code == 507
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "storage_full"
    assert len(stored) > 8

    for id, text in stored.items():
        assert client.get(f"/documents/{id}/text").text == text
        body = {"question": "which number?", "document_ids": [id], "max_steps": 1}
        assert len(client.post("/retrieve", json=body).json()["chunks"]) == 1
    kept = sum(len(page) for page in pages(client, "/questions", "questions", 100))
    assert kept + metric(client, "qrag_questions_dropped_total") == len(stored)

    gone = sorted(stored)[:8]  # their space must hold the document that did not fit, and its log
    for id in gone:
        assert client.delete(f"/documents/{id}").status_code == 204
        del stored[id]
    answer = client.post(
        "/documents?id=after&wait=true", content="Space again.", headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 201, answer.text
    for id, text in stored.items():
        again = client.post(f"/documents?id={id}&wait=true", content=text, headers={"Content-Type": "text/plain"})
        assert again.status_code == 200, again.text


def test_little_space_left_is_refused_before_it_runs_out(tmp_path: Path, tiny_checkpoint: Path) -> None:
    server = Server(tmp_path, tiny_checkpoint, prefix=small_disk(tmp_path), min_free_bytes=30_000_000)
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            answer = client.post("/documents", content="a", headers={"Content-Type": "text/plain"})
            assert answer.status_code == 507
            assert answer.json()["code"] == "storage_full"
    finally:
        server.stop()
