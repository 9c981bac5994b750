"""The FastAPI application over opened services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, FastAPI
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from starlette.middleware.cors import CORSMiddleware

from service.http import problems
from service.http.forwarding import ForwardedAddress, check_root_path
from service.http.gate import Gate
from service.http.rights import Rights, needs
from service.mcp.server import PATH, McpRoute, mcp_endpoint
from service.mcp.tools import TOOLS, Tool
from service.observing.tracing import TELEMETRY
from service.openapi import DESCRIPTION, openapi_document
from service.routes import ROUTERS
from service.services import Changes, Services


def create_app(
    services: Services, routers: Sequence[APIRouter] = ROUTERS, tools: Mapping[str, Tool] = TOOLS
) -> FastAPI:
    """The application; it starts the services' threads with its lifespan and closes everything after it.

    Raises :class:`~service.errors.RightMissing` where a route or a tool does not say which right it needs, and
    :class:`~service.errors.ConfigurationError` where a route has the path below which everything should be.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services.keys.refresh()  # a file that is gone before the first request lets nobody in
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
        openapi_url=None,  # these three are in service.routes.reference; theirs would load files from the internet
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=TELEMETRY,
    )
    app.state.services = services
    mcp = mcp_endpoint(services, tools)
    for router in routers:
        app.include_router(router)
    endpoint = needs("read")(StreamableHTTPASGIApp(mcp))
    app.router.routes.append(McpRoute(PATH, endpoint, methods=["POST"], include_in_schema=False))
    problems.install(app)
    rights = Rights(app.routes)
    check_root_path(services.settings.root_path, rights)
    app.add_middleware(Gate, settings=services.settings, keys=services.keys, rights=rights)
    if services.settings.cors_origins:  # outside the gate: a preflight has no key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=services.settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After", "Server-Timing", "X-Request-ID"],
        )
    app.add_middleware(ForwardedAddress, settings=services.settings)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi_document(app, rights, with_keys=services.keys.required)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app
