"""What operators see of the service: log lines, metrics and traces.

``observer`` is the outermost middleware: it gives each request an id, times it, and notes it in the log and in the
metrics. ``logs`` sets the log up, ``metrics`` holds the figures of ``/metrics``, and ``tracing`` records spans. The
engine records its spans here, so nothing here imports the engine: ``metrics`` describes what it watches by protocols.
"""
