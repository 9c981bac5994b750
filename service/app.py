"""The FastAPI application over opened services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from anyio import to_thread
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp

from qrag.wire import answers
from qrag.wire import documents as wire_documents
from qrag.wire import operations as wire_operations
from qrag.wire import problems as wire_problems
from qrag.wire import retrieval as wire_retrieval
from qrag.wire import vector_stores as wire_vector_stores
from qrag.wire.answers import AnswerOut, TokenEvent
from qrag.wire.problems import Problem
from qrag.wire.retrieval import RetrieveOut, StepEvent
from service.http import problems
from service.http.gate import OPEN_PATHS, Gate
from service.mcp.server import PATH, McpRoute, mcp_endpoint
from service.observing.tracing import TELEMETRY
from service.routes import answering, checkpoints, documents, operations, page, retrieval, vector_stores
from service.services import Changes, Services

DESCRIPTION = """Multi-step retrieval from long documents for any language model.

Index documents with `POST /documents`, ask with `POST /retrieve`: the few chunks come back that together hold the
evidence. `POST /answer` lets a language model answer from them, and MCP clients find tools at `/mcp`. Every error is
`application/problem+json` with a stable `code`.
"""


def create_app(services: Services) -> FastAPI:
    """The application; it starts the services' threads with its lifespan and closes everything after it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.openapi()  # built once, before the first request needs it
        app.state.changes = Changes(services.storage.news)
        await to_thread.run_sync(services.start)
        async with mcp.run():
            yield
        if services.language_model is not None:
            await services.language_model.aclose()
        await to_thread.run_sync(services.close)

    app = FastAPI(
        title="Q-RAG",
        version=version("qrag-server"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=TELEMETRY,
    )
    app.state.services = services
    mcp = mcp_endpoint(services)
    for module in (documents, retrieval, answering, vector_stores, operations, checkpoints, page):
        app.include_router(module.router)
    app.router.routes.append(McpRoute(PATH, StreamableHTTPASGIApp(mcp), methods=["POST"], include_in_schema=False))
    problems.install(app)
    app.add_middleware(Gate, settings=services.settings, keys=services.keys)
    app.openapi = lambda: _openapi(app, services.keys.required)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI, with_keys: bool) -> dict[str, Any]:
    """FastAPI's document, with the models that hand-written parts refer to, and our problems for its own."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, openapi_version="3.1.0"
    )
    named: dict[str, dict[str, Any]] = document["components"]["schemas"]
    for model in (*documents.SCHEMAS, Problem, RetrieveOut, StepEvent, AnswerOut, TokenEvent):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        named.update(schema.pop("$defs", {}))
        named[model.__name__] = schema
    named["Problem"]["properties"]["code"]["examples"] = sorted(problems.codes())
    models = {
        name: model
        for module in (answers, wire_documents, wire_operations, wire_problems, wire_retrieval, wire_vector_stores)
        for name, model in vars(module).items()
    }
    for name, schema in named.items():
        if "examples" in schema:  # the framework has dropped what is null in them
            schema["examples"] = models[name].model_config["json_schema_extra"]["examples"]
    for unused in ("HTTPValidationError", "ValidationError"):
        named.pop(unused, None)
    if with_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations_ in document["paths"].items():
            for operation in operations_.values():
                if path not in OPEN_PATHS:
                    operation["security"] = [{"key": []}]
                    operation["responses"].update(problems.responses(401, 403))
    app.openapi_schema = document
    return document
