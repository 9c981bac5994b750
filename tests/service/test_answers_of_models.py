"""What different models write: thinking, parts, other markers, errors in place of answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrag.wire import examples
from qrag.wire.retrieval import RetrieveOut
from service.answering.answers import cited
from service.errors import LanguageModelFailed
from service.language_model import LanguageModel, Piece, Prompt
from service.thinking import ThinkingFilter
from tests.service.chat import DONE, completion, data, delta, refusal
from tests.service.scripted import Action, answer, scripted, stream

THOUGHT = "<think>Passage [2] says so, maybe [9].</think>\n\nIda Holm [1]."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (THOUGHT, "Ida Holm [1]."),
        ("\n<Thinking>a</Thinking><think>b</think>c", "c"),
        ("<think>never ends", ""),
        ("<THINK>\u0130stanbul or \u0130zmir [2]?</think>Ankara [1].", "Ankara [1]."),  # longer in lower case
        ("Ida <think>is no thought</think>", "Ida <think>is no thought</think>"),
        ("<b>bold</b>", "<b>bold</b>"),
        ("<thin", "<thin"),
        ("  plain", "  plain"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_thinking_is_no_answer_however_it_arrives(text: str, expected: str, size: int) -> None:
    thinking = ThinkingFilter()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert "".join(map(thinking.passed, pieces)) + thinking.passed("", final=True) == expected


@given(text=st.text(), size=st.integers(1, 5))
def test_an_answer_without_thinking_passes_as_it_is(text: str, size: int) -> None:
    text = f"a{text}"
    thinking = ThinkingFilter()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert "".join(map(thinking.passed, pieces)) + thinking.passed("", final=True) == text


def asked(
    actions: Sequence[Action], *, streamed: bool = False, **prompt: Any
) -> tuple[list[Piece], list[dict[str, Any]]]:
    """The pieces of an answer, and the requests that were made for it."""

    async def ask(url: str) -> list[Piece]:
        model = LanguageModel(f"{url}/v1", "small", None, 5.0)
        try:
            question = Prompt([{"role": "user", "content": "Who?"}], **prompt)
            if not streamed:
                return [await model.complete(question)]
            async with aclosing(model.stream(question)) as pieces:
                return [piece async for piece in pieces]
        finally:
            await model.aclose()

    with scripted() as endpoint:
        endpoint.script.extend(actions)
        pieces = asyncio.run(ask(endpoint.url))
        return pieces, [json.loads(request.body) for request in endpoint.requests]


def test_thinking_is_left_out_of_whole_and_streamed_answers() -> None:
    for text in (THOUGHT, UNOPENED):
        (whole,), _ = asked([completion(text)])
        assert whole == Piece("Ida Holm [1].", "stop")
    events = [delta(text) for text in (THOUGHT[:9], THOUGHT[9:40], THOUGHT[40:])]
    pieces, _ = asked([stream(*events, delta(None, "stop"), DONE)], streamed=True)
    assert "".join(piece.text for piece in pieces) == "Ida Holm [1]."


UNOPENED = "Passage [2] says so,\nmaybe [9].\n</think>\n\nIda Holm [1]."
"""What is left of an answer where the chat template has opened the thinking."""


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (UNOPENED, "Ida Holm [1]."),
        (THOUGHT, "Ida Holm [1]."),
        ("</think>\nIda", "Ida"),
        ("Ida </think> says so", "Ida </think> says so"),
        ("  plain", "  plain"),
        ("", ""),
    ],
)
def test_thinking_that_was_opened_before_is_no_answer(text: str, expected: str, size: int) -> None:
    thinking = ThinkingFilter(opened=True)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert "".join(map(thinking.passed, pieces)) + thinking.passed("", final=True) == expected


def test_streams_leave_out_thinking_that_was_opened_before_once_one_has_shown_it() -> None:
    events = stream(*[delta(text) for text in UNOPENED], delta(None, "stop"), DONE)
    plain = stream(delta("I"), delta("da"), delta(None, "stop"), DONE)

    async def ask(url: str) -> list[list[str]]:
        model = LanguageModel(f"{url}/v1", "small", None, 5.0)
        try:
            answers = []
            for _ in range(4):
                async with aclosing(model.stream(Prompt([{"role": "user", "content": "Who?"}]))) as pieces:
                    answers.append([piece.text async for piece in pieces if piece.text])
            return answers
        finally:
            await model.aclose()

    with scripted() as endpoint:
        endpoint.script.extend([events, events, plain, plain])
        first, second, third, fourth = asyncio.run(ask(endpoint.url))
    assert "".join(first) == UNOPENED
    assert "".join(second) == "Ida Holm [1]."
    assert third == ["Ida"]  # it was waited for
    assert fourth == ["I", "da"]


def test_content_may_come_in_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "Ida "},
        {"type": "text", "text": "Holm."},
    ]
    choice = {"message": {"role": "assistant", "content": parts}, "finish_reason": "stop"}
    (whole,), _ = asked([answer(200, {"choices": [choice]})])
    assert whole.text == "Ida Holm."


@pytest.mark.parametrize("error", [{"message": "Provider returned error: flagged", "code": 502}, "Provider: flagged"])
def test_an_error_in_place_of_an_answer_is_passed_on(error: object) -> None:
    with pytest.raises(LanguageModelFailed, match=r"It says: Provider.*flagged"):
        asked([answer(200, {"error": error})])
    with pytest.raises(LanguageModelFailed, match=r"It says: Provider.*flagged"):
        asked([stream(delta("Ida"), data({"error": error}))], streamed=True)


def test_chunks_without_a_delta_are_passed_over() -> None:
    empty = data({"choices": [{"index": 0, "delta": None, "finish_reason": None}]})
    pieces, _ = asked([stream(empty, delta("Ida"), delta(None, "stop"), DONE)], streamed=True)
    assert "".join(piece.text for piece in pieces) == "Ida"


USAGE = data({"choices": [], "usage": {"total_tokens": 9}})
FILTERED = data({"id": "", "object": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
"""The first chunk of Azure's."""
REASONING = data({"choices": [{"index": 0, "delta": {"content": None, "reasoning_content": "Hm [2]."}}]})


