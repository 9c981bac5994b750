"""What an OpenAI-like chat completions endpoint answers, as actions for :func:`tests.service.scripted.scripted`."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler

from tests.service.scripted import Action, answer, stream


def completion(text: str | None, finish_reason: str = "stop") -> Action:
    """A whole completion."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return answer(200, {"id": "chat-1", "object": "chat.completion", "choices": [choice], "usage": {"total_tokens": 9}})


def data(content: object) -> bytes:
    """One event of a streamed completion."""
    return f"data: {json.dumps(content)}\n\n".encode()


def delta(text: str | None, finish_reason: str | None = None) -> bytes:
    """The next piece of a streamed completion."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return data({"id": "chat-1", "object": "chat.completion.chunk", "choices": [choice]})


DONE = b"data: [DONE]\n\n"


def written(*texts: str, finish_reason: str = "stop") -> Action:
    """A streamed completion, with the pieces without text that real endpoints send as well."""
    first = data({"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})
    usage = data({"choices": [], "usage": {"total_tokens": 9}})
    return stream(first, b": a comment\n\n", *map(delta, texts), delta(None, finish_reason), usage, DONE)


def refusal(status: int, message: str) -> Action:
    """A refusal in OpenAI's manner."""
    return answer(status, {"error": {"message": message, "type": "some_type", "code": "some_code"}})


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    """Announce a long answer, send little of it, and close the connection."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(delta("Ana"))
