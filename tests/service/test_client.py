"""Both clients, against running servers: what they ask, answer and refuse, and how long they keep trying."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import httpx
import pytest
from pydantic import JsonValue

from service import examples
from service.client import (
    ApiError,
    AsyncClient,
    Chunking,
    Client,
    Conflict,
    DocumentIn,
    DocumentOut,
    FileChanged,
    Forbidden,
    IndexingFailed,
    InvalidRequest,
    NotFound,
    Overloaded,
    QRagClientError,
    Retries,
    RetrieveOptions,
    RetrieveOut,
    ServerError,
    StepEvent,
    Stop,
    StorageFull,
    Unauthorized,
    UnexpectedAnswer,
    UnknownFileType,
    Unreachable,
)
from service.keys import add_key
from service.parsing import MediaType
from service.retrieval_schemas import RetrieveIn
from tests.service.clients import Connect
from tests.service.files import docx
from tests.service.helpers import UNICODE, ids_in, lines_of_text, text_of
from tests.service.scripted import Action, answer, drop, event, refusal, scripted, stream
from tests.support import running_server

ROOT = Path(__file__).parent.parent.parent
TYPED = """
from service.client import AsyncClient, Client, DocumentIn, RetrieveOut, StepEvent, Stop

def right(qrag: Client) -> list[int | None]:
    document = qrag.index("Ana signed.", metadata={"year": 1916}, chunking="lines")
    answer: RetrieveOut = qrag.retrieve("Who?", stop=Stop(step_cost=0.1), filter={"field": "year", "gte": 1})
    steps: list[StepEvent] = [event for event in qrag.stream("Who?") if isinstance(event, StepEvent)]
    return [document.chunks, answer.steps[0].index, steps[0].step, qrag.index_many([DocumentIn(text="a")])[0].tokens]

async def also_right(qrag: AsyncClient) -> list[str]:
    return [document.id async for document in qrag.documents(collection="c")]

def wrong(qrag: Client) -> None:
    qrag.retrieve("Who?", max_step=3)
    qrag.index("Ana signed.", chunking="words")
"""
"""What somebody writes who has mypy's strict mode, and no plugin for pydantic."""
LIGHT = "import sys, service.client, service.command_line.main; print(*sys.modules)"
DOCUMENT: dict[str, Any] = examples.DOCUMENT
STEP = {**examples.RESULT["steps"][0], "chunk": examples.RESULT["chunks"][0]}


