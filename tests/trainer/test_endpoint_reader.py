"""Readers behind an endpoint: real HTTP on loopback, in both forms, and endpoints that fail in every way."""

from __future__ import annotations

import json
import math
import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.responses import JSONResponse, Response

from qrag.client.flows import Retries
from tests.service.scripted import answer, scripted
from tests.trainer.completions import (
    Answer,
    Endpoint,
    Scored,
    Scorer,
    completions,
    llama_cpp_python,
    llama_server,
    vllm,
)
from trainer.errors import ReaderError
from trainer.readers.cache import CachedReader
from trainer.readers.endpoint import EndpointReader
from trainer.readers.opening import open_reader
from trainer.readers.protocol import Prompt, Request, generated, scored
from trainer.readers.wording import Wording

IMPATIENT = Retries(attempts=3, first=0.0)
REQUESTS = [
    Request(Prompt("Where is the mill?", ("The mill is by the river.", "It rained.")), "by the river"),
    Request(Prompt("Where is the mill?"), "by the river"),
    Request(Prompt("Who lives in 山口?", ("山口 is a town.",)), "Ana"),
]
HALVES = re.compile(r"[a-zA-Z]+| [a-zA-Z]+|<[^>]*>|.", re.DOTALL)


def context_model(text: str) -> Scored:
    """A model that has learned one thing: what followed a word before follows it again.

    Characters beyond ASCII are two tokens, whose texts say nothing.
    """
    words = [part for word in HALVES.findall(text) for part in (["\ufffd", "\ufffd"] if not word.isascii() else [word])]
    tokens: list[tuple[str, float | None]] = []
    for place, word in enumerate(words):
        followed = [words[i + 1] for i in range(place - 1) if words[i] == words[place - 1]]
        share = (followed.count(word) + 0.001) / (len(followed) + 1)
        tokens.append((word, math.log(share) if place else None))
    return tokens


def expected(request: Request, before: str = "", after: str = "\nAnswer:", lead: str = " ") -> float:
    """Σ log P of the answer's tokens, which are as many as a text that ends before it does not have."""
    question = f"Answer the question in a few words.\nQuestion: {request.prompt.question}"
    prompt = f"{before}{chr(10).join(f'{text}{chr(10)}' for text in request.prompt.contexts)}"
    prompt = f"{prompt}{chr(10) if request.prompt.contexts else ''}{question}{after}"
    tokens = context_model(f"{prompt}{lead}{request.answer}")
    return sum(value or 0.0 for _, value in tokens[len(context_model(prompt)) :])


@contextmanager
def opened(
    form: Answer = llama_cpp_python, scorer: Scorer = context_model, **options: Any
) -> Iterator[tuple[Endpoint, EndpointReader]]:
    with (
        completions(scorer, form) as endpoint,
        closing(EndpointReader(endpoint.url, "a-model", **{"retries": IMPATIENT, **options})) as reader,
    ):
        yield endpoint, reader


def changed(form: Answer, change: Any) -> Answer:
    """The form with its first choice changed."""

    def answered(body: dict[str, Any], scorer: Scorer) -> Response:
        content = json.loads(bytes(form(body, scorer).body))
        change(content["choices"][0])
        return Response(json.dumps(content), media_type="application/json")

    return answered


# -- what is scored ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [llama_cpp_python, vllm])
def test_an_answer_is_worth_the_sum_of_its_tokens(form: Answer) -> None:
    with opened(form) as (endpoint, reader):
        assert len(endpoint.bodies) == 1  # one call finds out
        scores = scored(reader, REQUESTS)
        assert scores.log_probability.tolist() == pytest.approx([expected(request) for request in REQUESTS])
        assert scores.answer_tokens.tolist() == [3, 3, 1]
        assert scores.contexts.tolist() == [2, 0, 1]
        assert len(endpoint.bodies) == 1 + len(REQUESTS)  # one for each, and no tokens but one are written
        assert {body["max_tokens"] for body in endpoint.bodies} == {1}


