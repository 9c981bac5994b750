"""Another checkpoint while requests go on: what is answered is one checkpoint's or the other's, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest

from index.encoders.loading import load_encoder
from index.errors import DiskFull
from index.indexing.indexer import Indexer
from index.indexing.reembedding import Reembedding
from index.storage.documents import Description
from index.storage.opening import open_storage
from index.storage.protocols import Storage
from qrag.wire.checks.gates import GateIn
from qrag.wire.chunking import Chunking
from service.engine.changes import Change
from service.engine.checkpoints import Checkpoints, chosen_checkpoint
from service.errors import CheckpointInUse, CheckpointUnusable
from service.keys import add_key
from service.settings import Settings
from tests.servers import Server, running_server
from tests.service.helpers import add, ask, problem
from tests.service.other_checkpoints import QUESTION, TEXTS, fill, write_other_checkpoints


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A folder of checkpoints that can be changed to."""
    folder = tmp_path_factory.mktemp("checkpoints")
    write_other_checkpoints(folder, tiny_checkpoint)
    return folder


@dataclass(frozen=True, eq=False)
class Answer:
    """Which checkpoint answers, what it selects, and with which Q-values: nearly equal in whatever batch."""

    model: str
    chunks: list[tuple[str, int]]
    q: list[float]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answer) or (self.model, self.chunks) != (other.model, other.chunks):
            return False
        return self.q == [pytest.approx(q, abs=1e-5) for q in other.q]


def answers(client: httpx.Client) -> Answer:
    found = ask(client, QUESTION, max_steps=4)
    chunks = found["chunks"]
    return Answer(found["model"], [(c["document_id"], c["index"]) for c in chunks], [c["q"] for c in chunks])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, checkpoints: Path, tiny_checkpoint: Path) -> dict[str, Answer]:
    """The answers of servers that never knew another checkpoint."""
    found = {}
    for name, path in (("configured", tiny_checkpoint), ("wide", checkpoints / "wide")):
        with running_server(tmp_path_factory.mktemp(name), path) as client:
            fill(client)
            found[name] = answers(client)
    return found


