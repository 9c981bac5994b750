"""What routes need of the application and of the connection."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError

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


async def known_query(request: Request) -> None:
    """Refuse query parameters that the operation does not have: a misspelt one would be ignored."""
    parameters = _operations(request)[request.method.lower()].get("parameters", [])
    known = {parameter["name"] for parameter in parameters if parameter["in"] == "query"}
    for name in request.query_params:
        if name not in known:
            message = f"Unknown parameter. Known here: {', '.join(sorted(known)) or 'none'}"
            raise RequestValidationError([{"type": "extra_forbidden", "loc": ("query", name), "msg": message}])


def allowed_methods(request: Request) -> list[str]:
    """The methods that the requested path has."""
    methods = {method.upper() for method in _operations(request)}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _operations(request: Request) -> dict[str, Any]:
    """The operations of the requested path by method, as OpenAPI describes them."""
    path = getattr(request.scope.get("route"), "path", None)
    operations: dict[str, Any] = request.app.openapi()["paths"].get(path, {})
    return operations


async def client_gone(request: Request) -> None:
    """Return when the client has closed the connection; the request's body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
