"""Requests as clients, browsers and proxies really send them."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from service.http.event_stream import wants_events
from service.settings import Settings
from tests.servers import blameless_server
from tests.service.helpers import metric, problem, text_of


def form(client: httpx.Client, collection: str, *parts: tuple[str, bytes]) -> httpx.Response:
    """Send parts of a form, each with its headers as they stand."""
    body = (
        b"".join(b"--x\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n" for head, content in parts) + b"--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    return client.post(f"/documents?wait=true&collection={collection}", content=body, headers=headers)


@pytest.mark.parametrize(
    ("disposition", "title"),
    [
        ("name=\"file\"; filename*=UTF-8''%D1%84%D0%B0%D0%B9%D0%BB.txt", "файл.txt"),
        ('name="file"; filename="file.txt"; filename*=UTF-8\'\'%D1%84%D0%B0%D0%B9%D0%BB.txt', "файл.txt"),
        ("name=\"file\"; filename*=utf-8'en'a%20%22b%22.txt; filename=b.txt", 'a "b".txt'),
        ("name=\"file\"; filename*=iso-8859-1''caf%E9.txt", "café.txt"),
        ("name=\"file\"; filename*=klingon''caf%C3%A9.txt", "café.txt"),
        ("name=\"file\"; filename*=idna''a%ff.txt", "a\ufffd.txt"),
        ("name=\"file\"; filename*=unicode_escape''a%5Cud800.txt", "a\\ud800.txt"),
        ('name="file"; filename="plain.txt"', "plain.txt"),
    ],
)
def test_names_of_files_in_every_spelling(client: httpx.Client, collection: str, disposition: str, title: str) -> None:
    answer = form(client, collection, (f"Content-Disposition: form-data; {disposition}", b"Words of a file."))
    assert answer.status_code == 201, answer.text
    assert answer.json()["title"] == title


def test_fields_may_come_as_files_and_unused_inputs_are_passed_over(client: httpx.Client, collection: str) -> None:
    blob = 'Content-Disposition: form-data; name="metadata"; filename="blob"\r\nContent-Type: application/json'
    unused = 'Content-Disposition: form-data; name="more"; filename=""\r\nContent-Type: application/octet-stream'
    file = 'Content-Disposition: form-data; name="file"; filename="a.txt"'
    answer = form(client, collection, (blob, b'{"year": 2031}'), (unused, b""), (file, b"Words of a file."))
    assert answer.status_code == 201, answer.text
    assert answer.json()["metadata"] == {"year": 2031}
    problem(form(client, collection, (unused, b"")), 400, "invalid_request")


def test_parts_whose_bytes_are_not_the_files_are_refused(client: httpx.Client, collection: str) -> None:
    head = 'Content-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Transfer-Encoding: {}'
    refused = form(client, collection, (head.format("base64"), base64.b64encode(b"Words.")))
    assert "base64" in problem(refused, 400, "invalid_request")["detail"]
    assert form(client, collection, (head.format("binary"), b"Words of a file.")).status_code == 201


def test_json_may_begin_with_a_byte_order_mark(client: httpx.Client, collection: str) -> None:
    content = b"\xef\xbb\xbf" + json.dumps({"text": "Marked words.", "collection": collection}).encode()
    answer = client.post("/documents?wait=true", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text
    assert text_of(client, answer.json()["id"]) == "Marked words."


# -- packed bodies ----------------------------------------------------------------------------------------------------


def send(client: httpx.Client, collection: str, body: bytes, encoding: str, charset: str = "utf-8") -> httpx.Response:
    headers = {"Content-Type": f"text/plain; charset={charset}", "Content-Encoding": encoding}
    return client.post("/documents", params={"wait": "true", "collection": collection}, content=body, headers=headers)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("gzip", lambda body: gzip.compress(body[:5]) + gzip.compress(body[5:])),
        ("identity", bytes),
    ],
)
@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1"])
def test_packed_bodies_are_unpacked(
    client: httpx.Client, collection: str, encoding: str, pack: object, charset: str
) -> None:
    assert callable(pack)
    text = f"Café words, {encoding}. " * 50
    answer = send(client, collection, pack(text.encode(charset)), encoding, charset)
    assert answer.status_code == 201, answer.text
    assert text_of(client, answer.json()["id"]) == text


def test_questions_may_be_packed(client: httpx.Client, collection: str) -> None:
    send(client, collection, b"Ana signed the lease.", "identity")
    body = gzip.compress(json.dumps({"question": "Who signed?", "collection": collection}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    counted = 'qrag_request_seconds_count{method="POST",route="/retrieve",status="200"}'
    before = metric(client, counted)
    assert client.post("/retrieve", content=body, headers=headers).status_code == 200
    assert metric(client, counted) == before + 1


def test_other_encodings_are_refused_with_those_that_are_read(client: httpx.Client, collection: str) -> None:
    refused = send(client, collection, b"abc", "br")
    assert "'br'" in problem(refused, 415, "unsupported_media_type")["detail"]
    assert "gzip" in refused.headers["Accept-Encoding"]


@pytest.mark.parametrize("body", [b"no gzip at all", gzip.compress(b"cut off" * 100, mtime=0)[:-12], b""])
def test_damaged_packed_bodies_are_refused(client: httpx.Client, collection: str, body: bytes) -> None:
    problem(send(client, collection, body, "gzip"), 400, "invalid_request")


def test_what_a_body_unpacks_to_is_limited(limited_client: httpx.Client) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    assert len(bomb) < 100_000
    problem(send(limited_client, "kept", bomb, "gzip"), 413, "body_too_large")


# -- paths, events, settings ------------------------------------------------------------------------------------------


def test_a_slash_at_the_end_makes_no_difference(client: httpx.Client, collection: str) -> None:
    counted = 'qrag_request_seconds_count{method="GET",route="/documents",status="200"}'
    before = metric(client, counted)
    assert client.get("/documents/").status_code == 200
    assert metric(client, counted) == before + 1
    answer = client.post("/documents/", json={"text": "Words.", "collection": collection})
    assert answer.status_code == 202
    assert client.get(f"/documents/{answer.json()['id']}/").status_code == 200
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"Accept": "application/json, text/event-stream"}
    assert client.post("/mcp/", json=message, headers=accept).json()["result"] == {}
    problem(client.get("/nothing/"), 404, "not_found")


def raw(client: httpx.Client, request: bytes, *more: bytes) -> tuple[int, bytes]:
    """The status and the body of the last answer to a request as it stands; each further part after an answer."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=60) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answers:
            for part in more:
                assert answers.readline().startswith(b"HTTP/1.1 100 ")
                assert answers.readline() == b"\r\n"
                connection.sendall(part)
            head, _, body = answers.read().partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def head(client: httpx.Client, target: str, *headers: str) -> bytes:
    lines = (f"POST {target} HTTP/1.1", f"Host: {client.base_url.netloc.decode()}", "Connection: close")
    return "\r\n".join((*lines, "Content-Type: text/plain", *headers, "", "")).encode()


