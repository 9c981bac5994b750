"""Proxies of the environment: used where they are meant, and no reason not to start where they are odd."""

from __future__ import annotations

import httpx
import pytest

from qrag import Client
from qrag.client.proxies import proxy_settings

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *map(str.upper, VARIABLES)):
        monkeypatch.delenv(name, raising=False)


def proxy_for(address: str) -> str | None:
    proxy = proxy_settings(httpx.URL(address)).get("proxy")
    return None if proxy is None else str(proxy.url)


@pytest.mark.parametrize(
    ("address", "exceptions", "proxied"),
    [
        ("http://qrag.example.org", "", True),
        ("http://127.0.0.1:8000", "", False),
        ("http://[::1]:8000", "", False),
        ("http://localhost:8000", "", False),
        ("http://qrag.example.org", "localhost,[::1]", True),
        ("http://qrag.example.org", "::1/128,example.org", False),
        ("http://qrag.example.org", ".example.org", False),
        ("http://qrag.example.org", "*.example.org", False),
        ("http://qrag.example.org:81", "qrag.example.org:80", False),
        ("http://notexample.org", "example.org", True),
        ("http://qrag.example.org", "*", False),
        ("http://10.1.2.3", "10.0.0.0/8", False),
        ("http://10.1.2.3", "10.1.2.3", False),
        ("http://11.1.2.3", "10.0.0.0/8, ,[bad", True),
        ("http://[fd00::1]", "[fd00::1]", False),
        ("http://[fd00::1]", "fd00::/8", False),
    ],
)
def test_exceptions_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, address: str, exceptions: str, proxied: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert proxy_for(address) == ("http://proxy.example.org:3128" if proxied else None)
    Client(address).close()


def test_the_scheme_chooses_and_all_stands_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "secure.example.org:1")
    monkeypatch.setenv("ALL_PROXY", "http://all.example.org:2")
    assert proxy_for("https://a.example.org") == "http://secure.example.org:1"
    assert proxy_for("http://a.example.org") == "http://all.example.org:2"


def test_a_socks_proxy_is_no_matter_near_by_and_is_explained_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example.org:1080")
    Client("http://127.0.0.1:8000").close()
    with pytest.raises(ValueError, match=r"pip install 'httpx\[socks\]'"):
        Client("http://a.example.org")


def test_a_proxy_that_is_no_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:notaport")
    with pytest.raises(ValueError, match="no address"):
        Client("http://a.example.org")
