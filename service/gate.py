"""What every request passes first: the API key, the size limit, the clock."""

from __future__ import annotations

import asyncio
import hmac
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLarge, Overloaded, Unauthorized
from service.metrics import Metrics
from service.problems import problem_response
from service.settings import Settings

OPEN_PATHS = {"/healthz", "/readyz", "/openapi.json", "/docs"}
"""Answer without a key: probes and browsers have none."""

UPLOAD_PATH = "/documents"
OTHER_BODY_BYTES = 1 << 20
"""Longest body of anything that is not an upload."""


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._keys = [key.get_secret_value().encode() for key in settings.api_keys]
        self._upload_bytes = settings.max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 413, or pass the request on and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves the body out
        began = time.perf_counter()
        status = 499  # until there is a response

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._pass(scope, receive, noting_send)
        except asyncio.CancelledError:  # at shutdown, when the time for finishing requests is over
            if status != 499:
                raise
            error = Overloaded("The service is shutting down. Try again shortly.", retry_after=5)
            await problem_response(error)(scope, receive, noting_send)
        except Exception:
            status = 500  # what the framework answers further out
            raise
        finally:
            route = scope.get("route")
            self._metrics.request(scope["method"], getattr(route, "path", "other"), status, time.perf_counter() - began)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if self._keys and scope["path"] not in OPEN_PATHS and not self._knows(headers.get(b"authorization", b"")):
            error = Unauthorized("Send a valid key: Authorization: Bearer KEY.")
            await problem_response(error)(scope, receive, send)
            return
        limit = self._upload_bytes if scope["path"] == UPLOAD_PATH else OTHER_BODY_BYTES
        too_large = BodyTooLarge(f"The body may have at most {limit} bytes. Send less at once.")
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            await problem_response(too_large)(scope, receive, send)
            return
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise too_large
            return message

        await self._app(scope, counting_receive, send)

    def _knows(self, authorization: bytes) -> bool:
        scheme, _, key = authorization.partition(b" ")
        # Every key is compared, in constant time: neither content nor number of keys can be timed.
        matches = [hmac.compare_digest(key.strip(), known) for known in self._keys]
        return scheme.lower() == b"bearer" and any(matches)
