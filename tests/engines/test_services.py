"""Several processes of the service over PostgreSQL and a vector process: they answer as one, and outlive engines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from service.errors import ConfigurationError
from service.settings import Settings
from tests.engines.services import Replica, Site, ready, site_in, until
from tests.forked import ForkedService
from tests.servers import Server, running_server
from tests.service.helpers import Json, add, ask, metric, post, problem
from tests.service.library import QUESTION, add_library, add_lines
from tests.service.other_checkpoints import fill, write_other_checkpoints

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_other_checkpoints(folder, tiny_checkpoint)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Site]:
    with site_in(tmp_path_factory.mktemp("site"), tiny_checkpoint) as site:
        yield site


@pytest.fixture(scope="module")
def pair(site: Site, checkpoints: Path) -> tuple[Replica, Replica]:
    """Two replicas that live as long as the module."""
    first, second = (site.replica(checkpoints_dir=str(checkpoints)) for _ in range(2))
    return first, second


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[httpx.Client]:
    """A service with everything in its directory."""
    with running_server(tmp_path_factory.mktemp("embedded"), tiny_checkpoint) as client:
        yield client


def found(answer: Json) -> tuple[list[tuple[str, str]], list[float]]:
    """The chunks of an answer in their order, and their Q-values."""
    chunks = answer["chunks"]
    return [(chunk["title"], chunk["text"]) for chunk in chunks], [chunk["q"] for chunk in chunks]


def assert_same(answer: Json, other: Json) -> None:
    (chunks, q), (other_chunks, other_q) = found(answer), found(other)
    assert chunks
    assert chunks == other_chunks
    assert q == pytest.approx(other_q, abs=1e-5)


def test_each_answers_as_a_service_with_everything_in_its_directory(
    pair: tuple[Replica, Replica], embedded: httpx.Client
) -> None:
    first, second = (replica.client for replica in pair)
    for client in (first, embedded):
        add_library(client, "same")
        add_lines(client, "same", [f"Line {number} of the report about the lease." for number in range(60)], title="R")
    for fields in ({}, {"max_steps": 8}, {"beam_width": 3}, {"filter": {"field": "number", "gte": 1}}):
        expected = ask(embedded, QUESTION, collection="same", **fields)
        for client in (first, second):
            assert_same(ask(client, QUESTION, collection="same", **fields), expected)
    assert second.get("/model").json()["storage"] == "engines"
    assert embedded.get("/model").json()["storage"] == "directory"


def test_a_deletion_at_one_has_reached_the_other_when_it_returns(pair: tuple[Replica, Replica]) -> None:
    first, second = (replica.client for replica in pair)
    add(second, "The weather was fine.", collection="gone", id="kept")
    for _ in range(5):
        id = add(first, "Ana signed the lease.", collection="gone")["id"]
        assert len(ask(second, QUESTION, collection="gone")["chunks"]) == 2
        assert first.delete(f"/documents/{id}").status_code == 204
        assert [chunk["document_id"] for chunk in ask(second, QUESTION, collection="gone")["chunks"]] == ["kept"]
        problem(second.get(f"/documents/{id}"), 404, "unknown_document")


def test_what_one_began_another_continues(pair: tuple[Replica, Replica]) -> None:
    first, second = (replica.client for replica in pair)
    add_library(first, "continued")
    whole = ask(second, QUESTION, collection="continued", max_steps=5)
    begun = ask(first, QUESTION, collection="continued", max_steps=2)
    answer = second.post("/retrieve", json={"continuation": begun["continuation"], "max_steps": 3})
    assert answer.status_code == 200, answer.text
    steps = [(step["document_id"], step["index"]) for step in begun["steps"] + answer.json()["steps"]]
    assert steps == [(step["document_id"], step["index"]) for step in whole["steps"]]


def test_who_waits_at_one_hears_that_the_other_has_indexed(pair: tuple[Replica, Replica]) -> None:
    first, second = (replica.client for replica in pair)
    for number in range(10):
        assert add((first, second)[number % 2], f"Text {number}.", collection="waiting")["status"] == "ready"


def test_what_a_killed_replica_was_indexing_another_finishes(site: Site, pair: tuple[Replica, Replica]) -> None:
    text = "\n".join(f"{number} sentences were counted by the clerk." for number in range(4000))
    dying = site.replica()
    heirs = [replica.server.process for replica in pair]
    for heir in heirs:
        heir.send_signal(19)  # they hear nothing of the document
    try:
        body = {"id": "long", "collection": "heirs", "text": text, "chunking": {"mode": "lines"}}
        assert dying.client.post("/documents", json=body).status_code == 202
        until(dying.client, "/documents/long", lambda answer: answer.json()["status"] == "indexing")
        dying.kill()
    finally:
        for heir in heirs:
            heir.send_signal(18)
    client = pair[0].client
    assert client.get("/documents/long").json()["status"] == "indexing"
    site.expire()
    add(client, "Something else, that wakes both.", collection="heirs")
    assert until(client, "/documents/long", ready)["chunks"] == 4000
    assert len(ask(pair[1].client, "Who counted?", collection="heirs", document_ids=["long"])["chunks"]) > 1


def test_another_checkpoint_reaches_all(
    site: Site, pair: tuple[Replica, Replica], checkpoints: Path, tmp_path: Path
) -> None:
    first, second = pair
    fill(first.client)
    with ExitStack() as opened:
        alone = opened.enter_context(running_server(tmp_path / "wide", checkpoints / "wide"))
        fill(alone)
        expected = ask(alone, QUESTION)
    lacking = site.replica()
    assert first.client.post("/admin/checkpoints", json={"checkpoint": "wide"}).status_code in (200, 202)
    for replica in pair:
        replica.server.wait_for_log("serving checkpoint=wide")
        assert_same(ask(replica.client, QUESTION), expected)
        assert replica.client.get("/model").json()["checkpoint"] == "wide"
    # One that does not have it answers with what it has, and asks for no requests.
    lacking.server.wait_for_log("cannot follow another process")
    assert "wide" in problem(lacking.client.get("/readyz"), 503, "overloaded")["detail"]
    assert ask(lacking.client, QUESTION)["chunks"]
    add(second.client, "A new text about the lease.", collection="after")
    assert lacking.client.get("/documents", params={"collection": "after"}).json()["documents"]
    # The same action tower with another state tower: no vectors change.
    assert first.client.post("/admin/checkpoints", json={"checkpoint": "configured"}).status_code in (200, 202)
    second.server.wait_for_log("serving checkpoint=configured")
    until(lacking.client, "/readyz", lambda answer: answer.status_code == 200)
    assert second.client.post("/admin/checkpoints", json={"checkpoint": "same-actions"}).status_code == 200
    first.server.wait_for_log("serving checkpoint=same-actions")
    assert_same(ask(first.client, QUESTION), ask(second.client, QUESTION))
    assert second.client.post("/admin/checkpoints", json={"checkpoint": "configured"}).status_code == 200
    first.server.wait_for_log("serving checkpoint=configured")
    until(lacking.client, "/readyz", lambda answer: answer.status_code == 200)
    lacking.kill()


def test_calls_to_the_engine_are_counted_and_timed(pair: tuple[Replica, Replica]) -> None:
    client = pair[0].client
    add(client, "Ana signed the lease.\nBruno did not.", collection="counted", chunking={"mode": "lines"})
    names = ('qrag_storage_calls_total{kind="search"}', 'qrag_storage_call_seconds_total{kind="search"}')
    calls, seconds = (metric(client, name) for name in names)
    ask(client, "Who signed?", collection="counted", max_steps=1)
    assert 1 <= metric(client, names[0]) - calls <= 3
    assert metric(client, names[1]) > seconds


@pytest.mark.parametrize("engine", ["postgres", "vectors"])
def test_a_lost_engine_is_a_503_in_every_way_in_until_it_is_back(
    site: Site, pair: tuple[Replica, Replica], engine: Literal["postgres", "vectors"]
) -> None:
    first, second = (replica.client for replica in pair)
    lost = site.engine(engine)
    text = "Ana signed the lease.\nBruno did not."
    id = add(first, text, collection=engine, chunking={"mode": "lines"})["id"]
    begun = ask(first, "Who signed?", collection=engine, max_steps=1)
    question = {"question": "What did Bruno do?", "collection": engine}
    lost.kill()
    try:
        problem_later(first.get("/readyz"))
        assert first.get("/healthz").status_code == 200
        assert metric(second, "qrag_storage_available") == 0
        problem_later(second.post("/retrieve", json=question | {"filter": {"field": "year", "exists": False}}))
        problem_later(first.post("/retrieve", json={"continuation": begun["continuation"]}))
        streamed = first.post("/retrieve", json=question, headers={"Accept": "text/event-stream"})
        if streamed.status_code == 200:
            assert '"code":"storage_unavailable"' in streamed.text.splitlines()[-2]
        else:
            problem_later(streamed)
        call = {"name": "search", "arguments": {"query": "What did Bruno do?", "collection": engine}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
        answer = second.post("/mcp", json=message, headers={"Accept": "application/json, text/event-stream"})
        assert "storage_unavailable" in answer.text
        if engine == "postgres":
            problem_later(first.post("/documents", json={"text": "A new text.", "collection": engine}))
            problem_later(post(second, "text", "text/plain", id="a-file"))
            problem_later(second.delete(f"/documents/{id}"))
        else:  # documents are taken, and wait
            assert first.post("/documents", json={"text": "Waits.", "id": "waits"}).status_code == 202
    finally:
        lost.start()
    for client in (first, second):
        until(client, "/readyz", lambda answer: answer.status_code == 200)
        assert len(ask(client, "Who signed?", collection=engine)["chunks"]) == 2
    assert metric(second, "qrag_storage_available") == 1
    if engine == "vectors":
        until(second, "/documents/waits", ready)


def problem_later(answer: httpx.Response) -> Json:
    """A problem that says when to ask again."""
    body = problem(answer, 503, "storage_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    return body


def test_documents_move_from_a_directory_to_engines_and_back_from_used_ones(
    site: Site, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    with running_server(tmp_path / "data", tiny_checkpoint) as client:
        add_library(client, "moved")
        expected = ask(client, QUESTION, collection="moved")
    other = {**site.settings, "database_url": site.postgres.new_url(), "qdrant_prefix": "other"}
    engines = {f"QRAG_{name.upper()}": value for name, value in other.items()} | {"QRAG_DATA_DIR": str(tmp_path / "no")}
    run("export", tmp_path / "export", {"QRAG_DATA_DIR": str(tmp_path / "data")}, tiny_checkpoint)
    run("import", tmp_path / "export", engines, tiny_checkpoint)
    with running_server(tmp_path / "replica", tiny_checkpoint, **other) as client:
        assert_same(ask(client, QUESTION, collection="moved"), expected)
        run("export", tmp_path / "back", engines, tiny_checkpoint)
    assert not (tmp_path / "no").exists()
    run("import", tmp_path / "back", {"QRAG_DATA_DIR": str(tmp_path / "again")}, tiny_checkpoint)
    with running_server(tmp_path / "again", tiny_checkpoint) as client:
        assert_same(ask(client, QUESTION, collection="moved"), expected)
    status, errors = command("backup", tmp_path / "copy", engines, tiny_checkpoint)
    assert (status, "QRAG_DATABASE_URL" in errors) == (1, True)


def command(name: str, folder: Path, environment: dict[str, str], checkpoint: Path) -> tuple[int, str]:
    """Status and errors of a command."""
    process = ForkedService(environment | {"QRAG_CHECKPOINT": str(checkpoint)}, (name, str(folder)))
    with process.stdout, process.stderr:
        errors = process.stderr.read()
        return process.wait(60), errors


def run(name: str, folder: Path, environment: dict[str, str], checkpoint: Path) -> None:
    status, errors = command(name, folder, environment, checkpoint)
    assert status == 0, errors


def test_a_service_without_engines_to_talk_to_says_so_and_no_secret_is_logged(
    site: Site, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    nowhere = "postgresql://qrag:hush-hush@127.0.0.1:1/qrag"
    unreadable = f"{nowhere}?nonsense=%zz"
    for settings, reason in (
        ({"database_url": nowhere}, "database cannot be reached"),
        ({"database_url": unreadable}, "cannot be read"),
        ({"qdrant_url": "http://127.0.0.1:1"}, "Qdrant does not answer"),
    ):
        server = Server(tmp_path, tiny_checkpoint, (), **(site.settings | settings))
        try:
            status, log = server.exit()
        finally:
            server.kill()
        assert (status, reason in log.splitlines()[-1]) == (1, True), log
        assert "hush" not in log


def test_settings_that_do_not_belong_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    both: dict[str, Any] = {
        "database_url": "postgresql://u:secret@h/d",
        "qdrant_url": "http://q:6333",
        "qdrant_api_key": "secret",
    }
    settings = Settings(_env_file=None, **both)
    assert settings.engines is not None
    assert settings.engines.qdrant_url == "http://q:6333"
    assert "secret" not in repr(settings) + repr(settings.engines)
    for some in ({"database_url": both["database_url"]}, {"qdrant_url": both["qdrant_url"]}):
        with pytest.raises(ConfigurationError, match="belong together"):
            Settings(_env_file=None, **some)
    with pytest.raises(ConfigurationError, match="no address of PostgreSQL") as raised:
        Settings(_env_file=None, **(both | {"database_url": "mysql://u:secret@h/d"}))
    assert "secret" not in str(raised.value)
    for copies, written in ((3, 1), (2, 1), (2, 3)):
        with pytest.raises(ConfigurationError, match="more than half"):
            Settings(_env_file=None, **both, qdrant_replicas=copies, qdrant_write_consistency=written)
    monkeypatch.setattr("service.settings.find_spec", lambda name: None if name == "qdrant_client" else name)
    with pytest.raises(ConfigurationError, match=r"pip install ./client '\.\[engines\]'"):
        Settings(_env_file=None, **both)
    assert Settings(_env_file=None).engines is None


def test_a_service_with_a_directory_needs_none_of_the_packages(tmp_path: Path, tiny_checkpoint: Path) -> None:
    code = (
        "import sys, torch\n"
        "import service.__main__, service.app\n"
        "from index.encoders.checkpoint import read_config\n"
        "from service.services import open_configured_storage\n"
        "from service.settings import Settings\n"
        "settings = Settings()\n"
        "open_configured_storage(settings, read_config(settings.checkpoint), torch.device('cpu')).close()\n"
        "assert not {'psycopg', 'qdrant_client'} & sys.modules.keys(), sorted(sys.modules)\n"
    )
    environment = os.environ | {"QRAG_DATA_DIR": str(tmp_path), "QRAG_CHECKPOINT": str(tiny_checkpoint)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
