"""Which questions a reader judges, and which of their chunks it reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from trainer.datasets.question import Question
from trainer.datasets.registry import Dataset
from trainer.errors import DataError
from trainer.evaluation.baselines import BM25, Hybrid, OneStep, untrained_encoder


def to_judge(dataset: Dataset, path: Path, words: int | None, count: int | None, seed: int) -> list[Question]:
    """Questions of the file that have an answer, at most ``count`` drawn at random, in the order of the file.

    Raises :class:`~trainer.errors.DataError` where there is none, or two have the same id.
    """
    questions = [question for question in dataset.questions(path, words) if question.answers and question.chunks]
    if not questions:
        raise DataError(path, None, "has no question with an answer, which a reader needs to judge evidence")
    counts = Counter(question.id for question in questions)
    if repeated := [id for id, count in counts.items() if count > 1]:
        raise DataError(path, None, f"has several questions {repeated[0]}: judgements are found again by their ids")
    order = np.random.default_rng(seed).permutation(len(questions))[:count]
    return [questions[place] for place in sorted(order.tolist())]


def first_candidates(
    questions: Sequence[Question], count: int, device: torch.device, cache: Path | None = None
) -> Mapping[str, Sequence[int]]:
    """The positions of at most ``count`` chunks of each question, by its id: the first ones of hybrid search.

    It needs no training: BM25, and the base model that the packaged checkpoint holds.
    """
    candidates: dict[str, Sequence[int]] = {
        question.id: range(len(question.chunks)) for question in questions if len(question.chunks) <= count
    }
    longer = [question for question in questions if question.id not in candidates]
    if longer:
        ranking = Hybrid(BM25(), OneStep(untrained_encoder(None, device), cache=cache))
        ranked = ranking.rank(longer, count)
        candidates |= {question.id: order for question, order in zip(longer, ranked, strict=True)}
    return candidates
