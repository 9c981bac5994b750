"""The OpenAPI document: FastAPI's, with our problems, the models of hand-written parts, and what the gate refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from qrag.wire.models import Problem
from service.http import problems
from service.http.hosts import PROBE_PATHS
from service.http.rights import SAFE_METHODS, Rights

DESCRIPTION = """Multi-step retrieval from long documents for any language model.

Index documents with `POST /documents`, ask with `POST /retrieve`: the few chunks come back that together hold the
evidence. `POST /answer` lets a language model answer from them, `POST /feedback` says which chunks helped, and MCP
clients find tools at `/mcp`. Every error is `application/problem+json` with a stable `code`.
"""

_REFERENCE = "#/components/schemas/{model}"
_MODELS = "openapi_models"
_UNUSED = ("HTTPValidationError", "ValidationError")
"""The framework's own models of errors, which are problems here."""

Schema = dict[str, Any]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def refers_to(*models: type[BaseModel]) -> Callable[[Endpoint], Endpoint]:
    """A decorator of an endpoint: the hand-written parts of its description refer to these models."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _MODELS, models)
        return endpoint

    return declare


def openapi_document(app: FastAPI, rights: Rights, *, with_keys: bool) -> Schema:
    """The document of an application whose requests need keys, or need none."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, openapi_version="3.1.0"
    )
    endpoints = [route for route in iter_route_contexts(app.routes) if isinstance(route.original_route, APIRoute)]
    schemas: dict[str, Schema] = document["components"]["schemas"]
    hand_written = [model for route in endpoints for model in getattr(route.endpoint, _MODELS, ())]
    schemas |= _schemas([Problem, *hand_written])
    for unused in _UNUSED:
        schemas.pop(unused, None)
    for name, schema in _schemas([Problem, *hand_written, *_types(endpoints)]).items():
        if name in schemas and "examples" in schema:
            schemas[name]["examples"] = schema["examples"]  # the framework leaves out what is null in them
    schemas["Problem"]["properties"]["code"]["examples"] = sorted(problems.codes())
    if with_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for route in rights.routes:
        for method, operation in document["paths"].get(route.path, {}).items():
            if not route.takes(method.upper()):
                continue
            if with_keys and route.right != "open":
                operation["security"] = [{"key": []}]
                operation["responses"] |= problems.responses(401, 403)
            if not with_keys and route.path not in PROBE_PATHS:
                operation["responses"] |= problems.responses_without_keys(safe=method.upper() in SAFE_METHODS)
    return document


def _schemas(types: Iterable[Any]) -> dict[str, Schema]:
    """The JSON Schemas of models, and of those that they refer to, by name."""
    adapters: list[tuple[int, JsonSchemaMode, TypeAdapter[Any]]] = [
        (number, "validation", TypeAdapter(type_)) for number, type_ in enumerate(types)
    ]
    _, document = TypeAdapter.json_schemas(adapters, ref_template=_REFERENCE)
    schemas: dict[str, Schema] = document["$defs"]
    return schemas


def _types(endpoints: Iterable[Any]) -> Iterator[Any]:
    """The types of the bodies that endpoints take and give, as the framework knows them."""
    for route in endpoints:
        if route.body_field is not None:
            yield route.body_field.field_info.annotation
        for field in (route.response_field, *route.response_fields.values()):
            if field is not None:
                yield field.field_info.annotation
