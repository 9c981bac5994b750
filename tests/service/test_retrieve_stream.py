"""Retrieval over HTTP, streamed: each step as it is taken, then the same answer."""

from __future__ import annotations

import socket

import httpx
import pytest

from tests.service.helpers import add, ask, stream
from tests.service.library import QUESTION, add_library


@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("beam_width", [1, 3])
def test_stream_brings_the_steps_and_then_the_answer(
    client: httpx.Client, collection: str, trace: bool, beam_width: int
) -> None:
    add_library(client, collection)
    fields = {"collection": collection, "max_steps": 5, "trace": trace, "beam_width": beam_width}
    plain = ask(client, QUESTION, **fields)
    *steps, (name, result) = stream(client, QUESTION, **fields)
    assert [name for name, _ in steps] == ["step"] * 5
    assert name == "result"
    assert {**result, "timings": None} == {**plain, "timings": None}
    assert [{key: step[key] for key in step if key != "chunk"} for _, step in steps] == plain["steps"]
    by_step = sorted(plain["chunks"], key=lambda chunk: int(chunk["step"]))
    assert [step["chunk"] for _, step in steps] == by_step


def test_each_step_is_sent_on_its_own(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    body = b'{"question": "Which?", "max_steps": 4, "collection": "%s"}' % collection.encode()
    head = (
        "POST /retrieve HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    received = b""
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        while block := connection.recv(1 << 16):
            received += block
    headers, _, rest = received.partition(b"\r\n\r\n")
    assert b"200 OK" in headers
    assert b"cache-control: no-cache" in headers.lower()
    sent = []
    while rest:  # chunked transfer coding: a length, then what one call sent
        length, _, rest = rest.partition(b"\r\n")
        sent.append(rest[: int(length, 16)])
        rest = rest[int(length, 16) + 2 :]
    assert [each.partition(b"\n")[0] for each in sent] == [b"event: step"] * 4 + [b"event: result", b""]
    assert all(each.endswith(b"\n\n") for each in sent[:-1])


def test_stream_of_nothing_is_a_result_alone(client: httpx.Client, collection: str) -> None:
    add(client, "", collection=collection)
    assert [(name, result["chunks"]) for name, result in stream(client, "?", collection=collection)] == [("result", [])]