@pytest.fixture(params=["blocking", "awaiting"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    connect = Connect(request.param)
    yield connect
    connect.close()


@pytest.fixture
def qrag(connect: Connect, shared_client: httpx.Client) -> Client:
    """A client of the server that modules share."""
    return connect(str(shared_client.base_url))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[tuple[str, str]]:
    """The address of a server that asks for keys, and one that may only read."""
    data = tmp_path_factory.mktemp("guarded")
    key = add_key(data / "keys.json", "reader", ["read"], None)
    with running_server(data, tiny_checkpoint) as server:
        yield str(server.base_url), key


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


def test_line_ends_of_every_kind_survive_a_stream(qrag: Client, collection: str) -> None:
    text = "Ana\u2028signed\u2029the\x85lease\r\nof\x0bthe\x0coffice."
    qrag.index(text, collection=collection, chunking="whole", wait=True)
    step, result = qrag.stream("Who?", collection=collection)
    assert isinstance(step, StepEvent)
    assert isinstance(result, RetrieveOut)
    assert step.chunk.text == result.chunks[0].text == text


def test_the_service_about_itself(qrag: Client) -> None:
    assert qrag.model().dimension == 32
    assert qrag.ready() is True


def test_the_client_is_a_context_manager(shared_client: httpx.Client) -> None:
    with Client(str(shared_client.base_url)) as client:
        assert client.ready()
    with pytest.raises(RuntimeError, match="closed"):
        client.ready()


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
    path = tmp_path / "notes.csv"
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


# --- Errors ---------------------------------------------------------------------------------------------


def test_an_error_says_what_the_service_said(qrag: Client) -> None:
    with pytest.raises(InvalidRequest) as refused:
        qrag.retrieve("Who?", max_steps=99, beam_width=0)
    error = refused.value
    assert (error.status, error.code, error.title) == (422, "validation_error", "Invalid request")
    assert [each["at"] for each in error.errors] == ["body.max_steps", "body.beam_width"]
    assert str(error) == error.detail
    assert error.request_id
    assert re.fullmatch("[0-9a-f]{32}", error.request_id)
    with pytest.raises(NotFound) as unknown:
        qrag.retrieve("Who?", collection="nobody-has-this")
    assert unknown.value.code == "unknown_collection"


def test_a_misspelt_option_is_refused_and_not_ignored(qrag: Client, collection: str) -> None:
    with pytest.raises(InvalidRequest, match="max_step"):
        qrag.retrieve("Who?", max_step=3)  # type: ignore[call-arg]
    with pytest.raises(InvalidRequest, match="titel"):
        qrag.index("Ana.", collection=collection, titel="x")  # type: ignore[call-arg]
    assert list(qrag.documents(collection=collection)) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../collections/c", "a/b", "a b", "a?b", "a#b"])
def test_a_name_that_is_none_leads_nowhere(connect: Connect, name: str) -> None:
    with scripted([]) as server:
        client = connect(server.url)
        for call in (client.document, client.delete, client.retry, client.text, client.delete_collection):
            with pytest.raises(InvalidRequest, match="is no name"):
                call(name)
    assert server.requests == []


def test_half_a_character_is_refused(qrag: Client) -> None:
    with pytest.raises(InvalidRequest, match="surrogate"):
        qrag.index("x\ud800")
    with pytest.raises(InvalidRequest, match="surrogate"):
        qrag.index_file(io.BytesIO(b"x"), media_type="text/plain", title="x\ud800")
    with pytest.raises(InvalidRequest, match="surrogate"):
        list(qrag.documents(collection="x\ud800"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidRequest), (401, Unauthorized), (403, Forbidden), (404, NotFound), (409, Conflict)]
    + [(413, InvalidRequest), (415, InvalidRequest), (422, InvalidRequest), (500, ServerError), (507, StorageFull)]
    + [(418, ApiError)],
)
def test_what_is_final_is_asked_once(connect: Connect, status: int, kind: type[ApiError]) -> None:
    pauses: list[float] = []
    with scripted([refusal(status, Retry_After="1")]) as server, pytest.raises(kind) as refused:
        connect(server.url, pauses=pauses).index("Ana signed.")
    assert type(refused.value) is kind
    assert (refused.value.status, refused.value.detail) == (status, f"It is {status}.")
    assert refused.value.request_id == "request-1"
    assert (len(server.requests), pauses) == (1, [])


def test_keys_with_less_rights(connect: Connect, guarded: tuple[str, str]) -> None:
    url, key = guarded
    assert list(connect(url, f"{key}\n").documents()) == []
    with pytest.raises(Forbidden, match="read only"):
        connect(url, key).index("Ana signed.")
    for wrong in (None, "qrag_wrong"):
        with pytest.raises(Unauthorized):
            connect(url, wrong).collections()
    assert connect(url).ready()


@pytest.mark.parametrize("key", ["", " ", "qrag_ä", "qrag_a\nHost: b"])
def test_a_key_that_cannot_be_sent_is_not_shown(connect: Connect, key: str) -> None:
    with pytest.raises(ValueError, match="API key") as refused:
        connect("http://127.0.0.1:1", key)
    assert "qrag_" not in str(refused.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "localhost", "ftp://127.0.0.1", "http://", "http://a:b", "/x"])
