"""A reverse proxy on loopback that serves everything below a path."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import running_server

PREFIX = "/tools/qrag"

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "server", "date"}
"""The headers of a message that are not passed on."""


@dataclass
class Proxy:
    """Where the proxy is, and where it passes requests on to."""

    url: str
    """Its address with the path below which it serves."""
    host: str
    upstream: str = ""


@contextmanager
def proxy(prefix: str, *, strips: bool, tells: bool) -> Iterator[Proxy]:
    """A proxy that strips the prefix or passes it on, and tells in headers where it is or does not.

    Like nginx with ``proxy_pass`` alone it does not pass ``Host`` on.
    """

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            path = self.path.removeprefix(prefix)
            if path == self.path or not path.startswith("/"):
                self.send_error(404, "Nothing is served here")
                return
            url = f"{opened.upstream}{path if strips else self.path}"
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            if tells:
                headers |= {"X-Forwarded-Prefix": prefix, "X-Forwarded-Host": opened.host, "X-Forwarded-Proto": "http"}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with httpx.stream(self.command, url, headers=headers, content=body, timeout=60) as answer:
                self.send_response_only(answer.status_code)
                for name, value in answer.headers.multi_items():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):
                    for block in answer.iter_raw():
                        self.wfile.write(block)
                        self.wfile.flush()

        do_GET = do_POST = do_DELETE = _pass_on  # noqa: N815

        def log_message(self, *_arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        host = f"127.0.0.1:{http.server_port}"
        opened = Proxy(f"http://{host}{prefix}", host)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield opened
        finally:
            http.shutdown()
            thread.join()


WAYS = {
    "stripped and told": (True, True, {}),
    "stripped and set": (True, False, {"root_path": PREFIX}),
    "passed on": (False, False, {"root_path": f"{PREFIX}/"}),
    "passed on and told": (False, True, {"root_path": PREFIX}),
}
"""Whether the proxy strips the prefix, whether it tells it, and the settings that it takes."""


@pytest.fixture(scope="module", params=WAYS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path
) -> Iterator[Proxy]:
    """A proxy before a service."""
    strips, tells, settings = WAYS[request.param]
    with proxy(PREFIX, strips=strips, tells=tells) as served:
        data = tmp_path_factory.mktemp("data")
        with running_server(data, tiny_checkpoint, allowed_hosts=served.host, **settings) as direct:
            served.upstream = str(direct.base_url).rstrip("/")
            yield served
