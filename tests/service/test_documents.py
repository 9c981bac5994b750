"""Documents and collections over HTTP: what is shown of them, and how they come and go."""

from __future__ import annotations

import json
import threading

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.helpers import (
    PLAIN,
    UNICODE,
    Json,
    add,
    ask,
    chunks_of,
    ids_in,
    lines_of_text,
    metric,
    pages,
    problem,
    sha256,
    text_of,
    until,
)

LONG = 25_000
"""Lines that keep the indexing thread busy while a test looks at it."""


# --- Looking at them -----------------------------------------------------------------------------------


def test_listing_pages_through_a_collection_in_order_of_arrival(client: httpx.Client, collection: str) -> None:
    other = f"{collection}-other"
    ids = []
    for number in range(7):
        add(client, f"Stranger {number}.", collection=other)
        ids.append(add(client, f"Document {number}.", collection=collection)["id"])
    found = list(pages(client, "/documents", "documents", 3, collection=collection))
    assert [len(page) for page in found] == [3, 3, 1]
    assert [document["id"] for page in found for document in page] == ids
    everything = [document["id"] for page in pages(client, "/documents", "documents", 100) for document in page]
    assert [id for id in everything if id in ids] == ids
    assert len(everything) == len(set(everything))
    assert client.get(f"/documents?collection={collection}-none").json() == {"documents": [], "next_cursor": None}


def test_cursor_goes_on_behind_a_deleted_document(client: httpx.Client, collection: str) -> None:
    ids = [add(client, f"{number}.", collection=collection)["id"] for number in range(4)]
    page = client.get("/documents", params={"collection": collection, "limit": 2}).json()
    assert client.delete(f"/documents/{ids[1]}").status_code == 204
    rest = client.get("/documents", params={"collection": collection, "cursor": page["next_cursor"]}).json()
    assert [document["id"] for document in rest["documents"]] == ids[2:]


@pytest.mark.parametrize("mode", ["sentences", "lines", "paragraphs", "whole"])
def test_chunks_quote_the_document_exactly(client: httpx.Client, collection: str, mode: str) -> None:
    text = f"\n  {UNICODE}\n\n{UNICODE * 3}\t" * 4
    document = add(client, text, collection=collection, chunking={"mode": mode, "max_tokens": 12})
    found = list(pages(client, f"/documents/{document['id']}/chunks", "chunks", 5))
    assert all(len(page) == 5 for page in found[:-1])
    chunks = [chunk for page in found for chunk in page]
    assert [chunk["index"] for chunk in chunks] == list(range(document["chunks"]))
    end = 0
    for chunk in chunks:
        assert chunk["text"] == text[chunk["start"] : chunk["end"]] != ""
        assert text_of(client, document["id"], start=chunk["start"], end=chunk["end"]) == chunk["text"]
        assert text[end : chunk["start"]].strip() == ""
        assert 0 < chunk["tokens"] <= 12
        end = chunk["end"]
    assert text[end:].strip() == ""


def test_text_ranges_count_characters(client: httpx.Client, collection: str) -> None:
    text = "🎉ab" * 50_000  # several stored blocks
    id = add(client, text, collection=collection, chunking={"mode": "whole"})["id"]
    assert text_of(client, id) == text
    for start, end in [
        (0, 1),
        (65_535, 65_537),
        (1, 131_073),
        (70_000, 70_010),
        (131_072, 131_080),
        (149_999, 150_000),
        (149_999, 999_999),
        (7, 7),
        (9, 3),
    ]:
        assert text_of(client, id, start=start, end=end) == text[start:end]
    assert text_of(client, id, start=140_000) == text[140_000:]
    assert text_of(client, id, start=150_000) == text_of(client, id, start=1 << 60) == ""


