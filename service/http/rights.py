"""The right that each route needs: it stands at the route, and the gate looks it up here.

::

    @router.delete("/documents/{id}")
    @needs("write")
    def delete_document(...): ...

An application with a route that says nothing is refused when it is made. MCP tools have a right of their own beside
that of ``/mcp`` (:class:`service.mcp.tools.Tool`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from service.errors import RightMissing
from service.keys import Right

RouteRight = Right | Literal["open"]
"""What a route needs of the key: a right, or ``open``, no key at all."""

RIGHTS: frozenset[str] = frozenset((*get_args(Right), "open"))

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing."""

ADMIN_PREFIX = "/admin/"
"""The paths of which administrators alone are told that nothing is there."""

_ATTRIBUTE = "needed_right"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def needs(right: RouteRight) -> Callable[[Endpoint], Endpoint]:
    """A decorator of an endpoint: its routes need this right."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ATTRIBUTE, right)
        return endpoint

    return declare


def route_path(scope: Scope) -> str:
    """The path of a request as routes have it: without the prefix under which a proxy serves them."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


@dataclass(frozen=True, slots=True)
class GuardedRoute:
    """A route as the gate sees it."""

    path: str
    """The path's template, as in OpenAPI."""
    pattern: re.Pattern[str]
    methods: frozenset[str] | None
    """None: all methods."""
    right: RouteRight

    def takes(self, method: str) -> bool:
        """Whether the route answers to the method."""
        return self.methods is None or method in self.methods

    @property
    def only_reads(self) -> bool:
        """Whether the route answers to safe methods alone."""
        return self.methods is not None and self.methods <= SAFE_METHODS


class Rights:
    """The rights of an application's routes.

    Raises :class:`~service.errors.RightMissing` where a route has none.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self.routes = tuple(_guarded(routes))

    def needed(self, method: str, path: str) -> RouteRight:
        """The right that a request needs.

        Where no route has the path, or none the method, a request needs what others there need, or else what its method
        says: 404 and 405 are told to those alone who may ask there.
        """
        here = [route for route in self.routes if route.pattern.match(path)]
        for route in here:
            if route.takes(method):
                return route.right
        if any(route.right == "open" for route in here):
            return "open"
        if path.startswith(ADMIN_PREFIX):
            return "admin"
        posted = {route.right for route in here if not route.only_reads}
        return "read" if method in SAFE_METHODS or "read" in posted else "write"


def _guarded(routes: Sequence[BaseRoute]) -> Iterator[GuardedRoute]:
    for route in iter_route_contexts(routes):
        # WebSockets and mounted applications would pass the gate, whatever they say.
        right = getattr(route.endpoint, _ATTRIBUTE, None) if isinstance(route.original_route, Route) else None
        if right not in RIGHTS:
            raise RightMissing(
                f"The route {route.path or route.original_route} does not say which right it needs. Put "
                f"@needs(...) at its endpoint, with one of {', '.join(sorted(RIGHTS))}."
            )
        methods = None if route.methods is None else frozenset(route.methods)
        yield GuardedRoute(route.path_format or "", route.path_regex, methods, right)
