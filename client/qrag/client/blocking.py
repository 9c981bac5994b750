"""The client for programs that block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from qrag.client import calls
from qrag.client.calls import Listing
from qrag.client.errors import unreachable
from qrag.client.events import Event, EventReader
from qrag.client.flows import PATIENT, Flow, Flows, Outcome, Pause, Retries, Send
from qrag.client.options import DocumentOptions, DocumentProgress, RetrieveOptions, UploadProgress
from qrag.client.transport import DEFAULT_TIMEOUT, DEFAULT_URL, arguments, settings
from qrag.client.uploads import File, FileBody, file_body
from qrag.wire.documents import ChunkOut, CollectionOut, DocumentIn, DocumentOut
from qrag.wire.operations import ModelOut
from qrag.wire.retrieval import RetrieveOut

T = TypeVar("T")


class Client:
    """A client of the service; close it, or use it as a context manager.

    ``timeout`` is how many seconds an answer may take. ``sleep`` is called for the pauses of ``retries`` and between
    looks at documents that are being indexed. Raises :class:`ValueError` for a bad address or key.

    Every method raises :class:`~qrag.client.errors.ApiError` where the service says no,
    :class:`~qrag.client.errors.Unreachable` where nothing answers, and
    :class:`~qrag.client.errors.UnexpectedAnswer` where something else does.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: Retries = PATIENT,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._http = httpx.Client(**settings(base_url, api_key, timeout))
        self._base_url = base_url
        self._flows = Flows(base_url, retries)
        self._sleep = sleep

    def index(
        self, text: str, *, replace: bool = False, wait: bool = False, **options: Unpack[DocumentOptions]
    ) -> DocumentOut:
        """Store a text and have it indexed; with ``wait``, returns when it can be searched.

        The same content under the same id, or without an id, is stored once. Other content under an id is a
        :class:`~qrag.client.errors.Conflict`, or with ``replace`` takes its place. With ``wait``, raises
        :class:`~qrag.client.errors.IndexingFailed` as well.
        """
        return self._run(self._flows.index(calls.index(text, options, replace=replace), wait))

    def index_file(
        self,
        file: File,
        *,
        media_type: str | None = None,
        progress: UploadProgress | None = None,
        replace: bool = False,
        wait: bool = False,
        **options: Unpack[DocumentOptions],
    ) -> DocumentOut:
        """The same with a file, given by its path or opened in binary mode, which is read while it is sent.

        Its name says whether it is text, Markdown, HTML, PDF or DOCX, unless ``media_type`` does
        (``text/plain; charset=latin-1``), and is its title unless there is another. What cannot be read twice, like a
        pipe, is sent once and not again. Raises also what :func:`qrag.client.uploads.file_body` and
        :meth:`qrag.client.uploads.FileBody.blocks` do.
        """
        body = file_body(file, media_type, progress)
        return self._run(self._flows.index(calls.index_file(body, options, replace=replace), wait))

    def index_many(
        self, documents: Iterable[DocumentIn], *, replace: bool = False, wait: bool = False
    ) -> list[DocumentOut]:
        """The same with many texts, in requests of up to a hundred; those before one that is refused are stored."""
        return self._run(self._flows.index_many(documents, replace, wait))

    def wait_until_ready(self, ids: Iterable[str], progress: DocumentProgress | None = None) -> list[DocumentOut]:
        """Return the documents once all can be searched; ``progress`` is given each time what one looks like.

        Raises :class:`~qrag.client.errors.IndexingFailed` once all that can be are, if some cannot.
        """
        return self._run(self._flows.until_ready(ids, progress))

    def documents(self, *, collection: str | None = None) -> Iterator[DocumentOut]:
        """All documents, or those of a collection, in order of arrival; fetched page by page."""
        return self._all(calls.documents(collection))

    def document(self, id: str) -> DocumentOut:
        """A document, and how far its indexing is."""
        return self._run(self._flows.one(calls.document(id)))

    def text(self, id: str, start: int = 0, end: int | None = None) -> str:
        """Its text from one character to before another: of a file, what was read from it."""
        return self._run(self._flows.one(calls.text(id, start, end)))

    def chunks(self, id: str) -> Iterator[ChunkOut]:
        """How it was cut; fetched page by page."""
        return self._all(calls.chunks(id))

    def retry(self, id: str) -> DocumentOut:
        """Have a failed document indexed again."""
        return self._run(self._flows.one(calls.retry(id)))

    def delete(self, id: str) -> None:
        """Remove a document in any state."""
        self._run(self._flows.one(calls.delete(id)))

    def collections(self) -> list[CollectionOut]:
        """Every collection that holds a document."""
        return self._run(self._flows.one(calls.collections()))

    def delete_collection(self, name: str) -> None:
        """Remove a collection with all its documents."""
        self._run(self._flows.one(calls.delete_collection(name)))

    def retrieve(self, question: str, **options: Unpack[RetrieveOptions]) -> RetrieveOut:
        """Find the evidence for a question."""
        return self._run(self._flows.one(calls.retrieve(question, options)))

    def stream(self, question: str, **options: Unpack[RetrieveOptions]) -> Iterator[Event]:
        """The same step by step: each as a ``StepEvent`` when it is taken, and at the end the ``RetrieveOut``."""
        response = self._run(self._flows.answer(calls.retrieve(question, options, streams=True)))
        reader = EventReader(response.headers.get("X-Request-ID"))
        try:
            for piece in response.iter_bytes():
                yield from reader.feed(piece)
            reader.end()
        except httpx.RequestError as error:
            raise unreachable(error, self._base_url) from error
        except ValueError as error:
            raise self._flows.not_understood() from error
        finally:
            response.close()

    def model(self) -> ModelOut:
        """Which checkpoint is loaded, and what it can take."""
        return self._run(self._flows.one(calls.model()))

    def ready(self) -> bool:
        """Whether the service is ready, as of now: nothing is repeated here."""
        return self._run(self._flows.ready())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _all(self, listing: Listing[T]) -> Iterator[T]:
        page = self._run(self._flows.one(listing(None)))
        yield from page.entries
        while page.next_cursor is not None:
            page = self._run(self._flows.one(listing(page.next_cursor)))
            yield from page.entries

    def _run(self, flow: Flow[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = self._take(step)

    def _take(self, step: Send | Pause) -> Outcome:
        if isinstance(step, Pause):
            self._sleep(step.seconds)
            return None
        body = step.call.body
        request = self._http.build_request(
            **arguments(step.call), content=_sent(body) if isinstance(body, FileBody) else body
        )
        try:
            response = self._http.send(request, stream=step.call.streams)
            if not response.is_success:
                response.read()
        except httpx.RequestError as error:
            return error
        return response


def _sent(body: FileBody) -> Iterator[bytes]:
    sent = 0
    body.progress(sent, body.length)
    for block in body.blocks():
        yield block
        sent += len(block)
        body.progress(sent, body.length)