@pytest.mark.parametrize("form", [llama_cpp_python, vllm])
def test_an_answer_whose_characters_are_several_tokens_is_found(form: Answer) -> None:
    request = Request(REQUESTS[2].prompt, "山口 town")
    with opened(form) as (_, reader):
        scores = scored(reader, [request])
    assert scores.answer_tokens.tolist() == [6]
    assert scores.log_probability.tolist() == pytest.approx([expected(request)])


def test_a_tokenizer_that_composes_accents_has_not_cut_the_prompt() -> None:
    """As in texts from macOS, where an accent is a character of its own."""
    request = Request(Prompt("Where is the cafe\u0301?", ("The cafe\u0301 is by the river.",)), "by the river")
    composed = Request(Prompt("Where is the caf\u00e9?", ("The caf\u00e9 is by the river.",)), "by the river")
    with opened(scorer=lambda text: context_model(unicodedata.normalize("NFC", text))) as (_, reader):
        assert scored(reader, [request]).log_probability.tolist() == pytest.approx([expected(composed)])


def test_the_wording_is_sent_as_it_is() -> None:
    wording = Wording("<|user|>", "<|end|><|model|>", "")
    with opened(wording=wording) as (endpoint, reader):
        assert scored(reader, REQUESTS).log_probability.tolist() == pytest.approx(
            [expected(request, "<|user|>", "<|end|><|model|>", "") for request in REQUESTS]
        )
        assert all(body["prompt"].startswith("<|user|>") for body in endpoint.bodies[1:])


def test_what_the_endpoint_writes_is_generated() -> None:
    with opened() as (endpoint, reader):
        (generation,) = generated(reader, [REQUESTS[0].prompt], 5)
        assert generation.text == "and"
        assert (endpoint.bodies[-1]["max_tokens"], endpoint.bodies[-1]["temperature"]) == (5, 0)


def test_what_is_written_for_a_prompt_is_asked_for_once_however_many_answers_it_has() -> None:
    prompt = REQUESTS[0].prompt
    requests = [Request(prompt, "by the river"), REQUESTS[1], Request(prompt, "river")]
    with opened() as (endpoint, reader):
        found = dict(reader.reply(requests, 5))
    assert [found[place].score.log_probability for place in range(3)] == pytest.approx(list(map(expected, requests)))
    assert found[0].generation == found[2].generation != found[1].generation
    assert [body["max_tokens"] for body in endpoint.bodies[1:]].count(5) == 2


def test_a_name_with_an_address_is_an_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLM_API_KEY", "secret")
    with completions(context_model) as endpoint:
        for _ in range(2):
            with open_reader(f"a-model@{endpoint.url}", torch.device("cpu"), tmp_path / "cache") as reader:
                assert scored(reader, REQUESTS[:1]).log_probability[0] == pytest.approx(expected(REQUESTS[0]))
        assert {body["model"] for body in endpoint.bodies} == {"a-model"}
        assert len(endpoint.bodies) == 2 + 1  # the answer was kept


# -- endpoints that cannot score --------------------------------------------------------------------------------------


def shifted(text: str) -> Scored:
    """Each token's worth behind itself, as where an endpoint forgets that a text has no beginning token."""
    words = [word for word, _ in context_model(text)]
    return [
        (word, context_model("".join([*words[: place + 1], word]))[-1][1] if place else None)
        for place, word in enumerate(words)
    ]


def lose_the_values(choice: dict[str, Any]) -> None:
    choice["logprobs"]["token_logprobs"] = choice["logprobs"]["token_logprobs"][:-2]


def no_numbers(choice: dict[str, Any]) -> None:
    choice["logprobs"]["token_logprobs"] = [math.nan] * len(choice["logprobs"]["tokens"])


def cut_the_beginning(choice: dict[str, Any]) -> None:
    for name in ("tokens", "token_logprobs"):
        choice["logprobs"][name] = choice["logprobs"][name][-12:]


