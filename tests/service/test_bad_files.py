"""Uploads that are refused: broken text, damaged, locked and hostile files, bodies too large, clients that leave."""

from __future__ import annotations

import contextlib
import json
import socket
from io import BytesIO
from typing import Any

import httpx
import pytest

from qrag.wire.media_types import MediaType
from tests.service.files import PdfEncryption, docx, paragraph, pdf, shown
from tests.service.helpers import JSON, MAX_BODY, metric, post, problem, text_of, until


@pytest.fixture
def client(unchanged_client: httpx.Client) -> httpx.Client:
    return unchanged_client


def exchange(client: httpx.Client, request: bytes, *more: bytes) -> str:
    """Send bytes as they are, in pieces; the whole answer, which may come before the last piece is sent."""
    answer = b""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            for piece in (request, *more):
                connection.sendall(piece)
        with contextlib.suppress(ConnectionError):
            while block := connection.recv(1 << 16):
                answer += block
    return answer.decode()


# --- Content types and encodings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type", ["image/png", "application/msword", "pdf", "text", "application/octet-stream", ""]
)
def test_types_that_are_not_read(client: httpx.Client, content_type: str) -> None:
    refused = problem(post(client, "abc", content_type), 415, "unsupported_media_type")
    assert all(media_type.value in refused["detail"] for media_type in MediaType)


def test_a_body_without_a_content_type(client: httpx.Client) -> None:
    problem(client.post("/documents", content=b"abc"), 415, "unsupported_media_type")
    answer = client.post("/documents", files={"file": ("picture.png", b"\x89PNG", "image/png")})
    problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "json", ""])
def test_questions_must_be_sent_as_json(client: httpx.Client, content_type: str) -> None:
    answer = client.post("/retrieve", content='{"question": "a"}', headers={"Content-Type": content_type})
    assert "application/json" in problem(answer, 415, "unsupported_media_type")["detail"]


@pytest.mark.parametrize("charset", ["klingon", "rot13", "zlib", "idna", "base64", "unicode-escape", "''", "x" * 500])
@pytest.mark.parametrize("media_type", ["text/plain", "text/html"])
def test_charsets_that_are_not_known(client: httpx.Client, media_type: str, charset: str) -> None:
    answer = post(client, b"abc", f"{media_type}; charset={charset}")
    assert "UTF-8" in problem(answer, 415, "unsupported_media_type")["detail"]


BROKEN = [
    ("text/plain; charset=utf-8", b"abc\xffdef", 3),
    ("text/plain", "naïve".encode() + b"\xff", 6),
    ("text/plain", "ends in the middle: €".encode()[:-1], 20),
    ("text/plain", "🎉".encode() * 1000 + b"\xed\xa0\x80", 4000),
    ("text/plain; charset=shift_jis", "日本".encode("shift_jis") + b"\x81", 4),
    ("text/plain; charset=gb18030", "中😀".encode("gb18030") + b"\xff", 6),
    ("text/plain; charset=utf-16-le", "ab".encode("utf-16-le") + b"\x00\xdc\x61\x00", 4),
    ("text/html", "<p>ä".encode() + b"\xff", 5),
    ("text/markdown; charset=utf-8", b"# \xc3(", 2),
]


@pytest.mark.parametrize(("content_type", "body", "offset"), BROKEN)
def test_broken_text_is_refused_with_the_offset(
    client: httpx.Client, content_type: str, body: bytes, offset: int
) -> None:
    refused = problem(post(client, body, content_type), 400, "invalid_encoding")
    assert f" {offset}" in refused["detail"]
    form = client.post("/documents", files={"file": ("name", body, content_type)})
    assert problem(form, 400, "invalid_encoding")["detail"] == refused["detail"]


@pytest.mark.parametrize(("content_type", "body", "offset"), BROKEN)
def test_the_offset_does_not_depend_on_how_the_text_arrives(
    client: httpx.Client, content_type: str, body: bytes, offset: int
) -> None:
    head = f"POST /documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nConnection: close\r\n"
    pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[i : i + 3] for i in range(0, len(body), 3))]
    answer = exchange(client, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *pieces, b"0\r\n\r\n")
    assert answer.startswith("HTTP/1.1 400 ")
    assert "application/problem+json" in answer
    assert f" {offset}" in json.loads(answer.partition("\r\n\r\n")[2])["detail"]


