"""What operators see of requests: ids, timings, log lines, metrics."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import httpx
import pytest

from tests.servers import Server
from tests.service.helpers import JSON, STREAM, add, ask, metric, problem
from tests.service.library import QUESTION, add_library


def test_every_answer_has_an_id_the_time_it_took_and_says_not_to_be_embedded(client: httpx.Client) -> None:
    for answer in (
        client.get("/healthz"),
        client.get("/nothing"),
        client.delete("/healthz"),
        client.post("/retrieve", content=b"{", headers=JSON),
        client.get("/documents", params={"limit": 0}),
        client.head("/model"),
    ):
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])
        assert re.fullmatch(r"total;dur=\d+\.\d", answer.headers["Server-Timing"])
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_a_plausible_id_of_the_client_is_kept(client: httpx.Client) -> None:
    for given in ("abc-123", "Root=1-67891233-abcdef012345678912345678", "a" * 128):
        assert client.get("/healthz", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given
    for bad in ("", "a b", "a" * 129, "a;b", "ä".encode().decode("latin-1")):
        headers = httpx.Headers({"X-Request-ID": bad}, encoding="latin-1")
        found = client.get("/healthz", headers=headers).headers["X-Request-ID"]
        assert re.fullmatch(r"[0-9a-f]{32}", found)


def test_a_retrieval_says_where_its_time_went(client: httpx.Client, collection: str) -> None:
    add(client, "Ana signed the lease.", collection=collection)
    answer = client.post("/retrieve", json={"question": "Who signed?", "collection": collection})
    parts = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))
    assert list(parts) == ["queue", "encode", "search", "total"]
    timings = answer.json()["timings"]
    for name in ("queue", "encode", "search"):
        assert float(parts[name]) == pytest.approx(timings[f"{name}_ms"], abs=0.051)
    assert float(parts["total"]) >= float(parts["encode"])


def test_metrics_count_phases_batches_and_files(client: httpx.Client, collection: str) -> None:
    add(client, "Ana signed the lease.", collection=collection)
    names = [f'qrag_retrieval_seconds_count{{phase="{phase}"}}' for phase in ("tokenize", "queue", "encode", "search")]
    before = [metric(client, name) for name in (*names, "qrag_batch_states_count")]
    # The states of a question that others ask too may be embedded already.
    steps = len(ask(client, f"Who signed in {collection}?", collection=collection)["steps"])
    after = [metric(client, name) for name in (*names, "qrag_batch_states_count")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 1, 1, steps + 1]
    text = client.get("/metrics").text
    for name in (
        'qrag_files{state="waiting"} 0.0',
        'qrag_documents{status="queued"}',
        'qrag_retrievals{state="waiting"}',
        "qrag_disk_free_bytes ",
        "process_resident_memory_bytes ",
        "qrag_episodes_total{stopped_by=",
    ):
        assert name in text


def test_answers_are_compared_with_the_calibration_where_they_can_be(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    names = [
        f'qrag_drift_{sum}_total{{figure="{figure}"}}'
        for sum in ("questions", "served", "calibrated")
        for figure in ("complete", "chunks", "q")
    ]
    names += [f'qrag_sufficiency_{part}{{probability="complete"}}' for part in ("count", "sum")]
    before = [metric(client, name) for name in names]
    answer = ask(client, QUESTION, collection=collection, max_steps=8)  # the calibration's episodes had six at most
    gained = [metric(client, name) - old for name, old in zip(names, before, strict=True)]
    leading = [*(step["q"] >= 0.1 for step in answer["steps"][:6]), False].index(False)
    complete = answer["steps"][6]["sufficiency"]["complete"]
    assert gained[:9] == pytest.approx([1, 1, 1, complete, 6, leading, 1.0, 6.0, 2.0])
    assert gained[9:] == pytest.approx([1, answer["sufficiency"]["complete"]])
    held = [{"document_id": answer["chunks"][0]["document_id"], "index": answer["chunks"][0]["index"]}]
    others: list[dict[str, object]] = [
        {"max_steps": 5},
        {"beam_width": 2},
        {"given": held},
        {"exclude": held},
        {"rerank": 2},
        {"stop": {"rule": "budget"}},
        {"stop": {"rule": "threshold", "threshold": -8.0}},
        {"max_steps": 20},  # which ends for want of chunks
    ]
    after = [metric(client, name) for name in names[:9]]
    for other in others:
        ask(client, QUESTION, collection=collection, **other)
    assert [metric(client, name) for name in names[:9]] == after
    assert metric(client, names[9]) == before[9] + 1 + len(others)


def test_json_logs_have_one_object_a_line_and_cannot_be_forged(tmp_path: Path, tiny_checkpoint: Path) -> None:
    server = Server(tmp_path, tiny_checkpoint, log_format="json")
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            headers = {"X-Request-ID": "mine"}
            problem(client.get('/documents/a%0A{"level":"ERROR"}', headers=headers), 422, "validation_error")
            client.post("/retrieve", json={"question": "Who?"}, headers=headers | STREAM)
            client.get("/healthz", headers=headers)
        server.process.send_signal(signal.SIGTERM)
        status, log = server.exit()
    finally:
        server.kill()
    assert status == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert all({"time", "level", "logger", "request_id", "message"} <= line.keys() for line in lines)
    mine = [line for line in lines if line["request_id"] == "mine"]
    found = [(line["method"], line["path"], line["status"], line["key"]) for line in mine]
    assert found == [
        ("GET", "/documents/a%0A%7B%22level%22:%22ERROR%22%7D", 422, "-"),
        ("POST", "/retrieve", 404, "-"),
    ]
    assert all(line["logger"] == "service.access" and line["ms"] >= 0 for line in mine)