@pytest.mark.parametrize(
    ("form", "scorer", "reason"),
    [
        (llama_server, context_model, "no logprobs with tokens"),
        (llama_cpp_python, shifted, "repeated four times"),
        (vllm, shifted, "repeated four times"),
        (changed(llama_cpp_python, lose_the_values), context_model, "tokens and .* log-probabilities"),
        (changed(llama_cpp_python, no_numbers), context_model, "log-probability nan"),
        (changed(llama_cpp_python, cut_the_beginning), context_model, "not those of the prompt"),
        (changed(llama_cpp_python, dict.clear), context_model, "no logprobs"),
    ],
)
def test_an_endpoint_that_cannot_score_is_refused_after_one_call(form: Answer, scorer: Scorer, reason: str) -> None:
    with completions(scorer, form) as endpoint:
        with pytest.raises(ReaderError, match=f"does not score given tokens.*{reason}"):
            EndpointReader(endpoint.url, "a-model", retries=IMPATIENT)
        assert len(endpoint.bodies) == 1


def test_an_endpoint_that_refuses_the_key_is_not_quoted() -> None:
    with scripted(otherwise=answer(401, {"error": "wrong key: secret"})) as server:
        with pytest.raises(ReaderError, match="LLM_API_KEY") as refusal:
            EndpointReader(f"{server.url}/v1", "a-model", key="secret", retries=IMPATIENT)
        assert server.requests[0].headers["Authorization"] == "Bearer secret"
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (answer(404, {"error": {"message": "no such model"}}), "404. It says:.*no such model"),
        (answer(200, b"<html>hello</html>", "text/html"), "it is no completion"),
        (answer(200, {"choices": []}), "no choices"),
    ],
)
def test_what_is_no_such_endpoint_is_refused(response: Any, reason: str) -> None:
    with scripted(otherwise=response) as server, pytest.raises(ReaderError, match=reason):
        EndpointReader(f"{server.url}/v1", "a-model", retries=IMPATIENT)


def test_an_address_where_nobody_listens_is_refused() -> None:
    with scripted() as server:
        url = server.url
    with pytest.raises(ReaderError, match=r"cannot be reached.*running"):
        EndpointReader(f"{url}/v1", "a-model", retries=IMPATIENT)


# -- endpoints that fail on the way -----------------------------------------------------------------------------------


def after(count: int, otherwise: Answer) -> Answer:
    """Right answers first."""
    lock, left = threading.Lock(), [count]

    def answered(body: dict[str, Any], scorer: Scorer) -> Response:
        with lock:
            left[0] -= 1
            right = left[0] >= 0
        return llama_cpp_python(body, scorer) if right else otherwise(body, scorer)

    return answered


def dead(_body: dict[str, Any], _scorer: Scorer) -> Response:
    return JSONResponse({"error": "out of memory"}, 500)


def positive(choice: dict[str, Any]) -> None:
    choice["logprobs"]["token_logprobs"] = [0.5] * len(choice["logprobs"]["tokens"])


def other_text(choice: dict[str, Any]) -> None:
    choice["logprobs"]["tokens"] = ["something"] * len(choice["logprobs"]["tokens"])


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (dead, "answered 500. It says:.*out of memory"),
        (changed(llama_cpp_python, no_numbers), "cannot be right.*nan"),
        (changed(llama_cpp_python, positive), "cannot be right.*0.5"),
        (changed(llama_cpp_python, lose_the_values), "cannot be right.*tokens and"),
        (changed(llama_cpp_python, cut_the_beginning), "cannot be right.*cut long prompts"),
        (changed(llama_cpp_python, other_text), "cannot be right"),
        (llama_server, "cannot be right: it has no logprobs"),
    ],
)
def test_what_was_scored_before_an_endpoint_failed_is_kept(failure: Answer, reason: str, tmp_path: Path) -> None:
    requests = [Request(Prompt(f"Where is mill {number}?"), "by the river") for number in range(12)]
    with opened(connections=1) as (endpoint, reader), closing(CachedReader(reader, tmp_path / "cache")) as cache:
        endpoint.answer = after(7, failure)
        with pytest.raises(ReaderError, match=reason):
            scored(cache, requests)
        endpoint.answer = None
        before = len(endpoint.bodies)
        scores = scored(cache, requests)
        assert len(endpoint.bodies) - before == len(requests) - 7
    assert scores.log_probability.tolist() == pytest.approx([expected(request) for request in requests])


