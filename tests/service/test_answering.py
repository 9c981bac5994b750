"""Answers: what the language model is asked, what is made of its words, and whatever can go wrong with it."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from qrag.wire import examples
from qrag.wire.asking.answers import AnswerIn
from qrag.wire.retrieval import RetrieveOut
from service.answering.answers import cited, prompt
from service.errors import ConfigurationError, LanguageModelFailed, LanguageModelTooSlow
from service.language_model import MOST_BYTES, LanguageModel, Piece, Prompt
from service.settings import Settings
from tests.servers import blameless_server
from tests.service.chat import completion, cut_off, delta, refusal, written
from tests.service.helpers import STREAM, Json, add, ask, events, problem, text_of
from tests.service.scripted import Action, Scripted, answer, drop, scripted, stream

KEY = "sk-a-secret-that-nobody-may-see"
QUESTION = "Where did the office of the person who signed the lease move?"
LINES = "Ana signed the lease on Monday.\nBruno kept bees.\nAna's office moved to Lisbon in May.\nThe mill was sold."


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Scripted]:
    with scripted() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, calibrated_checkpoint: Path, endpoint: Scripted
) -> Iterator[httpx.Client]:
    model = {"llm_base_url": f"{endpoint.url}/v1/", "llm_api_key": KEY, "llm_model": "small"}
    secrets = (KEY, KEY[:12])
    data = tmp_path_factory.mktemp("answers")
    with blameless_server(data, calibrated_checkpoint, *secrets, log_level="debug", **model) as client:
        add(client, LINES, id="lease", title="The lease", chunking={"mode": "lines"}, metadata={"year": 2024})
        yield client


@pytest.fixture(autouse=True)
def _from_the_start(endpoint: Scripted) -> None:
    endpoint.requests.clear()
    endpoint.script.clear()


def request_answer(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/answer", json={"question": QUESTION, "max_steps": 3, **fields})


def answered(client: httpx.Client, **fields: Any) -> Json:
    answer = request_answer(client, **fields)
    assert answer.status_code == 200, answer.text
    result: Json = answer.json()
    return result


def streamed(client: httpx.Client, **fields: Any) -> list[tuple[str, Json]]:
    body = {"question": QUESTION, "max_steps": 3, **fields}
    with client.stream("POST", "/answer", json=body, headers=STREAM) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        return list(events(answer.iter_lines()))


def asked(endpoint: Scripted) -> Json:
    (request,) = endpoint.requests
    body: Json = json.loads(request.body)
    return body


# --- What is asked and answered -------------------------------------------------------------------------


def test_the_model_is_given_the_passages_and_its_citations_are_looked_up(
    client: httpx.Client, endpoint: Scripted
) -> None:
    endpoint.script.append(completion("To Lisbon [2]. Ana had signed it [1, 2], says [9]."))
    result = answered(client)
    retrieved = ask(client, QUESTION, max_steps=3)
    assert {**result["retrieval"], "timings": None} == {**retrieved, "timings": None}
    assert result["answer"] == "To Lisbon [2]. Ana had signed it [1, 2], says [9]."
    assert [each["marker"] for each in result["citations"]] == ["[1]", "[2]"]
    for passage, chunk in zip(result["citations"], retrieved["chunks"], strict=False):
        assert passage["text"] == chunk["text"] == text_of(client, "lease", start=passage["start"], end=passage["end"])
    assert result["unknown_markers"] == ["[9]"]
    assert (result["finish_reason"], result["language_model"]) == ("stop", "small")
    assert result["sufficiency"] == retrieved["sufficiency"]

    (request,) = endpoint.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    body = asked(endpoint)
    assert set(body) == {"model", "messages", "stream"}
    assert (body["model"], body["stream"]) == ("small", False)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert retrieved["context"] in body["messages"][1]["content"]
    assert QUESTION in body["messages"][1]["content"]


def test_what_is_wished_of_the_writing_is_passed_on(client: httpx.Client, endpoint: Scripted) -> None:
    endpoint.script.append(completion("To Lis", finish_reason="length"))
    assert answered(client, temperature=0, max_answer_tokens=2)["finish_reason"] == "length"
    body = asked(endpoint)
    assert (body["temperature"], body["max_tokens"]) == (0, 2)


def test_stream_brings_the_steps_the_evidence_the_words_and_the_answer(
    client: httpx.Client, endpoint: Scripted
) -> None:
    endpoint.script += [written("To ", "Lisbon", " [1]."), completion("To Lisbon [1].")]
    told = streamed(client)
    assert [name for name, _ in told] == ["step"] * 3 + ["retrieval"] + ["token"] * 3 + ["result"]
    assert [each["text"] for name, each in told if name == "token"] == ["To ", "Lisbon", " [1]."]
    result = told[-1][1]
    assert result["retrieval"] == told[3][1]
    assert asked(endpoint)["stream"] is True

    def but_times(result: Json) -> Json:
        return {**result, "generation_ms": None, "retrieval": {**result["retrieval"], "timings": None}}

    assert but_times(answered(client)) == but_times(result)


def test_the_model_is_told_when_nothing_was_found(client: httpx.Client, endpoint: Scripted) -> None:
    endpoint.script.append(completion("The documents do not say [1]."))
    result = answered(client, filter={"field": "year", "equals": 1})
    assert (result["citations"], result["unknown_markers"]) == ([], ["[1]"])
    assert (result["sufficiency"]["complete"], result["evidence_likely_missing"]) == (0.0, True)
    assert "found no passage" in asked(endpoint)["messages"][0]["content"]


@pytest.mark.parametrize(
    ("complete", "warned"), [(0.12, True), (0.49, True), (0.5, False), (1.0, False), (None, False)]
)
def test_the_model_is_told_when_evidence_is_likely_missing(complete: float | None, warned: bool) -> None:
    sufficiency = None if complete is None else {"complete": complete, "hopeless": 0.0}
    found = RetrieveOut.model_validate({**examples.RESULT, "sufficiency": sufficiency})
    instructions = prompt("Who?", AnswerIn(question="Who?"), found).messages[0]["content"]
    assert ("likely missing" in instructions) == warned
    if warned:
        assert f"{complete:.0%}" in instructions


@pytest.mark.parametrize(
    ("text", "found", "unknown"),
    [
        ("Nothing.", [], []),
        ("One [1].", [1], []),
        ("Twice [1], [1].", [1], []),
        ("Some [3][1] and [2 ; 3].", [1, 2, 3], []),
        ("From [1-3], [2–3].", [1, 2, 3], []),
        ("Not [0], nor [4], nor [1-99999999].", [1, 2, 3], [0, 4]),
        ("Backwards [3-1]; no [ 1 ], (2), [x], [].", [1, 2, 3], []),
    ],
)
def test_markers_are_read_as_people_and_models_write_them(text: str, found: list[int], unknown: list[int]) -> None:
    chunk, citation = examples.RESULT["chunks"][0], examples.RESULT["citations"][0]
    retrieved = RetrieveOut.model_validate(
        {
            **examples.RESULT,
            "chunks": [{**chunk, "text": f"Text {number}."} for number in (1, 2, 3)],
            "citations": [{**citation, "marker": f"[{number}]"} for number in (1, 2, 3)],
        }
    )
    passages, missing = cited(text, retrieved)
    assert [passage.marker for passage in passages] == [f"[{number}]" for number in found]
    assert [passage.text for passage in passages] == [f"Text {number}." for number in found]
    assert set(missing) >= {f"[{number}]" for number in unknown}
    assert bool(missing) == bool(unknown)


# --- What can go wrong ----------------------------------------------------------------------------------


def test_without_a_model_it_says_what_to_set(unchanged_client: httpx.Client) -> None:
    for headers in ({}, STREAM):
        refused = unchanged_client.post("/answer", json={"question": "Who?", "collection": "kept"}, headers=headers)
        detail = problem(refused, 501, "no_language_model")["detail"]
        for name in ("LLM_BASE_URL", "LLM_MODEL", "LLM_API_KEY"):
            assert name in detail


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"collection": "nowhere"}, 404, "unknown_collection"),
        ({"question": " "}, 422, "validation_error"),
        ({"temperature": 2.1}, 422, "validation_error"),
        ({"max_answer_tokens": 0}, 422, "validation_error"),
        ({"model": "another"}, 422, "validation_error"),
    ],
)
def test_what_cannot_be_answered_does_not_reach_the_model(
    client: httpx.Client, endpoint: Scripted, fields: Json, status: int, code: str
) -> None:
    problem(request_answer(client, **fields), status, code)
    assert endpoint.requests == []


FAILURES: list[tuple[Action, str]] = [
    (refusal(401, f"Incorrect API key provided: {KEY[:12]}***see."), "check LLM_API_KEY"),
    (refusal(403, f"No: {KEY}"), "check LLM_API_KEY"),
    (refusal(404, "The model `small` does not exist"), "It says: The model `small` does not exist"),
    (refusal(400, f"Bearer {KEY} is\nbad " + "x" * 1000), "It says: Bearer *** is bad"),
    (refusal(429, "Rate limit"), "try again later"),
    (answer(500, b"<h1>Oops</h1>", "text/html"), "answered 500"),
    (answer(200, b"<h1>A page</h1>", "text/html"), "something else than a chat completion"),
    (answer(200, b'{"choices": [', "application/json"), "something else than a chat completion"),
    (answer(200, {"choices": []}), "something else than a chat completion"),
    (answer(200, {"choices": [{"message": 3}]}), "something else than a chat completion"),
    (answer(200, ["no"]), "something else than a chat completion"),
    (refusal(400, "half a character: \ud800"), "answered 400"),
    (answer(400, b'{"error": ' + b"[" * 100_000), "answered 400"),
    (answer(307, {}, Location="http://127.0.0.1:9/elsewhere"), "answered 307"),
    (answer(200, b" " * (MOST_BYTES + 1)), "something else than a chat completion"),
    (answer(200, gzip.compress(b" " * (64 << 20)), Content_Encoding="gzip"), "something else than a chat completion"),
    (drop, "closed the connection"),
    (cut_off, "closed the connection"),
]


@pytest.mark.parametrize(("action", "words"), FAILURES)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_failing_endpoint_is_told_from_ours_and_nothing_secret_is_told(
    client: httpx.Client, endpoint: Scripted, action: Action, words: str, streaming: bool
) -> None:
    endpoint.script.append(action)
    if streaming:
        *_, (name, told) = streamed(client)
        assert (name, told["status"], told["code"]) == ("error", 502, "language_model_failed")
    else:
        told = problem(request_answer(client), 502, "language_model_failed")
    assert words in told["detail"]
    assert len(told["detail"]) < 600
    for secret in (KEY, KEY[:12], endpoint.url):
        assert secret not in json.dumps(told)
    (request,) = endpoint.requests
    assert request.headers["Accept-Encoding"] == "identity", "a little of what is packed could fill the memory"


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (stream(delta("Ana")), "broke off"),
        (stream(delta("Ana"), b'data: {"error": {"message": "out of memory"}}\n\n'), "out of memory"),
        (stream(delta("Ana"), b"data: {nonsense\n\n"), "something else than a chat completion"),
        (stream(delta("Ana"), b"data: " + b" " * MOST_BYTES), "something else than a chat completion"),
    ],
)
def test_words_that_were_streamed_before_a_failure_end_with_an_error(
    client: httpx.Client, endpoint: Scripted, action: Action, words: str
) -> None:
    endpoint.script.append(action)
    *_, (token, written), (error, told) = streamed(client)
    assert (token, written, error) == ("token", {"text": "Ana"}, "error")
    assert (told["status"], told["code"]) == (502, "language_model_failed")
    assert words in told["detail"]


def test_any_character_can_be_streamed(client: httpx.Client, endpoint: Scripted) -> None:
    text = "A\u2028B\x85C\u2029D\x1cE\x0b 👩\u200d👧"
    content = json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}, ensure_ascii=False)
    halves = f"data: {content}\r\n\r\ndata: [DONE]".encode().partition(b"\x91")
    endpoint.script.append(stream(halves[0], halves[1] + halves[2]))
    assert streamed(client)[-1][1]["answer"] == text


def test_an_answer_without_text_is_none(client: httpx.Client, endpoint: Scripted) -> None:
    endpoint.script.append(completion(None))
    assert "without a text" in problem(request_answer(client), 502, "language_model_failed")["detail"]


# --- The endpoint alone ---------------------------------------------------------------------------------

PROMPT = Prompt([{"role": "user", "content": "Who?"}])


def written_by(url: str, seconds: float, *, streaming: bool) -> list[Piece]:
    """What a model at an address writes."""

    async def run() -> list[Piece]:
        model = LanguageModel(url, "small", None, seconds)
        try:
            if not streaming:
                return [await model.complete(PROMPT)]
            async with aclosing(model.stream(PROMPT)) as pieces:
                return [piece async for piece in pieces]
        finally:
            await model.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize("streaming", [False, True])
def test_an_endpoint_that_is_not_there(streaming: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(LanguageModelFailed, match="cannot be reached"):
        written_by(url, 10, streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("dripping", [None, "header", " ", ": still there\n\n", "event"])
def test_an_endpoint_that_takes_too_long(streaming: bool, dripping: str | None) -> None:
    over = threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        if dripping is None:
            over.wait()
            return
        if dripping == "header":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        else:
            stream()(handler)
        drop = {"header": b"X-Again: a\r\n", "event": delta("Ana")}.get(dripping, dripping.encode())
        for _ in range(200):
            handler.wfile.write(drop)
            if over.wait(0.02):
                return

    with scripted([slow]) as endpoint:
        try:
            with pytest.raises(LanguageModelTooSlow, match=r"within 0\.3 seconds"):
                written_by(endpoint.url, 0.3, streaming=streaming)
        finally:
            over.set()


def test_a_key_that_cannot_be_sent_is_refused_at_the_start_and_not_repeated() -> None:
    kept = Settings.model_validate({"LLM_API_KEY": f" {KEY}\n"}).llm_api_key
    assert kept is not None
    assert kept.get_secret_value() == KEY
    for bad in (f"{KEY}\r\nX-Other: 1", f"{KEY}ü"):
        with pytest.raises(ConfigurationError, match="LLM_API_KEY") as refused:
            Settings.model_validate({"LLM_API_KEY": bad})
        assert KEY not in str(refused.value)


def test_no_key_is_sent_where_there_is_none() -> None:
    with scripted([completion("Ana.")]) as endpoint:
        assert written_by(endpoint.url, 10, streaming=False) == [Piece("Ana.", "stop")]
        assert "Authorization" not in endpoint.requests[0].headers


# --- A client that goes ---------------------------------------------------------------------------------


class Watched:
    """An action that begins an answer, and then notes when the service closes the connection."""

    def __init__(self, begin: Sequence[bytes]) -> None:
        self._begin = begin
        self.asked = threading.Event()
        self.left = threading.Event()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        if self._begin:
            stream(*self._begin)(handler)
        self.asked.set()
        if handler.connection.recv(1) == b"":
            self.left.set()


def test_the_model_stops_when_the_client_leaves_in_the_middle_of_a_stream(
    client: httpx.Client, endpoint: Scripted
) -> None:
    watched = Watched([delta("Ana")])
    endpoint.script.append(watched)
    with client.stream("POST", "/answer", json={"question": QUESTION}, headers=STREAM) as answer:
        for name, _ in events(answer.iter_lines()):
            if name == "token":
                break
    assert watched.left.wait(60)


def test_the_model_stops_when_the_client_does_not_wait_for_the_answer(client: httpx.Client, endpoint: Scripted) -> None:
    watched = Watched([])
    endpoint.script.append(watched)
    body = json.dumps({"question": QUESTION}).encode()
    head = "POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        assert watched.asked.wait(60)
        assert not watched.left.is_set()
    assert watched.left.wait(60)
