"""Starting: a data directory that cannot be used is refused in one clear line and left alone; reindexing mends it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from index.arrays import Float32Array, TokenIds
from index.encoders.checkpoint import read_config
from index.encoders.loading import load_encoder
from index.indexing.indexer import Indexer
from index.storage.documents import Description
from index.storage.opening import open_storage
from qrag.wire.chunking import Chunking
from tests.forked import ForkedService
from tests.random_checkpoints import write_random_checkpoint
from tests.servers import Server
from tests.service.helpers import ask, ids_in, problem

ROOT = Path(__file__).parents[2]
TEXTS = {
    "a": "Ana signed the lease.",
    "b": "Bruno kept bees.",
    "broken": "This one failed.",
    "spoilt": "So did this.",
    "lost": "And this.",
}
FAILING = ("broken", "spoilt", "lost")
UNTOUCHED = ("lock", "qrag.sqlite3-wal", "qrag.sqlite3-shm")
"""Files that opening a database may create, and that say nothing about the data."""


class Ended(NamedTuple):
    """A process that has ended, and the data directory before and after it."""

    status: int | None
    output: str
    errors: str
    before: dict[str, str]
    after: dict[str, str]


def contents(directory: Path) -> dict[str, str]:
    """A hash of every file."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in UNTOUCHED
    }


