"""The exceptions of the client: one tree.

::

    QRagClientError
    ├── Unreachable          nothing answers, or the connection broke
    ├── UnexpectedAnswer     the answer is not one of this service
    ├── UnknownFileType      the name of a file does not say how to read it
    ├── FileChanged          a file got shorter while it was sent
    ├── IndexingFailed       documents are stored, but cannot be searched
    └── ApiError             the service refused: status, code, title, detail, errors, request_id
        ├── InvalidRequest   400, 413, 415, 422
        ├── Unauthorized     401
        ├── Forbidden        403
        ├── NotFound         404
        ├── Conflict         409
        ├── Overloaded       429, 503
        ├── StorageFull      507
        └── ServerError      500 and every other 5xx
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx
from pydantic import JsonValue, ValidationError

from qrag.wire.documents import DocumentOut
from qrag.wire.models import Problem


class QRagClientError(Exception):
    """Base of the exceptions that the client raises on purpose; the message says what to do."""


class Unreachable(QRagClientError):
    """Nothing answers at the address, or the connection broke before the answer was complete."""


class UnexpectedAnswer(QRagClientError):
    """The answer is not one of this service, or of another version of it."""


class UnknownFileType(QRagClientError):
    """The name of a file does not say how to read it."""


class FileChanged(QRagClientError):
    """A file got shorter while it was sent."""


def not_searchable(document: DocumentOut) -> str:
    """Why a document, or its new content, cannot be searched."""
    if document.replacement is None:
        return f"stored, but not searchable. {document.error}"
    return f"the new content is stored, but not searchable; the former still is. {document.replacement.error}"


class IndexingFailed(QRagClientError):
    """Documents, or their new content, are stored but cannot be searched (yet).

    ``documents`` has them, each with its ``error`` or that of its ``replacement``.
    """

    def __init__(self, documents: Sequence[DocumentOut]) -> None:
        self.documents = list(documents)
        super().__init__(" ".join(f"Document {entry.id!r}: {not_searchable(entry)}" for entry in documents))


class ApiError(QRagClientError):
    """The service refused a request. ``detail`` says why and what to do, ``code`` is stable."""

    def __init__(self, problem: Problem, *, request_id: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(problem.detail)
        self.status: int = problem.status
        self.code: str = problem.code
        self.title: str = problem.title
        self.detail: str = problem.detail
        self.errors: list[dict[str, JsonValue]] = problem.errors or []
        """Where a request is invalid, and why."""
        self.request_id: str | None = request_id
        """The id of this request in the service's log."""
        self.retry_after: float | None = retry_after
        """Seconds to wait before the next attempt, where the service named them."""


class InvalidRequest(ApiError):
    """The service does not accept such a request, or cannot read the document."""


class Unauthorized(ApiError):
    """The API key is missing or unknown to the service."""


class Forbidden(ApiError):
    """The API key does not grant this right."""


class NotFound(ApiError):
    """There is no such document, chunk, feedback, question or collection."""


class Conflict(ApiError):
    """The id belongs to other content, or documents were deleted while the request needed them."""


class Overloaded(ApiError):
    """The service has too much to do, or is not ready, or is shutting down."""


class StorageFull(ApiError):
    """The disk of the service is full."""


class ServerError(ApiError):
    """The service, or a proxy before it, failed."""


_KINDS: dict[int, type[ApiError]] = {
    **dict.fromkeys((400, 413, 415, 422), InvalidRequest),
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    **dict.fromkeys((429, 503), Overloaded),
    507: StorageFull,
}


def refusal(problem: Problem, *, request_id: str | None = None, retry_after: float | None = None) -> ApiError:
    """The exception for a problem."""
    kind = _KINDS.get(problem.status, ServerError if problem.status >= 500 else ApiError)
    return kind(problem, request_id=request_id, retry_after=retry_after)


def refused(response: httpx.Response) -> ApiError:
    """The exception for a response that is no success; a response without a problem is taken for a proxy's."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        problem = Problem(
            type="about:blank",
            title=response.reason_phrase,
            status=response.status_code,
            code="http_error",
            detail=f"{response.url} answered {response.status_code} {response.reason_phrase}, not in the words of this "
            "service. Is it the service's address, or is a proxy in between?",
        )
    retry_after = response.headers.get("Retry-After", "")
    return refusal(
        problem,
        request_id=response.headers.get("X-Request-ID"),
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )


def unreachable(error: httpx.RequestError, base_url: str) -> Unreachable:
    """The exception for a request that got no response; its message says what to do."""
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Unreachable(
            f"Nothing answers at {base_url} ({reason}). Start the service with `qrag-serve`, or give its address."
        )
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(f"{base_url} did not answer in time. It is busy, or give it more time with `timeout`.")
    return Unreachable(f"The connection to {base_url} broke ({reason}). Is the service still running? Try again.")
