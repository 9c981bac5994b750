"""A question whose parts are answered by episodes of their own, and their chunks as one answer."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile, zip_longest
from typing import NamedTuple

from index.errors import UnknownDocument
from index.storage.vectors import ChunkAddress
from qrag.wire.retrieval import MAX_STEPS, PartOut, RetrieveOut, SelectedChunk, StepOut, SufficiencyOut, Timings, Usage
from qrag.wire.rules import StoppedBy
from service.retrieval.context import block, render
from service.retrieval.noting import keep
from service.retrieval.past import NOWHERE
from service.retrieval.results import Session, continuation_after
from service.retrieval.splitting import Split, split


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question, and the episodes that it takes: one, or one for each of its parts, all over one scope."""

    session: Session
    episodes: tuple[Session, ...]
    warnings: tuple[str, ...] = ()
    split_seconds: float = 0.0


class _Choice(NamedTuple):
    """A chunk of the joined answer, and the parts that it was found for."""

    chunk: SelectedChunk
    step: StepOut
    parts: list[int]

    @property
    def key(self) -> tuple[str, int]:
        return self.chunk.document_id, self.chunk.index


async def plan(session: Session) -> Inquiry:
    """The inquiry of a request; with ``decompose`` the language model splits its question."""
    model = session.services.language_model
    if not session.body.decompose or model is None:  # the latter was refused before
        return Inquiry(session, (session,))
    began = time.perf_counter()
    parts, warnings = _fitting(session, await split(session.asked, model))
    episodes = (session,) if len(parts) == 1 else tuple(_part(session, part) for part in parts)
    return Inquiry(session, episodes, warnings, time.perf_counter() - began)


def _fitting(session: Session, parts: Split) -> Split:
    """The parts, or the whole question where one of them does not fit the state tower's input."""
    encoder = session.loaded.encoder
    if all(len(encoder.question_tokens(part)) <= encoder.question_limit for part in parts.parts):
        return parts
    return Split((session.asked,), ("The question was not split: a part of it is too long.",))


def _part(session: Session, question: str) -> Session:
    body = session.body.model_copy(update={"question": question})
    return replace(session, body=body, question=session.loaded.encoder.question_tokens(question), is_part=True)


def joined(inquiry: Inquiry, found: Sequence[RetrieveOut]) -> RetrieveOut:
    """The answer to an inquiry from those of its episodes."""
    if not inquiry.session.body.decompose:
        return found[0]
    if len(found) == 1:
        out = _whole(inquiry.session, found[0])
    else:
        out = _interleaved(inquiry, found)
        keep(inquiry.session, out)
    return out.model_copy(update={"warnings": list(inquiry.warnings), "timings": _timings(inquiry, found)})


def _whole(session: Session, found: RetrieveOut) -> RetrieveOut:
    """The answer to a question that is one part."""
    chunks = [chunk.model_copy(update={"parts": [0]}) for chunk in found.chunks]
    part = PartOut(question=session.asked, stopped_by=found.stopped_by, sufficiency=found.sufficiency)
    return found.model_copy(update={"chunks": chunks, "parts": [part]})


def _interleaved(inquiry: Inquiry, found: Sequence[RetrieveOut]) -> RetrieveOut:
    """The chunks of all parts by rank, none twice, as many as the request allows."""
    session = inquiry.session
    choices, cut_by = _cut(session, _by_rank(found))
    chunks = [
        choice.chunk.model_copy(update={"step": number, "parts": sorted(choice.parts)})
        for number, choice in enumerate(choices)
    ]
    places = _places(session, chunks)
    continuation = _continuation(session, [(place, chunk.q) for place, chunk in zip(places, chunks, strict=True)])
    if session.body.order == "document":
        # What was deleted meanwhile has no place any more and comes last.
        in_order = sorted(range(len(chunks)), key=lambda number: (places[number] is None, places[number] or 0))
        chunks = [chunks[number] for number in in_order]
    context, citations = render(chunks)
    parts = [_part_out(episode, out, choices) for episode, out in zip(inquiry.episodes, found, strict=True)]
    return RetrieveOut(
        chunks=chunks,
        context=context,
        citations=citations,
        steps=[choice.step.model_copy(update={"step": number}) for number, choice in enumerate(choices)],
        stopped_by=cut_by or max(found, key=lambda out: len(out.steps)).stopped_by,
        sufficiency=_of_all([part.sufficiency for part in parts]),
        continuation=continuation,
        parts=parts,
        usage=Usage(
            question_tokens=len(session.question),
            context_tokens=session.loaded.encoder.chunk_tokenizer.count([context])[0],
            candidates=found[0].usage.candidates,
            exact=all(out.usage.exact for out in found),
            truncated_tokens=sum(out.usage.truncated_tokens for out in found),
        ),
        model=found[0].model,
        timings=found[0].timings,
    )