# --- Files that are damaged, locked or hostile ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("media_type", "body", "code"),
    [
        (MediaType.PDF, b"", "document_corrupt"),
        (MediaType.PDF, b"%PDF-1.7 and nothing else", "document_corrupt"),
        (MediaType.PDF, pdf([shown(b"text")])[:60], "document_corrupt"),
        (MediaType.PDF, pdf([b"0 0 100 100 re f"]), "document_corrupt"),
        (MediaType.PDF, pdf([shown(b"secret")], encrypt=PdfEncryption(b"user", b"owner")), "document_encrypted"),
        (MediaType.DOCX, b"not a zip", "document_corrupt"),
        (MediaType.DOCX, docx(paragraph("cut"))[:-30], "document_corrupt"),
        (MediaType.DOCX, bytes.fromhex("d0cf11e0a1b11ae1") + bytes(1000), "document_encrypted"),
        (MediaType.DOCX, docx("", {"word/document.xml": bytes(65 << 20)}), "document_too_complex"),
        (MediaType.HTML, b"<div>" * 50_000, "document_too_complex"),
    ],
)
def test_files_that_cannot_be_read(client: httpx.Client, media_type: MediaType, body: bytes, code: str) -> None:
    assert len(body) < MAX_BODY
    refused = problem(post(client, body, media_type.value), 422, code)
    assert "/tmp" not in refused["detail"]
    form = client.post("/documents", files={"file": ("name", BytesIO(body), media_type.value)})
    assert problem(form, 422, code)["detail"] == refused["detail"]


def test_a_bad_file_among_good_ones_keeps_all_out(client: httpx.Client) -> None:
    files = [("file", ("good.txt", b"Good.")), ("file", ("bad.pdf", b"%PDF-1.7")), ("file", ("fine.txt", b"Fine."))]
    problem(client.post("/documents", files=files), 422, "document_corrupt")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"abc", "multipart/form-data"),
        (b"abc", "multipart/form-data; boundary=x"),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n', "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
    ],
)
def test_forms_that_are_none(client: httpx.Client, body: bytes, content_type: str) -> None:
    refused = problem(post(client, body, content_type), 400, "invalid_request")
    assert "form" in refused["detail"]


@pytest.mark.parametrize(
    ("data", "names", "status", "code"),
    [
        ({}, [], 400, "invalid_request"),
        ({"id": "x"}, ["a", "b"], 400, "invalid_request"),
        ({"colour": "red"}, ["a"], 422, "validation_error"),
        ({"metadata": "{"}, ["a"], 400, "invalid_request"),
        ({"title": ["x", "y"]}, ["a"], 400, "invalid_request"),
        ({"title": "x" * 2_000_000}, ["a"], 413, "body_too_large"),
        ({f"f{i}": "x" for i in range(30)}, ["a"], 400, "invalid_request"),
        ({}, ["n" * 1001], 422, "validation_error"),
    ],
)
def test_forms_that_say_too_little_or_too_much(
    client: httpx.Client, data: dict[str, Any], names: list[str], status: int, code: str
) -> None:
    files = [("file", (name, name.encode(), "text/plain")) for name in names] or {"none": (None, "x")}
    problem(client.post("/documents", data=data, files=files), status, code)


FORM_START = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
"""As good a beginning as any for the other types."""


# --- Size -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json", "application/pdf", "multipart/form-data; boundary=x"]
)
@pytest.mark.parametrize("declared", [True, False])
def test_bodies_over_the_limit(client: httpx.Client, content_type: str, declared: bool) -> None:
    body = FORM_START + b"a" * MAX_BODY
    content = body if declared else (body[i : i + 10_000] for i in range(0, len(body), 10_000))
    assert str(MAX_BODY) in problem(post(client, content, content_type), 413, "body_too_large")["detail"]


def test_a_body_of_exactly_the_limit_is_taken(limited_client: httpx.Client) -> None:
    body = "a " * (MAX_BODY // 2)
    answer = post(limited_client, body, "text/plain", id="exact", chunking="whole")
    assert answer.status_code == 202
    assert text_of(limited_client, "exact") == body
    assert limited_client.delete("/documents/exact").status_code == 204


@pytest.mark.parametrize("declared", [True, False])
def test_questions_over_the_limit(client: httpx.Client, declared: bool) -> None:
    body = b'{"question": "' + b"a" * (1 << 20) + b'"}'
    content = body if declared else (body[i : i + 100_000] for i in range(0, len(body), 100_000))
    problem(client.post("/retrieve", content=content, headers=JSON), 413, "body_too_large")


# --- Clients that leave -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json", "application/pdf", "multipart/form-data; boundary=x"]
)
def test_an_upload_that_breaks_off_leaves_nothing(client: httpx.Client, content_type: str) -> None:
    name = 'qrag_request_seconds_count{method="POST",route="/documents",status="499"}'
    before = metric(client, name)
    head = (
        f"POST /documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: 200000\r\n\r\n"
    )
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as connection:
        connection.sendall(head.encode() + FORM_START + b"The beginning of a text.")
    until(lambda: metric(client, name) == before + 1)


@pytest.mark.parametrize("content_type", ["text/plain; charset*; charset*0; x", "text/html; charset*; a; charset*0*"])
def test_charsets_whose_parts_do_not_fit_together(client: httpx.Client, content_type: str) -> None:
    assert "UTF-8" in problem(post(client, b"abc", content_type), 415, "unsupported_media_type")["detail"]


def test_a_charset_of_a_part_that_nobody_can_read(client: httpx.Client) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
        b"Content-Type: text/plain; charset*=a\x00b''x\r\n\r\nabc\r\n--b--\r\n"
    )
    problem(post(client, body, "multipart/form-data; boundary=b"), 415, "unsupported_media_type")
