"""The process's log: a line an event on standard error, with the id of the request that it belongs to."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Any, Literal

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from pythonjsonlogger.json import JsonFormatter

REQUEST_ID = ContextVar("request_id", default="-")
"""The id of the request that is being answered; the observer sets it."""

LogFormat = Literal["text", "json"]


def log_to_stderr(level: str, log_format: LogFormat) -> None:
    """Log to standard error, as lines of text or as JSON objects.

    An object has ``trace_id`` and ``span_id`` as well where the event belongs to a trace.
    """
    make = logging.getLogRecordFactory()

    def with_request_id(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        record.request_id = REQUEST_ID.get()
        span = get_current_span().get_span_context()
        if span.is_valid:
            record.trace_id = format_trace_id(span.trace_id)
            record.span_id = format_span_id(span.span_id)
        return record

    logging.setLogRecordFactory(with_request_id)
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "%(asctime)s %(levelname)s %(name)s %(request_id)s %(message)s",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(request_id)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for library in ("httpx", "mcp"):  # which tell every request once more
        logging.getLogger(library).setLevel(logging.WARNING)
