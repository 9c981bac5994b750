"""The canary: a share of requests is played with the checkpoint of a change too, once they have been answered.

Nobody waits for it and nobody sees it but the log and the metrics. It takes a place in the engine like a request, so it
is dropped where that has much to do.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import aclosing

from anyio import to_thread

from index.errors import QRagError
from qrag.wire.retrieval import RetrieveOut
from service.engine.changes import Canary
from service.engine.loaded import Loaded
from service.errors import ServiceError
from service.retrieval.past import Settled
from service.retrieval.results import Session
from service.retrieval.session import prepare, start

log = logging.getLogger(__name__)

MOST_RUNNING = 2
"""Requests that are played at the same time; further ones are dropped."""

BUSY = 8
"""Retrievals in the engine from which on none is played."""


def play_too(session: Session, answer: RetrieveOut) -> None:
    """Play an answered request with the other checkpoint, if there is a canary and chance picks the request.

    What goes on from an answer of the served checkpoint is left out, and what a cross-encoder or a language model
    decided.
    """
    services, body = session.services, session.body
    change = services.checkpoints.change
    if change is None or change.state != "canary" or change.canary is None or change.candidate is None:
        return
    left_out = body.continuation is not None or body.rerank is not None or body.decompose
    if left_out or random.random() >= change.canary.share:
        return
    running, waiting = services.engine.load
    if len(change.canary.tasks) >= MOST_RUNNING or running >= BUSY or waiting:
        change.canary.dropped += 1
        services.metrics.canary("dropped")
        return
    task = asyncio.create_task(_compare(session, answer, change.canary, change.candidate))
    change.canary.tasks.add(task)
    task.add_done_callback(change.canary.tasks.discard)


async def _compare(session: Session, answer: RetrieveOut, canary: Canary, candidate: Loaded) -> None:
    services, names = session.services, f"checkpoint={candidate.name} served={session.loaded.name}"
    try:
        other = await prepare(session.body, services, session.access, Settled(candidate))
        async with aclosing(start(other)) as events:
            run = [run async for run, step in events if step is None][-1]
        steps = run.episode.steps
        keys = await to_thread.run_sync(_keys, other, [step.position for step in steps])
    except (ServiceError, QRagError) as error:
        canary.failed += 1
        services.metrics.canary("failed")
        log.info("canary %s failed=%s", names, type(error).__name__)
        return
    selected = {(chunk.document_id, chunk.index) for chunk in answer.chunks}
    overlap = len(selected & keys) / len(selected | keys) if selected or keys else 1.0
    canary.compared += 1
    canary.overlaps += overlap
    services.metrics.canary("compared", overlap)
    log.info(
        "canary %s overlap=%.3f served_steps=%d candidate_steps=%d served_q=%s candidate_q=%s served_seconds=%.4f "
        "candidate_seconds=%.4f",
        names,
        overlap,
        len(answer.steps),
        len(steps),
        ",".join(f"{step.q:.3f}" for step in answer.steps),
        ",".join(f"{step.q:.3f}" for step in steps),
        (answer.timings.encode_ms + answer.timings.search_ms) / 1000,
        run.encode_seconds + run.search_seconds,
    )


def _keys(session: Session, positions: list[int]) -> set[tuple[str, int]]:
    """Chunks by the ids of their documents; raises :class:`~index.errors.UnknownDocument` for a deleted one."""
    addresses = [session.scope.address(position) for position in positions]
    documents = session.services.storage.catalogue.documents_at({address.uid for address in addresses})
    return {(documents[address.uid].id, address.number) for address in addresses}
