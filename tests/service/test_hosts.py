"""Without keys: web pages of others neither read nor write, and everybody else goes on as before."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from pydantic import ValidationError

from service.errors import CrossSiteRequest, MisdirectedRequest
from service.http.hosts import OwnHosts
from service.keys import add_key
from service.settings import Settings
from tests.servers import running_server
from tests.service.helpers import PLAIN, add, ask, ids_in, problem

EVIL = "http://evil.example"
ALLOWED = "qrag,*.example.org,proxy.example.com:8443,[2001:db8::7]"


class Answer(NamedTuple):
    status: int
    body: bytes

    def code(self) -> str:
        code: str = json.loads(self.body)["code"]
        return code


def send(client: httpx.Client, request: str, *headers: str, body: bytes = b"") -> Answer:
    """A request as it stands, over a socket of its own; without a ``Host`` of ours."""
    lines = [request, "Connection: close", f"Content-Length: {len(body)}", *headers, "", ""]
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=60) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1") + body)
        with connection.makefile("rb") as answer:
            head, _, content = answer.read().partition(b"\r\n\r\n")
    return Answer(int(head.split(b" ")[1]), content)


def get(client: httpx.Client, host: str, path: str = "/documents") -> Answer:
    return send(client, f"GET {path} HTTP/1.1", f"Host: {host}")


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[httpx.Client]:
    """A client of a server that listens everywhere, has no keys, and was given names."""
    settings = {"host": "0.0.0.0", "allow_anonymous": "true", "allowed_hosts": ALLOWED}
    with (
        running_server(tmp_path_factory.mktemp("public"), tiny_checkpoint, **settings) as client,
        httpx.Client(base_url=f"http://127.0.0.1:{client.base_url.port}", timeout=60) as local,
    ):
        yield local


# --- The host ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LocalHost:1", "localhost.", "localhost.:8000", "localhost:"),
        *(
            "127.0.0.1",
            "127.0.0.1:8000",
            "127.8.9.10",
            "[::1]",
            "[::1]:8000",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
        ),
    ],
)
def test_loopback_is_the_service_itself_under_all_its_names(shared_client: httpx.Client, host: str) -> None:
    assert get(shared_client, host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "evil-localhost", "127.0.0.1.evil.example"),
        *("localhost@evil.example", "evil@localhost", "user:localhost", "localhost/", "localhost evil.example", ""),
        *("0.0.0.0", "192.0.2.7", "[::]", "[fe80::1]", "[::1%25lo]", "[::1", "::1", "localhost..", "localhost:80:80"),
        *("*", "*.localhost", "localhost:999999", "127.1", "2130706433", "qrag", "\xe9vil.example"),
    ],
)
def test_other_hosts_are_refused_and_told_what_to_do(shared_client: httpx.Client, host: str) -> None:
    for path in ("/documents", "/", "/docs", "/openapi.json", "/model", "/nothing"):
        refused = get(shared_client, host, path)
        assert (refused.status, refused.code()) == (421, "misdirected_request")
    detail = json.loads(refused.body)["detail"]
    assert "localhost" in detail
    assert "QRAG_ALLOWED_HOSTS" in detail
    assert get(shared_client, host, "/healthz").status == 200
    assert get(shared_client, host, "/readyz").status == 200


def test_refusals_are_problems_as_all_others_are(shared_client: httpx.Client) -> None:
    answer = shared_client.get("/documents", headers={"Host": "evil.example", "X-Request-ID": "mine"})
    problem(answer, 421, "misdirected_request")
    assert answer.headers["X-Request-ID"] == "mine"
    problem(shared_client.post("/retrieve", json={}, headers={"Origin": EVIL}), 403, "cross_site_request")


def test_nothing_is_uploaded_under_another_name(shared_client: httpx.Client, collection: str) -> None:
    answer = shared_client.post(
        "/documents", params={"collection": collection}, content=b"No.", headers=PLAIN | {"Host": "evil.example"}
    )
    problem(answer, 421, "misdirected_request")
    assert ids_in(shared_client, collection) == []


def test_all_hosts_of_a_request_count(shared_client: httpx.Client) -> None:
    for hosts in (["localhost", "evil.example"], ["evil.example", "localhost"]):
        assert send(shared_client, "GET /documents HTTP/1.1", *(f"Host: {host}" for host in hosts)).status in (400, 421)


def test_programs_of_old_that_name_no_host_are_served(shared_client: httpx.Client) -> None:
    assert send(shared_client, "GET /documents HTTP/1.0").status == 200
    assert send(shared_client, "GET /documents HTTP/1.1").status == 421
    assert send(shared_client, "GET /documents HTTP/1.0", "Host: evil.example").status == 421
    assert send(shared_client, "POST /retrieve HTTP/1.0", f"Origin: {EVIL}").status == 403


def test_metrics_are_scraped_by_address(shared_client: httpx.Client) -> None:
    for host in ("10.1.2.3:8000", "[2001:db8::1]:8000", "localhost"):
        assert get(shared_client, host, "/metrics").status == 200
    for host in ("evil.example", "evil@10.1.2.3"):
        assert get(shared_client, host, "/metrics").status == 421


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("localhost:8000", "qrag", "QRAG.:8000", "a.example.org", "a.b.example.org:1")),
        *((host, 200) for host in ("proxy.example.com:8443", "[2001:db8::7]:80", "[2001:DB8:0::7]")),
        *((host, 421) for host in ("example.org", "badexample.org", "proxy.example.com", "proxy.example.com:443")),
        *((host, 421) for host in ("a.qrag", "0.0.0.0", "0.0.0.0:8000", "[::]", "10.1.2.3", "*.example.org")),
    ],
)
def test_a_service_has_the_names_that_it_was_given(public: httpx.Client, host: str, status: int) -> None:
    assert get(public, host).status == status


def test_browsers_leave_default_ports_out() -> None:
    hosts = OwnHosts("0.0.0.0", ["secure.example:443", "plain.example:80", "other.example:8443"])
    hosts.check(request("POST", host="secure.example", origin="https://secure.example"))
    hosts.check(request("GET", host="plain.example"))
    hosts.check(request("GET", host="plain.example:80"))
    for host in ("other.example", "secure.example:8443"):
        with pytest.raises(MisdirectedRequest):
            hosts.check(request("GET", host=host))


@pytest.mark.parametrize("host", ["192.0.2.1", "Search.Example.Org", "2001:db8::1", "fe80::1%eth0"])
def test_a_service_has_the_address_that_it_listens_on(host: str) -> None:
    hosts = OwnHosts(host, ())
    named = f"[{host.partition('%')[0]}]" if ":" in host else host
    hosts.check(request("GET", host=f"{named}:8000"))
    with pytest.raises(MisdirectedRequest):
        hosts.check(request("GET", host="192.0.2.2:8000"))


def request(method: str, path: str = "/documents", **headers: str) -> dict[str, object]:
    """A request as the middleware gets it."""
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": named}


def test_all_names_can_be_allowed_but_no_other_site() -> None:
    hosts = OwnHosts("0.0.0.0", ["*"])
    hosts.check(request("GET", host="anything.example"))
    hosts.check(request("POST", host="anything.example", origin="http://anything.example"))
    for headers in ({"origin": EVIL}, {"origin": "null"}, {"sec_fetch_site": "cross-site"}):
        with pytest.raises(CrossSiteRequest):
            hosts.check(request("POST", host="anything.example", **headers))
    with pytest.raises(MisdirectedRequest):
        hosts.check(request("GET", host="evil@anything.example"))


@pytest.mark.parametrize(
    "bad", ["https://qrag.example.org", "qrag/path", "a.*.org", "*example.org", "**", "[::", "a b", "user@qrag", "::1"]
)
def test_what_is_no_host_cannot_be_allowed(monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    monkeypatch.setenv("QRAG_ALLOWED_HOSTS", f"qrag, {bad}")
    with pytest.raises(ValidationError, match="is no host"):
        Settings(_env_file=None)


def test_names_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRAG_ALLOWED_HOSTS", " qrag, *.example.org:8000 ,,*,")
    assert Settings(_env_file=None).allowed_hosts == ("qrag", "*.example.org:8000", "*")


# --- Other sites ------------------------------------------------------------------------------------------

FOREIGN: list[dict[str, str]] = [
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://localhost:1"},
    {"Origin": "http://localhost"},
    {"Origin": "http://evil@localhost"},
    {"Origin": "chrome-extension://abcdef"},
    {"Origin": "file://"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "Cross-Site"},
    {"Sec-Fetch-Site": "same-origin, cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_forms_and_scripts_of_other_sites_store_nothing(
    shared_client: httpx.Client, collection: str, headers: dict[str, str]
) -> None:
    kept = add(shared_client, "Ana signed the lease.", collection=collection)["id"]
    before = ids_in(shared_client, collection)
    query = {"collection": collection}
    for answer in (
        shared_client.post("/documents", params=query, content=b"No.", headers=headers | PLAIN),
        shared_client.post("/documents", data=query, files={"file": ("a.txt", b"No.")}, headers=headers),
        shared_client.post("/documents", json={"text": "No.", **query}, headers=headers),
        shared_client.delete(f"/documents/{kept}", headers=headers),
        shared_client.delete(f"/collections/{collection}", headers=headers),
        shared_client.post("/retrieve", json={"question": "Who?", **query}, headers=headers),
        shared_client.post("/mcp", json={}, headers=headers),
        shared_client.post("/admin/checkpoints", json={"checkpoint": "configured"}, headers=headers),
        shared_client.put("/nothing", headers=headers),
    ):
        assert "program" in problem(answer, 403, "cross_site_request")["detail"]
    assert ids_in(shared_client, collection) == before
    assert shared_client.get(f"/documents/{kept}", headers=headers).status_code == 200  # the browser keeps it from them


def test_the_own_page_and_programs_go_on(shared_client: httpx.Client, collection: str) -> None:
    own = f"http://{shared_client.base_url.netloc.decode()}"
    for number, headers in enumerate(
        [
            {},
            {"Origin": own},
            {"Origin": own.upper()},
            {"Origin": own, "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
        ]
    ):
        query = {"collection": collection, "id": f"{collection}-{number}", "wait": "true"}
        answer = shared_client.post("/documents", params=query, content=b"Ana signed.", headers=PLAIN | headers)
        assert answer.status_code == 201, (headers, answer.text)
    assert len(ids_in(shared_client, collection)) == 5
    assert ask(shared_client, "Who?", collection=collection)["chunks"]


@pytest.mark.parametrize(
    ("host", "origin", "own"),
    [
        ("127.0.0.1:8000", "https://a.example.org", True),  # a proxy that does not pass the host on
        ("a.example.org", "https://a.example.org", True),
        ("a.example.org:443", "https://a.example.org", True),
        ("a.example.org", "https://b.example.org", True),
        ("127.0.0.1:8000", "https://proxy.example.com:8443", True),
        ("qrag:8000", "http://qrag:8000", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("127.0.0.1:8000", "https://a.example.org:3000", False),
        ("127.0.0.1:8000", "https://proxy.example.com", False),
        ("127.0.0.1:8000", "http://localhost:8000", False),
        ("qrag:8000", "http://qrag:3000", False),
        ("a.example.org", "https://a.example.org:80", False),
    ],
)
def test_a_proxys_name_is_the_services_own(public: httpx.Client, host: str, origin: str, own: bool) -> None:
    answer = send(
        public,
        "POST /retrieve HTTP/1.1",
        *(f"Host: {host}", f"Origin: {origin}", "Content-Type: application/json"),
        body=b'{"question": "Who?"}',
    )
    assert answer.code() == ("unknown_collection" if own else "cross_site_request")


def test_a_page_behind_a_development_server_can_be_allowed() -> None:
    foreign = request("POST", host="localhost:8000", origin="http://localhost:5173")
    OwnHosts("127.0.0.1", ["localhost:5173"]).check(foreign)
    for allowed in ([], ["localhost"], ["localhost:5174"]):
        with pytest.raises(CrossSiteRequest):
            OwnHosts("127.0.0.1", allowed).check(foreign)


def test_with_keys_neither_is_looked_at(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with running_server(tmp_path, tiny_checkpoint) as client:
        foreign = {"Host": "evil.example", "Origin": EVIL, "Sec-Fetch-Site": "cross-site"}
        problem(client.get("/documents", headers=foreign), 421, "misdirected_request")
        foreign["Authorization"] = f"Bearer {add_key(tmp_path / 'keys.json', 'first', ['read', 'write'], None)}"
        assert client.get("/documents", headers=foreign).status_code == 200
        assert client.post("/documents", content=b"Yes.", headers=PLAIN | foreign).status_code == 202
        del foreign["Authorization"]
        problem(client.get("/documents", headers=foreign), 401, "unauthorized")
        assert client.get("/", headers=foreign).status_code == 200


# --- The connection ---------------------------------------------------------------------------------------


def test_a_refused_upgrade_does_not_hide_another_request(shared_client: httpx.Client, collection: str) -> None:
    text = b"No."
    query = f"collection={collection}"
    hidden = [f"POST /documents?{query} HTTP/1.1", "Host: localhost", "Content-Type: text/plain", "Content-Length: 3"]
    inner = "\r\n".join([*hidden, "", ""]).encode() + text
    outer = ["POST /documents HTTP/1.1", "Host: evil.example", "Connection: Upgrade", "Upgrade: h2c"]
    head = "\r\n".join([*outer, f"Content-Length: {len(inner)}", "", ""]).encode()
    with socket.create_connection((shared_client.base_url.host, shared_client.base_url.port or 0), 60) as connection:
        connection.sendall(head)
        with connection.makefile("rb") as answers:
            first = answers.readline()
            assert b" 421 " in first
            with suppress(OSError):  # the service has closed the connection
                connection.sendall(inner)
                assert b"HTTP/1.1" not in answers.read()
    assert ids_in(shared_client, collection) == []


def test_a_length_of_thousands_of_digits_is_too_large(shared_client: httpx.Client) -> None:
    lines = [
        "POST /retrieve HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {'0' * 5000}2",
        "",
        "",
    ]
    with socket.create_connection((shared_client.base_url.host, shared_client.base_url.port or 0), 60) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"{}")
        with connection.makefile("rb") as answer:
            assert b" 415 " in answer.readline()  # and so read as a length of two
