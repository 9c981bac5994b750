"""Overload, keys, space and shutdown: refused with a status that says when to come back, and nothing is wasted."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import shutil
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from index.encoders.checkpoint import CheckpointConfig, read_config
from index.encoders.loading import load_encoder
from index.indexing.indexer import Indexer
from index.search.positions import Positions
from index.storage.documents import Description
from index.storage.opening import open_storage
from qrag.wire.chunking import Chunking
from tests.random_checkpoints import write_random_checkpoint
from tests.servers import Server, running_server
from tests.service.helpers import (
    JSON,
    PLAIN,
    STREAM,
    Json,
    add,
    ask,
    events,
    lines_of_text,
    metric,
    problem,
    stream,
    until,
)

SLOW_LINES = 16_000
SLOW: Json = {"question": "Which line says most?", "collection": "slow", "max_steps": 32, "beam_width": 16}
"""A retrieval of many seconds: with absolute positions every chunk needs a rotation of its own."""


@pytest.fixture(scope="module")
def slow_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("slow-checkpoint")
    write_random_checkpoint(directory, positions=Positions(mode="absolute"))
    return directory


@pytest.fixture(scope="module")
def slow_data(tmp_path_factory: pytest.TempPathFactory, slow_checkpoint: Path) -> Path:
    """A data directory with a document of many chunks, made without a server."""
    directory = tmp_path_factory.mktemp("slow-data")
    encoder = load_encoder(slow_checkpoint)
    config: CheckpointConfig = read_config(slow_checkpoint)
    storage = open_storage(
        directory, dimension=config.dimension, fingerprint=config.action_fingerprint, device=encoder.device
    )
    upload = storage.catalogue.begin_upload()
    upload.write(lines_of_text(SLOW_LINES))
    about = Description("slow", "slow", None, {}, Chunking(mode="lines"))
    storage.catalogue.publish([(upload, about)], replace=False, queue_limit=1)
    indexer = Indexer(storage, encoder, encoder.embed_actions, threading.Event())
    while indexer.work():
        pass
    storage.close()
    return directory


@pytest.fixture(scope="module")
def one_place(
    slow_data: Path, slow_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A server that answers one question at a time and lets two documents wait."""
    directory = tmp_path_factory.mktemp("one") / "data"
    shutil.copytree(slow_data, directory)
    limits = {"max_running_retrievals": 1, "max_waiting_retrievals": 0, "max_queued_documents": 2}
    with running_server(directory, slow_checkpoint, **limits) as client:
        client.headers["X-Data"] = str(directory)
        yield client


class Connection:
    """A request sent as it is, in two parts if need be, whose answer is read when the test wants it."""

    def __init__(self, client: httpx.Client, body: Json, path: str = "/retrieve", **headers: str) -> None:
        self.content = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: localhost",
            "Connection: close",
            f"Content-Length: {len(self.content)}",
        ]
        lines += [f"{name}: {value}" for name, value in {**client.headers, **JSON, **headers}.items()]
        self.socket = socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=60)
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())

    @classmethod
    def whole(cls, client: httpx.Client, body: Json, path: str = "/retrieve") -> Connection:
        """Send all of it."""
        connection = cls(client, body, path)
        connection.socket.sendall(connection.content)
        return connection

    @classmethod
    def begun(cls, client: httpx.Client, body: Json) -> Connection:
        """Send the headers; when this returns the service has begun to work on the request."""
        connection = cls(client, body, Expect="100-continue")
        assert connection.socket.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        return connection

    def answer(self) -> tuple[int, dict[str, str], Json]:
        received = b""
        with self.socket:
            while block := self.socket.recv(1 << 16):
                received += block
        head, _, body = received.decode().partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(status.split()[1]), headers, json.loads(body)


def is_running(client: httpx.Client, count: int = 1) -> Callable[[], bool]:
    return lambda: metric(client, 'qrag_retrievals{state="running"}') == count


def query(data: Path, statement: str) -> object:
    """One value out of the database of a data directory, read without disturbing who has it open."""
    with contextlib.closing(sqlite3.connect(f"file:{data}/qrag.sqlite3?mode=ro", uri=True)) as database:
        return database.execute(statement).fetchone()[0]


# --- Retrieval ------------------------------------------------------------------------------------------


