"""What keeps web pages of others away from a service without keys.

A service on its user's machine can be reached by every web page that the user visits, in two ways. The page can send
requests to it that change something, though the browser does not let it see the answers (*cross-site requests*). And it
can have a name of its own point to the machine (*rebinding*): to the browser the service is then a part of the page's
site, and the page may do everything. So a service without keys answers under its own names alone, and to unsafe methods
only where no page of another site is behind them. Programs send no ``Origin``.

What a proxy says in ``X-Forwarded-Host`` is not looked at: any program may send it, and the proxy of a page's own name
passes on what that page says.

With keys there is nothing to guard against: the pages of others have none.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import Scope

from service.errors import CrossSiteRequest, MisdirectedRequest
from service.host_names import Authority, listening_authority, parse_authority
from service.http.rights import SAFE_METHODS, route_path

PROBE_PATHS = frozenset({"/healthz", "/readyz"})
"""Asked by orchestrators and load balancers under whatever address they have; the answers tell nothing."""

METRICS_PATH = "/metrics"
"""Also scraped by address, for instance a pod's: only names can be rebound."""

_DEFAULT_PORTS = {"http": 80, "https": 443}

_OWN_SITE = frozenset({"same-origin", "none"})
"""Values of ``Sec-Fetch-Site`` that are no page of another site; ``none`` is the user himself. ``same-site`` is another
port, or another name of the same domain."""


class OwnHosts:
    """The names of a service without keys: loopback's, the one that it listens on, and those that it was given."""

    def __init__(self, listening_on: str, allowed: Iterable[str], origins: Iterable[str] = ()) -> None:
        """``origins`` are the sites whose pages may use the service, beside its own."""
        self._listening_on = listening_authority(listening_on)
        self._allowed = _parsed(allowed)
        self._origins = frozenset(origins)

    def check(self, scope: Scope) -> None:
        """Let a request pass unless a web page of others may have sent it.

        Raises :class:`~service.errors.MisdirectedRequest` for another host, and
        :class:`~service.errors.CrossSiteRequest` for an unsafe method from another site.
        """
        path, headers = route_path(scope), Headers(scope=scope)
        if path in PROBE_PATHS:
            return
        hosts = [host.strip() for host in headers.getlist("host")]
        named = hosts or ([] if scope.get("http_version") == "1.0" else [""])  # browsers do not speak HTTP/1.0
        for host in named:
            if not self._is_own(parse_authority(host), or_address=path == METRICS_PATH):
                raise MisdirectedRequest(
                    f"This service has no API keys, so it answers under its own names only, and {host[:200]!r} is none "
                    "of them. Use localhost, or add the name to QRAG_ALLOWED_HOSTS and start the service again, or "
                    "make a key: python -m service keys add NAME."
                )
        if scope["method"] in SAFE_METHODS:
            return
        sent_by = headers.getlist("origin")
        if sent_by and self._origins.issuperset(origin.strip().lower() for origin in sent_by):
            return
        senders = [origin for origin in sent_by if not self._is_own_origin(origin, _parsed(hosts))]
        senders += [site for site in headers.getlist("sec-fetch-site") if site.strip().lower() not in _OWN_SITE]
        if senders:
            raise CrossSiteRequest(
                f"A web page of another site ({senders[0][:200]}) has sent this, and the service has no API keys that "
                "could tell it apart. Use the service's own page, or a program. Where a proxy serves the page under "
                "another name, add that to QRAG_ALLOWED_HOSTS and start the service again."
            )

    def _is_own(self, host: Authority | None, *, or_address: bool) -> bool:
        if host is None or host.is_pattern:
            return False
        return (
            host.is_loopback
            or (self._listening_on is not None and host.name == self._listening_on.name)
            or (or_address and host.address is not None)
            or any(allowed.covers(host.name) and _same_port(allowed, host) for allowed in self._allowed)
        )

    def _is_own_origin(self, origin: str, requested: list[Authority]) -> bool:
        """Whether a page is of the requested host, or of a name that was given: a proxy may have rewritten ``Host``."""
        scheme, _, rest = origin.lower().partition("://")
        default, page = _DEFAULT_PORTS.get(scheme), parse_authority(rest)
        if default is None or page is None:
            return False  # above all `null`: a sandboxed page, or a file
        given = [allowed for allowed in self._allowed if allowed.name != "*"]
        return any(
            host.covers(page.name) and _port(host, default) == _port(page, default) for host in (*requested, *given)
        )


def _parsed(texts: Iterable[str]) -> list[Authority]:
    return [authority for text in texts if (authority := parse_authority(text)) is not None]


def _same_port(allowed: Authority, host: Authority) -> bool:
    """Whether a host has the port that a setting asks for; browsers leave the default ports out."""
    return allowed.port in (None, host.port) or (host.port is None and allowed.port in _DEFAULT_PORTS.values())


def _port(authority: Authority, default: int) -> int:
    return default if authority.port is None else authority.port