@pytest.mark.parametrize("text", ["", " \n\t\u2003"])
def test_a_document_without_words_is_ready_and_never_found(client: httpx.Client, collection: str, text: str) -> None:
    document = add(client, text, collection=collection)
    assert (document["chunks"], document["tokens"], document["characters"]) == (0, 0, len(text))
    assert text_of(client, document["id"]) == text
    result = ask(client, "Anything?", collection=collection)
    assert (result["chunks"], result["context"], result["stopped_by"]) == ([], "", "exhausted")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(max_size=300) | st.text("ab .!?\n\r\u3000。e\u0301🎉\u200d", max_size=300),
    mode=st.sampled_from(["sentences", "lines", "paragraphs", "whole"]),
)
def test_any_text_comes_back_as_it_was(client: httpx.Client, text: str, mode: str) -> None:
    answer = client.post("/documents?wait=true", json={"text": text, "chunking": {"mode": mode, "max_tokens": 8}})
    assert answer.status_code in (200, 201), answer.text
    document = answer.json()
    assert (document["sha256"], document["characters"]) == (sha256(text), len(text))
    assert text_of(client, document["id"]) == text
    end = 0
    for chunk in chunks_of(client, document["id"]):
        assert text[end : chunk["start"]].strip() == ""
        assert chunk["text"] == text[chunk["start"] : chunk["end"]]
        end = chunk["end"]
    assert text[end:].strip() == ""


def test_collections_count_what_they_hold(client: httpx.Client, collection: str) -> None:
    def shown_of(name: str) -> list[Json]:
        return [each for each in client.get("/collections").json()["collections"] if each["name"] == name]

    assert shown_of(collection) == []
    texts = ["Zwölf Boxkämpfer.", "🎉 One line.\nTwo lines."]
    for text in texts:
        add(client, text, collection=collection, chunking={"mode": "lines"})
    size = sum(len(text.encode("utf-8")) for text in texts)
    assert shown_of(collection) == [{"name": collection, "documents": 2, "chunks": 3, "bytes": size}]
    names = [each["name"] for each in client.get("/collections").json()["collections"]]
    assert names == sorted(names)


# --- While they are indexed ------------------------------------------------------------------------------


def test_progress_grows_until_the_document_is_ready(client: httpx.Client, collection: str) -> None:
    parameters = {"collection": collection, "chunking": "lines"}
    answer = client.post("/documents", params=parameters, content=lines_of_text(LONG), headers=PLAIN)
    location = answer.headers["Location"]
    seen: list[Json] = [answer.json()]
    assert (seen[0]["chunks"], seen[0]["tokens"], seen[0]["progress"]) == (None, None, 0.0)

    def is_ready() -> bool:
        seen.append(client.get(location).json())
        return bool(seen[-1]["status"] == "ready")

    until(is_ready)
    order = ("queued", "indexing", "ready")
    assert [order.index(each["status"]) for each in seen] == sorted(order.index(each["status"]) for each in seen)
    progress = [each["progress"] for each in seen]
    assert progress == sorted(progress)
    assert len({each for each in progress if 0 < each < 1}) > 2
    assert (progress[-1], seen[-1]["chunks"]) == (1.0, LONG)
    assert all(each["chunks"] in (None, LONG) for each in seen)


def test_documents_are_deleted_in_every_state(client: httpx.Client, collection: str) -> None:
    def start(id: str) -> str:
        parameters = {"id": f"{collection}-{id}", "collection": collection, "chunking": "lines"}
        answer = client.post("/documents", params=parameters, content=lines_of_text(LONG), headers=PLAIN)
        assert answer.status_code == 202
        return answer.headers["Location"]

    ready = f"/documents/{add(client, 'Ready.', collection=collection)['id']}"
    indexing = start("indexing")
    until(lambda: client.get(indexing).json()["status"] == "indexing")
    queued = start("queued")
    states = [client.get(location).json()["status"] for location in (ready, indexing, queued)]
    assert states == ["ready", "indexing", "queued"]
    for location in (queued, indexing, ready):
        assert client.delete(location).status_code == 204
        problem(client.get(location), 404, "unknown_document")
        problem(client.get(f"{location}/chunks"), 404, "unknown_document")
        problem(client.get(f"{location}/text"), 404, "unknown_document")
        problem(client.delete(location), 404, "unknown_document")
    survivor = add(client, "Still here.", collection=collection)  # behind everything that was in the queue
    assert ids_in(client, collection) == [survivor["id"]]
    assert ask(client, "Line 7?", collection=collection)["usage"]["candidates"] == 1


