"""The tools that MCP clients call: what each takes and gives, and what it does."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from pydantic import Field, JsonValue

from index.errors import UnknownDocument
from qrag.wire.documents import Location
from qrag.wire.models import RequestModel, ResponseModel
from qrag.wire.names import CollectionName, PassageId
from qrag.wire.retrieval import Citation, EpisodeIn, Question, RetrieveIn, SufficiencyOut
from qrag.wire.rules import StoppedBy
from service.errors import InvalidRequest
from service.http.dependencies import visible_document
from service.keys import Access, Right
from service.retrieval.session import find, prepare
from service.services import Services

SEARCH_STEPS = 10
"""``max_steps`` of a search."""

PASSAGE_CHARACTERS = 4000
"""Characters fetched for a shorter passage: it with its surroundings."""

FETCHED_CHARACTERS = 50_000
"""Most characters that one call fetches."""


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a tool runs."""

    services: Services
    access: Access
    base_url: str
    """The service's address as the caller sees it, with a slash at the end."""


class SearchArguments(RequestModel):
    """What to look for."""

    query: Question
    collection: CollectionName = "default"


class FoundPassage(ResponseModel):
    """A passage that is evidence."""

    id: str = Field(description="for `fetch`")
    title: str
    url: str
    text: str
    location: Location = Field(description="where it begins in the document's file, as far as the format knows")


class SearchResults(ResponseModel):
    """The passages, in the order in which they were selected."""

    results: list[FoundPassage]


class FetchArguments(RequestModel):
    """What to read."""

    id: PassageId


class FetchedMetadata(ResponseModel):
    """Where the text stands."""

    document_id: str
    collection: str
    start: int = Field(description="of the text in the document, in characters")
    end: int
    characters: int = Field(description="of the whole document")
    next: str | None = Field(description="id of what follows in the document; null at its end")
    location: Location = Field(description="where the passage that was asked for begins in the document's file")
    fields: dict[str, JsonValue] = Field(description="the document's own metadata")


class Fetched(ResponseModel):
    """A document's text, or a stretch of it."""

    id: str
    title: str
    text: str
    url: str
    metadata: FetchedMetadata


class Evidence(ResponseModel):
    """The numbered passages, and whether they are likely all that is needed."""

    context: str
    citations: list[Citation]
    stopped_by: StoppedBy
    sufficiency: SufficiencyOut | None = Field(
        description="probabilities that these passages and those held before are all of the evidence (`complete`), and "
        "that they are not and going on would not find the rest (`hopeless`); with a `focus`, of these passages alone, "
        "for the focus"
    )
    continuation: str | None = Field(
        default=None,
        description="call again with it, and nothing else or a `focus`, for further passages that are not among these",
    )


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: the right that it needs, its description for the model, its schemas, and what it does.

    A tool that needs another right than ``read`` is announced as one that writes, and is refused to keys without that
    right. A key has to have ``read`` as well, which ``/mcp`` itself needs.
    """

    right: Right
    title: str
    description: str
    arguments: type[RequestModel]
    result: type[ResponseModel]
    run: Callable[[Any, Caller], Coroutine[Any, Any, ResponseModel]]


async def _search(arguments: SearchArguments, caller: Caller) -> SearchResults:
    question = RetrieveIn(
        question=arguments.query, collection=arguments.collection, max_steps=SEARCH_STEPS, order="selection"
    )
    answer = await find(await prepare(question, caller.services, caller.access))
    return SearchResults(
        results=[
            FoundPassage(
                id=f"{chunk.document_id}#{chunk.start}-{chunk.end}",
                title=chunk.title or chunk.document_id,
                url=_url(caller, chunk.document_id, chunk.start, chunk.end),
                text=chunk.text,
                location=chunk.location,
            )
            for chunk in answer.chunks
        ]
    )


async def _fetch(arguments: FetchArguments, caller: Caller) -> Fetched:
    return await to_thread.run_sync(_read, arguments.id, caller)


def _read(id: str, caller: Caller) -> Fetched:
    document_id, _, characters = id.partition("#")
    document = visible_document(caller.services, caller.access, document_id)
    first, last = map(int, characters.split("-")) if characters else (0, document.characters)
    if not first <= last <= document.characters:
        raise InvalidRequest(
            f"Document {document_id!r} has the characters 0 to {document.characters}. Name some of these."
        )
    margin = max(0, PASSAGE_CHARACTERS - (last - first)) // 2
    start = max(0, first - margin)
    end = min(document.characters, last + margin, start + FETCHED_CHARACTERS)
    text = caller.services.storage.catalogue.text(document.uid, start, end)
    if len(text) < end - start:
        raise UnknownDocument("The document was deleted meanwhile.")
    rest = f"{document_id}#{end}-{min(document.characters, end + FETCHED_CHARACTERS)}"
    metadata = FetchedMetadata(
        document_id=document_id,
        collection=document.collection,
        start=start,
        end=end,
        characters=document.characters,
        next=rest if end < document.characters else None,
        location=_location(caller, document.uid, first),
        fields=dict(document.metadata),
    )
    url = _url(caller, document_id, start, end)
    return Fetched(id=id, title=document.title or document_id, text=text, url=url, metadata=metadata)


async def _retrieve(arguments: EpisodeIn, caller: Caller) -> Evidence:
    question = RetrieveIn.model_validate({name: getattr(arguments, name) for name in arguments.model_fields_set})
    answer = await find(await prepare(question, caller.services, caller.access))
    return Evidence(
        context=answer.context,
        citations=answer.citations,
        stopped_by=answer.stopped_by,
        sufficiency=answer.sufficiency,
        continuation=answer.continuation,
    )


def _location(caller: Caller, uid: int, character: int) -> Location:
    """Where a character of a document stands in the file that it was read from."""
    places = caller.services.storage.catalogue.places(uid)
    number = bisect_right([place.start for place in places], character)
    return Location.model_validate(places[number - 1].location) if number else Location()


def _url(caller: Caller, document_id: str, start: int, end: int) -> str:
    return f"{caller.base_url}documents/{document_id}/text?start={start}&end={end}"


TOOLS: Mapping[str, Tool] = {
    "search": Tool(
        "read",
        "Search",
        "Find the passages of the indexed documents that together hold the evidence for a question. Several facts that "
        "lie far apart are found one after the other, each in the light of those before: ask the whole question, not "
        "for keywords. `fetch` reads around a passage.",
        SearchArguments,
        SearchResults,
        _search,
    ),
    "fetch": Tool(
        "read",
        "Fetch",
        "Read a document, or a passage with its surroundings, by an id that `search` has returned or that stands in "
        "`metadata.next` of what was fetched before.",
        FetchArguments,
        Fetched,
        _fetch,
    ),
    "retrieve": Tool(
        "read",
        "Retrieve",
        "Like `search`, with control over where and how: documents, metadata filter, number of steps, when to stop, "
        "beam search, length of the context. Returns numbered passages ready to be quoted, the probability that they "
        "hold all of the evidence, and a `continuation`: if something is missing, call again with it. A `focus` "
        "beside it, a sub-question in full words with what you know by now filled in, finds what that asks for.",
        EpisodeIn,
        Evidence,
        _retrieve,
    ),
}