def test_overload_is_503_and_a_client_that_leaves_makes_room(one_place: httpx.Client) -> None:
    client = one_place
    steps = metric(client, "qrag_engine_steps_total")
    dropped = metric(client, "qrag_engine_cancelled_total")
    slow = Connection.whole(client, SLOW)
    until(is_running(client))
    for headers in ({}, STREAM):
        answer = client.post("/retrieve", json={"question": "And I?", "collection": "slow"}, headers=headers)
        assert "Try again" in problem(answer, 503, "overloaded")["detail"]
        assert int(answer.headers["Retry-After"]) > 0
    slow.socket.close()
    until(lambda: metric(client, "qrag_engine_cancelled_total") == dropped + 1)
    assert metric(client, 'qrag_request_seconds_count{method="POST",route="/retrieve",status="499"}') == 1
    taken = metric(client, "qrag_engine_steps_total") - steps
    assert taken < 32, "it was not answered to the end for nobody"
    assert len(ask(client, "And I?", collection="slow", max_steps=2)["chunks"]) == 2
    assert metric(client, "qrag_engine_steps_total") - steps == taken + 2
    assert is_running(client, 0)()


def test_a_batch_needs_room_for_all_of_its_questions_and_is_dropped_with_its_client(one_place: httpx.Client) -> None:
    client = one_place
    dropped = metric(client, "qrag_engine_cancelled_total")
    body = {"questions": ["And I?"], "collection": "slow", "max_steps": 1}
    two = client.post("/retrieve/batch", json={**body, "questions": ["And I?", "And you?"]})
    assert "QRAG_MAX_WAITING_RETRIEVALS" in problem(two, 422, "too_many_questions")["detail"]
    slow = Connection.whole(client, SLOW)
    until(is_running(client))
    answer = client.post("/retrieve/batch", json=body)
    problem(answer, 503, "overloaded")
    assert int(answer.headers["Retry-After"]) > 0
    slow.socket.close()
    until(lambda: metric(client, "qrag_engine_cancelled_total") == dropped + 1)
    slow = Connection.whole(client, {**body, "max_steps": 32, "stop": {"rule": "budget"}}, "/retrieve/batch")
    until(is_running(client))
    slow.socket.close()
    until(lambda: metric(client, "qrag_engine_cancelled_total") == dropped + 2)
    (item,) = client.post("/retrieve/batch", json=body).json()["items"]
    assert len(item["result"]["chunks"]) == 1


def test_a_search_of_which_a_query_has_no_room_is_dropped_as_a_whole(one_place: httpx.Client) -> None:
    client = one_place
    dropped = metric(client, "qrag_engine_cancelled_total")
    body = {"query": ["And I?", "And you?"], "max_num_results": 32}
    problem(client.post("/v1/vector_stores/slow/search", json=body), 503, "overloaded")
    until(lambda: metric(client, "qrag_engine_cancelled_total") == dropped + 1)
    assert is_running(client, 0)()


def test_questions_that_are_far_too_long_keep_nobody_waiting(one_place: httpx.Client) -> None:
    slow = Connection.whole(one_place, {"query": ["a " * 50_000] * 3}, "/v1/vector_stores/slow/search")
    answered = 0
    while not select.select([slow.socket], [], [], 0)[0]:
        assert one_place.get("/healthz").status_code == 200
        answered += 1
    assert slow.answer()[0] == 422
    assert answered > 3, "others were answered meanwhile"


def test_a_stream_brings_steps_early_and_stops_when_its_reader_leaves(one_place: httpx.Client) -> None:
    client = one_place
    steps = metric(client, "qrag_engine_steps_total")
    dropped = metric(client, "qrag_engine_cancelled_total")
    body = {"question": "Which line says most?", "collection": "slow", "max_steps": 32}
    with (
        httpx.Client(base_url=client.base_url, timeout=60) as other,
        other.stream("POST", "/retrieve", json=body, headers=STREAM) as answer,
    ):
        name, step = next(events(answer.iter_lines()))
        assert (name, step["step"]) == ("step", 0)
    until(lambda: metric(client, "qrag_engine_cancelled_total") == dropped + 1)
    assert metric(client, "qrag_engine_steps_total") - steps < 32
    assert len(ask(client, "And I?", collection="slow", max_steps=1)["chunks"]) == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_a_document_deleted_under_a_question_is_not_in_the_answer(one_place: httpx.Client, streamed: bool) -> None:
    add(one_place, lines_of_text(SLOW_LINES), id="doomed", collection="doom", chunking={"mode": "lines"})
    one_place.post("/documents?wait=true", json={"id": "stays", "text": "It stays.", "collection": "doom"})
    answers: list[list[tuple[str, Json]]] = []

    def wait() -> None:
        with httpx.Client(base_url=one_place.base_url, timeout=60) as client:
            body = {**SLOW, "collection": "doom"}
            answers.append(stream(client, **body) if streamed else [("answer", ask(client, **body))])

    thread = threading.Thread(target=wait)
    thread.start()
    until(is_running(one_place))
    assert one_place.delete("/documents/doomed").status_code == 204
    thread.join(60)
    ((name, content),) = answers[0]
    if streamed:
        assert (name, content["code"], content["status"]) == ("error", "documents_changed", 409)
    else:
        assert [chunk["text"] for chunk in content["chunks"]] == ["It stays."]


