"""The one place where an exception becomes a response: RFC 9457 problem+json."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from index.errors import (
    DiskFull,
    DocumentExists,
    QRagError,
    QueueFull,
    StorageUnavailable,
    UnknownCollection,
    UnknownDocument,
    UnknownFeedback,
    UnknownQuestion,
)
from qrag.wire.models import Problem
from service.errors import InvalidJson, ServiceError, UnsupportedEncoding
from service.http.dependencies import allowed_methods
from service.http.unpacking import READ_ENCODINGS

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
QUEUE_FULL_RETRY_SECONDS = 10
UNAVAILABLE_RETRY_SECONDS = 5

_INDEX_ERRORS: dict[type[QRagError], tuple[int, str, str, int | None]] = {
    UnknownDocument: (404, "unknown_document", "Unknown document", None),
    UnknownCollection: (404, "unknown_collection", "Unknown collection", None),
    UnknownFeedback: (404, "unknown_feedback", "Unknown feedback", None),
    UnknownQuestion: (404, "unknown_question", "Unknown question", None),
    DocumentExists: (409, "document_conflict", "Document exists with other content", None),
    QueueFull: (429, "queue_full", "Indexing queue is full", QUEUE_FULL_RETRY_SECONDS),
    DiskFull: (507, "storage_full", "Storage is full", None),
    StorageUnavailable: (503, "storage_unavailable", "Storage is unavailable", UNAVAILABLE_RETRY_SECONDS),
}

_NOTHING_HERE = (
    "There is nothing at this path. GET /openapi.json lists what there is. Where a proxy serves this below a path of "
    "its own and passes that on, set QRAG_ROOT_PATH."
)

_HTTP_ERRORS = {
    400: ("invalid_json", "Invalid JSON", "The body is not valid JSON in UTF-8. Check its encoding and brackets."),
    404: ("not_found", "Not found", _NOTHING_HERE),
    405: ("method_not_allowed", "Method not allowed", "This path has other methods: see the Allow header."),
}


def codes() -> dict[str, int]:
    """The code of every problem that is foreseen, with its status."""
    refused = {kind.code: kind.status for kind in _kinds(ServiceError)}
    refused |= {code: status for status, code, _, _ in _INDEX_ERRORS.values()}
    refused |= {code: status for status, (code, _, _) in _HTTP_ERRORS.items()}
    return refused | {"validation_error": 422}


def _kinds(error: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield error
    for kind in error.__subclasses__():
        yield from _kinds(kind)


def problem_of(error: Exception) -> tuple[Problem, dict[str, str]]:
    """The problem that describes an exception, and the headers that go with it."""
    headers: dict[str, str] = {}
    if isinstance(error, ServiceError):
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if isinstance(error, UnsupportedEncoding):
            headers["Accept-Encoding"] = READ_ENCODINGS
        return _problem(error.status, error.code, error.title, error.detail), headers
    for kind, (status, code, title, retry_after) in _INDEX_ERRORS.items():
        if isinstance(error, kind):
            if retry_after is not None:
                headers["Retry-After"] = str(retry_after)
            return _problem(status, code, title, str(error)), headers
    if isinstance(error, ValidationError):
        return _validation_problem(error.errors(include_url=False, include_input=False)), headers
    if isinstance(error, RequestValidationError):
        return _validation_problem(error.errors()), headers
    if isinstance(error, HTTPException):
        if isinstance(error.__cause__, ServiceError):
            return problem_of(error.__cause__)  # raised while the framework read the body
        code, title, detail = _HTTP_ERRORS.get(error.status_code, ("http_error", "Request failed", str(error.detail)))
        return _problem(error.status_code, code, title, detail), dict(error.headers or {})
    if isinstance(error, OSError) and error.errno in (28, 122):  # ENOSPC, EDQUOT
        return problem_of(DiskFull("The disk of the service is full. Free some space, then try again."))
    log.exception("unexpected error", exc_info=error)
    detail = "Something unexpected went wrong; the server's log has the details. Trying again may help."
    return _problem(500, "internal_error", "Internal error", detail), headers


def problem_response(error: Exception) -> JSONResponse:
    """The response that describes an exception."""
    problem, headers = problem_of(error)
    return JSONResponse(
        problem.model_dump(mode="json", exclude_none=True), problem.status, headers, media_type=MEDIA_TYPE
    )


def install(app: FastAPI) -> None:
    """Answer every exception of the application with a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=499)  # nobody will read it
        response = problem_response(error)
        if response.status_code == 405 and (methods := allowed_methods(request)):
            response.headers["Allow"] = ", ".join(methods)  # the framework names those of one route only
        return response

    known = (ServiceError, QRagError, RequestValidationError, ValidationError, HTTPException, OSError, ClientDisconnect)
    for kind in (*known, Exception):
        app.add_exception_handler(kind, handle)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI descriptions of the problems that a route may answer with."""
    return {status: _described(status, *_EXAMPLES[status]) for status in statuses}


def responses_without_keys(*, safe: bool) -> dict[int | str, dict[str, Any]]:
    """OpenAPI descriptions of what a service without keys refuses, of safe methods or of others."""
    return responses(421) if safe else {403: _described(403, *_CROSS_SITE), **responses(421)}


def _described(status: int, description: str, code: str, title: str, detail: str) -> dict[str, Any]:
    example = _problem(status, code, title, detail).model_dump(mode="json", exclude_none=True)
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    return {"description": description, "content": {MEDIA_TYPE: content}}


_CROSS_SITE = (
    "A web page of another site has sent this",
    *("cross_site_request", "Sent by another site", "Use the service's own page, or a program."),
)

_EXAMPLES = {
    400: (
        "The request is malformed",
        *("invalid_json", "Invalid JSON", "The body is not valid JSON: expected value at line 1 column 9."),
    ),
    401: (
        "No valid API key",
        *("unauthorized", "Authentication required", "Send a valid key: Authorization: Bearer KEY."),
    ),
    403: (
        "The API key is for other operations or collections",
        *("forbidden", "The API key does not allow this", "This key may read only. Use one that may write."),
    ),
    404: (
        "No such document or collection",
        *("unknown_document", "Unknown document", "There is no document 'minutes'."),
    ),
    409: (
        "The id exists with other content, or documents went meanwhile",
        *("document_conflict", "Document exists with other content", "Document 'minutes' exists with other content."),
    ),
    413: (
        "The body is too large",
        *("body_too_large", "Body too large", "The body may have at most 134217728 bytes. Send less at once."),
    ),
    415: (
        "The body is of an unsupported type",
        *("unsupported_media_type", "Unsupported media type", "The charset 'x' is not known here."),
    ),
    421: (
        "The service is addressed by a name that is not its own",
        *("misdirected_request", "Not this service's name", "Use localhost, or add the name to QRAG_ALLOWED_HOSTS."),
    ),
    422: (
        "A value is invalid, or the document cannot be read",
        *("document_encrypted", "Document is encrypted", "The PDF file needs a password."),
    ),
    429: (
        "The indexing queue is full; see Retry-After",
        *("queue_full", "Indexing queue is full", "At most 10000 documents may wait to be indexed."),
    ),
    500: (
        "The document could not be indexed",
        *("indexing_failed", "Indexing failed", "Document 'minutes' is stored but not indexed."),
    ),
    501: (
        "No language model is configured",
        *("no_language_model", "No language model is configured", "Set LLM_BASE_URL and LLM_MODEL, and start again."),
    ),
    502: (
        "The language model cannot be reached, refuses, or answers with nonsense",
        *("language_model_failed", "The language model failed", "The language model's endpoint cannot be reached."),
    ),
    503: (
        "Overloaded or shutting down; see Retry-After",
        *("overloaded", "Service is overloaded", "Too many retrievals are waiting. Try again in a second."),
    ),
    504: (
        "The language model took too long",
        *("language_model_too_slow", "The language model is too slow", "No answer came within 300 seconds."),
    ),
    507: (
        "The disk is full",
        *("storage_full", "Storage is full", "The disk of the service is nearly full. Delete documents."),
    ),
}


def _problem(status: int, code: str, title: str, detail: str) -> Problem:
    return Problem(type="about:blank", title=title, status=status, code=code, detail=detail, errors=None)


def _validation_problem(errors: Any) -> Problem:
    details: list[ErrorDetails] = list(errors)
    where = [
        {"at": ".".join(str(part) for part in error["loc"]), "message": error["msg"], "kind": error["type"]}
        for error in details[:20]
    ]
    syntax = next((error for error in details if error["type"] == "json_invalid"), None)
    if syntax is not None:
        reason, at = syntax["ctx"]["error"], syntax["loc"][-1]
        return problem_of(InvalidJson(f"The body is not valid JSON: {reason} at character {at}."))[0]
    first = where[0]
    detail = f"{first['at']}: {first['message']}" if first["at"] else first["message"]
    return Problem(
        type="about:blank",
        title="Invalid request",
        status=422,
        code="validation_error",
        detail=f"{detail}. GET /openapi.json has the schema and examples.",
        errors=where,
    )
