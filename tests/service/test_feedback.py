"""Feedback: which chunks of an answer helped is kept, given out, and gone when its document is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.keys import Right, add_key
from tests.servers import running_server
from tests.service.helpers import JSON, Json, add, ask, chunks_of, ids_in, pages, problem, until

LINES = {"Accept": "application/jsonl"}
QUESTION = "Who signed the lease?"


def say(client: httpx.Client, collection: str, *judged: tuple[str, int, bool], **fields: object) -> httpx.Response:
    chunks = [{"document_id": id, "index": index, "helpful": helpful} for id, index, helpful in judged]
    return client.post("/feedback", json={"question": QUESTION, "collection": collection, "chunks": chunks, **fields})


def given(client: httpx.Client, collection: str, *judged: tuple[str, int, bool], **fields: object) -> Json:
    answer = say(client, collection, *judged, **fields)
    assert answer.status_code == 201, answer.text
    record: Json = answer.json()
    return record


def listed(client: httpx.Client, collection: str) -> list[Json]:
    return [record for page in pages(client, "/feedback", "feedback", 100, collection=collection) for record in page]


def exported(client: httpx.Client, **query: str) -> list[Json]:
    answer = client.get("/feedback", params=query, headers=LINES)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/jsonl")
    assert answer.text == "" or answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture
def lease(client: httpx.Client, collection: str) -> str:
    text = "Ana signed the lease.\nBruno kept bees.\nÄrger \u2028 im Büro 👩\u200d👧."
    id: str = add(client, text, collection=collection, chunking={"mode": "lines"})["id"]
    return id


# --- Given and given out ----------------------------------------------------------------------------------


def test_what_is_said_about_an_answer_comes_back_with_texts_and_checkpoint(
    client: httpx.Client, collection: str, lease: str
) -> None:
    answer = ask(client, QUESTION, collection=collection, max_steps=3)
    judged = [(chunk["document_id"], chunk["index"], chunk["index"] == 0) for chunk in answer["chunks"]]
    record = given(client, collection, *judged[::-1], answer="Ana.", comment="👍")
    assert {**record, "id": None, "created_at": None, "checkpoint": None} == {
        "id": None,
        "created_at": None,
        "checkpoint": None,
        "collection": collection,
        "question": QUESTION,
        "chunks": [
            {"document_id": lease, "index": chunk["index"], "text": chunk["text"], "helpful": chunk["index"] == 0}
            for chunk in chunks_of(client, lease)
        ],
        "answer": "Ana.",
        "comment": "👍",
    }
    assert record["checkpoint"]["name"] == answer["model"] == client.get("/model").json()["name"]
    assert len(record["checkpoint"]["fingerprint"]) == 64
    assert listed(client, collection) == exported(client, collection=collection) == [record]
    assert record in exported(client)
    plain = given(client, collection, (lease, 0, True))
    assert (plain["answer"], plain["comment"]) == (None, None)
    assert plain["id"] != record["id"]
    assert listed(client, collection) == [record, plain]


def test_saying_the_same_again_makes_it_the_latest(client: httpx.Client, collection: str, lease: str) -> None:
    ids = [given(client, collection, (lease, 0, helpful))["id"] for helpful in (True, False, True)]
    assert ids[0] == ids[2] != ids[1]
    assert [record["id"] for record in listed(client, collection)] == ids[1:]


def test_many_records_are_listed_in_pages_and_exported_at_once(
    client: httpx.Client, collection: str, lease: str
) -> None:
    records = [given(client, collection, (lease, 0, True), comment=f"Number {number}.") for number in range(230)]
    found = list(pages(client, "/feedback", "feedback", 100, collection=collection))
    assert [len(page) for page in found] == [100, 100, 30]
    assert [record for page in found for record in page] == records
    assert exported(client, collection=collection) == records
    with client.stream("GET", "/feedback", params={"collection": collection}, headers=LINES) as answer:
        assert "Content-Length" not in answer.headers
        assert json.loads(next(answer.iter_lines())) == records[0]


def test_an_export_is_whole_and_other_formats_are_pages(client: httpx.Client, collection: str, lease: str) -> None:
    record = given(client, collection, (lease, 2, True))
    for query in ({"limit": "1"}, {"cursor": "1"}):
        problem(client.get("/feedback", params=query, headers=LINES), 400, "invalid_request")
    for accept in ("*/*", "application/json", "application/jsonl;q=0"):
        page = client.get("/feedback", params={"collection": collection}, headers={"Accept": accept}).json()
        assert page == {"feedback": [record], "next_cursor": None}


# --- Deleted ----------------------------------------------------------------------------------------------


def test_records_are_deleted_one_by_one_or_all_of_a_collection(
    client: httpx.Client, collection: str, lease: str
) -> None:
    first, second, third = (given(client, collection, (lease, index, True))["id"] for index in range(3))
    assert client.delete(f"/feedback/{second}").status_code == 204
    problem(client.delete(f"/feedback/{second}"), 404, "unknown_feedback")
    assert [record["id"] for record in listed(client, collection)] == [first, third]
    assert client.delete("/feedback", params={"collection": collection}).status_code == 204
    assert listed(client, collection) == []
    assert client.delete("/feedback", params={"collection": collection}).status_code == 204
    assert ids_in(client, collection) == [lease]
    problem(client.delete("/feedback", params={"collection": f"{collection}-x"}), 404, "unknown_collection")
    problem(client.delete("/feedback"), 422, "validation_error")


def test_a_deleted_document_takes_every_record_that_names_it(client: httpx.Client, collection: str, lease: str) -> None:
    other = add(client, "Clara signed the contract.", collection=collection)["id"]
    given(client, collection, (lease, 0, True))
    given(client, collection, (lease, 1, False), (other, 0, True))
    kept = given(client, collection, (other, 0, True))
    assert client.delete(f"/documents/{lease}").status_code == 204
    assert listed(client, collection) == [kept]
    assert client.delete(f"/collections/{collection}").status_code == 204
    add(client, "Clara signed the contract.", collection=collection)
    assert listed(client, collection) == []


def test_a_replaced_document_leaves_the_text_that_was_judged(client: httpx.Client, collection: str) -> None:
    body = {"id": collection, "collection": collection, "text": "Ana signed."}
    add(client, **body)
    old = given(client, collection, (collection, 0, True))
    new_body = {**body, "text": "Bruno signed."}
    client.post("/documents", params={"replace": True, "wait": True}, json=new_body).raise_for_status()
    assert listed(client, collection) == [old]
    assert old["chunks"][0]["text"] == "Ana signed."
    new = given(client, collection, (collection, 0, True))
    assert new["chunks"][0]["text"] == "Bruno signed."
    assert listed(client, collection) == [old, new]
    assert client.delete(f"/documents/{collection}").status_code == 204
    problem(client.get("/feedback", params={"collection": "-"}), 422, "validation_error")
    assert listed(client, collection) == []


# --- Refused ----------------------------------------------------------------------------------------------


def test_what_is_not_there_cannot_be_judged(client: httpx.Client, collection: str, lease: str) -> None:
    elsewhere = add(client, "Clara signed.", collection=f"{collection}-b")["id"]
    problem(say(client, f"{collection}-c", (lease, 0, True)), 404, "unknown_document")
    for id in (f"{collection}-none", elsewhere):
        problem(say(client, collection, (lease, 0, True), (id, 0, True)), 404, "unknown_document")
    refused = problem(say(client, collection, (lease, 0, True), (lease, 3, True)), 404, "unknown_chunk")
    assert f"{lease!r} has no chunk 3" in refused["detail"]
    assert listed(client, collection) == listed(client, f"{collection}-b") == []


def test_a_document_that_is_not_searchable_yet_is_not_judged(client: httpx.Client, collection: str, lease: str) -> None:
    lines = "".join(f"Line {number} says little.\n" for number in range(6_000))
    answer = client.post("/documents", json={"text": lines, "collection": collection, "chunking": {"mode": "lines"}})
    id = answer.json()["id"]
    problem(say(client, collection, (lease, 0, True), (id, 0, True)), 404, "unknown_chunk")
    until(lambda: client.get(f"/documents/{id}").json()["status"] == "ready")
    assert given(client, collection, (id, 0, True))["chunks"][0]["text"] == "Line 0 says little."


def body(**fields: object) -> Json:
    chunk = {"document_id": "kept", "index": 0, "helpful": True}
    return {"question": QUESTION, "collection": "kept", "chunks": [chunk], **fields}


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"question": " "}, "question"),
        ({"question": "w" * 100_001}, "question"),
        ({"question": None}, "question"),
        ({"collection": "../x"}, "collection"),
        ({"chunks": []}, "chunks"),
        ({"chunks": [{"document_id": "kept", "index": index, "helpful": True} for index in range(65)]}, "chunks"),
        ({"chunks": [{"document_id": "kept", "index": 0, "helpful": helpful} for helpful in (True, False)]}, ""),
        ({"chunks": [{"document_id": "kept", "index": 0, "helpful": 1}]}, "chunks.0.helpful"),
        ({"chunks": [{"document_id": "kept", "index": 0}]}, "chunks.0.helpful"),
        ({"chunks": [{"document_id": "kept", "index": "0", "helpful": True}]}, "chunks.0.index"),
        ({"chunks": [{"document_id": "kept", "index": -1, "helpful": True}]}, "chunks.0.index"),
        ({"chunks": [{"document_id": "kept", "index": 1 << 80, "helpful": True}]}, "chunks.0.index"),
        ({"chunks": [{"document_id": "a/b", "index": 0, "helpful": True}]}, "chunks.0.document_id"),
        ({"chunks": [{"document_id": "kept", "index": 0, "helpful": True, "text": "x"}]}, "chunks.0.text"),
        ({"answer": ""}, "answer"),
        ({"answer": "a" * 10_001}, "answer"),
        ({"comment": "c" * 10_001}, "comment"),
        ({"comment": ["c"]}, "comment"),
        ({"id": "fb-0123456789abcdef01234567"}, "id"),
    ],
)
def test_feedback_of_the_wrong_shape(unchanged_client: httpx.Client, fields: Json, at: str) -> None:
    refused = problem(unchanged_client.post("/feedback", json=body(**fields)), 422, "validation_error")
    assert refused["errors"][0]["at"] == f"body.{at}".rstrip(".")
    assert exported(unchanged_client) == []


def test_hostile_requests_are_refused(unchanged_client: httpx.Client) -> None:
    client = unchanged_client
    for content in (b"{", b'{"chunks": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"):
        problem(client.post("/feedback", content=content, headers=JSON), 400, "invalid_json")
    problem(client.post("/feedback", content=b'{"question": "\\ud800"}', headers=JSON), 422, "validation_error")
    problem(client.post("/feedback", content=json.dumps(body())), 415, "unsupported_media_type")
    long = json.dumps(body(comment="c" * (1 << 20)))
    problem(client.post("/feedback", content=long, headers=JSON), 413, "body_too_large")
    for path in ("/feedback/nothing", "/feedback/fb-0", "/feedback/fb-%27%20OR%201=1", "/feedback?collection=a&id=b"):
        problem(client.delete(path), 422, "validation_error")
    for query in ("limit=0", "limit=101", "cursor=-1", "cursor=x", "collection=%00", "format=jsonl"):
        problem(client.get(f"/feedback?{query}"), 422, "validation_error")
    problem(client.get("/feedback/fb-0123456789abcdef01234567"), 405, "method_not_allowed")
    assert exported(client) == []


# --- Rights -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[tuple[httpx.Client, Path]]:
    data = tmp_path_factory.mktemp("feedback-keys")
    with running_server(data, tiny_checkpoint) as client:
        for name in ("a", "b"):
            add(client, f"Ana signed the lease of {name}.", id=f"in-{name}", collection=name)
        yield client, data / "keys.json"


def test_a_key_judges_reads_and_deletes_in_its_collections_alone(served: tuple[httpx.Client, Path]) -> None:
    client, keys = served

    def key(name: str, *rights: Right, collections: list[str] | None = None) -> httpx.Client:
        secret = add_key(keys, name, rights, collections)
        return httpx.Client(base_url=client.base_url, timeout=60, headers={"Authorization": f"Bearer {secret}"})

    with (
        key("reader", "read", collections=["a"]) as reader,
        key("writer", "write") as writer,
        key("tenant", "read", "write", collections=["a"]) as tenant,
        key("owner", "read", "write") as owner,
    ):
        ours = given(reader, "a", ("in-a", 0, True))
        theirs = given(owner, "b", ("in-b", 0, True))
        problem(say(reader, "b", ("in-b", 0, True)), 403, "forbidden")
        absent = problem(say(reader, "a", ("nothing", 0, True)), 404, "unknown_document")["detail"]
        assert problem(say(reader, "a", ("in-b", 0, True)), 404, "unknown_document")["detail"] == absent.replace(
            "nothing", "in-b"
        )
        problem(say(owner, "a", ("in-b", 0, True)), 404, "unknown_document")
        problem(say(writer, "a", ("in-a", 0, True)), 403, "forbidden")
        problem(say(client, "a", ("in-a", 0, True)), 401, "unauthorized")
        for answer in (
            reader.get("/feedback"),
            writer.get("/feedback"),
            writer.get("/feedback", headers=LINES),
            reader.delete(f"/feedback/{ours['id']}"),
            reader.delete("/feedback", params={"collection": "a"}),
            tenant.get("/feedback", params={"collection": "b"}),
            tenant.get("/feedback", params={"collection": "b"}, headers=LINES),
            tenant.delete("/feedback", params={"collection": "b"}),
        ):
            problem(answer, 403, "forbidden")
        hidden = problem(tenant.delete(f"/feedback/{theirs['id']}"), 404, "unknown_feedback")["detail"]
        nothing = "fb-0123456789abcdef01234567"
        missing = problem(tenant.delete(f"/feedback/{nothing}"), 404, "unknown_feedback")["detail"]
        assert hidden.replace(theirs["id"], nothing) == missing
        assert exported(tenant) == [ours]
        assert exported(owner) == [ours, theirs]
        assert tenant.delete("/feedback", params={"collection": "a"}).status_code == 204
        assert exported(owner) == [theirs]


# --- Kept and switched off ---------------------------------------------------------------------------------


def test_feedback_outlasts_a_restart_and_a_setting_switches_it_off(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with running_server(tmp_path, tiny_checkpoint) as client:
        id = add(client, "Ana signed the lease.", collection="a")["id"]
        record = given(client, "a", (id, 0, True))
        assert client.get("/model").json()["feedback"] is True
    with running_server(tmp_path, tiny_checkpoint, feedback="false") as client:
        for answer in (
            say(client, "a", (id, 0, True)),
            client.get("/feedback"),
            client.delete("/feedback", params={"collection": "a"}),
            client.delete(f"/feedback/{record['id']}"),
        ):
            assert "QRAG_FEEDBACK is off" in problem(answer, 404, "feedback_off")["detail"]
        assert client.get("/model").json()["feedback"] is False
    with running_server(tmp_path, tiny_checkpoint) as client:
        assert exported(client) == [record]
