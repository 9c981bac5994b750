"""Vector store search and models for OpenAI's clients, with ``base_url`` set to ours and ``/v1``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from qrag.wire.asking.vector_stores import SearchIn, SearchPage, ServedModel, ServedModels
from qrag.wire.names import CollectionName
from service.errors import UnknownCheckpoint
from service.http.dependencies import AppServices, RequestAccess, known_query, must_be_json, unless_gone
from service.http.problems import responses
from service.http.rights import needs
from service.openai.vector_stores import search, served_model

router = APIRouter(dependencies=[Depends(known_query)])


@router.post(
    "/v1/vector_stores/{id}/search",
    dependencies=[Depends(must_be_json)],
    responses=responses(400, 404, 409, 413, 415, 422, 503),
    summary="Search as OpenAI's clients do",
    tags=["retrieval"],
)
@needs("read")
async def search_vector_store(
    request: Request,
    id: Annotated[CollectionName, Path(description="the collection")],
    body: SearchIn,
    services: AppServices,
    access: RequestAccess,
) -> SearchPage:
    """The same episode as `POST /retrieve`, in the schema of OpenAI's vector store search."""
    return await unless_gone(request, search(id, body, services, access))


@router.get(
    "/v1/models", responses=responses(422), summary="Models as OpenAI's clients ask for them", tags=["operations"]
)
@needs("read")
async def models(services: AppServices) -> ServedModels:
    """The served checkpoint, for clients that ask when they start."""
    return ServedModels(data=[served_model(services)])


@router.get(
    "/v1/models/{id}", responses=responses(404, 422), summary="One model as OpenAI's clients ask", tags=["operations"]
)
@needs("read")
async def model_as_openai_has_it(
    services: AppServices, id: Annotated[str, Path(max_length=255, description="name of the checkpoint")]
) -> ServedModel:
    """The served checkpoint, where this is its name."""
    served = served_model(services)
    if id != served.id:
        raise UnknownCheckpoint(f"There is no model {id!r} here. Served is {served.id!r}; GET /model says more.")
    return served
