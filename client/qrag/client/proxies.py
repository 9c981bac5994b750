"""Which proxy an address is reached through, as the environment says.

``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in either case. ``NO_PROXY`` has names, which stand for
their subdomains too, addresses, IPv6 ones in brackets or not, and networks. The own machine is never reached through a
proxy, and what is odd in ``NO_PROXY`` keeps no client from starting.
"""

from __future__ import annotations

import importlib.util
import ipaddress
from typing import Any
from urllib.request import getproxies

import httpx


def proxy_settings(url: httpx.URL) -> dict[str, Any]:
    """Arguments of ``httpx.Client`` and ``httpx.AsyncClient`` for requests to this address.

    Raises :class:`ValueError` for a proxy that cannot be used, with what to do.
    """
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or _is_near(url.host, proxies.get("no", "")):
        return {"trust_env": False}
    if proxy.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ValueError(
            f"The proxy {httpx.URL(proxy).host} of the environment is a SOCKS proxy: pip install 'httpx[socks]', or "
            "unset ALL_PROXY, or name the host in NO_PROXY."
        )
    try:
        return {"trust_env": False, "proxy": httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}")}
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"The environment names a proxy that is no address ({error}). Mend or unset it.") from None


def _is_near(host: str, exceptions: str) -> bool:
    """Whether a host is this machine or one of the ``exceptions`` from the proxy."""
    host = host.strip("[]").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_matches(host, address, entry.strip().lower()) for entry in exceptions.split(",") if entry.strip())


def _matches(host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, entry: str) -> bool:
    entry = entry.rpartition("://")[2]
    if entry == "*":
        return True
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            return False
    name = entry.partition(":")[0].lstrip("*.")
    return bool(name) and (host == name or host.endswith(f".{name}"))
