"""Where the service is to its clients: the scheme, the host and the path under which a proxy serves it.

A proxy says so in ``X-Forwarded-Proto``, ``-Host`` and ``-Prefix``, and is believed where its address is one of those
that are trusted. What it says goes into the addresses that the service gives and decides nothing: the gate looks at
``Host`` alone (:mod:`service.http.hosts`), and a path loses the prefix of the settings alone. Otherwise a client whose
headers a proxy passes on could name itself, or reach a path that the proxy keeps from it.
"""

from __future__ import annotations

from typing import Any, cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.errors import ConfigurationError, InvalidRequest
from service.host_names import parse_authority, parse_prefix
from service.http.problems import problem_response
from service.http.rights import Rights, route_path
from service.settings import Settings

_HOST = "forwarded_host"
"""Where the request's state has the host that its client asked."""


class ForwardedAddress:
    """ASGI middleware around all others; it takes the place of the server's own, which knows no host and no prefix."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._root_path = settings.root_path or ""
        # The server's types of ASGI are narrower than the framework's.
        self._with_scheme = ProxyHeadersMiddleware(cast(Any, app), settings.forwarded_allow_ips)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the path that a route has, and the answer with addresses that the client can ask."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._locate(scope)
        except InvalidRequest as error:
            await problem_response(error)(scope, receive, send)
            return
        prefix: str = scope["root_path"]
        if not route_path(scope):
            # The page's own addresses are relative to a path with a slash at the end.
            query = scope["query_string"].decode("latin-1")
            await RedirectResponse(f"{prefix}/?{query}" if query else f"{prefix}/", 308)(scope, receive, send)
            return

        async def placing_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("location", "").startswith("/"):
                    headers["Location"] = prefix + headers["location"]
            await send(message)

        await self._with_scheme(cast(Any, scope), cast(Any, receive), cast(Any, placing_send))

    def _locate(self, scope: Scope) -> None:
        """Note prefix and host where the framework looks for them, in the scope that the server's own parts see too.

        Raises :class:`~service.errors.InvalidRequest` where the proxy says something that is neither.
        """
        path = scope["path"]
        if path == self._root_path or path.startswith(f"{self._root_path}/"):
            path = path.removeprefix(self._root_path)
        prefix = self._root_path
        client = scope.get("client")
        if (client[0] if client else None) in self._with_scheme.trusted_hosts:
            headers = Headers(scope=scope)
            if forwarded := headers.get("x-forwarded-prefix"):
                prefix = _prefix(forwarded)
            if forwarded := headers.get("x-forwarded-host"):
                scope.setdefault("state", {})[_HOST] = _host(forwarded)
        scope["root_path"], scope["path"] = prefix, prefix + path


def base_url(request: Request) -> str:
    """The service's address as the client sees it, with a slash at the end."""
    host = getattr(request.state, _HOST, None)
    return str(request.base_url.replace(netloc=host) if host else request.base_url)


def check_root_path(root_path: str | None, rights: Rights) -> None:
    """Raise :class:`~service.errors.ConfigurationError` where a call has the path below which a proxy serves all."""
    if root_path is None:
        return
    for route in rights.routes:
        if route.pattern.match(root_path) or route.path.startswith(f"{root_path}/"):
            raise ConfigurationError(
                f"QRAG_ROOT_PATH={root_path} is also the path of the call {route.path}, and the two cannot be told "
                "apart. Serve it below another path."
            )


def _prefix(forwarded: str) -> str:
    prefix = parse_prefix(forwarded)
    if prefix is None:
        raise InvalidRequest(
            f"The proxy's X-Forwarded-Prefix {forwarded[:200]!r} is no path. It has to be one like /qrag, without "
            "other characters than letters, digits and . _ ~ -."
        )
    return prefix


def _host(forwarded: str) -> str:
    host = forwarded.partition(",")[0].strip()  # of several proxies the outermost comes first
    authority = parse_authority(host)
    if authority is None or authority.is_pattern:
        raise InvalidRequest(f"The proxy's X-Forwarded-Host {host[:200]!r} is no host with or without a port.")
    return host