def test_a_client_may_wait_before_it_sends_its_body(client: httpx.Client, collection: str) -> None:
    target = f"/documents?collection={collection}"
    status, body = raw(client, head(client, target, "Content-Length: 6", "Expect: 100-continue"), b"Words.")
    assert status == 202
    assert text_of(client, json.loads(body)["id"]) == "Words."


def test_bodies_may_come_in_chunks_with_trailers(client: httpx.Client, collection: str) -> None:
    request = head(client, f"/documents?collection={collection}", "Transfer-Encoding: chunked", "Trailer: X-Sum")
    status, body = raw(client, request + b"3\r\nWor\r\n3;note=x\r\nds.\r\n0\r\nX-Sum: 7\r\n\r\n")
    assert status == 202
    assert text_of(client, json.loads(body)["id"]) == "Words."


def test_the_target_may_be_a_whole_address(client: httpx.Client, collection: str) -> None:
    target = f"{client.base_url}/documents?collection={collection}".replace("//documents", "/documents")
    status, _ = raw(client, head(client, target, "Content-Length: 6") + b"Words.")
    assert status == 202


def test_one_id_that_many_write_at_once_has_the_text_of_one(client: httpx.Client, collection: str) -> None:
    def write(number: int) -> httpx.Response:
        document = {"id": f"{collection}-one", "collection": collection, "text": f"Number {number}."}
        return client.post("/documents", json=document)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(8)))
    assert sorted(answer.status_code for answer in answers) == [202, *[409] * 7]
    (number,) = (number for number, answer in enumerate(answers) if answer.status_code == 202)
    assert text_of(client, f"{collection}-one") == f"Number {number}."


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("application/json, text/event-stream;q=0.5", True),
        ("application/json;q=1, text/event-stream;q=0", False),
        ("text/event-stream; q=0.00", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_events_are_for_those_who_accept_them(accept: str, expected: bool) -> None:
    request = Request({"type": "http", "headers": [(b"accept", accept.encode())]})
    assert wants_events(request) is expected


def test_streams_are_not_collected_by_proxies(client: httpx.Client, collection: str) -> None:
    send(client, collection, b"Ana signed the lease.", "identity")
    question = {"question": "Who signed?", "collection": collection}
    with client.stream("POST", "/retrieve", json=question, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.headers["X-Accel-Buffering"] == "no"
        answer.read()


def test_empty_variables_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_DIR", "PORT", "RERANKER", "API_KEYS"):
        monkeypatch.setenv(f"QRAG_{name}", "")
    settings = Settings(_env_file=None)
    assert (settings.data_dir, settings.port, settings.reranker, settings.api_keys) == (Path("data"), 8000, None, ())


def test_a_port_that_kubernetes_set_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRAG_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(ValueError, match="Kubernetes"):
        Settings(_env_file=None)


SITE = "https://app.example.org"


@pytest.fixture(scope="module")
def open_client(tmp_path_factory: pytest.TempPathFactory, calibrated_checkpoint: Path) -> Iterator[httpx.Client]:
    """A service that pages of one other site may use."""
    with blameless_server(tmp_path_factory.mktemp("cors"), calibrated_checkpoint, cors_origins=SITE) as client:
        yield client


def preflight(client: httpx.Client, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    return client.options("/retrieve", headers=headers)


def test_pages_of_named_sites_may_use_the_service(open_client: httpx.Client, client: httpx.Client) -> None:
    answer = preflight(open_client, SITE)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == SITE
    headers = {"Origin": SITE, "Sec-Fetch-Site": "cross-site"}
    stored = open_client.post("/documents", json={"text": "Words."}, headers=headers)
    assert stored.status_code == 202
    assert stored.headers["Access-Control-Allow-Origin"] == SITE
    assert "Location" in stored.headers["Access-Control-Expose-Headers"]
    other = {"Origin": "https://evil.example.org", "Sec-Fetch-Site": "cross-site"}
    problem(open_client.post("/documents", json={"text": "Words."}, headers=other), 403, "cross_site_request")
    assert "Access-Control-Allow-Origin" not in preflight(open_client, other["Origin"]).headers
    # Without the setting no site may.
    assert "Access-Control-Allow-Origin" not in preflight(client, SITE).headers


@pytest.mark.parametrize(
    "origin", ["app.example.org", "https://app.example.org/path", "*", "https://*.example.org", "null"]
)
def test_an_origin_is_a_scheme_and_a_host(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("QRAG_CORS_ORIGINS", origin)
    with pytest.raises(ValueError, match="is no origin"):
        Settings(_env_file=None)