def run_all(commands: Mapping[str, tuple[Path, Path, Sequence[str]]], really: Sequence[str] = ()) -> dict[str, Ended]:
    """The service with each checkpoint, data directory and arguments, side by side.

    Those named in ``really`` are ``python -m service``; the others are spared the seconds of importing.
    """
    before = {name: contents(data) for name, (_, data, _) in commands.items()}
    processes: dict[str, subprocess.Popen[str] | ForkedService] = {}
    for name, (checkpoint, data, arguments) in commands.items():
        variables = {"QRAG_DATA_DIR": str(data), "QRAG_CHECKPOINT": str(checkpoint), "QRAG_PORT": "0"}
        variables["QRAG_OTHER_VECTORS"] = "refuse"
        if name in really:
            others = {key: value for key, value in os.environ.items() if not key.startswith("QRAG_")}
            command = [sys.executable, "-m", "service", *arguments]
            processes[name] = subprocess.Popen(
                command,
                cwd=ROOT,
                env=others | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        else:
            processes[name] = ForkedService(variables, arguments)
    ended = {}
    for name, process in processes.items():
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout, process.stderr:
            output, errors = process.stdout.read(), process.stderr.read()
        ended[name] = Ended(process.wait(120), output, errors, before[name], contents(commands[name][1]))
    return ended


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A closed data directory: two documents ready, and three whose embedding failed."""
    directory = tmp_path_factory.mktemp("healthy")
    encoder, config = load_encoder(tiny_checkpoint), read_config(tiny_checkpoint)

    def embed(inputs: Sequence[TokenIds]) -> Float32Array:
        if any(ids in failing for ids in inputs):
            raise RuntimeError("out of luck")
        return encoder.embed_actions(inputs)

    failing = encoder.action_inputs([TEXTS[id] for id in FAILING])
    storage = open_storage(
        directory, dimension=config.dimension, fingerprint=config.action_fingerprint, device=encoder.device
    )
    for id, text in TEXTS.items():
        upload = storage.catalogue.begin_upload()
        upload.write(text)
        about = Description(id, "c", None, {}, Chunking())
        storage.catalogue.publish([(upload, about)], replace=False, queue_limit=9)
        assert Indexer(storage, encoder, embed, threading.Event()).work()
    assert storage.catalogue.count_by_status() == {"queued": 0, "indexing": 0, "ready": 2, "failed": 3}
    storage.close()
    return directory


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("other-weights")
    write_random_checkpoint(directory, seed=5)
    return directory


@pytest.fixture(scope="module")
def refused(
    tmp_path_factory: pytest.TempPathFactory, healthy: Path, tiny_checkpoint: Path, other_weights: Path
) -> dict[str, tuple[Path, Ended]]:
    """How the service ended for each thing that can be wrong with a directory, and that directory."""
    home = tmp_path_factory.mktemp("refused")
    other_dimension = tmp_path_factory.mktemp("other-dimension")
    write_random_checkpoint(other_dimension, dimension=16)
    checkpoints = {"dimension": other_dimension, "weights": other_weights}
    names = ("format", "truncated", "missing", "dimension", "weights", "in use", "no database")
    directories = {name: shutil.copytree(healthy, home / name) for name in names}
    with closing(sqlite3.connect(directories["format"] / "qrag.sqlite3")) as database:
        database.execute("PRAGMA user_version = 999")
    segment = min((directories["truncated"] / "segments").glob("*.faiss"))
    segment.write_bytes(segment.read_bytes()[:-7])
    min((directories["missing"] / "segments").glob("*.faiss")).unlink()
    (directories["no database"] / "qrag.sqlite3").write_text("Dear diary, " * 1000)
    with (directories["in use"] / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        commands = {name: (checkpoints.get(name, tiny_checkpoint), directories[name], ()) for name in names}
        ended = run_all(commands, really=["truncated"])
    return {name: (directories[name], ended[name]) for name in names}


@pytest.mark.parametrize(
    ("name", "says", "remedy"),
    [
        ("format", "data format 999", "Start the version that wrote it"),
        ("truncated", "bytes instead of", "python -m service reindex"),
        ("missing", "is missing", "python -m service reindex"),
        ("dimension", "another dimension", "QRAG_OTHER_VECTORS=embed"),
        ("weights", "another action tower", "QRAG_OTHER_VECTORS=embed"),
        ("in use", "Another process", "Stop it"),
        ("no database", "is damaged", "Restore it from a backup"),
    ],
)
def test_unusable_directory_is_refused_in_one_line_and_left_as_it_is(
    refused: dict[str, tuple[Path, Ended]], name: str, says: str, remedy: str
) -> None:
    _, ended = refused[name]
    assert ended.status == 1
    (line,) = ended.errors.splitlines()
    assert line.startswith("qrag: ")
    assert says in line
    assert remedy in line
    assert ended.output == ""
    assert ended.after == ended.before
    assert "qrag.sqlite3" in ended.before


@pytest.fixture(scope="module")
def mended(
    refused: dict[str, tuple[Path, Ended]],
    tiny_checkpoint: Path,
    other_weights: Path,
) -> Iterator[dict[str, httpx.Client]]:
    """Servers on directories that were refused: two reindexed, and one that nobody else uses any more."""
    checkpoints = {"truncated": tiny_checkpoint, "weights": other_weights, "in use": tiny_checkpoint}
    commands = {name: (checkpoints[name], refused[name][0], ["reindex"]) for name in ("truncated", "weights")}
    reindexed = run_all(commands)
    for ended in reindexed.values():
        assert (ended.status, ended.errors) == (0, "")
        assert ended.output == "5 documents will be indexed again when the service starts.\n"
    with ExitStack() as stack:
        servers = {name: Server(refused[name][0], checkpoint) for name, checkpoint in checkpoints.items()}
        for server in servers.values():
            stack.callback(server.kill)
        yield {
            name: stack.enter_context(httpx.Client(base_url=server.wait_until_listening(), timeout=60))
            for name, server in servers.items()
        }


def test_the_vectors_of_another_checkpoint_are_made_again_while_the_service_runs(
    healthy: Path, other_weights: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(healthy, tmp_path / "data")
    for checkpoint in (other_weights, tiny_checkpoint):  # there, and back to vectors that are still there
        server = Server(directory, checkpoint)
        try:
            with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
                for id, text in TEXTS.items():
                    again = client.post("/documents?wait=true", json={"id": id, "text": text, "collection": "c"})
                    assert (again.status_code, again.json()["status"]) == (200, "ready")
                result = ask(client, "Who kept bees?", collection="c")
                assert {chunk["document_id"]: chunk["text"] for chunk in result["chunks"]} == TEXTS
            assert "another action tower's: documents=" in "".join(server.log)
        finally:
            server.kill()


@pytest.mark.parametrize("name", ["truncated", "weights"])
def test_reindexing_mends_the_directory(mended: dict[str, httpx.Client], name: str) -> None:
    client = mended[name]
    for id, text in TEXTS.items():
        again = client.post("/documents?wait=true", json={"id": id, "text": text, "collection": "c"})
        assert (again.status_code, again.json()["status"]) == (200, "ready")
    assert ids_in(client, "c") == list(TEXTS)
    result = ask(client, "Who kept bees?", collection="c")
    assert {chunk["document_id"]: chunk["text"] for chunk in result["chunks"]} == TEXTS


def test_reindexed_vectors_are_those_of_the_new_checkpoint(
    mended: dict[str, httpx.Client], other_weights: Path
) -> None:
    client = mended["weights"]
    client.post("/documents?wait=true", json={"id": "a", "text": TEXTS["a"], "collection": "c"})
    result = ask(client, "Who kept bees?", collection="c", document_ids=["a"], trace=True)
    encoder = load_encoder(other_weights)
    state = encoder.embed_states([encoder.compose_state(encoder.question_tokens("Who kept bees?"), [])])[0].embedding
    product = float(encoder.embed_actions(encoder.action_inputs([TEXTS["a"]]))[0] @ state)
    assert result["one_step"][0]["q"] == pytest.approx(product, abs=0.005)
    assert result["model"] == encoder.config.name


def test_a_failed_document_says_why_and_can_be_retried_or_deleted(mended: dict[str, httpx.Client]) -> None:
    client = mended["in use"]
    for id in FAILING:
        document = client.get(f"/documents/{id}").json()
        assert document["status"] == "failed"
        assert "RuntimeError" in document["error"]
        assert "etry" in document["error"]
    assert {chunk["document_id"] for chunk in ask(client, "Who?", collection="c")["chunks"]} == {"a", "b"}
    empty = ask(client, "Who?", collection="c", document_ids=["broken"])
    assert (empty["chunks"], empty["stopped_by"]) == ([], "exhausted")

    body = {"id": "broken", "text": TEXTS["broken"], "collection": "c"}
    retried = client.post("/documents?wait=true", json=body)
    assert (retried.status_code, retried.json()["status"], retried.json()["error"]) == (200, "ready", None)
    answer = client.post("/documents/spoilt/retry")
    assert answer.status_code == 200
    assert answer.json()["error"] is None
    assert (
        client.post("/documents?wait=true", json={**body, "id": "spoilt", "text": TEXTS["spoilt"]}).status_code == 200
    )
    assert client.delete("/documents/lost").status_code == 204
    problem(client.get("/documents/lost"), 404, "unknown_document")
    found = ask(client, "Who?", collection="c")["chunks"]
    assert {chunk["document_id"] for chunk in found} == set(TEXTS) - {"lost"}
    problem(client.post("/documents/nobody/retry"), 404, "unknown_document")
