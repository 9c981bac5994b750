"""What is seen of every request from outside: its id, how long it took and how it ended, in the log and the metrics.

An id that the client sends as ``X-Request-ID`` is kept, so that a request can be followed through several services;
otherwise one is made. It stands in the answer and in every line that is logged on the request's behalf.
"""

from __future__ import annotations

import logging
import re
import time
import uuid

from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, get_current_span, use_span
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.keys import EVERYTHING
from service.observing.logs import REQUEST_ID
from service.observing.metrics import Metrics
from service.observing.tracing import PROBES, trace_response

access_log = logging.getLogger("service.access")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer: nothing here is meant to be guessed at, framed or embedded."""

_PLAUSIBLE_ID = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}")


class Observer:
    """ASGI middleware outside of all others."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = scope["method"]
        if asked == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves the body out
        request_id = _id_of(scope)
        token = REQUEST_ID.set(request_id)
        began = time.perf_counter()
        status = 499  # until there is a response
        span = INVALID_SPAN_CONTEXT  # the request's, where there are traces

        async def noting_send(message: Message) -> None:
            nonlocal status, span
            if message["type"] == "http.response.start":
                status = message["status"]
                span = get_current_span().get_span_context()
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["X-Request-ID"] = request_id
                if span.is_valid:
                    headers["traceresponse"] = trace_response(span)
                headers.append("Server-Timing", f"total;dur={1000 * (time.perf_counter() - began):.1f}")
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(scope["method"], route, status, seconds)
            # As it was sent: decoded, it could break the line.
            path = scope.get("raw_path", b"").decode("latin-1")
            key = scope.get("state", {}).get("access", EVERYTHING).name or "-"
            facts = {"method": asked, "path": path, "status": status, "ms": round(1000 * seconds, 1), "key": key}
            level = logging.DEBUG if route in PROBES else logging.INFO
            with use_span(NonRecordingSpan(span)):  # it has ended by now
                access_log.log(level, " ".join(f"{name}={value}" for name, value in facts.items()), extra=facts)
            REQUEST_ID.reset(token)


def _id_of(scope: Scope) -> str:
    given: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
    return given.decode() if _PLAUSIBLE_ID.fullmatch(given) else uuid.uuid4().hex