@pytest.mark.parametrize(
    "events",
    [
        [FILTERED, delta("Ida"), delta(None, "stop"), DONE],
        [REASONING, delta("Ida"), delta(None, "stop"), DONE],
        [b": keep-alive\n\n", delta("Ida"), b":\n\n", delta(None, "stop"), DONE],
        [delta("Ida").replace(b"\n", b"\r\n"), delta(None, "stop").replace(b"\n", b"\r\n")],
        [delta("Ida"), delta(None, "stop")],
        [delta("Ida"), delta(None, "stop"), USAGE, DONE],
        [delta("<thi", ""), delta("nk>Hm [2].</think>Ida", ""), delta("", "stop"), DONE],
    ],
    ids=["azure", "reasoning", "comments", "lines", "no end", "usage", "empty reasons"],
)
def test_streams_of_every_kind_of_endpoint(events: list[bytes]) -> None:
    pieces, _ = asked([stream(*events)], streamed=True)
    assert "".join(piece.text for piece in pieces) == "Ida"
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["stop"]


@pytest.mark.parametrize("text", ["Ida", "<= 5", "<b", " "])
def test_a_stream_may_end_without_a_reason_and_nothing_of_it_is_lost(text: str) -> None:
    pieces, _ = asked([stream(delta(text), DONE)], streamed=True)
    assert "".join(piece.text for piece in pieces) == text


def test_a_stream_of_nothing_is_no_answer() -> None:
    with pytest.raises(LanguageModelFailed, match="something else than a chat completion"):
        asked([stream(DONE)], streamed=True)


def test_an_empty_reason_is_no_end() -> None:
    with pytest.raises(LanguageModelFailed, match="broke off"):
        asked([stream(delta("Ida", ""))], streamed=True)


def test_reasoning_beside_the_content_is_no_answer() -> None:
    message = {"role": "assistant", "content": "Ida", "reasoning_content": "Hm [2]."}
    (whole,), _ = asked([answer(200, {"choices": [{"message": message, "finish_reason": "stop"}]})])
    assert whole.text == "Ida"


@pytest.mark.parametrize("exceptions", ["localhost,[::1]", "::1/128"])
def test_odd_exceptions_from_proxies_keep_no_model_away(monkeypatch: pytest.MonkeyPatch, exceptions: str) -> None:
    monkeypatch.setenv("NO_PROXY", exceptions)
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example.org:1080")
    (whole,), _ = asked([completion("Ida")])
    assert whole.text == "Ida"


@pytest.mark.parametrize("streamed", [False, True])
def test_the_newer_name_of_the_limit_is_tried_where_the_older_is_refused(streamed: bool) -> None:
    refused = refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    good = stream(delta("Ida"), delta(None, "stop"), DONE) if streamed else completion("Ida")
    pieces, requests = asked([refused, good], streamed=streamed, max_tokens=7)
    assert "".join(piece.text for piece in pieces) == "Ida"
    assert [request.get("max_tokens") for request in requests] == [7, None]
    assert requests[1]["max_completion_tokens"] == 7


def test_the_name_of_the_limit_stays_where_the_newer_is_refused_as_well() -> None:
    async def ask_twice(url: str) -> None:
        model = LanguageModel(f"{url}/v1", "small", None, 5.0)
        question = Prompt([{"role": "user", "content": "Who?"}], max_tokens=7)
        with pytest.raises(LanguageModelFailed, match="is too large"):
            await model.complete(question)
        await model.complete(question)
        await model.aclose()

    refused = refusal(400, "'max_tokens' or 'max_completion_tokens' is too large")
    with scripted([refused, refused, completion("Ida")]) as endpoint:
        asyncio.run(ask_twice(endpoint.url))
    bodies = [json.loads(request.body) for request in endpoint.requests]
    assert [body.get("max_tokens") for body in bodies] == [7, None, 7]


def test_another_refusal_is_no_reason_to_ask_again() -> None:
    with pytest.raises(LanguageModelFailed, match="It says: max_tokens is too large"):
        asked([refusal(400, "max_tokens is too large")], max_tokens=7)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("So it is 【1】.", [1]),
        ("So it is 【1†source】 and 【2†L3-L9】.", [1, 2]),
        ("So it is [^1].", [1]),
        ("So it is [1, 2].", [1, 2]),
        ("In 1999 [a] or [1.5] or 【†】.", []),
    ],
)
def test_markers_as_models_write_them(text: str, numbers: list[int]) -> None:
    evidence = RetrieveOut.model_validate(examples.RESULT)
    chunk, citation = evidence.chunks[0], evidence.citations[0]
    evidence = evidence.model_copy(update={"chunks": [chunk] * 2, "citations": [citation] * 2})
    passages, unknown = cited(text, evidence)
    assert (len(passages), unknown) == (len(numbers), [])
