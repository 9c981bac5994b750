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


def record_span(name: str, began: float, parent: Context, *, ended: float | None = None, **attributes: int) -> None:
    """A span inside ``parent`` from ``began`` to ``ended``, by :func:`time.perf_counter`; by default it ends now."""
    now_ns, now = time.time_ns(), time.perf_counter()
    start_ns, end_ns = (now_ns - round(1e9 * (now - moment)) for moment in (began, now if ended is None else ended))
    named = {f"qrag.{attribute}": value for attribute, value in attributes.items()}
    TRACER.start_span(name, context=parent, start_time=start_ns, attributes=named).end(end_ns)


def trace_response(span: SpanContext) -> str:
    """Where a request is found among the traces, as OpenTelemetry's ``traceresponse`` header says it."""
    return f"00-{format_trace_id(span.trace_id)}-{format_span_id(span.span_id)}-{span.trace_flags:02x}"
