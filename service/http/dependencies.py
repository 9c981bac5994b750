"""What routes need of the application and of the connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from index.errors import UnknownDocument
from index.storage.documents import Document
from service.errors import UnsupportedMediaType
from service.keys import Access
from service.services import Services


async def _services(request: Request) -> Services:
    # Nothing here blocks, and a plain function would be sent to another thread for each request.
    services: Services = request.app.state.services
    return services


AppServices = Annotated[Services, Depends(_services)]


async def _access(request: Request) -> Access:
    access: Access = request.state.access
    return access


RequestAccess = Annotated[Access, Depends(_access)]

Cursor = Annotated[
    str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the page before", examples=["100"])
]

T = TypeVar("T")


def visible_document(services: Services, access: Access, id: str) -> Document:
    """The document, unless it is in a collection that the key is not for: then it is as if it was not there.

    Raises :class:`~index.errors.UnknownDocument`.
    """
    document = services.storage.catalogue.document(id)
    if not access.sees(document.collection):
        raise UnknownDocument(f"There is no document {id!r}.")
    return document


async def known_query(request: Request) -> None:
    """Refuse query parameters that the operation does not have: a misspelt one would be ignored."""
    known = set(query_parameters(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known:
            message = f"Unknown parameter. Known here: {', '.join(sorted(known)) or 'none'}"
            raise RequestValidationError([{"type": "extra_forbidden", "loc": ("query", name), "msg": message}])


async def must_be_json(request: Request) -> None:
    """Refuse a body that does not say that it is JSON."""
    if _media_type(request) != "application/json":
        raise UnsupportedMediaType("Send the body as JSON, with Content-Type: application/json.")


async def must_be_a_merge_patch(request: Request) -> None:
    """Refuse a body that says neither that it is a merge patch nor that it is JSON."""
    if _media_type(request) not in ("application/json", "application/merge-patch+json"):
        raise UnsupportedMediaType("Send the change as JSON, with Content-Type: application/merge-patch+json.")


def accepts(request: Request, media_type: str) -> bool:
    """Whether the client asks for this media type by its name."""
    for choice in ",".join(request.headers.getlist("accept")).split(","):
        name, *parameters = (part.strip().lower() for part in choice.split(";"))
        if name == media_type:
            return not any(re.fullmatch(r"q\s*=\s*0(?:\.0*)?", parameter) for parameter in parameters)
    return False


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def allowed_methods(request: Request) -> list[str]:
    """The methods that the requested path has."""
    path = getattr(request.scope.get("route"), "path", None)
    found = (route.methods for route in iter_route_contexts(request.app.routes) if route.path == path)
    methods = {method for some in found for method in some or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def query_parameters(dependant: Dependant) -> Iterator[str]:
    """The names of a route's query parameters, as the OpenAPI document has them, which takes far longer to make."""
    for parameter in dependant.query_params:
        kind = parameter.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from (field.alias or name for name, field in kind.model_fields.items())
        else:
            yield parameter.alias
    for each in dependant.dependencies:
        yield from query_parameters(each)


async def client_gone(request: Request) -> None:
    """Return when the client has closed the connection; the request's body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What comes of the work; it is dropped when the client closes the connection.

    Raises :class:`~starlette.requests.ClientDisconnect` then, and whatever the work raises.
    """
    gone = asyncio.create_task(client_gone(request))
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([gone, task], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
