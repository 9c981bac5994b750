"""The REST calls of Qdrant that the product makes, answered from one shard of its engine a collection.

    python -m tests.engines.server FOLDER PORT

Port 0 is a free one. The port is printed once calls are taken.
What a call has acknowledged is in the shard's log on disk, so the process can be killed and started again on its
folder. Every other path is 404: a call that is not here is not one of Qdrant's that was tried.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from pydantic import BaseModel, TypeAdapter
from qdrant_client.http import models
from qdrant_client.http.exceptions import UnexpectedResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.engines.edge import EdgeClient

Answer = Callable[[EdgeClient, str, bytes], Any]
Body = TypeVar("Body", bound=BaseModel)

RESULT = TypeAdapter(Any)


def parsed(type_: type[Body], body: bytes) -> Body:
    return type_.model_validate_json(body)


def create(client: EdgeClient, name: str, body: bytes) -> bool:
    asked = parsed(models.CreateCollection, body)
    assert isinstance(asked.vectors, dict)
    return client.create_collection(name, asked.vectors, asked.sparse_vectors or {})


def index(client: EdgeClient, name: str, body: bytes) -> models.UpdateResult:
    asked = parsed(models.CreateFieldIndex, body)
    return client.create_payload_index(name, asked.field_name, models.PayloadSchemaType(asked.field_schema))


def upsert(client: EdgeClient, name: str, body: bytes) -> models.UpdateResult:
    return client.upsert(name, parsed(models.PointsList, body).points)


def delete(client: EdgeClient, name: str, body: bytes) -> models.UpdateResult:
    return client.delete(name, parsed(models.FilterSelector, body))


def retrieve(client: EdgeClient, name: str, body: bytes) -> list[models.Record]:
    asked = parsed(models.PointRequest, body)
    return client.retrieve(name, asked.ids, asked.with_payload, asked.with_vector)


def scroll(client: EdgeClient, name: str, body: bytes) -> models.ScrollResult:
    asked = parsed(models.ScrollRequest, body)
    records, following = client.scroll(
        name, asked.filter, asked.limit or 10, asked.offset, asked.with_payload, asked.with_vector
    )
    return models.ScrollResult(points=records, next_page_offset=following)


def query(client: EdgeClient, name: str, body: bytes) -> list[models.QueryResponse]:
    return client.query_batch_points(name, parsed(models.QueryRequestBatch, body).searches)


CALLS: dict[tuple[str, str], Answer] = {
    ("GET", "/collections"): lambda client, _, __: client.get_collections(),
    ("GET", "/collections/{name}/exists"): lambda client, name, _: {"exists": client.collection_exists(name)},
    ("PUT", "/collections/{name}"): create,
    ("DELETE", "/collections/{name}"): lambda client, name, _: client.delete_collection(name),
    ("PUT", "/collections/{name}/index"): index,
    ("PUT", "/collections/{name}/points"): upsert,
    ("POST", "/collections/{name}/points"): retrieve,
    ("POST", "/collections/{name}/points/delete"): delete,
    ("POST", "/collections/{name}/points/scroll"): scroll,
    ("POST", "/collections/{name}/points/query/batch"): query,
}


def endpoint(client: EdgeClient, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        try:
            result = answer(client, request.path_params.get("name", ""), await request.body())
        except UnexpectedResponse as error:
            return Response(error.content, status_code=error.status_code or 500)
        content = RESULT.dump_json({"result": result, "status": "ok", "time": 0.0})
        return Response(content, media_type="application/json")

    return respond


def main(directory: Path, port: int) -> None:
    client = EdgeClient(directory)
    routes = [Route(path, endpoint(client, answer), methods=[method]) for (method, path), answer in CALLS.items()]
    with socket.create_server(("127.0.0.1", port)) as listening:
        print(listening.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="warning")).run([listening])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
