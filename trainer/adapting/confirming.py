"""The round trip: a drafted question is kept where the reader, asked about what search finds, wants its own chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from trainer.adapting.collection import Collection
from trainer.adapting.drafts import Draft
from trainer.datasets.question import Question
from trainer.judging.candidates import first_candidates
from trainer.judging.judge import Judge
from trainer.judging.support import LEAST_GAIN, find_support

CANDIDATES = 10
"""Chunks that hybrid search finds first for a question, beside its own."""

MOST_FACTS = 2
"""Most chunks that a drafted question needs."""

BUDGET = 5
"""Selections of an episode on a question of a collection."""

TOGETHER = 256
"""Drafts judged together: a chunk that several of them find is read once for all."""


def confirmed(
    judge: Judge, drafts: Sequence[Draft], collection: Collection, device: torch.device, cache: Path
) -> Iterator[Question]:
    """The drafts whose own chunks are what the reader needs, as questions over the whole collection.

    Raises as :class:`~trainer.readers.protocol.Reader` says.
    """
    questions = [_asked(number, draft, collection) for number, draft in enumerate(drafts)]
    found = first_candidates(questions, CANDIDATES, device, cache)
    candidates = {
        question.id: list(dict.fromkeys((*found[question.id][:CANDIDATES], *draft.chunks)))
        for question, draft in zip(questions, drafts, strict=True)
    }
    # One chunk each comes first: where the best is none of its own, a draft is lost, and nothing is tried beside it.
    firsts = find_support(judge, questions, candidates, least_gain=LEAST_GAIN, most_chunks=1, together=TOGETHER)
    left = [
        (question, draft)
        for question, draft, first in zip(questions, drafts, firsts, strict=True)
        if first.support and set(first.support) <= set(draft.chunks)
    ]
    likely = [question for question, _ in left]
    judgements = find_support(
        judge, likely, candidates, least_gain=LEAST_GAIN, most_chunks=MOST_FACTS, together=TOGETHER
    )
    for (question, draft), judgement in zip(left, judgements, strict=True):
        if set(judgement.support) == set(draft.chunks):
            yield question


def _asked(number: int, draft: Draft, collection: Collection) -> Question:
    return Question(
        id=f"draft-{number}",
        task="single" if len(draft.chunks) == 1 else "two",
        text=draft.question,
        chunks=collection.chunks,
        counts=collection.counts,
        support=frozenset(draft.chunks),
        budget=BUDGET,
        answers=(draft.answer,),
        judged=True,
    )
