"""A program that traces takes its trace along to the service; one without OpenTelemetry needs none."""

from __future__ import annotations

import subprocess
import sys

from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from qrag.wire import examples
from tests.client.clients import Connect
from tests.service.scripted import answer, scripted

TRACE_ID, SPAN_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331

WITHOUT = """
import sys

sys.modules["opentelemetry"] = None  # as where it is not installed

from qrag import Client

print(Client(sys.argv[1]).document("d").id)
"""


def test_the_service_joins_the_trace_of_the_program(connect: Connect) -> None:
    span = NonRecordingSpan(SpanContext(TRACE_ID, SPAN_ID, is_remote=False, trace_flags=TraceFlags(1)))
    with scripted([answer(200, examples.DOCUMENT)]) as server:
        token = context.attach(trace.set_span_in_context(span))
        try:
            connect(server.url).document("d")
        finally:
            context.detach(token)
    assert server.requests[0].headers["traceparent"] == f"00-{TRACE_ID:032x}-{SPAN_ID:016x}-01"


def test_a_program_without_a_trace_sends_none(connect: Connect) -> None:
    with scripted([answer(200, examples.DOCUMENT)]) as server:
        connect(server.url).document("d")
    assert "traceparent" not in server.requests[0].headers


def test_nothing_is_sent_where_opentelemetry_is_not_installed() -> None:
    with scripted([answer(200, examples.DOCUMENT)]) as server:
        command = [sys.executable, "-c", WITHOUT, server.url]
        printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert printed == f"{examples.DOCUMENT['id']}\n"
    assert "traceparent" not in server.requests[0].headers
