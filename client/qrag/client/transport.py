"""What both clients tell httpx."""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any

import httpx

from qrag.client.calls import Call

try:
    from opentelemetry import propagate
except ImportError:  # where nothing traces, there is no trace to join
    propagate = None  # type: ignore[assignment]

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT = 150.0
"""Seconds: the service may read a PDF for 120."""

CONNECT_TIMEOUT = 5.0


def settings(base_url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    """Arguments of ``httpx.Client`` and ``httpx.AsyncClient``. Raises :class:`ValueError` for what cannot be sent."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{base_url!r} is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{base_url!r} is no address: it begins with http:// or https://, like {DEFAULT_URL}")
    headers = {}
    if api_key is not None:
        key = api_key.strip()
        if not (key and key.isascii() and key.isprintable()):
            raise ValueError("an API key has printable ASCII characters only")  # and is not repeated here
        headers["Authorization"] = f"Bearer {key}"
    return {
        "base_url": url,
        "headers": headers,
        "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
        "verify": _authorities(),
    }


@cache
def _authorities() -> ssl.SSLContext:
    """Whose certificates are trusted; read once, because that takes longer than all else about a new client."""
    return httpx.create_ssl_context()


def arguments(call: Call[Any]) -> dict[str, Any]:
    """Arguments of ``build_request``, all but the body; the service's spans join the trace that the program is in."""
    headers = dict(call.headers)
    if propagate is not None:
        propagate.inject(headers)
    return {"method": call.method, "url": call.path, "params": call.query or None, "headers": headers}
