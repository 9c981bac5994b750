"""Documents and collections: upload, look at, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import JsonValue, ValidationError

from index.errors import DiskFull, UnknownDocument
from index.storage.documents import Document
from qrag.wire.documents import (
    METADATA_BYTES,
    METADATA_LEVELS,
    ChunkOut,
    ChunkPage,
    CollectionOut,
    CollectionsOut,
    DocumentFields,
    DocumentIn,
    DocumentOut,
    DocumentPage,
    DocumentPatch,
    DocumentsIn,
    DocumentsOut,
    Location,
    Title,
)
from qrag.wire.media_types import MediaType
from qrag.wire.names import CollectionName, DocumentId
from service.errors import DocumentsChanged, IndexingFailed, MetadataTooLong, TitleIsEmbedded
from service.http.dependencies import (
    AppServices,
    Cursor,
    RequestAccess,
    client_gone,
    known_query,
    must_be_a_merge_patch,
    visible_document,
)
from service.http.problems import responses
from service.http.rights import needs
from service.intake.bodies import UploadParameters, receive
from service.intake.merging import merge_patch
from service.openapi import refers_to
from service.services import Changes, Services

router = APIRouter(dependencies=[Depends(known_query)])

Limit = Annotated[int, Query(ge=1, le=1000, description="most entries on the page")]
DocumentPath = Annotated[DocumentId, Path()]

BLOCK_CHARACTERS = 1 << 16
"""Characters of a text that are read and sent at once."""
_RAW_EXAMPLES = {
    MediaType.PLAIN_TEXT: {"example": "Ana signed the lease."},
    MediaType.MARKDOWN: {"example": "# Minutes\n\nAna signed the lease."},
    MediaType.HTML: {"example": "<h1>Minutes</h1><p>Ana signed the lease.</p>"},
}

_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "anyOf": [{"$ref": "#/components/schemas/DocumentIn"}, {"$ref": "#/components/schemas/DocumentsIn"}]
            },
            "examples": {
                "one": {"value": {"id": "minutes", "text": "Ana signed the lease."}},
                "many": {"value": {"documents": [{"text": "Ana signed the lease."}, {"text": "The office moved."}]}},
            },
        },
        # A raw body has no schema: any bytes are a value of its media type, and the file itself says more.
        **{media_type.value: _RAW_EXAMPLES.get(media_type, {}) for media_type in MediaType},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
                    "id": {"type": "string", "description": "with one file only"},
                    "title": {"type": "string"},
                    "collection": {"type": "string"},
                    "metadata": {"type": "string", "description": "a JSON object"},
                    "chunking": {"type": "string", "description": "a mode, or a JSON object"},
                },
                "additionalProperties": False,
            },
            "example": {"file": ["(the file)"], "title": "Minutes", "chunking": "lines"},
        },
    },
}

_POSTED = DocumentOut | DocumentsOut


@router.post(
    "/documents",
    status_code=202,
    response_model=_POSTED,
    responses={
        200: {"model": _POSTED, "description": "The same content was there already"},
        201: {"model": _POSTED, "description": "Searchable (with `wait=true`)"},
        202: {"description": "Stored; it will be indexed, also after a restart"},
        **responses(400, 409, 413, 415, 422, 429, 500, 503, 507),
    },
    openapi_extra={"requestBody": _REQUEST_BODY},
    summary="Index documents",
    tags=["documents"],
)
@needs("write")
@refers_to(DocumentIn, DocumentsIn, DocumentFields)
async def post_documents(
    request: Request,
    response: Response,
    services: AppServices,
    access: RequestAccess,
    parameters: Annotated[UploadParameters, Query()],
) -> DocumentOut | DocumentsOut:
    """Store one document or many, and queue them for indexing.

    Once this has answered, the documents survive a crash. Posting the same content under the same id
    again changes nothing; a failed document is queued again by it. Without an id, the content decides
    whether it is the same document.
    """
    await to_thread.run_sync(services.require_free_space)
    uploads, many = await receive(request, services, parameters, access)
    published = await to_thread.run_sync(
        lambda: services.storage.catalogue.publish(
            uploads,
            replace=parameters.replace,
            queue_limit=services.settings.max_queued_documents,
            within=access.collections,
        )
    )
    documents = [each.document for each in published]
    created = any(each.created for each in published)
    queued = any(document.status in ("queued", "indexing") for document in documents)
    response.status_code = 202 if queued else 200
    if parameters.wait and queued:
        documents = await _until_ready(request, services, documents)
        response.status_code = 201 if created else 200
    documents = await to_thread.run_sync(_shown, services, documents)
    if many:
        response.headers["Location"] = f"/documents?collection={documents[0].collection}"
        return DocumentsOut(documents=[_document_out(document) for document in documents])
    response.headers["Location"] = f"/documents/{documents[0].id}"
    return _document_out(documents[0])


def _shown(services: Services, documents: list[Document]) -> list[Document]:
    """The documents as clients see them: in place of a replacement that waits, what it will replace."""
    try:
        return [
            document if document.replaces is None else services.storage.catalogue.document(document.id)
            for document in documents
        ]
    except UnknownDocument:
        raise DocumentsChanged("A document was deleted while its replacement was stored.") from None


def _document_out(document: Document) -> DocumentOut:
    """The resource that shows a stored document."""
    return DocumentOut.model_validate(document, from_attributes=True)


async def _until_ready(request: Request, services: AppServices, documents: list[Document]) -> list[Document]:
    gone = asyncio.create_task(client_gone(request))
    changes: Changes = request.app.state.changes
    uids = [document.uid for document in documents]
    catalogue = services.storage.catalogue
    stalls = catalogue.stalls
    try:
        while not gone.done():
            change = changes.next()
            try:
                current = await to_thread.run_sync(catalogue.documents_at, uids)
            except UnknownDocument:
                raise DocumentsChanged("A document was deleted or replaced before it was searchable.") from None
            documents = [current[uid] for uid in uids]
            for document in documents:
                if document.status == "failed":
                    raise IndexingFailed(_not_indexed(document, document.error))
                # The first failure after the upload may be of a round that began before it.
                if document.status != "ready" and catalogue.stalled and catalogue.stalls > stalls + 1:
                    raise DiskFull(_not_indexed(document, catalogue.stalled))
            if all(document.status == "ready" for document in documents):
                break
            await asyncio.wait([gone, asyncio.ensure_future(change.wait())], return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
    return documents


def _not_indexed(document: Document, reason: str | None) -> str:
    if document.replaces is None:
        return f"Document {document.id!r} is stored but not indexed. {reason}"
    return (
        f"The new content of document {document.id!r} is stored but not indexed; the former is still searched. {reason}"
    )


@router.get("/documents", responses=responses(422), summary="List documents", tags=["documents"])
@needs("read")
def list_documents(
    services: AppServices,
    access: RequestAccess,
    collection: Annotated[CollectionName | None, Query(description="only of this collection")] = None,
    title: Annotated[Title | None, Query(description="only those of this title")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> DocumentPage:
    """Documents in order of arrival."""
    collections = access.collections
    if collection is not None:
        access.require(collection)
        collections = frozenset({collection})
    found = services.storage.catalogue.documents(collections, title=title, after=int(cursor or 0), limit=limit + 1)
    page = found[:limit]
    return DocumentPage(
        documents=[_document_out(document) for document in page],
        next_cursor=str(page[-1].uid) if len(found) > limit else None,
    )


@router.get("/documents/{id}", responses=responses(404, 422), summary="One document", tags=["documents"])
@needs("read")
def get_document(services: AppServices, access: RequestAccess, id: DocumentPath) -> DocumentOut:
    """The document and how far its indexing is."""
    return _document_out(visible_document(services, access, id))


@router.get("/documents/{id}/chunks", responses=responses(404, 422), summary="Its chunks", tags=["documents"])
@needs("read")
def get_chunks(
    services: AppServices, access: RequestAccess, id: DocumentPath, cursor: Cursor = None, limit: Limit = 100
) -> ChunkPage:
    """How the document was cut; empty until it is."""
    document = visible_document(services, access, id)
    found = services.storage.catalogue.chunks(document.uid, first=int(cursor or 0), limit=limit + 1)
    return ChunkPage(
        document_id=id,
        chunks=[
            ChunkOut(
                index=stored.number,
                start=stored.chunk.start,
                end=stored.chunk.end,
                tokens=stored.chunk.tokens,
                text=stored.text,
                location=Location.model_validate(stored.location),
            )
            for stored in found[:limit]
        ],
        next_cursor=str(found[limit].number) if len(found) > limit else None,
    )


@router.get(
    "/documents/{id}/text",
    response_class=PlainTextResponse,
    responses=responses(404, 422),
    summary="Its text",
    tags=["documents"],
)
@needs("read")
def get_text(
    services: AppServices,
    access: RequestAccess,
    id: DocumentPath,
    start: Annotated[int, Query(ge=0, le=1 << 62, description="first character")] = 0,
    end: Annotated[int | None, Query(ge=0, le=1 << 62, description="character behind the last one")] = None,
) -> StreamingResponse:
    """The text that chunks quote: of a file, what was read from it."""
    document = visible_document(services, access, id)
    stop = document.characters if end is None else min(end, document.characters)

    def blocks() -> Iterator[bytes]:
        for begin in range(start, stop, BLOCK_CHARACTERS):
            end = min(begin + BLOCK_CHARACTERS, stop)
            text = services.storage.catalogue.text(document.uid, begin, end)
            if len(text) < end - begin:
                raise UnknownDocument("The document was deleted meanwhile.")  # breaks off: no half text looks whole
            yield text.encode("utf-8")

    return StreamingResponse(blocks(), media_type="text/plain; charset=utf-8")


@router.post(
    "/documents/{id}/retry", responses=responses(404, 422), summary="Index a failed document again", tags=["documents"]
)
@needs("write")
def retry_document(services: AppServices, access: RequestAccess, id: DocumentPath) -> DocumentOut:
    """Queue a failed document again; any other is left as it is."""
    # The id may be another collection's by now.
    collection = visible_document(services, access, id).collection
    return _document_out(services.storage.catalogue.retry_document(id, collection=collection))


@router.patch(
    "/documents/{id}",
    dependencies=[Depends(must_be_a_merge_patch)],
    responses=responses(400, 404, 409, 413, 415, 422, 507),
    summary="Change its title and metadata",
    tags=["documents"],
)
@needs("write")
def patch_document(services: AppServices, access: RequestAccess, id: DocumentPath, patch: DocumentPatch) -> DocumentOut:
    """Change what describes a document in place, and what describes its replacement; the text stays as it is.

    The body is a merge patch (RFC 7396): fields that it does not name stay, null removes a field.
    """
    collection = visible_document(services, access, id).collection
    change = services.checkpoints.change
    encoders = [services.checkpoints.current.encoder, *([change.encoder] if change and change.encoder else [])]
    reads_titles = any(encoder.config.headings for encoder in encoders)

    def changed(document: Document) -> tuple[str | None, dict[str, JsonValue]]:
        title = patch.title if "title" in patch.model_fields_set else document.title
        if reads_titles and title != document.title:
            raise TitleIsEmbedded(
                "The checkpoint, or the one that the service is changing to, embeds chunks together with their "
                "document's title, so a title cannot be changed in place. Send the document again, with the new title "
                "and replace=true."
            )
        metadata = merge_patch(dict(document.metadata), patch.metadata)
        try:
            return title, DocumentFields(metadata=metadata).metadata
        except ValidationError:
            raise MetadataTooLong(
                f"With what is there the metadata would have more than {METADATA_BYTES} bytes as JSON, or more than "
                f"{METADATA_LEVELS} levels. Remove fields, by null, in the same change."
            ) from None

    return _document_out(services.storage.catalogue.describe(id, changed, collection=collection))


@router.delete(
    "/documents/{id}", status_code=204, responses=responses(404, 422, 507), summary="Delete it", tags=["documents"]
)
@needs("write")
def delete_document(services: AppServices, access: RequestAccess, id: DocumentPath) -> None:
    """Remove a document in any state, also while it is being indexed."""
    services.storage.catalogue.delete_document(id, collection=visible_document(services, access, id).collection)


@router.get("/collections", responses=responses(422), summary="List collections", tags=["collections"])
@needs("read")
def list_collections(services: AppServices, access: RequestAccess) -> CollectionsOut:
    """Every collection that holds a document, of those that the key is for."""
    sizes = [size for size in services.storage.catalogue.collections() if access.sees(size.name)]
    return CollectionsOut(collections=[CollectionOut.model_validate(size, from_attributes=True) for size in sizes])


@router.delete(
    "/collections/{name}",
    status_code=204,
    responses=responses(404, 422, 507),
    summary="Delete a collection",
    tags=["collections"],
)
@needs("write")
def delete_collection(services: AppServices, access: RequestAccess, name: Annotated[CollectionName, Path()]) -> None:
    """Remove a collection with all its documents."""
    access.require(name)
    services.storage.catalogue.delete_collection(name)
