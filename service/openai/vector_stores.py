"""OpenAI's vector store search, answered by episodes: a collection is a vector store, a document a file in it.

The served checkpoint is the one model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from qrag.wire.asking.vector_stores import (
    AttributeFilter,
    CompoundFilter,
    SearchIn,
    SearchPage,
    SearchResult,
    ServedModel,
    TextContent,
)
from qrag.wire.retrieval import MAX_STEPS, RetrieveIn, SelectedChunk
from service.keys import Access
from service.retrieval.session import find, prepare
from service.services import Services

MOST_ATTRIBUTES = 16
"""OpenAI's limit of the attributes of a file."""

ATTRIBUTE_CHARACTERS = 512
"""OpenAI's limit of the length of an attribute that is a text."""


def served_model(services: Services) -> ServedModel:
    """The checkpoint that answers."""
    return ServedModel(id=services.checkpoints.current.encoder.config.name)


async def search(collection: str, body: SearchIn, services: Services, access: Access) -> SearchPage:
    """Run an episode for each query; the page holds the chunks of all of them.

    Raises what :func:`service.retrieval.session.prepare` and :func:`service.retrieval.session.find` raise.
    """
    queries = [body.query] if isinstance(body.query, str) else body.query
    episodes = [asyncio.create_task(_chunks(query, collection, body, services, access)) for query in queries]
    try:
        selections = await asyncio.gather(*episodes)
    finally:
        for episode in episodes:  # where one has failed, the others would go on for nobody
            episode.cancel()
    results = [_result(chunk) for chunk in _distinct(chunk for selection in selections for chunk in selection)]
    relevant = [result for result in results if result.score >= (body.ranking_options.score_threshold or 0)]
    return SearchPage(search_query=queries, data=relevant[: body.max_num_results])


async def _chunks(
    query: str, collection: str, body: SearchIn, services: Services, access: Access
) -> list[SelectedChunk]:
    question = RetrieveIn.model_validate(
        {
            "question": query,
            "collection": collection,
            "filter": None if body.filters is None else metadata_filter(body.filters),
            "max_steps": min(body.max_num_results, MAX_STEPS),
        }
    )
    return (await find(await prepare(question, services, access))).chunks


def metadata_filter(attributes: AttributeFilter) -> dict[str, Any]:
    """The filter of :mod:`qrag.wire.filters`, as JSON, that matches the same documents."""
    if isinstance(attributes, CompoundFilter):
        return {attributes.type: [metadata_filter(member) for member in attributes.filters]}
    operator = {"eq": "equals", "ne": "equals", "nin": "in"}.get(attributes.type, attributes.type)
    condition = {"field": attributes.key, operator: attributes.value}
    return {"not": condition} if attributes.type in ("ne", "nin") else condition


def _distinct(chunks: Iterable[SelectedChunk]) -> list[SelectedChunk]:
    """Every chunk once, the largest Q-value first."""
    best: dict[tuple[str, int], SelectedChunk] = {}
    for chunk in sorted(chunks, key=lambda chunk: -chunk.q):
        best.setdefault((chunk.document_id, chunk.index), chunk)
    return list(best.values())


def _result(chunk: SelectedChunk) -> SearchResult:
    return SearchResult(
        file_id=chunk.document_id,
        filename=chunk.title or chunk.document_id,
        score=min(max(chunk.q, 0.0), 1.0),
        attributes=_attributes(chunk),
        content=[TextContent(text=chunk.text)],
    )


def _attributes(chunk: SelectedChunk) -> dict[str, str | bool | int | float]:
    """The metadata that are texts and numbers, then where the chunk stands, as far as there is room beside them."""
    attributes = {name: value for name, value in chunk.metadata.items() if isinstance(value, str | float | int)}
    location = chunk.location.model_dump(exclude_none=True) | {"headings": " > ".join(chunk.location.headings)}
    for name, value in location.items():
        fits = len(attributes) < MOST_ATTRIBUTES and len(str(value)) <= ATTRIBUTE_CHARACTERS
        if fits and value != "":
            attributes.setdefault(name, value)
    return attributes
