"""The events of a streamed retrieval, assembled from the pieces in which they arrive."""

from __future__ import annotations

from collections.abc import Iterator

from qrag.client.errors import Unreachable, refusal
from qrag.wire.models import Problem
from qrag.wire.retrieval import RetrieveOut, StepEvent

Event = StepEvent | RetrieveOut


class EventReader:
    """A parser of server-sent events.

    Only a line feed ends a line: JSON strings may hold the other line ends unescaped.
    """

    def __init__(self, request_id: str | None) -> None:
        self._request_id = request_id
        self._rest = b""
        self._ended = False

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that this piece completes.

        Raises :class:`~qrag.client.errors.ApiError` for an error event, and :class:`ValueError` for an event that the
        service does not send.
        """
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        for block in blocks:
            if block.startswith(b":"):
                continue  # a comment, which keeps the connection alive
            lines = dict(line.split(b": ", 1) for line in block.split(b"\n"))
            name, data = lines.get(b"event"), lines.get(b"data", b"")
            if name == b"error":
                raise refusal(Problem.model_validate_json(data), request_id=self._request_id)
            self._ended = name == b"result"
            yield RetrieveOut.model_validate_json(data) if self._ended else StepEvent.model_validate_json(data)

    def end(self) -> None:
        """Note the end of the stream. Raises :class:`~qrag.client.errors.Unreachable` if the result is missing."""
        if not self._ended:
            raise Unreachable("The connection broke before the result. Is the service still running? Ask again.")
