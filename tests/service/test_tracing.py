"""Traces of a running service, as a collector on loopback receives them."""

from __future__ import annotations

import json
import queue
import re
import signal
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from qrag import Client
from tests.servers import Server
from tests.service.helpers import STREAM, add, problem

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""The example of the W3C's recommendation."""


class Span(NamedTuple):
    """What a collector is told of a span."""

    name: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    attributes: dict[str, str | int]
    service: str


class Collector:
    """Receives spans by OTLP over HTTP, as any collector does at port 4318."""

    def __init__(self) -> None:
        self._arriving: queue.Queue[Span] = queue.Queue()
        self.spans: list[Span] = []
        """All that have been waited for."""
        arriving = self._arriving

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for span in spans_of(request):
                    arriving.put(span)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def until(self, name: str, trace_id: str) -> list[Span]:
        """The spans of a trace once one of this name is there: of a request it is the last."""
        while not any((span.name, span.trace) == (name, trace_id) for span in self.spans):
            self.spans.append(self._arriving.get(timeout=30))
        return [span for span in self.spans if span.trace == trace_id]

    def until_there_are(self, count: int, name: str) -> list[Span]:
        """The first spans of this name."""
        while len(found := [span for span in self.spans if span.name == name]) < count:
            self.spans.append(self._arriving.get(timeout=30))
        return found[:count]


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        about = attributes_of(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                times = (span.start_time_unix_nano, span.end_time_unix_nano)
                yield Span(span.name, *ids, *times, attributes_of(span.attributes), str(about["service.name"]))


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, str | int]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in pairs}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield collector
    collector.http.shutdown()
    collector.http.server_close()
    thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, collector: Collector) -> Iterator[Server]:
    """A service that traces; its spans are sent at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=evidence")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        server = Server(tmp_path_factory.mktemp("traced"), tiny_checkpoint, prefix=["env"], log_format="json")
    yield server
    server.kill()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
        add(client, "Ana signed the lease.\n\nBruno kept bees.", id="letters", chunking={"mode": "paragraphs"})
        yield client


def trace_of(answer: httpx.Response) -> str:
    """The id that the service says the request's trace has."""
    found = re.fullmatch(r"00-([0-9a-f]{32})-[0-9a-f]{16}-0[13]", answer.headers["traceresponse"])
    assert found, answer.headers
    return found[1]


def test_a_retrieval_shows_its_phases_inside_the_callers_trace(client: httpx.Client, collector: Collector) -> None:
    body = {"question": "Who signed?", "max_steps": 2, "stop": {"rule": "budget"}}
    answer = client.post("/retrieve", json=body, headers={"traceparent": CALLER})
    _, trace_id, caller, _ = CALLER.split("-")
    assert trace_of(answer) == trace_id
    spans = collector.until("POST /retrieve", trace_id)
    (request,) = [span for span in spans if span.name == "POST /retrieve"]
    assert request.parent == caller
    assert request.id in answer.headers["traceresponse"]
    assert request.service == "evidence"
    inside = sorted((span for span in spans if span != request), key=lambda span: (span.ended, span.began))
    assert [span.name for span in inside] == ["tokenize", "queue", "encode", "search", "encode", "search"]
    assert {span.parent for span in inside} == {request.id}
    assert [span.attributes.get("qrag.step") for span in inside] == [None, None, 0, 0, 1, 1]
    assert inside[2].attributes["qrag.batch_states"] == 1
    for before, after in pairwise(inside[1:]):
        assert request.began <= before.began <= before.ended <= request.ended
        # One clock is read for the beginning of the next phase, another for the end of the last.
        assert after.began == pytest.approx(before.ended, abs=50_000_000)
    facts = {"http.request.method": "POST", "http.route": "/retrieve", "http.response.status_code": 200}
    assert request.attributes.items() >= facts.items()


def test_a_streamed_retrieval_is_traced_to_its_end(client: httpx.Client, collector: Collector) -> None:
    body = {"question": "Who kept bees?", "max_steps": 2, "stop": {"rule": "budget"}}
    with client.stream("POST", "/retrieve", json=body, headers=STREAM) as answer:
        steps = sum(line == "event: step" for line in answer.iter_lines())
    spans = collector.until("POST /retrieve", trace_of(answer))
    assert [span.name for span in spans].count("search") == steps == 2


def test_requests_that_fail_are_named_by_route_and_probes_are_left_out(
    client: httpx.Client, collector: Collector
) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert "traceresponse" not in client.get(path).headers
    missing, nowhere = client.get("/documents/nobody"), client.get("/nowhere")
    problem(missing, 404, "unknown_document")
    (span,) = collector.until("GET /documents/{id}", trace_of(missing))
    assert (span.parent, span.attributes["http.response.status_code"]) == ("", 404)
    collector.until("GET", trace_of(nowhere))
    assert not [span for span in collector.spans if re.search("healthz|readyz|metrics|nobody", span.name)]


def test_a_round_of_indexing_is_a_trace_of_its_own(client: httpx.Client, collector: Collector) -> None:
    add(client, "One.\n\nTwo.\n\nThree.", chunking={"mode": "paragraphs"})
    rounds = collector.until_there_are(2, "index")  # the first is the fixture's
    assert [span.parent for span in rounds] == ["", ""]
    assert [span.attributes["qrag.documents"] for span in rounds] == [1, 1]
    assert [span.attributes["qrag.chunks"] for span in rounds] == [2, 3]
    assert [span.attributes["qrag.failed"] for span in rounds] == [0, 0]


def test_the_python_client_passes_on_the_trace_that_its_program_is_in(
    client: httpx.Client, collector: Collector
) -> None:
    caller = SpanContext(0x1234, 0x5678, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    with Client(str(client.base_url)) as qrag, trace.use_span(NonRecordingSpan(caller)):
        qrag.model()
    (span,) = collector.until("GET /model", f"{0x1234:032x}")
    assert span.parent == f"{0x5678:016x}"


def test_log_lines_say_which_trace_they_belong_to_and_the_last_spans_are_sent_at_the_end(
    server: Server, client: httpx.Client, collector: Collector
) -> None:
    answer = client.get("/model", headers={"X-Request-ID": "the-last"})
    server.process.send_signal(signal.SIGTERM)
    status, log = server.exit()
    assert status == 0
    line, *_ = [line for line in map(json.loads, log.splitlines()) if line["request_id"] == "the-last"]
    (span,) = collector.until("GET /model", trace_of(answer))
    assert (line["trace_id"], line["span_id"]) == (span.trace, span.id)


def test_without_a_collector_there_are_no_traces(shared_client: httpx.Client) -> None:
    answer = shared_client.get("/model", headers={"traceparent": CALLER})
    assert answer.status_code == 200
    assert "traceresponse" not in answer.headers


def test_without_the_extra_there_are_no_traces_and_the_log_says_why(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['opentelemetry.sdk.trace'] = None")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
        server = Server(tmp_path / "data", tiny_checkpoint, prefix=["env"])
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            assert "traceresponse" not in client.get("/model", headers={"traceparent": CALLER}).headers
    finally:
        server.kill()
    assert re.search("WARNING .*opentelemetry", "".join(server.log))
