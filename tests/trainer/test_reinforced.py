"""R3's objective: the contrast, and the pairs it is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.learners import R3, make_network, make_recipe, r3_recipe, words
from tests.trainer.overlap_reader import OverlapReader
from trainer.datasets.question import Question
from trainer.errors import RecipeError
from trainer.hyperparameters import Hyperparameters
from trainer.judging.judge import Judge
from trainer.learning.learner import Learner
from trainer.learning.objectives.reinforced import contrast
from trainer.recipe import DatasetTask


def learner(base: Path, settings: Hyperparameters = R3, **fields: object) -> tuple[Learner, OverlapReader]:
    torch.manual_seed(0)
    made, reader = r3_recipe(base, settings, **fields), OverlapReader()
    judge = Judge(reader, "answer")
    return Learner(make_network(made), make_network(made), settings, 0, judge=judge), reader


def pooled(generator: np.random.Generator, number: int) -> Question:
    """A question whose answer stands in one chunk, together with a word that the others do not have."""
    chunks = [words(generator, 5) for _ in range(6)]
    right = int(generator.integers(6))
    chunks[right] = f"key lantern {words(generator, 3)}"
    return Question(
        id=str(number),
        task="own",
        text=f"what {words(generator, 2)}",
        chunks=chunks,
        counts=(6,),
        support=frozenset({right}),
        budget=1,
        facts=(frozenset({right}),),
        answers=("lantern",),
        wrong=tuple(place for place in range(6) if place != right),
        judged=True,
    )


@pytest.mark.parametrize("more", [0, 5])
def test_the_contrast_is_cross_entropy_from_both_sides(more: int) -> None:
    logits = torch.randn(5, 5 + more, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own = torch.arange(5)
    rows = torch.nn.functional.cross_entropy(logits, own, reduction="none")
    columns = torch.nn.functional.cross_entropy(logits[:, :5].T, own, reduction="none")
    torch.testing.assert_close(contrast(logits), (rows + columns) / 2)


def test_on_the_policy_the_list_is_read_from_the_top_to_the_first_negative(tiny_base: Path) -> None:
    taught, reader = learner(tiny_base, replace(R3, warm_start=0.0))
    generator = np.random.default_rng(3)
    question = pooled(generator, 1)
    many = [f"{number} {words(generator, 4)}" for number in range(60)]
    question = replace(question, chunks=[*question.chunks, *many], counts=(66,))
    taught.update([question])
    read = {request.prompt.contexts[0] for request in reader.asked}
    pools = set(question.chunks[:6])
    (played,) = taught.rollout([question])
    listed = played.transitions[0].q.argsort()[::-1][:20]
    # The first chunk that is not in a pool is a negative already: beside the pools, one block of the list was read.
    assert pools <= read
    assert len(read - pools) <= 4
    assert len(listed) == 20


@pytest.mark.parametrize("warm_start", [0.0, 1.0])
def test_a_question_without_pools_is_refused(tiny_base: Path, warm_start: float) -> None:
    taught, _ = learner(tiny_base, replace(R3, warm_start=warm_start))
    without: list[dict[str, Any]] = [{"wrong": ()}, {"support": frozenset(), "facts": None, "removed": 1}]
    for fields in without:
        with pytest.raises(RecipeError, match="--pools"):
            taught.update([replace(pooled(np.random.default_rng(3), 1), **fields)])


@pytest.mark.parametrize("task", [{}, {"judgements": "j", "questions": 9, "evidence_only": 3}])
def test_a_recipe_whose_questions_have_no_pools_is_refused(tiny_base: Path, task: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="--form answer --pools"):
        make_recipe(
            tiny_base, hyperparameters=R3, reader="smollm2",
            tasks=(DatasetTask.model_validate({"kind": "jsonl", "path": "own.jsonl"} | task),),
        )  # fmt: skip


@pytest.mark.parametrize("task", [{"mine": True}, {"distil": True}])
def test_a_task_that_learns_what_the_objective_does_not_is_refused(tiny_base: Path, task: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no task mines or distils"):
        make_recipe(
            tiny_base, hyperparameters=R3, reader="smollm2", reranker="ms-marco",
            tasks=(DatasetTask.model_validate({"kind": "jsonl", "path": "own.jsonl", "judgements": "j"} | task),),
        )  # fmt: skip


def test_how_many_go_through_the_network_together_is_a_matter_of_speed(tiny_base: Path) -> None:
    """The questions of a batch are each other's negatives, however few fit in a forward pass."""
    losses = []
    for tokens in (1, 100_000):
        taught, _ = learner(tiny_base, replace(R3, batch_tokens=tokens, warm_start=1.0))
        generator = np.random.default_rng(5)
        losses.append(taught.update([pooled(generator, number) for number in range(8)])["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_reader_that_says_something_else_is_refused(tiny_base: Path) -> None:
    made = r3_recipe(tiny_base)
    for judge in (None, Judge(OverlapReader(), "joint")):
        with pytest.raises(RecipeError, match="reader"):
            Learner(make_network(made), make_network(made), R3, 0, judge=judge)