# --- Uploads --------------------------------------------------------------------------------------------


def test_a_full_queue_is_429_and_takes_nothing(one_place: httpx.Client) -> None:
    documents = [{"text": f"Number {number}.", "collection": "queue"} for number in range(3)]
    answer = one_place.post("/documents", json={"documents": documents})
    assert "wait to be indexed" in problem(answer, 429, "queue_full")["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    assert one_place.get("/documents?collection=queue").json()["documents"] == []
    assert one_place.post("/documents", params={"wait": True}, json={"documents": documents[:2]}).status_code == 201
    again = one_place.post("/documents", json={"documents": documents[:2]})
    assert again.status_code == 200, "what is there already needs no place in the queue"
    assert add(one_place, "Another.", collection="queue")["chunks"] == 1


def test_a_queue_that_is_full_of_others_lets_nobody_in_until_there_is_room(one_place: httpx.Client) -> None:
    for name in ("a", "b"):
        parameters = {"id": f"long-{name}", "collection": "long", "chunking": "lines"}
        answer = one_place.post("/documents", params=parameters, content=lines_of_text(30_000), headers=PLAIN)
        assert answer.status_code == 202
    problem(one_place.post("/documents", json={"text": "Third.", "collection": "long"}), 429, "queue_full")
    for name in ("a", "b"):
        assert one_place.delete(f"/documents/long-{name}").status_code == 204
    assert add(one_place, "Third.", collection="long")["status"] == "ready"


def test_a_long_upload_that_breaks_off_leaves_nothing_on_disk(one_place: httpx.Client) -> None:
    name = 'qrag_request_seconds_count{method="POST",route="/documents",status="499"}'
    before = metric(one_place, name)
    data = Path(one_place.headers["X-Data"])

    head = "POST /documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 9000000\r\n\r\n"
    with socket.create_connection((one_place.base_url.host, one_place.base_url.port or 80)) as connection:
        connection.sendall(head.encode() + b"text " * 800_000)
        until(lambda: query(data, "SELECT COUNT(*) FROM texts JOIN uploads USING (uid)") != 0)
        uid = query(data, "SELECT uid FROM uploads")
    until(lambda: metric(one_place, name) == before + 1)
    assert query(data, "SELECT COUNT(*) FROM uploads") == 0
    assert query(data, f"SELECT COUNT(*) FROM texts WHERE uid = {uid}") == 0


@pytest.fixture
def guarded(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[tuple[Server, httpx.Client]]:
    """A server that wants a key and has too little space, and a client without a key."""
    server = Server(tmp_path, tiny_checkpoint, api_keys="first-key, second-key", min_free_bytes=1 << 62)
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            yield server, client
    finally:
        server.kill()


PATHS = ("/documents", "/documents/a/text", "/collections", "/model", "/metrics", "/nothing")
LOCKED = [*(("GET", path) for path in PATHS), ("POST", "/documents"), ("POST", "/retrieve"), ("DELETE", "/documents/a")]
WRONG_KEYS = ("", "Bearer", "Bearer first", "Bearer first-key2", "Basic first-key", "first-key", "Bearer \u00e9")


def test_keys_space_and_a_request_that_is_under_way_at_shutdown(guarded: tuple[Server, httpx.Client]) -> None:
    server, client = guarded
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs"):
        assert client.get(path).status_code == 200
    for method, path in LOCKED:
        for key in WRONG_KEYS:
            answer = client.request(method, path, headers=httpx.Headers({"Authorization": key}, encoding="utf-8"))
            problem(answer, 401, "unauthorized")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    problem(client.get("/documents"), 401, "unauthorized")
    assert client.head("/model").status_code == 401
    for key in ("Bearer first-key", "bearer second-key"):
        client.headers["Authorization"] = key
        assert client.get("/documents").json() == {"documents": [], "next_cursor": None}
        problem(client.get("/documents/a"), 404, "unknown_document")
    operations = [each for item in client.get("/openapi.json").json()["paths"].values() for each in item.values()]
    locked = [operation for operation in operations if operation.get("security") == [{"key": []}]]
    assert len(locked) == len(operations) - 2
    assert all("401" in operation["responses"] for operation in locked)

    for answer in (
        client.post("/documents", json={"text": "No room."}),
        client.post("/documents", content=b"No room.", headers=PLAIN),
    ):
        assert "space" in problem(answer, 507, "storage_full")["detail"]
    assert client.get("/documents").json()["documents"] == []
    problem(client.delete("/documents/a"), 404, "unknown_document")

    begun = Connection.begun(client, {"question": "Which?", "collection": "nowhere"})
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("Shutting down")
    begun.socket.sendall(begun.content)
    status, headers, body = begun.answer()
    assert (status, headers["connection"], body["code"]) == (404, "close", "unknown_collection")
    status, log = server.exit()
    assert status == 0
    assert "stopped" in log


# --- Shutdown -------------------------------------------------------------------------------------------


def test_shutdown_refuses_what_takes_too_long_and_indexing_resumes(
    slow_data: Path, slow_checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(slow_data, tmp_path / "data")
    server = Server(tmp_path / "data", slow_checkpoint, shutdown_seconds=1)
    long = {"id": "long", "text": lines_of_text(10_000), "collection": "long", "chunking": {"mode": "lines"}}
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            slow = [Connection.whole(client, {**SLOW, "question": f"Which line, {number}?"}) for number in range(2)]
            until(is_running(client, 2))
            waiting = Connection.whole(client, long, "/documents?wait=true")
            until(lambda: client.get("/documents/long").json().get("status") == "indexing")
            server.process.send_signal(signal.SIGTERM)
            for connection in (*slow, waiting):
                status, headers, refused = connection.answer()
                assert (status, headers["content-type"]) == (503, "application/problem+json")
                assert (refused["code"], headers["retry-after"]) == ("overloaded", "5")
                assert "shutting down" in refused["detail"]
        status, log = server.exit()
    finally:
        server.kill()
    assert status == 0
    for unexpected in ("Exception in ASGI", "never retrieved", "indexing failed", "Traceback"):
        assert unexpected not in log
    assert query(tmp_path / "data", "SELECT status FROM documents WHERE id = 'long'") == "indexing"
    with running_server(tmp_path / "data", slow_checkpoint) as client:
        again = client.post("/documents?wait=true", json=long)
        assert (again.status_code, again.json()["status"], again.json()["chunks"]) == (200, "ready", 10_000)
        assert ask(client, "Which?", collection="long", max_steps=1)["usage"]["candidates"] == 10_000


# -- very large collections -------------------------------------------------------------------------------------------


def test_a_large_collection_is_preselected_once_there_is_an_index(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with running_server(tmp_path / "data", tiny_checkpoint, preselect_above=90) as client:
        for number in range(5):
            add(client, lines_of_text(20), id=f"d{number}", chunking={"mode": "lines"})
        question: Json = {"question": "Which line says most?", "max_steps": 5}
        add(client, lines_of_text(2), id="other", collection="other", chunking={"mode": "lines"})
        exact = ask(client, **question, document_ids=[f"d{number}" for number in range(5)])
        until(lambda: not ask(client, **question)["usage"]["exact"])
        inexact = metric(client, "qrag_inexact_episodes_total")
        found = ask(client, **question)
        assert found["chunks"] == exact["chunks"]
        assert metric(client, "qrag_inexact_episodes_total") == inexact + 1
        assert exact["usage"]["exact"] is True
        assert ask(client, **question, collection="other")["usage"]["exact"] is True
        assert metric(client, "qrag_inexact_episodes_total") == inexact + 1
        add(client, "A new line says little too.", id="new")
        answer = ask(client, **question)["usage"]
        assert (answer["exact"], answer["candidates"]) == (False, 101)


def test_an_idle_connection_outlives_the_patience_of_clients(shared_client: httpx.Client) -> None:
    """httpx gives one up after 5 seconds: a service that did so too would now and then close it under a request."""
    connection = http.client.HTTPConnection(shared_client.base_url.host, shared_client.base_url.port or 80, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        assert connection.sock is not None
        connection.sock.settimeout(7)
        with pytest.raises(TimeoutError):
            connection.sock.recv(1)
