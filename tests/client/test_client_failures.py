"""Both clients where something goes wrong: what they refuse, whose error they raise, and how long they keep trying."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qrag import (
    ApiError,
    Client,
    Conflict,
    DocumentOptions,
    Forbidden,
    InvalidRequest,
    NotFound,
    Overloaded,
    Retries,
    RetrieveOut,
    ServerError,
    StepEvent,
    StorageFull,
    Unauthorized,
    UnexpectedAnswer,
    Unreachable,
)
from qrag.wire import examples
from service.keys import add_key
from tests.client.clients import Connect
from tests.servers import running_server
from tests.service.scripted import Action, answer, drop, event, refusal, scripted, stream

DOCUMENT: dict[str, Any] = examples.DOCUMENT
STEP = {**examples.RESULT["steps"][0], "chunk": examples.RESULT["chunks"][0]}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[tuple[str, str]]:
    """The address of a server that asks for keys, and one that may only read."""
    data = tmp_path_factory.mktemp("guarded")
    key = add_key(data / "keys.json", "reader", ["read"], None)
    with running_server(data, tiny_checkpoint) as server:
        yield str(server.base_url), key


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


def test_what_json_cannot_hold_is_named(qrag: Client) -> None:
    with pytest.raises(InvalidRequest, match="unknown type: <class 'object'>"):
        qrag.index("x", metadata={"a": object()})  # type: ignore[dict-item]


def test_what_does_not_fit_into_an_address_is_refused(qrag: Client) -> None:
    for long in (DocumentOptions(title="x" * 70_000), DocumentOptions(metadata={"a": "x" * 70_000})):
        with pytest.raises(InvalidRequest, match="too long"):
            qrag.index_file(io.BytesIO(b"x"), media_type="text/plain", **long)
    with pytest.raises(InvalidRequest, match="too long"):
        list(qrag.documents(title="x" * 70_000))


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


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "localhost", "ftp://127.0.0.1", "http://", "http://a:b", "/x", "http://a..b"]
)
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
    with scripted([refusal(504, "language_model_too_slow")]) as server, pytest.raises(ServerError):
        connect(server.url, pauses=pauses).answer("Who?")
    assert (len(server.requests), pauses) == (1, [])


@pytest.mark.parametrize("lost", [drop, answer(502, b"<html>", "text/html"), refusal(503), refusal(504)])
def test_a_deletion_whose_answer_was_lost_is_done(connect: Connect, lost: Action) -> None:
    with scripted([lost, refusal(404)]) as server:
        connect(server.url, pauses=[]).delete("franklin")
    with scripted([refusal(429), refusal(404)]) as server, pytest.raises(NotFound):
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


def test_comments_in_a_stream_are_passed_over(connect: Connect) -> None:
    pieces = (b": working\n\n", event("step", STEP) + b": work", b"ing\n\n", event("result", examples.RESULT))
    with scripted([stream(*pieces)]) as server:
        step, result = connect(server.url).stream("Who?")
    assert isinstance(step, StepEvent)
    assert isinstance(result, RetrieveOut)


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
