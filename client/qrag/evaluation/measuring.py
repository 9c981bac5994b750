"""The answers of the methods: the service's, several questions at a time, and those of BM25."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from qrag import Client, Conflict, InvalidRequest, NotFound, RetrieveOptions, RetrieveOut, Stop
from qrag.evaluation.bm25 import BM25
from qrag.evaluation.library import ChunkKey, Library
from qrag.evaluation.report import Answer, ChunkRef
from qrag.evaluation.resolving import Resolved
from qrag.evaluation.together import together

METHODS: Mapping[str, str] = {
    "default": "the service, ending as its checkpoint was calibrated",
    "budget": "the service, always as many chunks as allowed",
    "reranked": "the same, each chunk chosen by the service's cross-encoder",
    "one-step": "one search by the checkpoint's embeddings, without steps",
    "bm25": "BM25 on the same chunks, computed by this command",
    "hybrid": "these two fused by reciprocal ranks",
}
"""What is measured, in the order of reports."""

LISTED = 30
"""Chunks of each list that is fused."""

FUSED = 60
"""What is added to a rank before its reciprocal is taken (Cormack et al., SIGIR 2009)."""

_MISSING = "a chunk was not there when the evaluation began: documents have changed since"


@dataclass(frozen=True, slots=True)
class Request:
    """A request for each question, by the method whose answer it gets."""

    method: str
    options: RetrieveOptions


def requests(max_steps: int, budget: bool, rerank: int | None) -> list[Request]:
    """The requests for each question; the trace of the first has the list of one step."""
    ordered = RetrieveOptions(max_steps=max_steps, order="selection")
    spent = Stop(rule="budget")
    return [
        Request("default", RetrieveOptions(**ordered, trace=True)),
        *([Request("budget", RetrieveOptions(**ordered, stop=spent))] if budget else []),
        *([Request("reranked", RetrieveOptions(**ordered, stop=spent, rerank=rerank))] if rerank else []),
    ]


def ask(
    client: Client,
    questions: Sequence[Resolved],
    asked: Sequence[Request],
    parallel: int,
    progress: Callable[[], object],
) -> list[dict[str, Answer]]:
    """The service's answers by method, ``parallel`` requests at a time; ``progress`` is called after each.

    Raises the exceptions of :class:`~qrag.Client`, but for a question that the service refuses: its answer is an error.
    """
    jobs = [
        (number, partial(_answers, client, question, request))
        for number, question in enumerate(questions)
        for request in asked
    ]
    answers: list[dict[str, Answer]] = [{} for _ in questions]
    for (number, _), answer in zip(jobs, together([job for _, job in jobs], parallel, progress), strict=True):
        answers[number] |= answer
    return answers


def _answers(client: Client, resolved: Resolved, request: Request) -> dict[str, Answer]:
    names = [request.method, *(["one-step"] if request.options.get("trace") else [])]
    question, library = resolved.question.question, resolved.library
    try:
        options = RetrieveOptions(**{**request.options, "collection": library.collection})
        result = client.retrieve(question, **options)
    except (InvalidRequest, NotFound, Conflict) as error:
        if error.code == "cannot_rerank":
            raise  # every other question would fail alike
        return dict.fromkeys(names, Answer(error=str(error)))
    answers = {request.method: _selected(result)}
    if request.options.get("trace"):
        candidates = result.one_step or []
        answers["one-step"] = _known(library, [(candidate.document_id, candidate.index) for candidate in candidates])
    return answers


def _selected(result: RetrieveOut) -> Answer:
    chunks = [
        ChunkRef(
            document_id=chunk.document_id,
            title=chunk.title,
            index=chunk.index,
            start=chunk.start,
            end=chunk.end,
            text=chunk.text,
        )
        for chunk in result.chunks
    ]
    complete = None if result.sufficiency is None else result.sufficiency.complete
    return Answer(chunks=chunks, stopped_by=result.stopped_by, complete=complete)


def _known(library: Library, keys: Sequence[ChunkKey]) -> Answer:
    """The answer of a method that names chunks alone."""
    chunks: list[ChunkRef] = []
    for key in keys:
        try:
            document, chunk = library.chunk(key)
        except LookupError:
            return Answer(error=_MISSING)
        chunks.append(
            ChunkRef(
                document_id=document.id,
                title=document.title,
                index=chunk.index,
                start=chunk.start,
                end=chunk.end,
                text=chunk.text,
            )
        )
    return Answer(chunks=chunks)


def with_peers(
    answers: Sequence[dict[str, Answer]], questions: Sequence[Resolved], count: int
) -> Iterator[dict[str, Answer]]:
    """The answers of each question with those of BM25 and of both lists fused; a list has at most ``count`` chunks."""
    for answered, ranked in zip(answers, _ranked(questions, max(count, LISTED)), strict=True):
        near = answered["one-step"]
        lists = {"one-step": near, "bm25": ranked, "hybrid": fused(near, ranked)}
        yield answered | {
            name: answer.model_copy(update={"chunks": answer.chunks[:count]}) for name, answer in lists.items()
        }


def fused(first: Answer, second: Answer) -> Answer:
    """Two lists as one: a chunk's score is the sum of ``1 / (60 + rank)`` over their first 30 chunks."""
    if first.error or second.error:
        return Answer(error=first.error or second.error)
    scores: dict[ChunkKey, float] = defaultdict(float)
    chunks: dict[ChunkKey, ChunkRef] = {}
    for answer in (first, second):
        for place, chunk in enumerate(answer.chunks[:LISTED], start=1):
            key = (chunk.document_id, chunk.index)
            scores[key] += 1 / (FUSED + place)
            chunks[key] = chunk
    return Answer(chunks=[chunks[key] for key in sorted(scores, key=lambda key: -scores[key])])


def _ranked(questions: Sequence[Resolved], count: int) -> Iterator[Answer]:
    """The ``count`` best chunks of each question's collection by BM25."""
    indices: dict[str, tuple[list[ChunkKey], BM25]] = {}
    for resolved in questions:
        library = resolved.library
        if library.collection not in indices:
            keys = [(id, chunk.index) for id, document in library.documents.items() for chunk in document.chunks]
            texts = (chunk.text for document in library.documents.values() for chunk in document.chunks)
            indices[library.collection] = (keys, BM25(texts))
        keys, index = indices[library.collection]
        yield _known(library, [keys[place] for place in index.best(resolved.question.question, count)])
