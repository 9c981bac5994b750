"""From a request's body to uploads: JSON, raw text, files, multipart.

Plain text is decoded and stored block by block while it arrives. Every other file type is spooled to disk and read by a
worker process (:mod:`service.intake.parsing.process`), whose output is streamed into the storage the same way.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException

from index.storage.documents import Description, Place
from index.storage.protocols import Upload
from qrag.wire.chunking import DEFAULT_SENTENCE_TOKENS, Chunking
from qrag.wire.documents import FILE_FIELDS, DocumentFields, DocumentIn, DocumentsIn, Title
from qrag.wire.media_types import MediaType
from qrag.wire.names import CollectionName, DocumentId
from service.errors import InvalidJson, InvalidRequest, Overloaded, UnsupportedMediaType
from service.http.dependencies import client_gone
from service.intake.encodings import TextDecoder, codec_of
from service.intake.forms import check_transfer, is_unused, read_form
from service.intake.media_types import BEGINNING_BYTES, charset_of, media_type_of
from service.intake.parsing.process import ParseLimits, WorkerFindings, extract_text
from service.keys import Access
from service.services import Services

MAX_WAITING_FILES = 16

BLOCK = 1 << 20
"""Bytes read from a file at once."""

CHARACTERS_OF_A_TOKEN = 3.4
"""Characters that a token of prose has at least."""

LONGEST_ROW = 2_000
"""Characters of a row where chunks may be of any length."""

TITLE_CHARACTERS = 1000

_JSON_FIELDS = frozenset({"metadata", "chunking"})
"""Fields of a form that hold JSON."""

Uploads = list[tuple[Upload, Description]]


@dataclass(frozen=True, slots=True)
class _Places:
    """The places of a text, each parsed when it is asked for."""

    lines: bytes
    """JSON."""

    def __iter__(self) -> Iterator[Place]:
        return (Place(*json.loads(line)) for line in BytesIO(self.lines))


class UploadParameters(BaseModel):
    """The query of `POST /documents`. All but `wait` and `replace` are about a body that is the document itself."""

    model_config = ConfigDict(extra="forbid")

    wait: bool = Field(False, description="answer 201 once the documents are searchable, instead of 202 at once")
    replace: bool = Field(False, description="put the document in the place of another one with its id")
    file_fields: bool = Field(
        False,
        description="for a raw body: note the metadata that the file gives of itself once more, under `file_fields`",
    )
    id: DocumentId | None = Field(None, description="for a raw body: the document's id")
    title: Title | None = Field(None, description="for a raw body: its title")
    filename: Annotated[str, StringConstraints(max_length=TITLE_CHARACTERS)] | None = Field(
        None,
        description="for a raw body: the name of its file, which is the title where neither you nor the file give one, "
        "and tells its type where the media type does not",
    )
    collection: CollectionName | None = Field(None, description="for a raw body: its collection")
    metadata: str | None = Field(None, description='for a raw body: a JSON object, e.g. `{"year": 1923}`')
    chunking: str | None = Field(
        None, description='for a raw body: a mode, e.g. `lines`, or JSON, e.g. `{"mode": "lines", "max_tokens": 32}`'
    )

    def fields(self) -> dict[str, str]:
        """What describes the document, as given."""
        return self.model_dump(exclude={"wait", "replace", "file_fields", "filename"}, exclude_none=True)


async def receive(
    request: Request, services: Services, parameters: UploadParameters, access: Access
) -> tuple[Uploads, bool]:
    """Read the whole body; returns the uploads, and whether the answer is a list.

    Raises :class:`~service.errors.ServiceError` (also where the key is not for a document's collection),
    :class:`pydantic.ValidationError` or
    :class:`~index.errors.DiskFull`; whatever was stored is removed then.
    """
    uploads: Uploads = []
    try:
        content_type = request.headers.get("content-type")
        kind = (content_type or "").partition(";")[0].strip().lower()
        if kind == "application/json" or kind.endswith("+json"):
            return uploads, await _receive_json(request, services, parameters, access, uploads)
        if kind == "multipart/form-data":
            return uploads, await _receive_form(request, services, parameters, access, uploads)
        description = _description(parameters.fields())
        access.require(description.collection)  # before the text is read
        beginning, blocks = await _begun(request.stream())
        media_type = media_type_of(content_type, parameters.filename, beginning)
        charset = charset_of(content_type)
        upload = services.storage.catalogue.begin_upload()
        uploads.append((upload, description))
        if media_type is MediaType.PLAIN_TEXT:
            await _store_text(blocks, charset, upload)
            read = description
        else:
            with tempfile.NamedTemporaryFile() as spool:
                async for block in blocks:
                    await to_thread.run_sync(spool.write, block)
                spool.flush()
                read = await _store_file(request, Path(spool.name), media_type, charset, description, upload, services)
                if parameters.file_fields:
                    read = _noted(read, description)
        uploads[-1] = (upload, _named(read, parameters.filename))
        return uploads, False
    except BaseException:
        for upload, _ in uploads:
            await to_thread.run_sync(upload.discard)
        raise


async def _receive_json(
    request: Request, services: Services, parameters: UploadParameters, access: Access, uploads: Uploads
) -> bool:
    if parameters.fields():
        name = next(iter(parameters.fields()))
        raise InvalidRequest(f"With a JSON body, give {name!r} inside the document and not in the query.")
    body = bytearray()
    async for block in request.stream():
        body += block
    limit = services.settings.max_documents_per_request
    documents, many = await to_thread.run_sync(_parse_documents, body, limit)
    for document in documents:
        access.require(document.collection)
    for document in documents:
        upload = services.storage.catalogue.begin_upload()
        uploads.append((upload, _describe(document)))
        await to_thread.run_sync(upload.write, document.text)
    return many


def _parse_documents(body: bytearray, limit: int) -> tuple[list[DocumentIn], bool]:
    """The documents of a JSON body, which is used up, and whether it is a list of them."""
    if body.startswith(codecs.BOM_UTF8):
        del body[: len(codecs.BOM_UTF8)]
    try:
        data: Any = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidJson(f"The body is not valid JSON: {error}. Send JSON in UTF-8.") from None
    body.clear()
    if not (isinstance(data, dict) and "documents" in data):
        return [DocumentIn.model_validate(data, strict=True)], False
    # Before the documents are validated: millions of invalid ones would make as many error messages.
    if isinstance(data["documents"], list) and len(data["documents"]) > limit:
        raise InvalidRequest(f"A request may hold at most {limit} documents; this one has {len(data['documents'])}.")
    return DocumentsIn.model_validate(data, strict=True).documents, True


async def _receive_form(
    request: Request, services: Services, parameters: UploadParameters, access: Access, uploads: Uploads
) -> bool:
    try:
        return await _store_form(request, services, parameters, access, uploads)
    except MultiPartException as error:
        raise InvalidRequest(f"The form cannot be read: {error.message}") from None


async def _store_form(
    request: Request, services: Services, parameters: UploadParameters, access: Access, uploads: Uploads
) -> bool:
    limit = services.settings.max_documents_per_request
    form = await read_form(request, max_files=limit, max_fields=20)
    try:
        return await _store_parts(request, services, parameters, access, uploads, form)
    finally:
        await form.close()


async def _store_parts(
    request: Request,
    services: Services,
    parameters: UploadParameters,
    access: Access,
    uploads: Uploads,
    form: FormData,
) -> bool:
    fields = parameters.fields()
    files: list[UploadFile] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and name in _JSON_FIELDS:
            value = (await value.read()).decode("utf-8", "replace")  # a browser's Blob comes as a file
        if isinstance(value, UploadFile):
            if not is_unused(value):
                check_transfer(value)
                files.append(value)
        elif name in fields and name not in parameters.fields():
            raise InvalidRequest(f"The form field {name!r} is given twice.")
        else:
            fields[name] = value
    if not files:
        raise InvalidRequest("The form has no file. Send each document as a part with a file name.")
    if len(files) > 1 and "id" in fields:
        raise InvalidRequest("One id cannot name several files. Leave it out, or send one file a request.")
    for file in files:
        DocumentFields.model_validate({"title": file.filename})  # too long a name is refused, not cut
        upload = services.storage.catalogue.begin_upload()
        description = _description(fields)
        access.require(description.collection)
        uploads.append((upload, description))
        read = await _store_part(request, file, description, upload, services)
        uploads[-1] = (upload, _named(read, file.filename))
    return len(files) > 1


def _named(description: Description, filename: str | None) -> Description:
    """The description with the file's name as its title, where neither sender nor file give it one."""
    title = (filename or "")[:TITLE_CHARACTERS]
    return replace(description, title=title) if title and not description.title else description


async def _store_part(
    request: Request, file: UploadFile, description: Description, upload: Upload, services: Services
) -> Description:
    beginning = await file.read(BEGINNING_BYTES)
    await file.seek(0)
    media_type = media_type_of(file.content_type, file.filename, beginning)
    charset = charset_of(file.content_type)
    if media_type is MediaType.PLAIN_TEXT:
        await _store_text(_blocks(file), charset, upload)
        return description
    with tempfile.NamedTemporaryFile() as spool:
        async for block in _blocks(file):
            await to_thread.run_sync(spool.write, block)
        spool.flush()
        return await _store_file(request, Path(spool.name), media_type, charset, description, upload, services)


async def _begun(blocks: AsyncIterator[bytes]) -> tuple[bytes, AsyncIterator[bytes]]:
    """How a stream begins, and all of it."""
    beginning = b""
    async for block in blocks:
        beginning += block
        if len(beginning) >= BEGINNING_BYTES:
            break

    async def whole() -> AsyncIterator[bytes]:
        yield beginning
        async for block in blocks:
            yield block

    return beginning, whole()


async def _blocks(file: UploadFile) -> AsyncIterator[bytes]:
    while block := await file.read(BLOCK):
        yield block


async def _store_text(blocks: AsyncIterator[bytes], charset: str | None, upload: Upload) -> None:
    decoder = TextDecoder(charset)
    async for block in blocks:
        await to_thread.run_sync(lambda: upload.write(decoder.decode(block)))  # noqa: B023  # awaited at once
    await to_thread.run_sync(lambda: upload.write(decoder.decode(b"", final=True)))


async def _store_file(
    request: Request,
    source: Path,
    media_type: MediaType,
    charset: str | None,
    description: Description,
    upload: Upload,
    services: Services,
) -> Description:
    """Read a file into an upload; returns its description with what the file says of itself."""
    if charset is not None and codec_of(charset) is None:
        raise UnsupportedMediaType(f"The charset {charset!r} is not known here. Convert the text to UTF-8.")
    limits = ParseLimits(services.settings.parse_seconds, services.settings.parse_memory_bytes)
    if services.readers.statistics().tasks_waiting >= MAX_WAITING_FILES:
        raise Overloaded("Many files are waiting to be read. Try again in half a minute.", retry_after=30)
    abandoned = threading.Event()
    watcher = asyncio.create_task(_note_when_gone(request, abandoned))
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "text")
            read = partial(
                extract_text,
                source,
                target,
                media_type,
                charset=charset,
                row_characters=_row_characters(description.chunking),
                limits=limits,
                abandoned=abandoned,
            )
            findings = await to_thread.run_sync(read, limiter=services.readers, abandon_on_cancel=True)
            await to_thread.run_sync(_copy_text, target, upload)
    finally:
        watcher.cancel()
        abandoned.set()
    return _completed(description, findings)


