"""A real HTTP server on loopback that does with each request what a script says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Action = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Request:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Scripted:
    """What the server has been asked, and where it is."""

    url: str
    requests: list[Request] = field(default_factory=list)
    script: list[Action] = field(default_factory=list)
    """What is left of it."""


@contextmanager
def scripted(script: Sequence[Action] = (), otherwise: Action | None = None) -> Iterator[Scripted]:
    """A server that takes the actions of the script in turn, and ``otherwise`` for a request too many: 599."""
    too_many = otherwise or answer(599)

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length) if "Transfer-Encoding" not in self.headers else _chunks(self)
            server.requests.append(Request(self.command, self.path, dict(self.headers), body))
            action = server.script.pop(0) if server.script else too_many
            with suppress(ConnectionError):
                action(self)

        do_GET = do_POST = do_DELETE = _take  # noqa: N815

        def log_message(self, *_arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Scripted(f"http://127.0.0.1:{http.server_port}", script=list(script))
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def _chunks(handler: BaseHTTPRequestHandler) -> bytes:
    body = b""
    while length := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(length)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


def answer(status: int, body: object = None, content_type: str = "application/json", **headers: str) -> Action:
    """Answer with a body: JSON, or bytes as they are. ``Retry_After`` is the header Retry-After."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return act


def refusal(status: int, code: str = "some_code", **headers: str) -> Action:
    """Answer with a problem."""
    body = {"type": "about:blank", "title": "Some title", "status": status, "code": code, "detail": f"It is {status}."}
    return answer(status, body, "application/problem+json", X_Request_ID="request-1", **headers)


def drop(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


def stream(*pieces: bytes | Callable[[], object]) -> Action:
    """Send events as they are, and call what is no event, before the next."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("X-Request-ID", "request-1")
        handler.end_headers()
        for piece in pieces:
            if isinstance(piece, bytes):
                handler.wfile.write(piece)
                handler.wfile.flush()
            else:
                piece()

    return act


def event(name: str, body: object) -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(body)}\n\n".encode()
