"""The end-to-end evaluation: the same reader over the evidence of every way of retrieving, and over the gold chunks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from index.encoders.cross_encoder import CrossEncoder
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.episodes.rules import StopBelow
from trainer.answering.asking import Asked, answer
from trainer.answering.reports import AnswerReport, AnswerResult
from trainer.datasets.question import Question
from trainer.evaluation.baselines import BM25, Hybrid, OneStep, Reranked, untrained_encoder
from trainer.evaluation.machine import describe_machine
from trainer.evaluation.playing import Player, Retriever, together
from trainer.evaluation.suites.test_sets import TestSet
from trainer.readers.protocol import Reader

log = logging.getLogger(__name__)

CHUNKS = 5
"""Chunks that each of the other ways of retrieving gives the reader."""

MOST_STEPS = 6
"""Most chunks of an episode that its stop rule ends, the service's default."""


class Gold:
    """The gold chunks, in document order: what a perfect retriever would find."""

    def read(self, _background: Sequence[str]) -> None:
        """Nothing of a background is needed."""

    def select(self, questions: Sequence[Question]) -> list[list[int]]:
        """The chunks that hold the evidence; of several that hold the same fact, the first."""
        return [_gold(question) for question in questions]


def _gold(question: Question) -> list[int]:
    if question.facts is None:
        return sorted(question.support)
    return sorted({min(holders) for holders in question.facts})


class Nothing:
    """No evidence: what the reader knows by itself."""

    def read(self, _background: Sequence[str]) -> None:
        """Nothing of a background is needed."""

    def select(self, questions: Sequence[Question]) -> list[list[int]]:
        """No chunk."""
        return [[] for _ in questions]


def default_stop(encoder: Encoder) -> StopBelow | None:
    """The rule that ends an episode where a request names none; none where the checkpoint was not calibrated."""
    stopping = encoder.config.stopping
    if stopping is None or stopping.calibration is None:
        return None
    return stopping.calibration.rule_for()


def compare_answers(
    reader: Reader,
    sets: Sequence[TestSet],
    name: str,
    checkpoint: Path,
    *,
    seed: int,
    device: torch.device,
    reranker: Path | None = None,
    cache: Path | None = None,
) -> AnswerReport:
    """The report on the ``checkpoint``, reported as ``name``, and its peers; with a ``reranker``, on that one too.

    Embeddings are kept in ``cache``. Raises :class:`~trainer.errors.ReaderError` where the reader fails.
    """
    encoder = load_encoder(checkpoint, device=str(device))
    results = []
    for label, retriever in _ways(name, encoder, device, reranker, cache):
        rows = []
        for asked in find(retriever, sets):
            row = answer(reader, asked)
            log.info("%s %s questions=%d f1=%.3f", label, row.task, len(row.f1), sum(row.f1) / len(row.f1))
            rows.append(row)
        results.append(AnswerResult(name=label, rows=tuple(rows)))
    return AnswerReport(
        machine=describe_machine(),
        reader=reader.identity.partition(" ")[0],
        checkpoint=encoder.config.fingerprint,
        seed=seed,
        compared=name,
        results=tuple(results),
    )


def _ways(
    name: str, encoder: Encoder, device: torch.device, reranker: Path | None, cache: Path | None
) -> Iterator[tuple[str, Retriever]]:
    """Each way of retrieving with its name, made when it is asked for."""
    yield "nothing", Nothing()
    yield "bm25", BM25()
    nearest = OneStep(untrained_encoder(None, device), cache=cache)
    yield "one-step", nearest
    hybrid = Hybrid(BM25(), nearest)
    yield "hybrid", hybrid
    if reranker is not None:
        yield "reranked", Reranked(hybrid, CrossEncoder(reranker, device))
    yield name, Player(encoder, cache=cache, stop=default_stop(encoder), budget=MOST_STEPS)
    yield "gold", Gold()


def find(retriever: Retriever, sets: Sequence[TestSet]) -> Iterator[Asked]:
    """The questions of each test set with what is selected for them."""
    for test_set in sets:
        retriever.read(test_set.background)
        questions, selections = list[Question](), list[Sequence[int]]()
        for group in together(test_set.draw()):
            questions += group
            selections += retriever.select(group)
        yield Asked(test_set.task, questions, selections)
