"""What a trained checkpoint is measured against, on the same questions with the same budgets."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import torch

from index.encoders.encoder import Encoder
from index.encoders.loading import load_model, native_dtype
from index.encoders.tokenizer import TextTokenizer
from index.encoders.tower import Tower
from index.search.positions import Positions
from index.search.scoring import best
from index.search.states import States
from trainer.base_models import base_directory, initial_config
from trainer.datasets.lexical import words
from trainer.datasets.question import Question
from trainer.evaluation.playing import Player
from trainer.recipe import Recipe


class BM25:
    """Lexical search: the chunks with the best BM25 score, all at once.

    Each question's chunks are a collection of their own, as they are to the other ways of retrieving.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, list[str]] = {}

    def read(self, _background: Sequence[str]) -> None:
        """Nothing of one background is needed for the next."""
        self._tokens = {}

    def select(self, questions: Sequence[Question]) -> list[list[int]]:
        """The best chunks of each question, best first."""
        return [self._best(question) for question in questions]

    def _best(self, question: Question) -> list[int]:
        unknown = [chunk for chunk in dict.fromkeys(question.chunks) if chunk not in self._tokens]
        self._tokens.update(zip(unknown, words(unknown), strict=True))
        (query,) = words([question.text])
        if not query:  # it consists of stop words
            return list(range(min(question.budget, len(question.chunks))))
        index = bm25s.BM25()
        index.index([self._tokens[chunk] for chunk in question.chunks], show_progress=False)
        order = np.argsort(-index.get_scores(query), kind="stable")
        return [int(position) for position in order[: question.budget]]


class OneStep(Player):
    """Dense search as it is usually done: the chunks nearest to the question, all at once."""

    def select(self, questions: Sequence[Question]) -> list[list[int]]:
        """The nearest chunks of each question, nearest first."""
        encoder, vectors = self.encoder, self.vectors(questions)
        inputs = [
            encoder.compose_state(encoder.question_tokens(question.text)[: encoder.question_limit], [])
            for question in questions
        ]
        selections: list[list[int]] = []
        for question, state in zip(questions, encoder.embed_states(inputs), strict=True):
            scope = vectors.scope(question)
            (estimate,) = scope.estimate(States(state.embedding[None]), [()], encoder.function)
            candidates = best(estimate, question.budget, state, scope, (), encoder.function)
            selections.append([candidate.position for candidate in candidates])
        return selections


def untrained_encoder(recipe: Recipe | None, device: torch.device) -> Encoder:
    """The base model in both roles, as a recipe names and reads it (none: the packaged one), without positions."""
    # A recipe without tasks is none that could be trained; only what it says about the base model is used.
    recipe = recipe or Recipe.model_construct(name="untrained", tasks=())
    directory = base_directory(recipe.base)
    config = initial_config(recipe, directory).model_copy(update={"positions": Positions(mode="none")})
    tower = Tower(
        load_model(directory, device, native_dtype(device)),
        TextTokenizer(directory),
        pooling=config.pooling,
        normalize=config.normalize,
    )
    return Encoder(config, tower, tower)
