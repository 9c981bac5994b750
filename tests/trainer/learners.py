"""Learners over tiny models in float32, and random questions for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from index.encoders.encoder import Encoder
from index.search.positions import Positions
from trainer.bases.models import initial_config
from trainer.datasets.question import Question
from trainer.evaluation.counting import recall
from trainer.evaluation.playing import play
from trainer.evaluation.vectors import embed_texts
from trainer.hyperparameters import Hyperparameters
from trainer.learning.heads.starting import initial_heads
from trainer.learning.learner import Learner
from trainer.learning.networks import QNetwork
from trainer.recipe import DatasetTask, Recipe

CPU = torch.device("cpu")

WORDS = (
    "ball box key lamp river stone tower garden kitchen bridge letter clock horse ship candle mirror "
    "red green old small heavy broken golden hidden Ann Bob Carl Dora Emil Fred Gina Hugo took left found saw gave lost"
).split()


WITH_SIGNALS: dict[str, Any] = {
    "positions": Positions(levels=8, dimension=4),
    "lexical": True,
    "surroundings": True,
    "first_share": 0.5,
}
"""Fields of a recipe whose states are read for more than their embeddings."""


def unsettle(learner: Learner) -> None:
    """Move the heads from where they begin, at which a mistake in them would not show."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in learner.masters.values.items():
            if name.startswith("heads."):
                value.add_(0.5 * torch.randn(value.shape, generator=generator))
    learner.masters.publish()


def make_recipe(base: Path, **fields: Any) -> Recipe:
    """A recipe for a tiny model; ``fields`` replace its own."""
    plain: dict[str, Any] = {
        "name": "tiny",
        "base": str(base),
        "state_tokens": 96,
        "action_tokens": 32,
        "positions": Positions(levels=8),
        "tasks": (DatasetTask(kind="jsonl", path="own.jsonl"),),
    }
    return Recipe(**plain | fields)


R3 = Hyperparameters(
    objective="r3",
    reward="answer",
    transitions=320,
    environments=16,
    warm_start=0.5,
    learning_rate=1e-3,
    head_learning_rate=5e-3,
    alpha_start=1e-6,
    alpha_end=1e-6,
)


def r3_recipe(base: Path, settings: Hyperparameters = R3, **fields: Any) -> Recipe:
    """A recipe by R3's objective, with all signals, on judged questions."""
    task = DatasetTask(kind="jsonl", path="own.jsonl", judgements="judged.jsonl")
    return make_recipe(base, hyperparameters=settings, reader="smollm2", tasks=(task,), **(WITH_SIGNALS | fields))


def make_network(recipe: Recipe, dtype: torch.dtype = torch.float32) -> QNetwork:
    """The network that training by a recipe starts from."""
    base = Path(str(recipe.base))
    settings = recipe.hyperparameters
    config = initial_config(recipe, base)
    heads = initial_heads(recipe, base, config.dimension, [[*WORDS, "ball box", "ball lamp", "ball"]])
    return QNetwork(
        config,
        base,
        action_mode=settings.action_mode,
        device=CPU,
        dtype=dtype,
        stop=settings.stop,
        frozen_layers=settings.frozen_layers,
        heads=heads,
    )


def make_learner(
    base: Path, settings: Hyperparameters, *, seed: int = 0, dtype: torch.dtype = torch.float32, **fields: Any
) -> Learner:
    """A learner at the start of its training."""
    torch.manual_seed(0)
    recipe = make_recipe(base, hyperparameters=settings, **fields)
    return Learner(make_network(recipe, dtype), make_network(recipe, dtype), settings, seed)


def words(generator: np.random.Generator, count: int) -> str:
    """Some of the words at random."""
    return " ".join(generator.choice(WORDS, size=count))


def random_question(
    generator: np.random.Generator, counts: Sequence[int] = (7,), *, support: int = 2, budget: int = 3
) -> Question:
    """A question over chunks of random words, no two alike."""
    chunks = [f"{number} {words(generator, int(generator.integers(1, 9)))}" for number in range(sum(counts))]
    return Question(
        id=str(generator.integers(2**31)),
        task="random",
        text=f"Where is {words(generator, 4)}?",
        chunks=chunks,
        counts=tuple(counts),
        support=frozenset(generator.choice(len(chunks), size=support, replace=False).tolist()),
        budget=budget,
    )


def random_questions(seed: int, count: int = 6) -> list[Question]:
    """Questions over documents of various numbers and lengths, with one to three chunks of support."""
    generator = np.random.default_rng(seed)
    shapes = [(7,), (3, 1, 4), (1,) * 8, (12,), (2, 2), (5, 9)]
    return [
        random_question(generator, shapes[at % len(shapes)], support=1 + at % 3, budget=2 + at % 3)
        for at in range(count)
    ]


def recall_of(encoder: Encoder, questions: Sequence[Question]) -> float:
    """The share of the questions whose evidence is all selected, played with what the encoder embeds."""
    vectors = embed_texts(encoder, [chunk for question in questions for chunk in question.chunks])
    return recall(questions, play(encoder, questions, vectors)).at_budget
