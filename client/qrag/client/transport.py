"""The settings and the requests that both clients give to httpx."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, Callable, Iterable
from functools import cache
from typing import Any

import httpx

from qrag.client.calls import Call, invalid
from qrag.client.proxies import proxy_settings

DEFAULT_URL = "http://127.0.0.1:8000"
"""The address at which the service listens unless it is told otherwise."""

DEFAULT_TIMEOUT = 150.0
"""Seconds for an answer: the service may read a PDF for 120."""

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection."""


def settings(base_url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    """Arguments of ``httpx.Client`` and ``httpx.AsyncClient``.

    Raises :class:`ValueError` for an address or a key that cannot be sent.
    """
    try:
        url = httpx.URL(base_url)
        url.raw_host.decode("ascii").encode("idna")  # as the socket does, which raises UnicodeError for `a..b`
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"{base_url!r} is no address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{base_url!r} is no address: it begins with http:// or https://, like {DEFAULT_URL}")
    headers = {}
    if api_key is not None:
        key = api_key.strip()
        if not (key and key.isascii() and key.isprintable()):
            raise ValueError(
                "an API key has printable ASCII characters only"
            )  # the key itself stays out of the message
        headers["Authorization"] = f"Bearer {key}"
    return {
        "base_url": url,
        "headers": headers,
        "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
        "verify": _authorities(),
        **proxy_settings(url),
    }


@cache
def _authorities() -> ssl.SSLContext:
    """The trusted certificate authorities, read once: reading them is the slowest part of making a client."""
    return httpx.create_ssl_context()


def request(
    http: httpx.Client | httpx.AsyncClient,
    call: Call[Any],
    content: bytes | Iterable[bytes] | AsyncIterable[bytes] | None,
) -> httpx.Request:
    """The request that carries out a call.

    Headers carry the program's current trace, where it has one, so that the service's spans join it. Raises
    :class:`~qrag.client.errors.InvalidRequest` where the query does not fit into an address.
    """
    headers = dict(call.headers)
    inject = _inject_trace()
    if inject is not None:
        inject(headers)
    try:
        return http.build_request(call.method, call.path, params=call.query or None, headers=headers, content=content)
    except httpx.InvalidURL as error:
        raise invalid(
            f"{error}. What describes a file, or narrows a list, is part of the address: shorten it."
        ) from None


@cache
def _inject_trace() -> Callable[[dict[str, str]], None] | None:
    """The function that writes the current trace into headers, or None where OpenTelemetry is not installed."""
    try:
        from opentelemetry.propagate import inject
    except ImportError:
        return None
    return inject
