"""OpenTelemetry traces: a span for each request, for the phases of its retrieval, and for each round of indexing.

FastAPI makes the spans of requests, takes up the caller's trace (W3C ``traceparent``) and sends everything to the
collector that OpenTelemetry's own environment variables name. Without these, or without the extra ``otel``, nothing
here does anything.
"""

from __future__ import annotations

import time
from importlib.metadata import version

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, format_span_id, format_trace_id

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines: of no interest in traces, nor in the log at its usual level."""

TELEMETRY: TelemetryConfig = {
    "auto_configure": True,
    "exclude": lambda scope: scope["path"] in PROBES,
    "operation_spans": False,  # of the framework's own steps
    "metrics": False,  # Prometheus has them
    "logs": False,  # would carry stack traces, which are on standard error
}

TRACER = trace.get_tracer("qrag", version("qrag-server"))


def record_span(name: str, began: float, parent: Context, **attributes: int) -> None:
    """A span inside ``parent`` of what began then, by :func:`time.perf_counter`, and ends now."""
    ended = time.time_ns()
    start = ended - round(1e9 * (time.perf_counter() - began))
    named = {f"qrag.{attribute}": value for attribute, value in attributes.items()}
    TRACER.start_span(name, context=parent, start_time=start, attributes=named).end(ended)


def trace_response(span: SpanContext) -> str:
    """Where a request is found among the traces, as OpenTelemetry's ``traceresponse`` header says it."""
    return f"00-{format_trace_id(span.trace_id)}-{format_span_id(span.span_id)}-{span.trace_flags:02x}"
