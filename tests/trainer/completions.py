"""An OpenAI-compatible completions endpoint on loopback that scores given tokens.

Answers have the very form of llama-cpp-python's server, or of vLLM, around any function that scores a text.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

Scored = Sequence[tuple[str, float | None]]
"""The tokens of a text with their log-probabilities; the first has none."""

Scorer = Callable[[str], Scored]

Answer = Callable[[dict[str, Any], Scorer], Response]
"""What is answered to a request's body."""


@dataclass
class Endpoint:
    """Where the server is, and what it has been asked."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    answer: Answer | None = None
    """What it answers from now on; none: as it was started."""


def llama_cpp_python(body: dict[str, Any], scorer: Scorer) -> Response:
    """``echo`` with ``logprobs`` as llama-cpp-python's server (0.3) answers it; it does not know other fields."""
    prompt = body["prompt"]
    prompted, written = list(scorer(prompt)), [(" and", -1.25)][: body["max_tokens"]]
    echoed = body.get("echo", False)
    tokens = [*prompted, *written] if echoed else written
    offsets = [0 if echoed else len(prompt)]
    for text, _ in tokens:
        offsets.append(offsets[-1] + len(text))
    logprobs = {
        "text_offset": offsets[:-1],
        "token_logprobs": [value for _, value in tokens],
        "tokens": [text for text, _ in tokens],
        "top_logprobs": [None if value is None else {text: value} for text, value in tokens],
    }
    text = "".join(text for text, _ in written)
    choice = {
        "text": prompt + text if echoed else text,
        "index": 0,
        "logprobs": logprobs if body.get("logprobs") is not None else None,
        "finish_reason": "length",
    }
    return _completion(body, choice, len(prompted), len(written))


def vllm(body: dict[str, Any], scorer: Scorer) -> Response:
    """``prompt_logprobs`` as vLLM answers it: a dictionary a token, by id, the prompt's own token first."""
    prompted = list(scorer(body["prompt"]))
    listed = [
        None if value is None else {str(number): {"logprob": value, "rank": 1, "decoded_token": text}}
        for number, (text, value) in enumerate(prompted)
    ]
    choice = {
        "index": 0,
        "text": " and",
        "logprobs": None,
        "finish_reason": "length",
        "stop_reason": None,
        "prompt_logprobs": listed if body.get("prompt_logprobs") is not None else None,
    }
    return _completion(body, choice, len(prompted), 1)


def llama_server(body: dict[str, Any], scorer: Scorer) -> Response:
    """As llama.cpp's own server answers it: it ignores ``echo``, and scores what it writes alone."""
    written = [{"id": 29, "token": " and", "bytes": [32, 97, 110, 100], "logprob": -1.25, "top_logprobs": []}]
    choice = {"text": " and", "index": 0, "logprobs": {"content": written}, "finish_reason": "length"}
    return _completion(body, choice, len(scorer(body["prompt"])), 1)


def _completion(body: dict[str, Any], choice: dict[str, Any], prompted: int, written: int) -> Response:
    usage = {"prompt_tokens": prompted, "completion_tokens": written, "total_tokens": prompted + written}
    content = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
    return JSONResponse(content | {"choices": [choice], "usage": usage})


@contextmanager
def completions(scorer: Scorer, answer: Answer = llama_cpp_python) -> Iterator[Endpoint]:
    """The server for the length of a block."""
    app = FastAPI()

    @app.post("/v1/completions")
    def complete(body: dict[str, Any], _request: Request) -> Response:
        endpoint.bodies.append(body)
        return (endpoint.answer or answer)(body, scorer)

    with socket.create_server(("127.0.0.1", 0)) as listening:  # connections wait in it until the server has started
        endpoint = Endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield endpoint
        finally:
            server.should_exit = True
            thread.join()