def test_what_is_being_answered_when_another_fails_is_kept(tmp_path: Path) -> None:
    """One of two prompts is refused while both are at the endpoint: the other still comes."""
    both = threading.Barrier(2)

    def held(body: dict[str, Any], scorer: Scorer) -> Response:
        both.wait(30)
        return dead(body, scorer) if "mill 0" in body["prompt"] else llama_cpp_python(body, scorer)

    requests = [Request(Prompt(f"Where is mill {number}?"), "by the river") for number in range(2)]
    with opened(connections=2) as (endpoint, reader), closing(CachedReader(reader, tmp_path / "cache")) as cache:
        endpoint.answer = held
        with pytest.raises(ReaderError, match="out of memory"):
            scored(cache, requests)
        assert [place for place, _ in islice(cache.log_probability(requests), 1)] == [1]


def test_a_request_is_repeated_where_that_may_help() -> None:
    def busy(_body: dict[str, Any], _scorer: Scorer) -> Response:
        return JSONResponse({"error": "busy"}, 503, headers={"Retry-After": "0"})

    with opened() as (endpoint, reader):
        answers = iter([busy, busy])
        endpoint.answer = lambda body, scorer: next(answers, llama_cpp_python)(body, scorer)
        assert scored(reader, REQUESTS[:1]).log_probability[0] == pytest.approx(expected(REQUESTS[0]))
        assert len(endpoint.bodies) == 4
        endpoint.answer = busy
        with pytest.raises(ReaderError, match="503"):
            scored(reader, REQUESTS[:1])
        assert len(endpoint.bodies) == 7  # three attempts


def test_an_endpoint_that_takes_too_long_is_given_up() -> None:
    release = threading.Event()

    def slow(body: dict[str, Any], scorer: Scorer) -> Response:
        release.wait(30)
        return llama_cpp_python(body, scorer)

    with opened(seconds=1.0) as (endpoint, reader):
        endpoint.answer = slow
        try:
            with pytest.raises(ReaderError, match="within 1 seconds"):
                scored(reader, REQUESTS[:1])
        finally:
            release.set()
        assert len(endpoint.bodies) == 2  # not repeated: it would take as long again


# -- too long ---------------------------------------------------------------------------------------------------------


def limited(characters: int) -> Answer:
    """An endpoint that refuses longer prompts, in vLLM's words."""

    def answered(body: dict[str, Any], scorer: Scorer) -> Response:
        if len(body["prompt"]) > characters:
            message = "This model's maximum context length is 99 tokens. Please reduce the length of the prompt."
            return JSONResponse({"object": "error", "message": message, "code": 400}, 400)
        return llama_cpp_python(body, scorer)

    return answered


def test_the_last_contexts_are_left_out_where_the_endpoint_reads_less(caplog: pytest.LogCaptureFixture) -> None:
    contexts: Sequence[str] = [f"Mill {number} is by the river." for number in range(6)]
    request = Request(Prompt("Where is mill 0?", tuple(contexts)), "by the river")
    with opened() as (endpoint, reader):
        endpoint.answer = limited(200)
        scores = scored(reader, [request])
        kept = int(scores.contexts[0])
        assert 1 < kept < 6
        assert contexts[kept - 1] in endpoint.bodies[-1]["prompt"]
        assert contexts[kept] not in endpoint.bodies[-1]["prompt"]
        assert f"cut contexts={kept} of 6" in caplog.text
        endpoint.answer = limited(40)
        with pytest.raises(ReaderError, match="longer than the endpoint"):
            scored(reader, [request])
