"""The client for programs that await."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar, Unpack

import anyio
import httpx
from anyio import to_thread

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


class AsyncClient:
    """The awaiting counterpart of :class:`~qrag.Client`: its methods are coroutines or asynchronous iterators.

    Files are read in a thread, so that they do not block the event loop.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: Retries = PATIENT,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
    ) -> None:
        self._http = httpx.AsyncClient(**settings(base_url, api_key, timeout))
        self._base_url = base_url
        self._flows = Flows(base_url, retries)
        self._sleep = sleep

    async def index(
        self, text: str, *, replace: bool = False, wait: bool = False, **options: Unpack[DocumentOptions]
    ) -> DocumentOut:
        """As :meth:`qrag.client.blocking.Client.index`."""
        return await self._run(self._flows.index(calls.index(text, options, replace=replace), wait))

    async def index_file(
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
        """As :meth:`qrag.client.blocking.Client.index_file`."""
        body = file_body(file, media_type, progress)
        call = calls.index_file(body, options, replace=replace, file_fields=file_fields)
        return await self._run(self._flows.index(call, wait))

    async def index_many(
        self, documents: Iterable[DocumentIn], *, replace: bool = False, wait: bool = False
    ) -> list[DocumentOut]:
        """As :meth:`qrag.client.blocking.Client.index_many`."""
        return await self._run(self._flows.index_many(documents, replace, wait))

    async def wait_until_ready(self, ids: Iterable[str], progress: DocumentProgress | None = None) -> list[DocumentOut]:
        """As :meth:`qrag.client.blocking.Client.wait_until_ready`."""
        return await self._run(self._flows.until_ready(ids, progress))

    def documents(self, *, collection: str | None = None, title: str | None = None) -> AsyncIterator[DocumentOut]:
        """As :meth:`qrag.client.blocking.Client.documents`."""
        return self._all(calls.documents(collection, title))

    async def document(self, id: str) -> DocumentOut:
        """As :meth:`qrag.client.blocking.Client.document`."""
        return await self._run(self._flows.send(calls.document(id)))

    async def text(self, id: str, start: int = 0, end: int | None = None) -> str:
        """As :meth:`qrag.client.blocking.Client.text`."""
        return await self._run(self._flows.send(calls.text(id, start, end)))

    def chunks(self, id: str) -> AsyncIterator[ChunkOut]:
        """As :meth:`qrag.client.blocking.Client.chunks`."""
        return self._all(calls.chunks(id))

    async def update(self, id: str, **changes: Unpack[DocumentChanges]) -> DocumentOut:
        """As :meth:`qrag.client.blocking.Client.update`."""
        return await self._run(self._flows.send(calls.update(id, changes)))

    async def retry(self, id: str) -> DocumentOut:
        """As :meth:`qrag.client.blocking.Client.retry`."""
        return await self._run(self._flows.send(calls.retry(id)))

    async def delete(self, id: str) -> None:
        """As :meth:`qrag.client.blocking.Client.delete`."""
        await self._run(self._flows.send(calls.delete(id)))

    async def collections(self) -> list[CollectionOut]:
        """As :meth:`qrag.client.blocking.Client.collections`."""
        return await self._run(self._flows.send(calls.collections()))

    async def delete_collection(self, name: str) -> None:
        """As :meth:`qrag.client.blocking.Client.delete_collection`."""
        await self._run(self._flows.send(calls.delete_collection(name)))

    async def retrieve(self, question: str | None = None, **options: Unpack[RetrieveOptions]) -> RetrieveOut:
        """As :meth:`qrag.client.blocking.Client.retrieve`."""
        return await self._run(self._flows.send(calls.retrieve(question, options)))

    async def answer(self, question: str | None = None, **options: Unpack[AnswerOptions]) -> AnswerOut:
        """As :meth:`qrag.client.blocking.Client.answer`."""
        return await self._run(self._flows.send(calls.answer(question, options)))

    async def retrieve_batch(
        self, questions: Iterable[str | BatchQuestion], **options: Unpack[BatchOptions]
    ) -> list[BatchItem]:
        """As :meth:`qrag.client.blocking.Client.retrieve_batch`."""
        return await self._run(self._flows.retrieve_batch(questions, options))

    async def stream(self, question: str | None = None, **options: Unpack[RetrieveOptions]) -> AsyncIterator[Event]:
        """As :meth:`qrag.client.blocking.Client.stream`."""
        response = await self._run(self._flows.answer(calls.retrieve(question, options, streams=True)))
        reader = EventReader(response.headers.get("X-Request-ID"))
        try:
            async for piece in response.aiter_bytes():
                for event in reader.feed(piece):
                    yield event
            reader.end()
        except httpx.RequestError as error:
            raise unreachable(error, self._base_url) from error
        except ValueError as error:
            raise self._flows.not_understood() from error
        finally:
            await response.aclose()

    async def give_feedback(
        self,
        question: str,
        chunks: Iterable[Judgement],
        *,
        collection: str | None = None,
        answer: str | None = None,
        comment: str | None = None,
    ) -> FeedbackOut:
        """As :meth:`qrag.client.blocking.Client.give_feedback`."""
        call = calls.give_feedback(question, chunks, collection, answer, comment)
        return await self._run(self._flows.send(call))

    def feedback(self, *, collection: str | None = None) -> AsyncIterator[FeedbackOut]:
        """As :meth:`qrag.client.blocking.Client.feedback`."""
        return self._all(calls.feedback(collection))

    async def delete_feedback(self, id: str) -> None:
        """As :meth:`qrag.client.blocking.Client.delete_feedback`."""
        await self._run(self._flows.send(calls.delete_feedback(id)))

    async def delete_all_feedback(self, collection: str) -> None:
        """As :meth:`qrag.client.blocking.Client.delete_all_feedback`."""
        await self._run(self._flows.send(calls.delete_all_feedback(collection)))

    def questions(
        self,
        *,
        collection: str | None = None,
        since: datetime | None = None,
        found_nothing: bool = False,
        with_feedback: bool = False,
    ) -> AsyncIterator[QuestionOut]:
        """As :meth:`qrag.client.blocking.Client.questions`."""
        return self._all(calls.questions(collection, since, found_nothing=found_nothing, with_feedback=with_feedback))

    async def delete_question(self, id: str) -> None:
        """As :meth:`qrag.client.blocking.Client.delete_question`."""
        await self._run(self._flows.send(calls.delete_question(id)))

    async def delete_all_questions(self, collection: str | None) -> None:
        """As :meth:`qrag.client.blocking.Client.delete_all_questions`."""
        await self._run(self._flows.send(calls.delete_all_questions(collection)))

    async def model(self) -> ModelOut:
        """As :meth:`qrag.client.blocking.Client.model`."""
        return await self._run(self._flows.send(calls.model()))

    async def checkpoints(self) -> CheckpointsOut:
        """As :meth:`qrag.client.blocking.Client.checkpoints`."""
        return await self._run(self._flows.send(calls.checkpoints()))

    async def change_checkpoint(
        self, name: str, *, gate: GateIn | None = None, canary: float | None = None
    ) -> CheckpointsOut:
        """As :meth:`qrag.client.blocking.Client.change_checkpoint`."""
        return await self._run(self._flows.send(calls.change_checkpoint(name, gate, canary)))

    async def forget_checkpoint(self, name: str) -> None:
        """As :meth:`qrag.client.blocking.Client.forget_checkpoint`."""
        await self._run(self._flows.send(calls.forget_checkpoint(name)))

    async def ready(self) -> bool:
        """As :meth:`qrag.client.blocking.Client.ready`."""
        return await self._run(self._flows.ready())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _all(self, listing: Listing[T]) -> AsyncIterator[T]:
        page = await self._run(self._flows.send(listing(None)))
        for entry in page.entries:
            yield entry
        while page.next_cursor is not None:
            page = await self._run(self._flows.send(listing(page.next_cursor)))
            for entry in page.entries:
                yield entry

    async def _run(self, flow: Flow[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            outcome = await self._take(step)

    async def _take(self, step: Send | Pause) -> Outcome:
        if isinstance(step, Pause):
            await self._sleep(step.seconds)
            return None
        body = step.call.body
        content = _sent(body) if isinstance(body, FileBody) else body
        sending = request(self._http, step.call, content)
        try:
            response = await self._http.send(sending, stream=step.call.streams)
            if not response.is_success:
                await response.aread()
        except httpx.RequestError as error:
            return error
        return response


async def _sent(body: FileBody) -> AsyncIterator[bytes]:
    sent = 0
    body.progress(sent, body.length)
    blocks = body.blocks()
    while (block := await to_thread.run_sync(next, blocks, None)) is not None:
        yield block
        sent += len(block)
        body.progress(sent, body.length)
