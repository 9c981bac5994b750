"""What is kept of an answer: figures, and where the operator wants it, the question."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta

from index.episodes.drift import compared
from index.storage.questions import Question
from qrag.wire.retrieval import RetrieveOut
from service.engine.runs import Run
from service.observing.logs import REQUEST_ID
from service.retrieval.results import Session


def count(session: Session, run: Run) -> None:
    """Count an episode in the metrics."""
    metrics = session.services.metrics
    metrics.episode(run, session.tokenize_seconds)
    source = session.loaded.encoder.config.stopping
    if source is not None and source.calibration is not None and session.stop is not None:
        calibration = source.calibration
        if _is_like_the_calibration(session, calibration.budget):
            metrics.drift(compared(run.episode, session.stop, calibration))


def keep(session: Session, answer: RetrieveOut) -> None:
    """Keep a question, where the operator wants it."""
    if session.services.questions is not None:
        session.services.questions.note(_question(session, answer))


def _question(session: Session, answer: RetrieveOut) -> Question:
    config, sufficiency = session.loaded.encoder.config, answer.sufficiency
    seconds = time.perf_counter() - session.began
    asked_at = datetime.now(UTC) - timedelta(seconds=seconds)
    return Question(
        id=f"qu-{uuid.uuid4().hex[:24]}",
        collection=session.body.collection,
        question=session.asked,
        asked_at=asked_at.replace(microsecond=asked_at.microsecond // 1000 * 1000),
        checkpoint=config.name,
        fingerprint=config.fingerprint,
        chunks=[(step.document_id, step.index) for step in answer.steps],
        found_nothing=answer.stopped_by == "hopeless" or not (answer.steps or session.searched.held),
        stopped_by=answer.stopped_by,
        complete=None if sufficiency is None else sufficiency.complete,
        hopeless=None if sufficiency is None else sufficiency.hopeless,
        seconds=seconds,
        request_id=REQUEST_ID.get(),
    )


def _is_like_the_calibration(session: Session, budget: int) -> bool:
    """Whether the episode began with the question alone, took chunks by their Q, and had as many steps."""
    body = session.body
    begins_alone = not session.searched.held and not session.searched.excluded
    has_steps = min(body.max_steps, body.max_total_chunks) >= budget
    return begins_alone and has_steps and body.beam_width == 1 and body.rerank is None