@pytest.fixture
def server(tmp_path: Path, checkpoints: Path, tiny_checkpoint: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data", tiny_checkpoint, checkpoints_dir=str(checkpoints))
    yield server
    if server.process.poll() is None:
        assert server.stop() == 0


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
        yield client


def change(client: httpx.Client, name: str) -> httpx.Response:
    return client.post("/admin/checkpoints", json={"checkpoint": name})


def test_there_and_back_the_answers_are_those_of_servers_that_know_one_checkpoint(
    server: Server, client: httpx.Client, expected: dict[str, Answer]
) -> None:
    fill(client)
    assert client.get("/admin/checkpoints").json() == {
        "served": "configured",
        "available": ["configured", "damaged", "same-actions", "short", "wide"],
        "change": None,
        "gate": None,
        "vector_sets": 1,
    }
    assert answers(client) == expected["configured"]
    begun = change(client, "wide")
    assert begun.status_code in (200, 202)
    server.wait_for_log("serving checkpoint=wide")
    assert answers(client) == expected["wide"]
    model = client.get("/model").json()
    assert (model["checkpoint"], model["dimension"]) == ("wide", 64)
    add(client, "Thing 7 is not here.", id="later", collection="later")
    assert change(client, "configured").status_code in (200, 202)
    server.wait_for_log("serving checkpoint=configured")
    assert answers(client) == expected["configured"]
    assert ask(client, QUESTION, collection="later")["chunks"][0]["document_id"] == "later"
    assert client.get("/admin/checkpoints").json()["vector_sets"] == 2
    assert client.delete("/admin/checkpoints/wide").status_code == 204
    assert client.get("/admin/checkpoints").json()["vector_sets"] == 1


def test_every_answer_meanwhile_is_wholly_one_checkpoints(
    server: Server, client: httpx.Client, expected: dict[str, Answer]
) -> None:
    fill(client)
    done = threading.Event()

    def keep_asking() -> list[Answer]:
        found = []
        while not done.is_set():
            found.append(answers(client))
        return [*found, answers(client)]

    with ThreadPoolExecutor(4) as pool:
        askers = [pool.submit(keep_asking) for _ in range(4)]
        try:
            change(client, "wide")
            add(client, "Something else.", id="meanwhile", collection="meanwhile")
            client.delete("/documents/meanwhile")
            server.wait_for_log("serving checkpoint=wide")
        finally:
            done.set()
        seen = [answer for asker in askers for answer in asker.result()]
    assert all(answer in expected.values() for answer in seen)
    assert seen[-1] == expected["wide"]
    assert client.get("/documents/meanwhile").status_code == 404


def test_the_choice_outlasts_kill_and_an_unfinished_change_goes_on(
    server: Server,
    client: httpx.Client,
    expected: dict[str, Answer],
    checkpoints: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    fill(client)
    change(client, "wide")
    server.kill()
    settings = {"checkpoints_dir": str(checkpoints)}
    again = Server(tmp_path / "data", tiny_checkpoint, (), **settings)
    try:
        address = again.wait_until_listening()
        if httpx.get(f"{address}/admin/checkpoints").json()["served"] != "wide":
            again.wait_for_log("serving checkpoint=wide")
        with httpx.Client(base_url=address, timeout=60) as other:
            assert answers(other) == expected["wide"]
    finally:
        again.kill()
    with running_server(tmp_path / "data", tiny_checkpoint, **settings) as third:
        assert third.get("/model").json()["checkpoint"] == "wide"
        assert answers(third) == expected["wide"]
    # Whoever configures another checkpoint than at the time of the choice has chosen anew.
    with running_server(tmp_path / "data", checkpoints / "wide", **settings) as fourth:
        assert fourth.get("/model").json()["checkpoint"] == "configured"
        assert answers(fourth) == expected["wide"]


def test_the_same_action_tower_is_served_at_once(client: httpx.Client, expected: dict[str, Answer]) -> None:
    fill(client)
    begun = change(client, "same-actions")
    assert (begun.status_code, begun.json()["served"], begun.json()["vector_sets"]) == (200, "same-actions", 1)
    found = answers(client)
    assert found.model == "same actions"
    assert found.chunks == expected["configured"].chunks
    assert found.q[0] != pytest.approx(expected["configured"].q[0])


def test_what_cannot_be_served_is_refused_and_the_old_one_answers(
    server: Server, client: httpx.Client, expected: dict[str, Answer]
) -> None:
    fill(client)
    problem(change(client, "nowhere"), 404, "unknown_checkpoint")
    problem(change(client, "../wide"), 404, "unknown_checkpoint")
    problem(change(client, "damaged"), 422, "checkpoint_unusable")
    problem(client.post("/admin/checkpoints", json={"name": "wide"}), 422, "validation_error")
    problem(client.delete("/admin/checkpoints/configured"), 409, "checkpoint_in_use")
    problem(client.delete("/admin/checkpoints/nowhere"), 404, "unknown_checkpoint")
    change(client, "short")
    server.wait_for_log("cannot change to checkpoint=short")
    failed = client.get("/admin/checkpoints").json()["change"]
    assert failed["state"] == "failed"
    assert "tokens for this checkpoint, which reads 12" in failed["error"]
    assert answers(client) == expected["configured"]
    assert client.get("/readyz").status_code == 200


def test_changing_the_checkpoint_needs_a_key_for_it(tmp_path: Path, tiny_checkpoint: Path) -> None:
    keys = tmp_path / "data" / "keys.json"
    writer, operator = add_key(keys, "writer", ["read", "write"], None), add_key(keys, "operator", ["admin"], None)
    with running_server(tmp_path / "data", tiny_checkpoint) as client:
        for key, status in ((writer, 403), (operator, 200)):
            headers = {"Authorization": f"Bearer {key}"}
            assert client.get("/admin/checkpoints", headers=headers).status_code == status
            begun = client.post("/admin/checkpoints", headers=headers, json={"checkpoint": "configured"})
            assert begun.status_code == status
        assert client.get("/documents", headers={"Authorization": f"Bearer {operator}"}).status_code == 403


@dataclass(frozen=True)
class Idle:
    """A directory with a document, where nobody embeds unless told to."""

    checkpoints: Checkpoints
    storage: Storage

    def embed_all(self) -> Change:
        """Embed what the change that is under way lacks."""
        change = self.checkpoints.change
        assert change is not None
        assert change.encoder is not None
        assert change.space is not None
        embed = change.encoder.embed_actions
        while Reembedding(self.storage, change.encoder, embed, threading.Event(), change.space).work():
            pass
        return change

    def work_off(self) -> None:
        """Do what the indexing thread does about a change."""
        assert self.checkpoints.finish(self.embed_all())


@contextmanager
def opened(settings: Settings) -> Iterator[Idle]:
    name, path = chosen_checkpoint(settings)
    encoder = load_encoder(path, device="cpu")
    dimension, fingerprint = encoder.config.dimension, encoder.config.action_fingerprint
    with closing(
        open_storage(settings.data_dir, dimension=dimension, fingerprint=fingerprint, device=encoder.device)
    ) as storage:
        upload = storage.catalogue.begin_upload()
        upload.write(TEXTS["d0"])
        about = Description("d0", "default", None, {}, Chunking())
        storage.catalogue.publish([(upload, about)], replace=False, queue_limit=10)
        while Indexer(storage, encoder, encoder.embed_actions, threading.Event()).work():
            pass
        yield Idle(Checkpoints(settings, storage, name, encoder), storage)


@pytest.fixture
def idle(tmp_path: Path, checkpoints: Path, tiny_checkpoint: Path) -> Iterator[Idle]:
    with opened(
        Settings(data_dir=tmp_path, checkpoint=tiny_checkpoint, checkpoints_dir=checkpoints, device="cpu")
    ) as idle:
        yield idle


def test_forgetting_a_third_checkpoint_leaves_a_change_alone(idle: Idle) -> None:
    idle.checkpoints.begin("wide")
    idle.checkpoints.forget("same-actions")
    assert idle.checkpoints.vector_sets == 2
    with pytest.raises(CheckpointInUse):
        idle.checkpoints.forget("configured")
    idle.work_off()
    assert (idle.checkpoints.current.name, idle.checkpoints.change) == ("wide", None)


def test_what_cannot_begin_leaves_the_change_that_is_under_way(idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = idle.checkpoints
    with pytest.raises(CheckpointUnusable):
        checkpoints.begin("damaged")
    assert checkpoints.change is not None
    assert (checkpoints.change.name, checkpoints.change.state) == ("damaged", "failed")
    checkpoints.begin("wide")
    with pytest.raises(CheckpointUnusable):
        checkpoints.begin("damaged")
    with monkeypatch.context() as patch:
        patch.setattr(idle.storage.vectors, "open_space", Mock(side_effect=DiskFull("no space")))
        with pytest.raises(DiskFull):
            checkpoints.begin("short")
    assert checkpoints.change.state == "embedding"
    idle.work_off()
    assert checkpoints.current.name == "wide"


def test_a_change_that_is_resumed_has_its_gate_and_its_canary(
    tmp_path: Path, checkpoints: Path, tiny_checkpoint: Path
) -> None:
    settings = Settings(data_dir=tmp_path, checkpoint=tiny_checkpoint, checkpoints_dir=checkpoints, device="cpu")
    questions = [{"question": QUESTION, "expected": [{"document_id": "d0"}, [{"text": "thing 7"}]], "id": "seven"}]
    gate = GateIn.model_validate({"questions": questions, "max_loss": 0.5})
    with opened(settings) as idle:
        idle.checkpoints.begin("wide", gate, 0.25)
    with opened(settings) as idle:
        idle.checkpoints.resume()
        change = idle.checkpoints.change
        assert change is not None
        assert (change.trial and change.trial.gate, change.canary and change.canary.share) == (gate, 0.25)
        idle.embed_all()
        assert not idle.checkpoints.finish(change)
        assert idle.checkpoints.current.name == "configured"


def test_a_change_to_what_has_the_name_of_the_served_one_can_be_given_up(
    tmp_path: Path, checkpoints: Path, tiny_checkpoint: Path
) -> None:
    folder = tmp_path / "checkpoints" / "renewed"
    shutil.copytree(checkpoints / "same-actions", folder)
    with opened(Settings(data_dir=tmp_path, checkpoint=tiny_checkpoint, device="cpu")) as idle:
        idle.checkpoints.begin("renewed")
        assert idle.checkpoints.current.name == "renewed"
        shutil.rmtree(folder)
        shutil.copytree(checkpoints / "wide", folder)
        idle.checkpoints.begin("renewed")
        assert (idle.checkpoints.change is None, idle.checkpoints.vector_sets) == (False, 2)
        idle.checkpoints.forget("renewed")
        assert (idle.checkpoints.change is None, idle.checkpoints.vector_sets) == (True, 1)


def test_a_folder_with_a_name_that_is_no_text_is_not_offered(
    tmp_path: Path, checkpoints: Path, tiny_checkpoint: Path
) -> None:
    shutil.copytree(checkpoints / "same-actions", tmp_path / "checkpoints" / os.fsdecode(b"\xff"))
    with running_server(tmp_path, tiny_checkpoint) as client:
        assert client.get("/admin/checkpoints").json()["available"] == ["configured"]


def test_the_choice_outlasts_a_move_of_the_default_checkpoint(
    tmp_path: Path, checkpoints: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when Python is upgraded, or a backup put back where the software is installed elsewhere.
    def settings(default: str) -> Settings:
        monkeypatch.setattr("service.engine.checkpoints.DEFAULT_CHECKPOINT", tmp_path / default)
        return Settings(
            data_dir=tmp_path / "data", checkpoint=tmp_path / default, checkpoints_dir=checkpoints, device="cpu"
        )

    shutil.copytree(tiny_checkpoint, tmp_path / "before")
    with opened(settings("before")) as idle:
        idle.checkpoints.begin("same-actions")
    assert chosen_checkpoint(settings("after")) == ("same-actions", checkpoints / "same-actions")
