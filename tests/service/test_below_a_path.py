"""Behind a proxy, below a path of its: every address that the service gives leads back to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

import qrag
from service.settings import Settings
from tests.servers import Server, running_server
from tests.service.helpers import JSON, add, problem
from tests.service.proxies import PREFIX, Proxy

TOLD = {"X-Forwarded-Prefix": "/qrag", "X-Forwarded-Host": "search.example.org", "X-Forwarded-Proto": "https"}
"""The headers of a proxy that has stripped its prefix."""


@pytest.fixture(scope="module")
def client(served: Proxy) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


def call_tool(
    client: httpx.Client, name: str, headers: dict[str, str] | None = None, **arguments: str
) -> httpx.Response:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    accept = {"Accept": "application/json, text/event-stream"}
    return client.post("/mcp", json=message, headers={**accept, **(headers or {})})


def test_the_location_of_what_was_stored_can_be_asked(served: Proxy, client: httpx.Client) -> None:
    stored = client.post("/documents", json={"text": "Ana signed the lease."})
    assert stored.status_code == 202
    location = stored.url.join(stored.headers["Location"])
    assert str(location).startswith(f"{served.url}/documents/")
    assert httpx.get(location).json()["id"] == stored.json()["id"]
    many = client.post("/documents", json={"documents": [{"text": "One."}, {"text": "Two."}]})
    assert httpx.get(many.url.join(many.headers["Location"])).status_code == 200


def test_the_reference_asks_for_a_description_that_leads_back(client: httpx.Client) -> None:
    for path in ("/docs", "/docs/"):
        reference = client.get(path, follow_redirects=True)
        found = re.search(r"url: '([^']+)'", reference.text)
        assert found
        described = httpx.get(reference.url.join(found[1]))
        assert described.status_code == 200
        for file in re.findall(r'(?:src|href)="([^"]+)"', reference.text):
            assert httpx.get(reference.url.join(file)).status_code == 200
    assert described.json()["servers"] == [{"url": PREFIX}]


def test_a_tools_addresses_can_be_opened(client: httpx.Client) -> None:
    document = add(client, "Ana signed the lease.", collection="tools")
    result = call_tool(client, "fetch", id=document["id"]).json()["result"]["structuredContent"]
    path = httpx.URL(result["url"]).raw_path.decode()
    assert path.startswith(f"{PREFIX}/documents/")
    # A proxy that tells nothing does not tell its host either.
    assert client.get(path.removeprefix(PREFIX)).text == "Ana signed the lease."


def test_the_client_takes_an_address_with_a_path(served: Proxy) -> None:
    with qrag.Client(served.url) as client:
        client.index("Ana signed the lease.", collection="client", wait=True)
        assert client.retrieve("Who signed?", collection="client").chunks[0].text == "Ana signed the lease."
        *_, result = client.stream("Who signed?", collection="client")
        assert isinstance(result, qrag.RetrieveOut)


def test_the_path_itself_leads_to_the_page(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with running_server(tmp_path, tiny_checkpoint, root_path="/qrag") as client:
        answer = client.get("/qrag?collection=minutes")
        assert (answer.status_code, answer.headers["Location"]) == (308, "/qrag/?collection=minutes")
        assert "<title>Q-RAG</title>" in client.get("/qrag/").text
        assert client.get("/healthz").status_code == client.get("/qrag/healthz").status_code == 200
        assert client.get("/qrag/documents/").status_code == 200
        problem(client.get("/qragdocuments"), 404, "not_found")
        problem(client.get("/qrag/qrag/documents"), 404, "not_found")


# --- What a proxy says --------------------------------------------------------------------------------------


def test_the_clients_scheme_and_host_are_those_that_the_proxy_says(
    shared_client: httpx.Client, collection: str
) -> None:
    document = add(shared_client, "Ana signed the lease.", collection=collection)["id"]
    result = call_tool(shared_client, "fetch", TOLD, id=document).json()["result"]["structuredContent"]
    assert result["url"] == f"https://search.example.org/qrag/documents/{document}/text?start=0&end=21"
    several = TOLD | {"X-Forwarded-Host": "outer.example.org:8443, inner.example.org"}
    result = call_tool(shared_client, "fetch", several, id=document).json()["result"]["structuredContent"]
    assert result["url"].startswith("https://outer.example.org:8443/qrag/documents/")
    assert shared_client.get("/openapi.json", headers=TOLD).json()["servers"] == [{"url": "/qrag"}]
    assert "servers" not in shared_client.get("/openapi.json").json()


@pytest.mark.parametrize(
    "header",
    [
        *({"X-Forwarded-Prefix": prefix} for prefix in ("qrag", "//evil.example", "/a/../b", "/a b", "/a//b", "/a?b")),
        *({"X-Forwarded-Host": host} for host in ("evil@host", "a b", "*", "http://a")),
    ],
    ids=str,
)
def test_what_is_no_address_is_refused(shared_client: httpx.Client, header: dict[str, str]) -> None:
    assert "proxy" in problem(shared_client.get("/documents", headers=header), 400, "invalid_request")["detail"]


@pytest.mark.parametrize("header", [{"X-Forwarded-Prefix": "/"}, {"X-Forwarded-Prefix": ""}, {"X-Forwarded-Host": ""}])
def test_nothing_said_is_nothing_known(shared_client: httpx.Client, header: dict[str, str]) -> None:
    assert shared_client.get("/documents", headers=header).status_code == 200


def test_others_than_trusted_proxies_are_not_believed(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with running_server(tmp_path, tiny_checkpoint, forwarded_allow_ips="192.0.2.7,10.0.0.0/8") as client:
        document = add(client, "Ana signed the lease.")["id"]
        result = call_tool(client, "fetch", TOLD, id=document).json()["result"]["structuredContent"]
        assert result["url"].startswith(f"{client.base_url}/documents/")
        stored = client.post("/documents", json={"text": "Another."}, headers=TOLD)
        assert stored.headers["Location"].startswith("/documents/")
        assert "servers" not in client.get("/openapi.json", headers=TOLD).json()
        assert client.get("/documents", headers={"X-Forwarded-Prefix": "//evil.example"}).status_code == 200


def test_a_forwarded_host_makes_no_name_the_services_own(shared_client: httpx.Client) -> None:
    """Neither of a page that was rebound, which may send any header to what is its own site to the browser."""
    rebound = {"Host": "evil.example", "X-Forwarded-Host": "localhost", "X-Forwarded-Prefix": "/qrag"}
    problem(shared_client.get("/documents", headers=rebound), 421, "misdirected_request")
    foreign = {"Origin": "http://evil.example", "X-Forwarded-Host": "evil.example"}
    problem(shared_client.post("/retrieve", json={"question": "?"}, headers=foreign), 403, "cross_site_request")


@pytest.mark.parametrize("prefix", ["/docs", "/healthz", "/page", "/x"])
def test_a_forwarded_prefix_leads_past_no_key(tmp_path: Path, tiny_checkpoint: Path, prefix: str) -> None:
    with running_server(tmp_path, tiny_checkpoint, api_keys="secret") as client:
        told = {"X-Forwarded-Prefix": prefix}
        for path in ("/documents", f"{prefix}/documents", f"{prefix}{prefix}/documents", f"{prefix}/admin/checkpoints"):
            answer = client.get(path, headers=told)
            assert answer.status_code in (401, 404), path
            assert answer.headers["Content-Type"] == "application/problem+json"
        problem(client.get("/documents", headers=told), 401, "unauthorized")
        # A path that the proxy kept back is not reached by saying that it had a prefix.
        authorized = told | {"Authorization": "Bearer secret"}
        problem(client.get("/x/admin/checkpoints", headers=authorized | {"X-Forwarded-Prefix": "/x"}), 404, "not_found")


def test_limits_are_those_of_the_call_below_a_path_too(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with running_server(tmp_path, tiny_checkpoint, root_path="/qrag") as client:
        text = "Ana signed the lease. " * 100_000
        assert client.post("/qrag/documents", content=text, headers={"Content-Type": "text/plain"}).status_code == 202
        problem(client.post("/qrag/retrieve", content=text, headers=JSON), 413, "body_too_large")


@pytest.mark.parametrize("path", ["qrag", "https://example.org/qrag", "/a b", "/a/../b", "//qrag"])
def test_what_is_no_path_cannot_be_set(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("QRAG_ROOT_PATH", path)
    with pytest.raises(ValidationError, match="is no path"):
        Settings(_env_file=None)


@pytest.mark.parametrize("path", ["/v1", "/documents/minutes"])
def test_the_path_of_a_call_cannot_be_set(tmp_path: Path, tiny_checkpoint: Path, path: str) -> None:
    server = Server(tmp_path, tiny_checkpoint, root_path=path)
    try:
        status, log = server.exit()
    finally:
        server.kill()
    assert status == 1
    assert f"QRAG_ROOT_PATH={path}" in log
