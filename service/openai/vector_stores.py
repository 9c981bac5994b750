"""OpenAI's vector store search over our episodes: a collection is a vector store, a document a file of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from qrag.wire.retrieval import MAX_STEPS, RetrieveIn, SelectedChunk
from qrag.wire.vector_stores import (
    AttributeFilter,
    CompoundFilter,
    SearchIn,
    SearchPage,
    SearchResult,
    TextContent,
)
from service.retrieval.session import find, prepare
from service.services import Services


async def search(collection: str, wanted: SearchIn, services: Services) -> SearchPage:
    """The episode of each query, and what they have selected; raises what :mod:`service.retrieval.session` raises."""
    queries = [wanted.query] if isinstance(wanted.query, str) else wanted.query
    found = await asyncio.gather(*(_chunks(query, collection, wanted, services) for query in queries))
    results = [_result(chunk) for chunk in _best_of_each(chunk for chunks in found for chunk in chunks)]
    counting = [result for result in results if result.score >= wanted.ranking_options.score_threshold]
    return SearchPage(search_query=queries, data=counting[: wanted.max_num_results])


async def _chunks(query: str, collection: str, wanted: SearchIn, services: Services) -> list[SelectedChunk]:
    question = RetrieveIn.model_validate(
        {
            "question": query,
            "collection": collection,
            "filter": None if wanted.filters is None else metadata_filter(wanted.filters),
            "max_steps": min(wanted.max_num_results, MAX_STEPS),
        }
    )
    return (await find(await prepare(question, services))).chunks


def metadata_filter(wanted: AttributeFilter) -> dict[str, Any]:
    """The filter of ours, as JSON, that matches the same documents."""
    if isinstance(wanted, CompoundFilter):
        return {wanted.type: [metadata_filter(each) for each in wanted.filters]}
    operator = {"eq": "equals", "ne": "equals", "nin": "in"}.get(wanted.type, wanted.type)
    condition = {"field": wanted.key, operator: wanted.value}
    return {"not": condition} if wanted.type in ("ne", "nin") else condition


def _best_of_each(chunks: Iterable[SelectedChunk]) -> list[SelectedChunk]:
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
        attributes={name: value for name, value in chunk.metadata.items() if isinstance(value, str | float | int)},
        content=[TextContent(text=chunk.text)],
    )
