"""What a trained checkpoint is measured against, on the same questions with the same budgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import bm25s
import numpy as np
import torch

from index.encoders.checkpoint import read_config
from index.encoders.cross_encoder import CrossEncoder
from index.encoders.encoder import Encoder
from index.encoders.loading import compute_dtype, load_model
from index.encoders.tokenizer import TextTokenizer
from index.encoders.tower import Tower
from index.search.positions import Positions
from index.search.scoring import best
from index.search.states import States
from trainer.bases.models import PACKAGED, base_directory, base_of, initial_config, start_directory
from trainer.datasets.lexical import words
from trainer.datasets.question import Question
from trainer.evaluation.playing import Player
from trainer.recipe import Recipe


class Ranking(Protocol):
    """A way of retrieving that orders chunks."""

    def read(self, background: Sequence[str], /) -> None:
        """Expect questions whose documents consist mostly of stretches of ``background``."""

    def rank(self, questions: Sequence[Question], count: int, /) -> list[list[int]]:
        """The best ``count`` chunks of each question, best first; fewer where there are fewer."""


class BM25:
    """Lexical search: the chunks with the best BM25 score, all at once.

    Each question's chunks are a collection of their own, as they are to the other ways of retrieving.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, list[str]] = {}
        self._index: tuple[Sequence[str], bm25s.BM25] | None = None

    def read(self, _background: Sequence[str]) -> None:
        """Nothing of one background is needed for the next."""
        self._tokens = {}
        self._index = None

    def select(self, questions: Sequence[Question]) -> list[list[int]]:
        """The best chunks of each question, best first."""
        return [self._best(question, question.budget) for question in questions]

    def rank(self, questions: Sequence[Question], count: int) -> list[list[int]]:
        """The best chunks of each question, best first."""
        return [self._best(question, count) for question in questions]

    def _best(self, question: Question, count: int) -> list[int]:
        (query,) = words([question.text])
        if not query:  # it consists of stop words
            return list(range(min(count, len(question.chunks))))
        order = np.argsort(-self._indexed(question.chunks).get_scores(query), kind="stable")
        return [int(position) for position in order[:count]]

    def _indexed(self, chunks: Sequence[str]) -> bm25s.BM25:
        """An index of the chunks; that of the question before, where it is asked about the same."""
        if self._index is None or self._index[0] is not chunks:
            unknown = [chunk for chunk in dict.fromkeys(chunks) if chunk not in self._tokens]
            self._tokens.update(zip(unknown, words(unknown), strict=True))
            index = bm25s.BM25()
            index.index([self._tokens[chunk] for chunk in chunks], show_progress=False)
            self._index = (chunks, index)
        return self._index[1]


class OneStep(Player):
    """Dense search as it is usually done: the chunks nearest to the question, all at once."""

    def select(self, questions: Sequence[Question]) -> list[list[int]]:
        """The nearest chunks of each question, nearest first."""
        return self._nearest(questions, [question.budget for question in questions])

    def rank(self, questions: Sequence[Question], count: int) -> list[list[int]]:
        """The nearest chunks of each question, nearest first."""
        return self._nearest(questions, [count] * len(questions))

    def _nearest(self, questions: Sequence[Question], counts: Sequence[int]) -> list[list[int]]:
        encoder, vectors = self.encoder, self.vectors(questions)
        inputs = [
            encoder.compose_state(encoder.question_tokens(question.text)[: encoder.question_limit], [])
            for question in questions
        ]
        selections: list[list[int]] = []
        for question, state, count in zip(questions, encoder.embed_states(inputs), counts, strict=True):
            scope = vectors.scope(question)
            (estimate,) = scope.estimate(States(state.embedding[None]), [()], encoder.function)
            candidates = best(estimate, count, state, scope, (), encoder.function)
            selections.append([candidate.position for candidate in candidates])
        return selections


FUSED = 60
"""The constant of reciprocal rank fusion (Cormack et al. 2009)."""

LISTED = 100
"""How much of each list is fused."""


class Hybrid:
    """Two lists fused by reciprocal ranks: a chunk's score is the sum of ``1 / (60 + rank)``."""

    def __init__(self, first: Ranking, second: Ranking) -> None:
        self._both = (first, second)

    def read(self, background: Sequence[str]) -> None:
        """Both read it."""
        for ranking in self._both:
            ranking.read(background)

    def select(self, questions: Sequence[Question]) -> list[list[int]]:
        """The best chunks of each question, best first."""
        ranked = self.rank(questions, LISTED)
        return [order[: question.budget] for order, question in zip(ranked, questions, strict=True)]

    def rank(self, questions: Sequence[Question], count: int) -> list[list[int]]:
        """The best chunks of each question, best first."""
        lists = [ranking.rank(questions, LISTED) for ranking in self._both]
        return [_fused(orders)[:count] for orders in zip(*lists, strict=True)]


def _fused(orders: Sequence[Sequence[int]]) -> list[int]:
    scores: dict[int, float] = {}
    for order in orders:
        for rank, position in enumerate(order, start=1):
            scores[position] = scores.get(position, 0.0) + 1 / (FUSED + rank)
    return sorted(scores, key=lambda position: (-scores[position], position))


RERANKED = 30
"""How many of a list a cross-encoder reads."""


class Reranked:
    """A list whose first chunks a cross-encoder puts in order."""

    def __init__(self, ranking: Ranking, encoder: CrossEncoder) -> None:
        self._ranking, self._encoder = ranking, encoder

    def read(self, background: Sequence[str]) -> None:
        """What ranks reads it."""
        self._ranking.read(background)

    def select(self, questions: Sequence[Question]) -> list[list[int]]:
        """The best chunks of each question, best first."""
        selections = []
        for question, order in zip(questions, self._ranking.rank(questions, RERANKED), strict=True):
            scores = self._encoder.score(question.text, [question.chunks[position] for position in order])
            reordered = [order[place] for place in np.argsort(-scores, kind="stable").tolist()]
            selections.append(reordered[: question.budget])
        return selections


def untrained_encoder(recipe: Recipe | None, device: torch.device) -> Encoder:
    """The base model in both roles, as a recipe names and reads it, without positions.

    Without a recipe it is the one that the packaged checkpoint holds.
    """
    recipe = recipe or _packaged()
    directory = base_directory(base_of(recipe))
    config = initial_config(recipe, directory).model_copy(update={"positions": Positions(mode="none")})
    tower = Tower(
        load_model(directory, device, compute_dtype(device)),
        TextTokenizer(directory),
        pooling=config.pooling,
        normalize=config.normalize,
    )
    return Encoder(config, tower, tower)


def _packaged() -> Recipe:
    """What the packaged checkpoint says about its base model; without tasks, so none that could be trained."""
    config = read_config(start_directory(PACKAGED))
    shared = ("pooling", "normalize", "action_prefix", "state_prefix", "action_tokens", "state_tokens", "headings")
    fields = {name: getattr(config, name) for name in shared}
    return Recipe.model_construct(name="untrained", start=PACKAGED, tasks=(), **fields)