def test_an_address_that_is_none(connect: Connect, url: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        connect(url)


def test_the_address_may_have_a_path(connect: Connect) -> None:
    with scripted([answer(200, {"collections": []})]) as server:
        assert connect(f"{server.url}/search/qrag/").collections() == []
    assert server.requests[0].path == "/search/qrag/collections"


# --- Retries --------------------------------------------------------------------------------------------

FAILURES = [refusal(429), refusal(503), refusal(502), answer(504, b"<html>", "text/html"), drop]


@pytest.mark.parametrize("failure", FAILURES, ids=["429", "503", "502", "504", "drop"])
def test_what_may_pass_is_asked_again(connect: Connect, failure: Action) -> None:
    pauses: list[float] = []
    script = [failure, answer(202, DOCUMENT), failure, failure, answer(200, examples.RESULT), failure, answer(204)]
    with scripted(script) as server:
        client = connect(server.url, pauses=pauses)
        assert client.index("Ana signed.").id == "franklin"
        assert client.retrieve("Who?").context == examples.RESULT["context"]
        client.delete("franklin")
    assert [request.method for request in server.requests] == [*5 * ["POST"], "DELETE", "DELETE"]
    assert server.requests[0].body == server.requests[1].body
    assert len(pauses) == 4
    for pause, longest in zip(pauses, [0.5, 0.5, 1, 0.5], strict=True):
        assert 0 <= pause <= longest


def test_pauses_grow_and_end_and_are_not_all_the_same(connect: Connect) -> None:
    pauses: list[float] = []
    retries = Retries(attempts=12, seconds=1000, first=1, longest=4)
    with scripted(12 * [refusal(503)]) as server, pytest.raises(Overloaded):
        connect(server.url, pauses=pauses, retries=retries).collections()
    assert len(server.requests) == 12
    assert all(0 <= pause <= longest for pause, longest in zip(pauses, [1, 2, *9 * [4]], strict=True))
    assert len(set(pauses)) == 11
    assert max(pauses) > 1


def test_the_service_says_when_to_come_back(connect: Connect) -> None:
    pauses: list[float] = []
    script = [refusal(429, Retry_After="7"), refusal(503, Retry_After="0"), answer(200, {"collections": []})]
    with scripted(script) as server:
        connect(server.url, pauses=pauses).collections()
    assert pauses == [7, 0]


def test_the_number_and_the_time_of_retries_are_bounded(connect: Connect) -> None:
    pauses: list[float] = []
    with scripted(9 * [refusal(503, Retry_After="1")]) as server, pytest.raises(Overloaded) as refused:
        connect(server.url, pauses=pauses).collections()
    assert (len(server.requests), pauses) == (5, [1, 1, 1, 1])
    assert refused.value.retry_after == 1
    pauses.clear()
    with scripted(9 * [refusal(503, Retry_After="25")]) as server, pytest.raises(Overloaded):
        connect(server.url, pauses=pauses).collections()
    assert pauses == [25, 25]
    with scripted([refusal(429)]) as server, pytest.raises(Overloaded):
        connect(server.url, retries=Retries(attempts=1)).collections()
    assert len(server.requests) == 1


def test_nobody_there(connect: Connect) -> None:
    pauses: list[float] = []
    with scripted([]) as server:
        pass
    client = connect(server.url, pauses=pauses)
    with pytest.raises(Unreachable, match="qrag-serve") as refused:
        client.collections()
    assert server.url in str(refused.value)
    assert len(pauses) == 4
    with pytest.raises(Unreachable):
        client.ready()
    assert len(pauses) == 4, "whether it is ready is asked once"


def test_an_answer_that_takes_too_long_is_not_asked_for_again(connect: Connect) -> None:
    pauses: list[float] = []
    hold = threading.Event()
    with scripted([stream(hold.wait)]) as server:
        try:
            with pytest.raises(Unreachable, match="timeout"):
                connect(server.url, pauses=pauses, timeout=0.2).retrieve("Who?")
        finally:
            hold.set()
    assert (len(server.requests), pauses) == (1, [])


@pytest.mark.parametrize("lost", [drop, answer(502, b"<html>", "text/html"), refusal(504)])
def test_a_deletion_whose_answer_was_lost_is_done(connect: Connect, lost: Action) -> None:
    with scripted([lost, refusal(404)]) as server:
        connect(server.url, pauses=[]).delete("franklin")
    with scripted([refusal(503), refusal(404)]) as server, pytest.raises(NotFound):
        connect(server.url, pauses=[]).delete("franklin")
    with scripted([lost, refusal(404)]) as server, pytest.raises(NotFound):
        connect(server.url, pauses=[]).document("franklin")


def test_not_ready_is_not_an_error(connect: Connect) -> None:
    pauses: list[float] = []
    with scripted([refusal(503, Retry_After="1")]) as server:
        assert connect(server.url, pauses=pauses).ready() is False
    assert pauses == []


@pytest.mark.parametrize("wrong", [answer(200, b"<html>", "text/html"), answer(200, {}), answer(200, b"")])
def test_another_service_is_recognised(connect: Connect, wrong: Action) -> None:
    with scripted([wrong]) as server, pytest.raises(UnexpectedAnswer, match="Check the address"):
        connect(server.url).retrieve("Who?")
    with scripted([wrong]) as server, pytest.raises(UnexpectedAnswer, match="Check the address"):
        connect(server.url).collections()


def test_a_proxy_that_fails_is_named(connect: Connect) -> None:
    with scripted([answer(500, b"<html>", "text/html")]) as server, pytest.raises(ServerError, match="proxy") as failed:
        connect(server.url).model()
    assert (failed.value.status, failed.value.code, failed.value.request_id) == (500, "http_error", None)


# --- Streams --------------------------------------------------------------------------------------------


def test_a_stream_is_repeated_before_it_begins_and_not_later(connect: Connect) -> None:
    pauses: list[float] = []
    whole = stream(event("step", STEP), event("result", examples.RESULT))
    with scripted([refusal(503), drop, whole]) as server:
        step, result = connect(server.url, pauses=pauses).stream("Who?")
    assert (type(step), type(result)) == (StepEvent, RetrieveOut)
    assert len(pauses) == 2
    pauses.clear()
    with scripted([stream(event("step", STEP))]) as server:
        events = connect(server.url, pauses=pauses).stream("Who?")
        assert isinstance(next(events), StepEvent)
        with pytest.raises(Unreachable, match="before the result"):
            next(events)
    assert pauses == []


def test_a_step_is_there_before_the_next_one(connect: Connect) -> None:
    wanted = threading.Event()
    pieces = event("step", STEP)
    script = [stream(pieces[:50], pieces[50:], wanted.wait, event("result", examples.RESULT))]
    with scripted(script) as server:
        events = connect(server.url).stream("Who?")
        assert isinstance(next(events), StepEvent)
        wanted.set()
        assert isinstance(next(events), RetrieveOut)


def test_an_error_in_a_stream(connect: Connect) -> None:
    problem = {"type": "about:blank", "title": "Changed", "status": 409, "code": "documents_changed", "detail": "Gone."}
    with scripted([stream(event("step", STEP), event("error", problem))]) as server:
        events = connect(server.url).stream("Who?")
        next(events)
        with pytest.raises(Conflict, match="Gone") as refused:
            next(events)
    assert (refused.value.code, refused.value.request_id) == ("documents_changed", "request-1")
    with scripted([stream(b"<html>\n\n")]) as server, pytest.raises(UnexpectedAnswer):
        next(connect(server.url).stream("Who?"))


# --- The package ----------------------------------------------------------------------------------------


def test_it_is_light_to_import() -> None:
    loaded = subprocess.run([sys.executable, "-c", LIGHT], check=True, capture_output=True, text=True).stdout.split()
    assert "service.client" in loaded
    assert not {"torch", "transformers", "numba", "numpy", "fastapi", "starlette", "uvicorn"} & set(loaded)


def test_its_types_are_those_of_its_users(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    options = ["--strict", "--config-file=", "--explicit-package-bases", "--follow-imports=silent", "--no-pretty"]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--cache-dir", str(tmp_path / "cache"), "typed.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    lines = TYPED.splitlines()
    found = re.findall(r"typed\.py:(\d+): error: (.*)", checked.stdout)
    assert [lines[int(number) - 1].strip() for number, _ in found] == [line.strip() for line in lines[-2:]], checked
    for package in ("index", "service"):
        assert (ROOT / package / "py.typed").exists()


def test_both_clients_are_used_alike() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        public = (name for name in vars(kind) if not name.startswith("_"))
        return {name: list(inspect.signature(getattr(kind, name)).parameters) for name in public}

    assert methods(Client) == methods(AsyncClient)
    assert list(inspect.signature(Client).parameters) == list(inspect.signature(AsyncClient).parameters)


def test_the_body_of_a_question_says_only_what_was_said(connect: Connect) -> None:
    with scripted([answer(200, examples.RESULT)]) as server:
        connect(server.url).retrieve("Who?", stop=Stop(step_cost=0.1), collection=None)
    assert json.loads(server.requests[0].body) == {"question": "Who?", "stop": {"step_cost": 0.1}}


def test_a_question_can_say_all_that_the_service_understands() -> None:
    assert set(RetrieveOptions.__annotations__) == set(RetrieveIn.model_fields) - {"question"}
