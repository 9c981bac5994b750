"""Questions: kept where that is wanted, with what came of them and what was said, and gone when they should be."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from index.storage.questions import Question, StoredQuestion
from service.keys import Right, add_key
from service.observing.questions import MAX_WAITING, QuestionLog
from tests.servers import running_server
from tests.service.helpers import STREAM, Json, add, ask, metric, pages, problem
from tests.service.library import QUESTION, add_library

LINES = {"Accept": "application/jsonl"}


def listed(client: httpx.Client, collection: str, **filters: str) -> list[Json]:
    filters = {"collection": collection, **filters}
    return [record for page in pages(client, "/questions", "questions", 2, **filters) for record in page]


def judge(client: httpx.Client, collection: str, question: str, chunk: Json, *, helpful: bool = True) -> Json:
    judged = {"document_id": chunk["document_id"], "index": chunk["index"], "helpful": helpful}
    body = {"question": question, "collection": collection, "chunks": [judged]}
    said = client.post("/feedback", json=body)
    assert said.status_code == 201
    record: Json = said.json()
    return record


# --- Kept and shown ---------------------------------------------------------------------------------------


def test_a_question_is_kept_with_what_came_of_it(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    began = datetime.now(UTC) - timedelta(milliseconds=1)
    answer = client.post(
        "/retrieve",
        json={"question": QUESTION, "collection": collection, "max_steps": 3, "order": "document"},
        headers={"X-Request-ID": "mine"},
    ).json()
    (record,) = listed(client, collection)
    assert began <= datetime.fromisoformat(record["asked_at"]) <= datetime.now(UTC)
    assert 0 < record["seconds"] < 60
    assert record["id"].startswith("qu-")
    assert record["checkpoint"]["name"] == answer["model"]
    assert len(record["checkpoint"]["fingerprint"]) == 64
    told = {key: value for key, value in record.items() if key not in ("id", "asked_at", "seconds", "checkpoint")}
    assert told == {
        "collection": collection,
        "question": QUESTION,
        "chunks": [{"document_id": step["document_id"], "index": step["index"]} for step in answer["steps"]],
        "found_nothing": answer["stopped_by"] == "hopeless",
        "stopped_by": answer["stopped_by"],
        "sufficiency": answer["sufficiency"],
        "request_id": "mine",
        "feedback": [],
    }


def test_every_way_in_is_kept(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    body = {"question": "By retrieve", "collection": collection}
    ask(client, **body)
    client.post("/retrieve", json={**body, "question": "As a stream"}, headers=STREAM).raise_for_status()
    client.post("/answer", json={**body, "question": "By answer"}).raise_for_status()
    client.post(f"/v1/vector_stores/{collection}/search", json={"query": "By search"}).raise_for_status()
    call = {"name": "retrieve", "arguments": {**body, "question": "By MCP"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    accepted = {"Accept": "application/json, text/event-stream"}
    client.post("/mcp", json=message, headers=accepted).raise_for_status()
    asked = [record["question"] for record in listed(client, collection)]
    assert asked == ["By retrieve", "As a stream", "By answer", "By search", "By MCP"]


def test_what_is_refused_is_not_kept(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    long = {"question": "w " * 2000, "collection": collection}
    problem(client.post("/retrieve", json=long), 422, "question_too_long")
    problem(
        client.post("/retrieve", json={"question": "Who?", "collection": f"{collection}-b"}), 404, "unknown_collection"
    )
    assert listed(client, collection) == []


def test_filters_and_pages(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    nothing = {"field": "number", "equals": 9}
    before = metric(client, "qrag_found_nothing_total")
    for number in range(5):
        ask(
            client,
            f"{QUESTION} {number}",
            collection=collection,
            max_steps=1,
            **({"filter": nothing} if number % 2 else {}),
        )
    records = listed(client, collection)
    assert [record["question"] for record in records] == [f"{QUESTION} {number}" for number in range(5)]
    assert [record["chunks"] == [] for record in records] == [False, True, False, True, False]
    none = [record for record in records if record["found_nothing"]]
    assert listed(client, collection, found_nothing="true") == none
    assert {1, 3} <= {int(record["question"][-1]) for record in none}
    assert metric(client, "qrag_found_nothing_total") - before == len(none)
    assert listed(client, collection, since=records[2]["asked_at"]) == records[2:]
    east = datetime.fromisoformat(records[3]["asked_at"]).isoformat().replace("+00:00", "Z")
    assert listed(client, collection, since=east) == records[3:]
    assert listed(client, collection, since="0001-01-01T00:00:00+14:00") == records
    assert listed(client, collection, since="9999-12-31T23:59:59-14:00") == []
    exported = client.get("/questions", params={"collection": collection}, headers=LINES)
    assert exported.headers["Content-Type"] == "application/jsonl"
    assert [json.loads(line) for line in exported.text.splitlines()] == records


def test_feedback_stands_with_the_answers_that_it_is_about(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    first = ask(client, QUESTION, collection=collection, max_steps=1)
    ask(client, QUESTION, collection=collection, max_steps=1, filter={"field": "number", "equals": 9})
    other = ask(client, "Who kept bees?", collection=collection, max_steps=1)
    said = judge(client, collection, QUESTION, first["chunks"][0])
    records = listed(client, collection)
    assert [record["feedback"] for record in records] == [[said], [], []]
    assert listed(client, collection, with_feedback="true") == records[:1]
    again = judge(client, collection, "Who kept bees?", other["chunks"][0], helpful=False)
    assert [record["feedback"] for record in listed(client, collection, with_feedback="true")] == [[said], [again]]
    client.delete(f"/feedback/{said['id']}").raise_for_status()
    assert [record["feedback"] for record in listed(client, collection)] == [[], [], [again]]


# --- Deleted ----------------------------------------------------------------------------------------------


def test_questions_are_deleted_one_by_one_by_collection_and_with_it(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    for number in range(3):
        ask(client, f"{QUESTION} {number}", collection=collection, max_steps=1)
    first, second, third = (record["id"] for record in listed(client, collection))
    assert client.delete(f"/questions/{second}").status_code == 204
    problem(client.delete(f"/questions/{second}"), 404, "unknown_question")
    assert [record["id"] for record in listed(client, collection)] == [first, third]
    assert client.delete("/questions", params={"collection": collection}).status_code == 204
    assert listed(client, collection) == []
    assert client.delete("/questions", params={"collection": collection}).status_code == 204
    problem(client.delete("/questions", params={"collection": f"{collection}-x"}), 404, "unknown_collection")
    ask(client, QUESTION, collection=collection, max_steps=1)
    client.delete(f"/collections/{collection}").raise_for_status()
    add_library(client, collection)
    assert listed(client, collection) == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/questions?since=yesterday", 422, "validation_error"),
        ("GET", "/questions?since=0.5", 422, "validation_error"),
        ("GET", "/questions?since=2026-03-01", 422, "validation_error"),
        ("GET", "/questions?since=2026-03-01T09:00:00", 422, "validation_error"),
        ("GET", "/questions?limit=101", 422, "validation_error"),
        ("GET", "/questions?with_feedback=perhaps", 422, "validation_error"),
        ("GET", "/questions?format=jsonl", 422, "validation_error"),
        ("DELETE", "/questions/qu-0", 422, "validation_error"),
        ("DELETE", "/questions?all=true", 422, "validation_error"),
        ("GET", "/questions/qu-0123456789abcdef01234567", 405, "method_not_allowed"),
    ],
)
def test_hostile_requests_are_refused(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    problem(client.request(method, path), status, code)


# --- Rights -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[tuple[httpx.Client, Path]]:
    data = tmp_path_factory.mktemp("questions-keys")
    with running_server(data, tiny_checkpoint, keep_questions_days=1) as client:
        for name in ("a", "b"):
            add(client, f"Ana signed the lease of {name}.", id=f"in-{name}", collection=name)
            ask(client, "Who signed?", collection=name)
        yield client, data / "keys.json"


def test_a_key_reads_and_deletes_in_its_collections_alone(served: tuple[httpx.Client, Path]) -> None:
    client, keys = served

    def key(name: str, *rights: Right, collections: list[str] | None = None) -> httpx.Client:
        secret = add_key(keys, name, rights, collections)
        return httpx.Client(base_url=client.base_url, timeout=60, headers={"Authorization": f"Bearer {secret}"})

    def everything(client: httpx.Client) -> list[Json]:
        return [json.loads(line) for line in client.get("/questions", headers=LINES).text.splitlines()]

    with (
        key("reader", "read", collections=["a"]) as reader,
        key("writer", "write") as writer,
        key("tenant", "read", "write", collections=["a"]) as tenant,
        key("owner", "read", "write") as owner,
    ):
        ours, theirs = everything(owner)
        assert (ours["collection"], theirs["collection"]) == ("a", "b")
        for answer in (
            reader.get("/questions"),
            writer.get("/questions"),
            writer.get("/questions", headers=LINES),
            reader.delete(f"/questions/{ours['id']}"),
            reader.delete("/questions"),
            tenant.get("/questions", params={"collection": "b"}),
            tenant.delete("/questions", params={"collection": "b"}),
        ):
            problem(answer, 403, "forbidden")
        problem(tenant.delete(f"/questions/{theirs['id']}"), 404, "unknown_question")
        assert everything(tenant) == [ours]
        assert tenant.delete("/questions").status_code == 204
        assert everything(owner) == [theirs]


# --- Switched off -----------------------------------------------------------------------------------------


def test_questions_outlast_a_restart_and_are_removed_where_none_are_wanted(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    with running_server(tmp_path, tiny_checkpoint, keep_questions_days=1) as client:
        add(client, "Ana signed the lease.", collection="a")
        ask(client, "Who signed?", collection="a")  # and ends at once: what waits is written first
        assert client.get("/model").json()["keep_questions_days"] == 1
    with running_server(tmp_path, tiny_checkpoint, keep_questions_days=1) as client:
        (record,) = listed(client, "a")
        assert record["question"] == "Who signed?"
    with running_server(tmp_path, tiny_checkpoint) as client:
        ask(client, "Who left?", collection="a")
        for answer in (
            client.get("/questions"),
            client.delete("/questions"),
            client.delete(f"/questions/{record['id']}"),
        ):
            assert "QRAG_KEEP_QUESTIONS_DAYS" in problem(answer, 404, "questions_off")["detail"]
        assert client.get("/model").json()["keep_questions_days"] == 0
    with running_server(tmp_path, tiny_checkpoint, keep_questions_days=1) as client:
        assert listed(client, "a") == []


# --- Never in the way of an answer ------------------------------------------------------------------------


class Store:
    """A store that holds each write until it may go on, and can be full."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.forgotten: list[datetime | None] = []
        self.began, self.go_on = threading.Event(), threading.Event()
        self.full = False

    def add(self, questions: Sequence[Question]) -> None:
        self.began.set()
        assert self.go_on.wait(60)
        if self.full:
            raise OSError("no space left")
        self.batches.append(len(questions))

    def restore(self, questions: Sequence[Question]) -> None:
        pass

    def records(self, *_: object, **__: object) -> list[StoredQuestion]:
        return []

    def delete(self, id: str, within: Collection[str] | None = None) -> None:
        pass

    def delete_all(self, collection: str) -> None:
        pass

    def forget(self, before: datetime | None = None, within: Collection[str] | None = None) -> None:  # noqa: ARG002
        self.forgotten.append(before)


