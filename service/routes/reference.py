"""The reference, ``/openapi.json`` and ``/docs``: Swagger UI from files of this service, which needs no internet."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException

from service.http.rights import needs

router = APIRouter(include_in_schema=False)

_FILES: Final = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon.png": "image/png",
}
"""The files of the distribution fastapi-offline that the page is made of, by their media types."""


@router.get("/openapi.json")
@needs("open")
def openapi(request: Request) -> Response:
    """The OpenAPI document, made when it is first asked for, in a thread: half a second that no start waits for."""
    document = request.app.openapi()
    if prefix := request.scope.get("root_path", ""):
        document = document | {"servers": [{"url": prefix}]}
    return JSONResponse(document)


@router.get("/docs")
@needs("open")
def reference() -> Response:
    """The page. Its addresses are relative: a proxy may serve it below a path of its own."""
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Q-RAG",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
    )


@router.get("/docs/")
@needs("open")
def reference_with_a_slash() -> Response:
    """The way to the page, whose addresses would be wrong here."""
    return RedirectResponse("../docs", 308)


@router.get("/docs/{name}")
@needs("open")
def reference_file(name: str) -> Response:
    """A file of the page."""
    if name not in _FILES:
        raise HTTPException(404)
    return Response(_content(name), media_type=_FILES[name], headers={"Cache-Control": "max-age=86400"})


@cache
def _content(name: str) -> bytes:
    return (files("fastapi_offline") / "static" / name).read_bytes()