def _row_characters(chunking: Chunking) -> int:
    """How long rows of tables may be, so that one fits a chunk."""
    tokens = chunking.max_tokens or (DEFAULT_SENTENCE_TOKENS if chunking.mode == "sentences" else None)
    return LONGEST_ROW if tokens is None else max(40, int(CHARACTERS_OF_A_TOKEN * tokens))


def _completed(description: Description, findings: WorkerFindings) -> Description:
    """The description with what the file says of itself, where the sender does not say otherwise."""
    warnings = list(findings["warnings"])
    metadata = {**findings["metadata"], **description.metadata}
    try:
        metadata = DocumentFields.model_validate({"metadata": metadata}).metadata
    except ValidationError:  # too much of it
        metadata = dict(description.metadata)
        warnings.append(
            "What the file says of itself is more than metadata may hold and was left out, but for the title."
        )
    return replace(
        description,
        title=description.title or (findings["title"] or "")[:TITLE_CHARACTERS] or None,
        metadata=metadata,
        warnings=tuple(warnings),
        places=_Places(findings["places"]),
    )


def _noted(read: Description, given: Description) -> Description:
    """The description with the metadata that is the file's and not the sender's noted once more.

    So whoever sends the file's next version can tell what to leave to it.
    """
    own = {name: value for name, value in read.metadata.items() if name not in given.metadata}
    if not own:
        return read
    try:
        metadata = DocumentFields.model_validate({"metadata": {**read.metadata, FILE_FIELDS: own}}).metadata
    except ValidationError:
        warning = f"Metadata has no room to note which fields are the file's own: there is no field {FILE_FIELDS!r}."
        return replace(read, warnings=(*read.warnings, warning))
    return replace(read, metadata=metadata)


async def _note_when_gone(request: Request, abandoned: threading.Event) -> None:
    await client_gone(request)
    abandoned.set()


def _copy_text(source: Path, upload: Upload) -> None:
    with source.open(encoding="utf-8", newline="") as file:
        while text := file.read(BLOCK):
            upload.write(text)


def _description(fields: Mapping[str, str]) -> Description:
    """The description that query or form fields give."""
    given: dict[str, Any] = dict(fields)
    if "metadata" in given:
        given["metadata"] = _json_field("metadata", given["metadata"])
    if "chunking" in given:
        text = given["chunking"]
        given["chunking"] = _json_field("chunking", text) if text.lstrip().startswith("{") else {"mode": text}
    return _describe(DocumentFields.model_validate(given, strict=True))


def _json_field(name: str, text: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"{name} is not valid JSON ({error}).") from None


def _describe(fields: DocumentFields) -> Description:
    return Description(fields.id, fields.collection, fields.title, fields.metadata, fields.chunking)
