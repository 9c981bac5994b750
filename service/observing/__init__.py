"""What operators see of the service: log lines, metrics and traces.

``observer`` is the outermost middleware: it gives each request an id, times it, and notes it in the log and in the
metrics. ``logs`` sets the log up, ``metrics`` holds the figures of ``/metrics``, ``tracing`` records
spans, and ``questions`` keeps what people ask, where the operator wants it. The
engine records its spans here, so nothing here imports the engine: ``metrics`` describes what it watches by protocols.
"""
