"""The client for programs that block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from qrag.client import calls
from qrag.client.calls import Listing
from qrag.client.errors import unreachable
from qrag.client.events import Event, EventReader
from qrag.client.flows import PATIENT, Flow, Flows, Outcome, Pause, Retries, Send
from qrag.client.options import (
    AnswerOptions,
    BatchOptions,
    DocumentChanges,
    DocumentOptions,
    DocumentProgress,
    RetrieveOptions,
    UploadProgress,
)
from qrag.client.transport import DEFAULT_TIMEOUT, DEFAULT_URL, request, settings
from qrag.client.uploads import File, FileBody, file_body
from qrag.wire.asking.answers import AnswerOut
from qrag.wire.asking.batches import BatchItem, BatchQuestion
from qrag.wire.checks.gates import GateIn
from qrag.wire.documents import ChunkOut, CollectionOut, DocumentIn, DocumentOut
from qrag.wire.feedback import FeedbackOut, Judgement, QuestionOut
from qrag.wire.operations import CheckpointsOut, ModelOut
from qrag.wire.retrieval import RetrieveOut

T = TypeVar("T")


class Client:
    """A client of the service; close it, or use it as a context manager.

    ``timeout`` is the number of seconds that an answer may take. ``sleep`` is called with seconds: for the pauses of
    ``retries``, and between polls of documents that are being indexed. Raises :class:`ValueError` for an invalid
    address or key.

    Every method raises :class:`~qrag.client.errors.ApiError` where the service refuses,
    :class:`~qrag.client.errors.Unreachable` where nothing answers, and
    :class:`~qrag.client.errors.UnexpectedAnswer` where something other than the service does.
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
        """Store a text and index it; with ``wait``, return when it can be searched.

        The same content under the same id, or without an id, is stored once. Other content under an existing id
        raises :class:`~qrag.client.errors.Conflict`, or with ``replace`` replaces the document. With ``wait``, raises
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
        file_fields: bool = False,
        **options: Unpack[DocumentOptions],
    ) -> DocumentOut:
        """Store a file and index it, like :meth:`index`; it is read while it is sent.

        ``file`` is a path or a file opened in binary mode. Its name says whether it is text, Markdown, HTML, PDF or
        DOCX, unless ``media_type`` does (``text/plain; charset=latin-1``), and is the title unless the options have
        one. A file that cannot be read twice, like a pipe, is sent only once. With ``file_fields``, the metadata that
        the file gives of itself stands once more under that name in the document's metadata. Raises also what
        :func:`qrag.client.uploads.file_body` and :meth:`qrag.client.uploads.FileBody.blocks` raise.
        """
        body = file_body(file, media_type, progress)
        call = calls.index_file(body, options, replace=replace, file_fields=file_fields)
        return self._run(self._flows.index(call, wait))

    def index_many(
        self, documents: Iterable[DocumentIn], *, replace: bool = False, wait: bool = False
    ) -> list[DocumentOut]:
        """Store many texts and index them, in requests of up to 100; those before a refused one stay stored."""
        return self._run(self._flows.index_many(documents, replace, wait))

    def wait_until_ready(self, ids: Iterable[str], progress: DocumentProgress | None = None) -> list[DocumentOut]:
        """Poll documents and return them once all can be searched; ``progress`` is called with each polled document.

        Raises :class:`~qrag.client.errors.IndexingFailed` at the end if some cannot be searched.
        """
        return self._run(self._flows.until_ready(ids, progress))

    def documents(self, *, collection: str | None = None, title: str | None = None) -> Iterator[DocumentOut]:
        """Yield all documents, or those of a collection or title, in order of arrival; fetched page by page."""
        return self._all(calls.documents(collection, title))

    def document(self, id: str) -> DocumentOut:
        """Get a document, with the progress of its indexing."""
        return self._run(self._flows.send(calls.document(id)))

    def text(self, id: str, start: int = 0, end: int | None = None) -> str:
        """Get the characters ``start`` to ``end`` (exclusive) of a document's text; of a file, the extracted text."""
        return self._run(self._flows.send(calls.text(id, start, end)))

    def chunks(self, id: str) -> Iterator[ChunkOut]:
        """Yield the chunks of a document; they are fetched page by page."""
        return self._all(calls.chunks(id))

    def update(self, id: str, **changes: Unpack[DocumentChanges]) -> DocumentOut:
        """Change a document's title, or fields of its metadata, in place.

        Both are as in a merge patch (RFC 7396): None removes a field or the title, fields that are not named stay.
        """
        return self._run(self._flows.send(calls.update(id, changes)))

    def retry(self, id: str) -> DocumentOut:
        """Index a failed document again."""
        return self._run(self._flows.send(calls.retry(id)))

    def delete(self, id: str) -> None:
        """Delete a document in any state."""
        self._run(self._flows.send(calls.delete(id)))

    def collections(self) -> list[CollectionOut]:
        """List the collections that hold a document."""
        return self._run(self._flows.send(calls.collections()))

    def delete_collection(self, name: str) -> None:
        """Delete a collection with all its documents."""
        self._run(self._flows.send(calls.delete_collection(name)))

    def retrieve(self, question: str | None = None, **options: Unpack[RetrieveOptions]) -> RetrieveOut:
        """Find the evidence for a question; with the ``continuation`` of an answer, further evidence for the same."""
        return self._run(self._flows.send(calls.retrieve(question, options)))

    def answer(self, question: str | None = None, **options: Unpack[AnswerOptions]) -> AnswerOut:
        """Find the evidence for a question, and let the service's language model answer from it."""
        return self._run(self._flows.send(calls.answer(question, options)))

    def retrieve_batch(
        self, questions: Iterable[str | BatchQuestion], **options: Unpack[BatchOptions]
    ) -> list[BatchItem]:
        """Find the evidence for several questions, in requests of up to 64: for each a result, or its problem.

        The questions of a request are answered from one read of the documents, so a batch is faster than its
        questions one after the other. A :class:`~qrag.BatchQuestion` says what differs from the options.
        """
        return self._run(self._flows.retrieve_batch(questions, options))

    def stream(self, question: str | None = None, **options: Unpack[RetrieveOptions]) -> Iterator[Event]:
        """Yield each step of a retrieval as a ``StepEvent`` when it is taken, and at the end the ``RetrieveOut``."""
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

    def give_feedback(
        self,
        question: str,
        chunks: Iterable[Judgement],
        *,
        collection: str | None = None,
        answer: str | None = None,
        comment: str | None = None,
    ) -> FeedbackOut:
        """Say which chunks of an answer helped, and the right answer, if you know it."""
        call = calls.give_feedback(question, chunks, collection, answer, comment)
        return self._run(self._flows.send(call))

    def feedback(self, *, collection: str | None = None) -> Iterator[FeedbackOut]:
        """Yield all feedback, or that of a collection, in order of arrival; it is fetched page by page."""
        return self._all(calls.feedback(collection))

    def delete_feedback(self, id: str) -> None:
        """Delete a record of feedback."""
        self._run(self._flows.send(calls.delete_feedback(id)))

    def delete_all_feedback(self, collection: str) -> None:
        """Delete all feedback of a collection; its documents stay."""
        self._run(self._flows.send(calls.delete_all_feedback(collection)))

    def questions(
        self,
        *,
        collection: str | None = None,
        since: datetime | None = None,
        found_nothing: bool = False,
        with_feedback: bool = False,
    ) -> Iterator[QuestionOut]:
        """Yield what people asked and what came of it, in order of arrival, where the service keeps that.

        All, or those of a collection, those asked at ``since`` or later (local time where it names no zone), those that
        found nothing, those with feedback; they are fetched page by page.
        """
        return self._all(calls.questions(collection, since, found_nothing=found_nothing, with_feedback=with_feedback))

    def delete_question(self, id: str) -> None:
        """Delete a question that was kept."""
        self._run(self._flows.send(calls.delete_question(id)))

    def delete_all_questions(self, collection: str | None) -> None:
        """Delete the questions of a collection that were kept, or with None those of all collections."""
        self._run(self._flows.send(calls.delete_all_questions(collection)))

    def model(self) -> ModelOut:
        """Get the loaded checkpoint and its limits."""
        return self._run(self._flows.send(calls.model()))

    def checkpoints(self) -> CheckpointsOut:
        """Get which checkpoint is served, which could be, how far a change is, and the outcome of the last gate."""
        return self._run(self._flows.send(calls.checkpoints()))

    def change_checkpoint(
        self, name: str, *, gate: GateIn | None = None, canary: float | None = None
    ) -> CheckpointsOut:
        """Serve another checkpoint; :meth:`checkpoints` says when it is.

        With a ``gate`` it is served only if it does not lose on its questions. With a ``canary`` it answers this share
        of requests unseen, until it is asked for without one.
        """
        return self._run(self._flows.send(calls.change_checkpoint(name, gate, canary)))

    def forget_checkpoint(self, name: str) -> None:
        """Give up a change to a checkpoint, or drop the vectors that are kept for going back to it."""
        self._run(self._flows.send(calls.forget_checkpoint(name)))

    def ready(self) -> bool:
        """Ask whether the service is ready; this request is not repeated."""
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
        page = self._run(self._flows.send(listing(None)))
        yield from page.entries
        while page.next_cursor is not None:
            page = self._run(self._flows.send(listing(page.next_cursor)))
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
        content = _sent(body) if isinstance(body, FileBody) else body
        sending = request(self._http, step.call, content)
        try:
            response = self._http.send(sending, stream=step.call.streams)
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
