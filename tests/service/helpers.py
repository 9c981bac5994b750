"""Requests to a running service, and checks that every answer of a kind has to pass."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx

Json = dict[str, Any]

PLAIN = {"Content-Type": "text/plain"}
JSON = {"Content-Type": "application/json"}
STREAM = {"Accept": "text/event-stream"}

MAX_BODY = 300_000
MAX_DOCUMENTS = 20
"""Limits of the server behind ``limited_client``."""

UNICODE = (
    "Ärger im Büro. 👩\u200d👩\u200d👧 came home at 5 o'clock! e\u0301 is é?\r\n\r\n"
    "日本語の文章です。次の文。 \U0001f1e9\U0001f1ea\x00 end"
)
"""Characters of every length in UTF-8 and UTF-16, combined ones, and a null."""


def add(client: httpx.Client, text: str, **fields: Any) -> Json:
    """Index a new document and wait until it is searchable."""
    answer = client.post("/documents", params={"wait": True}, json={"text": text, **fields})
    assert answer.status_code == 201, answer.text
    document: Json = answer.json()
    assert document["status"] == "ready"
    return document


def post(
    client: httpx.Client, body: str | bytes | Iterable[bytes], content_type: str = "application/json", **query: str
) -> httpx.Response:
    """Upload a body, with what describes it in the query."""
    return client.post("/documents", content=body, params=query, headers={"Content-Type": content_type})


def ask(client: httpx.Client, question: str, **fields: Any) -> Json:
    """Retrieve, successfully."""
    answer = client.post("/retrieve", json={"question": question, **fields})
    assert answer.status_code == 200, answer.text
    result: Json = answer.json()
    return result


def problem(answer: httpx.Response, status: int, code: str) -> Json:
    """The body of an error, which is a problem in every respect."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text[
        :500
    ]
    body: Json = answer.json()
    assert set(body) - {"errors"} == {"type", "title", "status", "code", "detail"}
    assert (body["status"], body["code"]) == (status, code)
    assert len(body["detail"]) > 20
    assert "Traceback" not in body["detail"]
    return body


def pages(client: httpx.Client, path: str, key: str, limit: int, **filters: str) -> Iterator[list[Json]]:
    """The entries of a paged resource, page by page."""
    parameters: dict[str, str | int] = {"limit": limit, **filters}
    while True:
        answer = client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        yield page[key]
        if page["next_cursor"] is None:
            return
        parameters["cursor"] = page["next_cursor"]


def ids_in(client: httpx.Client, collection: str) -> list[str]:
    """The ids of a collection's documents in order of arrival."""
    answer = client.get("/documents", params={"collection": collection, "limit": 1000})
    assert answer.status_code == 200, answer.text
    return [document["id"] for document in answer.json()["documents"]]


def chunks_of(client: httpx.Client, id: str) -> list[Json]:
    """Every chunk of a document."""
    return [chunk for page in pages(client, f"/documents/{id}/chunks", "chunks", 1000) for chunk in page]


def text_of(client: httpx.Client, id: str, **range_: int) -> str:
    """A document's text, or a range of it."""
    answer = client.get(f"/documents/{id}/text", params=range_)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    return answer.content.decode("utf-8")


def sha256(text: str) -> str:
    """The checksum of a text in UTF-8, as the service reports it."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def events(lines: Iterable[str]) -> Iterator[tuple[str, Json]]:
    """Server-sent events by name."""
    name = ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
        else:
            assert line == ""


def stream(client: httpx.Client, question: str, **fields: Any) -> list[tuple[str, Json]]:
    """The events of a streamed retrieval."""
    with client.stream("POST", "/retrieve", json={"question": question, **fields}, headers=STREAM) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        return list(events(answer.iter_lines()))


def metric(client: httpx.Client, name: str) -> float:
    """The value of a metric, labels included in its name; 0 if it is not there yet."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    """Ask again and again until it holds; every question is a request, so there is no need to pause."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"


def lines_of_text(count: int) -> str:
    """Many short lines, which take the service a while to index with ``chunking=lines``."""
    return "".join(f"Line {number} says little.\n" for number in range(count))
