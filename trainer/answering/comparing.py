"""The end-to-end evaluation: the same reader over the evidence of every way of retrieving, and over the gold chunks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from index.encoders.cross_encoder import CrossEncoder
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.episodes.rules import StopBelow
from trainer.answering.asking import Asked, answer
from trainer.answering.reports import AnswerReport
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


PEERS = ("nothing", "bm25", "one-step", "hybrid", "reranked", "gold")
"""Names of what a checkpoint is compared with."""


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
    peers: Sequence[str] = PEERS,
    known: AnswerReport | None = None,
    reranker: Path | None = None,
    cache: Path | None = None,
) -> Iterator[AnswerReport]:
    """The report on the ``checkpoint``, called ``name``, and its ``peers``: after each row what there is so far.

    The rows of the ``known`` report are taken over. Without a ``reranker`` that peer is left out. Embeddings are kept
    in ``cache``. Raises :class:`~trainer.errors.ResumeError` where the known rows are of something else, and
    :class:`~trainer.errors.ReaderError` where the reader fails.
    """
    encoder = load_encoder(checkpoint, device=str(device))
    report = AnswerReport(
        machine=describe_machine(),
        reader=reader.identity,
        checkpoint=encoder.config.fingerprint,
        reranker=None if reranker is None else _checksum(reranker),
        seed=seed,
        compared=name,
        results=(),
    )
    counts = {test_set.task: test_set.count for test_set in sets}
    rows = {} if known is None else known.rows_for(report, counts)
    ways = [peer for peer in PEERS if peer in peers and (peer != "reranked" or reranker is not None)]
    order = [*PEERS[:-1], name, PEERS[-1]]
    nearest = OneStep(untrained_encoder(None, device), cache=cache)
    hybrid = Hybrid(BM25(), nearest)
    for way in (*ways, name):
        missing = [test_set for test_set in sets if (way, test_set.task) not in rows]
        if not missing:
            continue
        retriever: Retriever
        match way:
            case "nothing":
                retriever = Nothing()
            case "bm25":
                retriever = BM25()
            case "one-step":
                retriever = nearest
            case "hybrid":
                retriever = hybrid
            case "reranked" if reranker is not None:
                retriever = Reranked(hybrid, CrossEncoder(reranker, device))
            case "gold":
                retriever = Gold()
            case _:
                retriever = Player(encoder, cache=cache, stop=default_stop(encoder), budget=MOST_STEPS)
        for asked in find(retriever, missing):
            row = rows[way, asked.task] = answer(reader, asked)
            log.info("%s %s questions=%d f1=%.3f", way, row.task, len(row.f1), sum(row.f1) / len(row.f1))
            yield report.with_rows(rows, order)
    yield report.with_rows(rows, order)


def _checksum(reranker: Path) -> str:
    """The SHA-256 of the weights."""
    digest = hashlib.sha256()
    for file in sorted(reranker.glob("*.safetensors")):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def find(retriever: Retriever, sets: Sequence[TestSet]) -> Iterator[Asked]:
    """The questions of each test set with what is selected for them."""
    for test_set in sets:
        retriever.read(test_set.background)
        questions, selections = list[Question](), list[Sequence[int]]()
        for group in together(test_set.draw()):
            questions += group
            selections += retriever.select(group)
        yield Asked(test_set.task, questions, selections)
