"""Both clients, against running servers: what they ask, answer and send, and how they wait."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any, assert_type

import httpx
import pytest
from pydantic import JsonValue

from qrag import (
    AnswerOut,
    BatchItem,
    BatchQuestion,
    Chunking,
    ChunkReference,
    Client,
    Conflict,
    DocumentIn,
    DocumentOut,
    FileChanged,
    IndexingFailed,
    InvalidRequest,
    NotFound,
    QRagClientError,
    RetrieveOut,
    StepEvent,
    Stop,
    UnknownFileType,
)
from qrag.wire import examples
from qrag.wire.media_types import MediaType
from tests.client.clients import Connect
from tests.service.files import docx
from tests.service.helpers import UNICODE, ids_in, lines_of_text, text_of
from tests.service.scripted import Action, answer, drop, refusal, scripted

DOCUMENT: dict[str, Any] = examples.DOCUMENT


def noting_file(reads: list[int], content: bytes, name: str) -> io.BytesIO:
    """A file that notes how much is read of it at once."""

    class Noting(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            block = super().read(count)
            reads.append(len(block))
            return block

    file = Noting(content)
    file.name = name
    return file


# --- What the service does ------------------------------------------------------------------------------


def test_a_text_and_all_that_is_said_about_it(qrag: Client, collection: str) -> None:
    document = qrag.index(
        text=UNICODE,
        id=f"{collection}:a",
        title="Ä",
        collection=collection,
        metadata={"year": 1916, "tags": ["a"]},
        chunking=Chunking(mode="lines", max_tokens=32),
        wait=True,
    )
    assert_type(document, DocumentOut)
    assert (document.status, document.title, document.metadata) == ("ready", "Ä", {"year": 1916, "tags": ["a"]})
    assert document.chunking == Chunking(mode="lines", max_tokens=32)
    assert qrag.document(document.id) == document
    assert list(qrag.documents(collection=collection)) == [document]
    assert qrag.text(document.id) == UNICODE
    assert qrag.text(document.id, 3, 9) == UNICODE[3:9]
    for chunk in qrag.chunks(document.id):
        assert chunk.text == UNICODE[chunk.start : chunk.end]
    assert qrag.retry(document.id).status == "ready"
    assert [(each.documents, each.chunks) for each in qrag.collections() if each.name == collection] == [
        (1, document.chunks)
    ]
    assert collection in {each.collection for each in qrag.documents()}


def test_title_and_metadata_are_changed_in_place(qrag: Client, collection: str) -> None:
    document = qrag.index("Ana signed.", title="A", collection=collection, metadata={"year": 2024, "draft": True})
    changed = qrag.update(document.id, title="B", metadata={"draft": None})
    assert (changed.title, changed.metadata) == ("B", {"year": 2024})
    assert qrag.update(document.id, title=None).title is None
    assert list(qrag.documents(collection=collection, title="B")) == []


def test_waiting_ends_with_the_new_content(qrag: Client, collection: str) -> None:
    qrag.index("Ana signed.", id=collection, collection=collection, wait=True)
    posted = qrag.index("Ben signed.\n" * 2000, id=collection, collection=collection, chunking="lines", replace=True)
    assert posted.replacement is not None
    assert (posted.status, posted.chunks) == ("ready", 1)
    (document,) = qrag.wait_until_ready([collection])
    assert (document.replacement, document.chunks) == (None, 2000)


def test_new_content_that_cannot_be_indexed_is_told(connect: Connect) -> None:
    failed = {"status": "failed", "progress": 0.0, "error": "It is too long."}
    told = pytest.raises(IndexingFailed, match=r"the former still is\. It is too long\.")
    with scripted([answer(200, {**DOCUMENT, "replacement": failed})]) as server, told as raised:
        connect(server.url).wait_until_ready(["franklin"])
    assert [document.id for document in raised.value.documents] == ["franklin"]


def test_the_same_is_stored_once_and_other_content_is_a_conflict_unless_it_replaces(
    qrag: Client, collection: str
) -> None:
    first = qrag.index("Ana signed.", id=collection, collection=collection)
    assert qrag.index("Ana signed.", id=collection, collection=collection).created_at == first.created_at
    with pytest.raises(Conflict, match="replace") as refused:
        qrag.index("Ben signed.", id=collection, collection=collection)
    assert (refused.value.status, refused.value.code) == (409, "document_conflict")
    assert qrag.index("Ben signed.", id=collection, collection=collection, replace=True, wait=True).status == "ready"
    assert qrag.text(collection) == "Ben signed."


def test_documents_and_collections_are_deleted(qrag: Client, collection: str) -> None:
    first, second = (qrag.index(text, collection=collection, wait=True) for text in ("One.", "Two."))
    qrag.delete(first.id)
    assert list(qrag.documents(collection=collection)) == [second]
    qrag.delete_collection(collection)
    with pytest.raises(NotFound) as gone:
        qrag.document(second.id)
    assert gone.value.code == "unknown_document"
    with pytest.raises(NotFound):
        qrag.delete_collection(collection)


def test_many_documents_and_many_pages(qrag: Client, collection: str, shared_client: httpx.Client) -> None:
    documents = (
        DocumentIn(text=f"Text {number}.", id=f"{collection}:{number}", collection=collection) for number in range(120)
    )
    posted = qrag.index_many(documents, wait=True)
    assert {document.status for document in posted} == {"ready"}
    assert [document.id for document in posted] == ids_in(shared_client, collection)
    long = qrag.index(lines_of_text(1100), collection=collection, chunking="lines", wait=True)
    chunks = list(qrag.chunks(long.id))
    assert [chunk.index for chunk in chunks] == list(range(1100))
    assert long.chunks == 1100


def test_a_list_is_fetched_page_by_page(connect: Connect) -> None:
    pages = [
        answer(200, {"documents": [DOCUMENT], "next_cursor": "7"}),
        answer(200, {"documents": [{**DOCUMENT, "id": "last"}], "next_cursor": None}),
    ]
    with scripted(pages) as server:
        found = connect(server.url).documents(collection="c")
        assert next(found).id == "franklin"
        assert len(server.requests) == 1, "the second page is not wanted yet"
        assert [document.id for document in found] == ["last"]
    assert re.findall("collection=c|cursor=7", server.requests[1].path) == ["collection=c", "cursor=7"]


def test_a_question_and_its_steps(qrag: Client, collection: str) -> None:
    qrag.index(lines_of_text(30), collection=collection, chunking="lines", metadata={"year": 1990}, wait=True)
    other = qrag.index("Line 99 says more.", collection=collection, metadata={"year": 2000}, wait=True)
    result = qrag.retrieve("Which line?", collection=collection, max_steps=3, stop=Stop(rule="budget"), trace=True)
    assert_type(result, RetrieveOut)
    assert (len(result.steps), result.stopped_by) == (3, "budget")
    assert result.one_step
    filters: list[dict[str, JsonValue]] = [
        {"field": "year", "gte": 1995},
        {"not": {"field": "year", "in": [1990]}},
    ]
    for filter in filters:
        found = qrag.retrieve("x", collection=collection, filter=filter)
        assert {chunk.document_id for chunk in found.chunks} == {other.id}
    by_id = qrag.retrieve("x", collection=collection, document_ids=[other.id], beam_width=2, max_context_tokens=99)
    assert {chunk.document_id for chunk in by_id.chunks} == {other.id}
    *steps, last = qrag.stream("Which line?", collection=collection, max_steps=3, stop=Stop(rule="budget"))
    assert isinstance(last, RetrieveOut)
    assert [step.chunk for step in steps if isinstance(step, StepEvent)] == sorted(
        result.chunks, key=lambda chunk: chunk.step
    )
    assert last.context == result.context


def test_a_question_goes_on_from_its_answer(qrag: Client, collection: str) -> None:
    qrag.index("a\nb\nc\nd\ne\n", collection=collection, chunking="lines", wait=True)
    budget = Stop(rule="budget")
    begun = qrag.retrieve("Which line?", collection=collection, max_steps=2, stop=budget)
    more = qrag.retrieve(continuation=begun.continuation, max_steps=1)
    *_, end = qrag.stream(continuation=more.continuation, max_total_chunks=4)
    assert isinstance(end, RetrieveOut)
    assert (len(end.chunks), end.stopped_by) == (1, "budget")
    held = [*begun.chunks, *more.chunks]
    given = qrag.retrieve("Which line?", collection=collection, max_steps=1, stop=budget, given=held)
    assert given.chunks[0].text == end.chunks[0].text
    last = qrag.retrieve("Which line?", collection=collection, given=held, exclude=end.chunks)
    assert len({chunk.text for chunk in (*held, *end.chunks, *last.chunks)}) == 5
    assert len(last.chunks) == 1
    focused = qrag.retrieve(continuation=begun.continuation, focus="Where is it?", max_steps=3)
    assert focused.focus == "Where is it?"
    assert {chunk.text for chunk in (*begun.chunks, *focused.chunks)} == set("abcde")
    with pytest.raises(InvalidRequest, match="focus"):
        qrag.retrieve("Which line?", focus=" ", collection=collection)
    with pytest.raises(InvalidRequest, match="continuation"):
        qrag.retrieve(continuation="AAAA")
    qrag.delete_collection(collection)
    with pytest.raises(Conflict, match="Ask again"):
        qrag.retrieve(continuation=begun.continuation)


def test_line_ends_of_every_kind_survive_a_stream(qrag: Client, collection: str) -> None:
    text = "Ana\u2028signed\u2029the\x85lease\r\nof\x0bthe\x0coffice."
    qrag.index(text, collection=collection, chunking="whole", wait=True)
    step, result = qrag.stream("Who?", collection=collection)
    assert isinstance(step, StepEvent)
    assert isinstance(result, RetrieveOut)
    assert step.chunk.text == result.chunks[0].text == text


def test_the_language_model_answers(qrag: Client, collection: str) -> None:
    qrag.index("Ana signed the lease.", collection=collection, wait=True)
    found = qrag.retrieve("Who signed?", collection=collection, max_steps=1).chunks
    answered = qrag.answer("Who signed?", collection=collection, max_steps=1, max_answer_tokens=9, temperature=0)
    assert_type(answered, AnswerOut)
    assert (answered.answer, answered.language_model) == ("Nobody knows [1].", "small")
    assert answered.retrieval.chunks == found
    assert qrag.answer("Who signed?", collection=collection, exclude=found).retrieval.chunks == []


def test_the_service_about_itself(qrag: Client) -> None:
    assert qrag.model().dimension == 32
    assert qrag.ready() is True


def test_the_client_is_a_context_manager(shared_client: httpx.Client) -> None:
    with Client(str(shared_client.base_url)) as client:
        assert client.ready()
    with pytest.raises(RuntimeError, match="closed"):
        client.ready()


def test_several_questions_are_asked_at_once(qrag: Client, collection: str) -> None:
    qrag.index("Ana signed.\nBen kept bees.", collection=collection, chunking="lines", wait=True)
    alone = qrag.retrieve("Who signed?", collection=collection, max_steps=1)
    (given,) = alone.chunks
    unwanted = ChunkReference(document_id=given.document_id, index=given.index)
    own = BatchQuestion(question="Who signed?", exclude=[unwanted])
    questions: list[str | BatchQuestion] = ["Who signed?", own, "long " * 2000]
    first, second, third = qrag.retrieve_batch(questions, collection=collection, max_steps=1)
    assert_type(first, BatchItem)
    assert first.result is not None
    assert second.result is not None
    assert third.problem is not None
    assert [chunk.text for chunk in first.result.chunks] == [given.text]
    assert second.result.chunks[0].index != given.index
    assert (third.result, third.problem.code) == (None, "question_too_long")
    assert qrag.retrieve_batch([]) == []
    with pytest.raises(NotFound):
        qrag.retrieve_batch(["Who?"], collection="nowhere")


def test_many_questions_are_asked_in_batches_of_64(connect: Connect) -> None:
    item = examples.BATCH["items"][0]
    with scripted([answer(200, {"items": [item] * 64}), answer(200, {"items": [item] * 2})]) as server:
        items = connect(server.url).retrieve_batch((f"Who is {number}?" for number in range(66)), max_steps=2)
        bodies = [json.loads(request.body) for request in server.requests]
    assert len(items) == 66
    assert [question for body in bodies for question in body["questions"]] == [f"Who is {n}?" for n in range(66)]
    assert [(request.path, body["max_steps"]) for request, body in zip(server.requests, bodies, strict=True)] == [
        ("/retrieve/batch", 2)
    ] * 2


# --- Files ----------------------------------------------------------------------------------------------


def test_a_file_is_sent_in_blocks_with_its_progress(qrag: Client, collection: str, shared_client: httpx.Client) -> None:
    content = lines_of_text(20_000).encode()
    reads: list[int] = []
    seen: list[tuple[int, int | None]] = []
    file = noting_file(reads, b"skip" + content, "/folder/book.txt")
    file.seek(4)
    document = qrag.index_file(
        file, collection=collection, chunking="lines", metadata={"a": [1]}, progress=lambda *now: seen.append(now)
    )
    assert (document.title, document.metadata) == ("book.txt", {"a": [1]})
    assert text_of(shared_client, document.id).encode() == content
    assert max(reads) <= 1 << 16
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == ((0, len(content)), (len(content), len(content)))
    qrag.delete(document.id)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"Ana signed."),
        ("b.MD", b"Ana *signed*."),
        ("c.html", b"<p>Ana <b>signed</b>."),
        ("d.docx", docx("<w:p><w:r><w:t>Ana signed.</w:t></w:r></w:p>")),
    ],
)
def test_the_name_of_a_file_says_what_it_is(
    qrag: Client, collection: str, tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    document = qrag.index_file(tmp_path / name, title="Lease", collection=collection, wait=True)
    assert document.title == "Lease"
    assert qrag.text(document.id).split() == ["Ana", "signed."]


def test_a_type_can_be_given(qrag: Client, collection: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.xyz"
    path.write_bytes("Ärger,1\n".encode("latin-1"))
    with pytest.raises(UnknownFileType, match=r"\.txt"):
        qrag.index_file(path, collection=collection)
    document = qrag.index_file(path, media_type="text/plain; charset=latin-1", collection=collection)
    assert qrag.text(document.id) == "Ärger,1\n"


def test_files_that_cannot_be_sent(qrag: Client, collection: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        qrag.index_file(tmp_path / "none.txt")
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 200_000)
    with path.open() as text, pytest.raises(TypeError, match="binary"):
        qrag.index_file(text)  # type: ignore[arg-type]
    with pytest.raises(FileChanged, match=r"a\.txt"):
        qrag.index_file(path, collection=collection, progress=lambda *_: os.truncate(path, 10))
    assert list(qrag.documents(collection=collection)) == []


def test_a_file_that_is_too_long_is_refused_by_the_service(
    connect: Connect, limited_client: httpx.Client, tmp_path: Path
) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(b"word " * 4_000_000)
    with pytest.raises(InvalidRequest, match="at most 300000 bytes") as refused:
        connect(str(limited_client.base_url)).index_file(path)
    assert (refused.value.status, refused.value.code) == (413, "body_too_large")


def test_a_repeated_upload_begins_where_the_file_stood(connect: Connect) -> None:
    pauses: list[float] = []
    seen: list[int] = []
    file = io.BytesIO(b"skip Ana signed.")
    file.seek(5)
    with scripted([refusal(503), drop, answer(202, DOCUMENT)]) as server:
        client = connect(server.url, pauses=pauses)
        client.index_file(file, media_type=MediaType.PLAIN_TEXT, progress=lambda sent, _: seen.append(sent))
    assert [request.body for request in server.requests] == 3 * [b"Ana signed."]
    assert [request.headers["Content-Length"] for request in server.requests] == 3 * ["11"]
    assert seen == 3 * [0, 11]
    assert len(pauses) == 2


@pytest.mark.parametrize("failure", [refusal(503), drop, refusal(502)])
def test_a_pipe_is_sent_once(connect: Connect, failure: Action) -> None:
    pauses: list[float] = []
    reading, writing = os.pipe()
    with open(writing, "wb") as end:
        end.write(b"Ana signed.")
    with scripted([failure]) as server, open(reading, "rb") as pipe, pytest.raises(QRagClientError):
        connect(server.url, pauses=pauses).index_file(pipe, media_type="text/plain")
    assert [request.body for request in server.requests] == [b"Ana signed."]
    assert pauses == []


# --- Waiting --------------------------------------------------------------------------------------------


def states(*changes: dict[str, Any]) -> list[Action]:
    return [answer(200, {**DOCUMENT, "status": "indexing", "progress": 0.0, **change}) for change in changes]


def test_waiting_reports_progress_and_pauses_longer_the_longer_nothing_happens(connect: Connect) -> None:
    pauses: list[float] = []
    seen: list[float] = []
    with scripted(states({}, {}, {}, {}, {"progress": 0.5}, {"status": "ready", "progress": 1.0})) as server:
        (document,) = connect(server.url, pauses=pauses).wait_until_ready(
            ["franklin"], progress=lambda document: seen.append(document.progress)
        )
    assert document.status == "ready"
    assert seen == [0, 0, 0, 0, 0.5, 1]
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.05]


def test_waiting_goes_on_for_the_others_and_then_says_what_failed(connect: Connect) -> None:
    script = states(
        {"id": "bad", "status": "failed", "error": "It holds no text."},
        {"id": "good"},
        {"id": "full", "status": "queued", "error": "The disk is full."},
        {"id": "good", "status": "ready"},
    )
    with scripted(script) as server, pytest.raises(IndexingFailed) as failed:
        connect(server.url, pauses=[]).wait_until_ready(["bad", "good", "full"])
    assert [document.id for document in failed.value.documents] == ["bad", "full"]
    assert "It holds no text." in str(failed.value)
    assert "The disk is full." in str(failed.value)


def test_waiting_for_a_document_that_is_not_there(qrag: Client) -> None:
    with pytest.raises(NotFound):
        qrag.wait_until_ready(["nobody-has-this"])
    assert qrag.wait_until_ready([]) == []