def test_whoever_waits_for_a_deleted_document_is_told(client: httpx.Client, collection: str) -> None:
    id = f"{collection}-waited"
    parameters = {"wait": "true", "id": id, "collection": collection, "chunking": "lines"}
    answers: list[httpx.Response] = []

    def wait() -> None:
        with httpx.Client(base_url=client.base_url, timeout=60) as other:
            answers.append(other.post("/documents", params=parameters, content=lines_of_text(LONG), headers=PLAIN))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: client.get(f"/documents/{id}").json().get("status") == "indexing")
    assert client.delete(f"/documents/{id}").status_code == 204
    thread.join(60)
    assert "deleted or replaced" in problem(answers[0], 409, "documents_changed")["detail"]


def test_a_document_replaced_while_it_is_indexed_is_the_new_one(client: httpx.Client, collection: str) -> None:
    parameters = {"id": f"{collection}-r", "collection": collection, "chunking": "lines"}
    location = client.post("/documents", params=parameters, content=lines_of_text(LONG), headers=PLAIN).headers[
        "Location"
    ]
    until(lambda: client.get(location).json()["status"] == "indexing")
    parameters |= {"wait": "true", "replace": "true"}
    new = client.post("/documents", params=parameters, content="Brief.", headers=PLAIN)
    assert new.status_code == 201
    add(client, "Later.", collection=collection)
    assert client.get(location).json() == new.json()
    found = ask(client, "What?", collection=collection)["chunks"]
    assert sorted(chunk["text"] for chunk in found) == ["Brief.", "Later."]


def test_retrying_a_document_that_has_not_failed_changes_nothing(client: httpx.Client, collection: str) -> None:
    document = add(client, "All is well.", collection=collection)
    answer = client.post(f"/documents/{document['id']}/retry")
    assert answer.status_code == 200
    assert answer.json() == document


def test_deleting_a_collection_takes_its_documents_and_no_others(client: httpx.Client, collection: str) -> None:
    other = f"{collection}-other"
    kept = add(client, "Kept.", collection=other)
    gone = [add(client, f"Gone {number}.", collection=collection)["id"] for number in range(3)]
    assert client.delete(f"/collections/{collection}").status_code == 204
    for id in gone:
        problem(client.get(f"/documents/{id}"), 404, "unknown_document")
    problem(client.delete(f"/collections/{collection}"), 404, "unknown_collection")
    problem(client.post("/retrieve", json={"question": "?", "collection": collection}), 404, "unknown_collection")
    assert ids_in(client, other) == [kept["id"]]
    assert len(ask(client, "What?", collection=other)["chunks"]) == 1
    assert add(client, "Gone 0.", collection=collection)["chunks"] == 1


def test_metrics_count_documents_by_status(client: httpx.Client, collection: str) -> None:
    before = metric(client, 'qrag_documents{status="ready"}')
    document = add(client, "Counted.", collection=collection)
    assert metric(client, 'qrag_documents{status="ready"}') == before + 1
    client.delete(f"/documents/{document['id']}")
    assert metric(client, 'qrag_documents{status="ready"}') == before


def test_metadata_of_the_largest_size_is_kept(client: httpx.Client, collection: str) -> None:
    room = 16_384 - len(json.dumps({"x": ""}).encode())
    metadata = {"x": "é" * (room // 2)}
    assert add(client, "Described.", collection=collection, metadata=metadata)["metadata"] == metadata