A_QUESTION = Question(
    id="qu-1",
    collection="a",
    question="Who?",
    asked_at=datetime(2026, 3, 1, tzinfo=UTC),
    checkpoint="tiny",
    fingerprint="f1",
    chunks=[],
    found_nothing=True,
    stopped_by="hopeless",
    complete=None,
    hopeless=None,
    seconds=0.5,
    request_id="r1",
)


def test_a_store_that_is_slow_holds_up_nobody_and_the_rest_is_dropped_and_counted() -> None:
    store = Store()
    log = QuestionLog(store, 2, lambda: True)
    log.start()
    log.note(A_QUESTION)
    assert store.began.wait(60)
    for _ in range(MAX_WAITING + 7):
        log.note(A_QUESTION)  # returns although the store does not
    assert log.dropped == 7
    store.go_on.set()
    log.catch_up()
    assert store.batches == [1, MAX_WAITING]
    log.note(A_QUESTION)
    log.stop()
    assert store.batches == [1, MAX_WAITING, 1]
    assert not log.alive
    (before,) = store.forgotten
    assert before is not None
    assert timedelta(days=2) <= datetime.now(UTC) - before < timedelta(days=2, minutes=1)


def test_a_full_disk_drops_questions_and_the_log_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    store, room = Store(), [True]
    store.go_on.set()
    store.full = True
    log = QuestionLog(store, 2, lambda: room[0])
    log.start()
    log.note(A_QUESTION)
    log.catch_up()
    assert (log.dropped, log.alive, store.batches) == (1, True, [])
    assert "Who?" not in caplog.text
    store.full, room[0] = False, False
    log.note(A_QUESTION)
    log.catch_up()
    assert (log.dropped, store.batches) == (2, [])
    room[0] = True
    log.note(A_QUESTION)
    log.stop()
    assert (log.dropped, store.batches) == (2, [1])
