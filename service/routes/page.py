"""The page at ``/``: static files that are read once, and nothing that is not one of them."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Header, Request, Response
from starlette.exceptions import HTTPException

from service.http.rights import needs, route_path

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parent.parent / "page"

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "Cache-Control": "no-cache",  # kept, but asked for again: files of two versions do not mix
}


class _File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


def _read() -> Iterator[tuple[str, _File]]:
    for path in _FOLDER.iterdir():
        if path.suffix in _MEDIA_TYPES:
            content = path.read_bytes()
            file = _File(content, _MEDIA_TYPES[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')
            yield "/" if path.name == "index.html" else f"/page/{path.name}", file


_FILES = dict(_read())


@needs("open")
async def page(request: Request, if_none_match: Annotated[str, Header()] = "") -> Response:
    """The page, or a file that it consists of."""
    file = _FILES.get(route_path(request.scope))
    if file is None:
        raise HTTPException(404)
    headers = {**_HEADERS, "ETag": file.etag}
    if file.etag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


for _path in _FILES:  # a route for each: what is no file is no open path
    router.add_api_route(_path, page)