def _by_rank(found: Sequence[RetrieveOut]) -> list[_Choice]:
    """The first chunk of each part, then the second of each, and so on."""
    ranked = [zip(sorted(out.chunks, key=lambda chunk: chunk.step), out.steps, strict=True) for out in found]
    choices: dict[tuple[str, int], _Choice] = {}
    for selections in zip_longest(*ranked):
        for part, selection in enumerate(selections):
            if selection is not None:
                chunk, step = selection
                choice = _Choice(chunk, step, [])
                choices.setdefault(choice.key, choice).parts.append(part)
    return list(choices.values())


def _cut(session: Session, choices: list[_Choice]) -> tuple[list[_Choice], StoppedBy | None]:
    """As many of the first choices as the request allows, and what keeps out the next."""
    most = session.body.max_context_tokens
    kept = choices[: session.budget]
    if most is not None and kept:
        blocks = [block(MAX_STEPS, each.title or each.document_id, each.location, each.text) for each, _, _ in kept]
        for number, tokens in enumerate(accumulate(session.loaded.encoder.chunk_tokenizer.count(blocks))):
            if tokens > most:
                return kept[:number], "context"
    return kept, "budget" if len(kept) < len(choices) else None


def _part_out(episode: Session, found: RetrieveOut, choices: Sequence[_Choice]) -> PartOut:
    """What is told of a part: its sufficiency after its first chunks, as far as they were kept."""
    keys = {choice.key for choice in choices}
    kept = sum(1 for _ in takewhile(lambda step: (step.document_id, step.index) in keys, found.steps))
    sufficiency = found.sufficiency if kept == len(found.steps) else found.steps[kept].sufficiency
    return PartOut(question=episode.asked, stopped_by=found.stopped_by, sufficiency=sufficiency)


def _of_all(parts: Sequence[SufficiencyOut | None]) -> SufficiencyOut | None:
    """The probabilities for all parts, which have nothing to do with each other."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return SufficiencyOut(
        complete=math.prod(part.complete for part in known),
        hopeless=1 - math.prod(1 - part.hopeless for part in known),
    )


def _places(session: Session, chunks: Sequence[SelectedChunk]) -> list[int | None]:
    """The positions of chunks in the scope; none for those of documents that were deleted or replaced meanwhile."""
    catalogue = session.services.storage.catalogue
    uids: dict[str, int] = {}
    for id in {chunk.document_id for chunk in chunks}:
        with suppress(UnknownDocument):
            uids[id] = catalogue.document(id).uid
    addresses = [ChunkAddress(uids.get(chunk.document_id, NOWHERE), chunk.index) for chunk in chunks]
    return [session.scope.position(address) for address in addresses]


def _continuation(session: Session, selections: Sequence[tuple[int | None, float]]) -> str | None:
    """What goes on with the whole question; none where documents went meanwhile."""
    known = [(position, q) for position, q in selections if position is not None]
    if len(known) < len(selections):
        return None
    try:
        return continuation_after(session, known)
    except UnknownDocument:
        return None


def _timings(inquiry: Inquiry, found: Sequence[RetrieveOut]) -> Timings:
    """The longest of each phase, for the episodes ran side by side; second looks took turns."""
    timings = [out.timings for out in found]
    return Timings(
        queue_ms=max(each.queue_ms for each in timings),
        encode_ms=max(each.encode_ms for each in timings),
        search_ms=max(each.search_ms for each in timings),
        decompose_ms=1000 * inquiry.split_seconds,
        rerank_ms=sum(each.rerank_ms for each in timings),
        total_ms=1000 * (time.perf_counter() - inquiry.session.began),
    )
