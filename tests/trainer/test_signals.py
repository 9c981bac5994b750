"""Training with positions in a space of their own and with weighed tokens: what is trained is what is served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from index.encoders.loading import load_encoder
from index.encoders.tokenizer import TextTokenizer
from index.search.scoring import exact_q
from tests.trainer.learners import CPU, WITH_SIGNALS, make_learner, make_recipe, random_questions, unsettle
from trainer.evaluation.vectors import embed_texts
from trainer.hyperparameters import Hyperparameters
from trainer.learning.checkpoints import pack, write_checkpoint
from trainer.learning.heads.rarity import rarity_of
from trainer.learning.learner import Learner
from trainer.learning.training import build_learner, learner_vectors
from trainer.learning.transitions import Batch, Transition


def transitions_of(learner: Learner) -> list[Transition]:
    questions = random_questions(seed=5)
    return [transition for played in learner.rollout(questions) for transition in played.transitions]


@pytest.fixture
def learner(tiny_base: Path) -> Learner:
    made = make_learner(tiny_base, Hyperparameters(warm_start=1.0), **WITH_SIGNALS)
    unsettle(made)
    return made


def test_the_values_of_a_rollout_are_those_of_the_service(learner: Learner) -> None:
    encoder = learner.network.serving(learner.function)
    assert encoder.function.lexical is not None
    for transition in transitions_of(learner):
        vectors = learner_vectors(learner, iter(transition.question.chunks))
        scope = vectors.scope(transition.question)
        (state,) = encoder.embed_states([transition.observation.state])
        free = np.flatnonzero(transition.observation.available)
        expected = exact_q(state, scope, transition.observation.selected, learner.function, free)
        np.testing.assert_allclose(transition.q[free], expected, atol=1e-5)


def test_every_head_has_a_gradient_and_a_step_lowers_the_loss(learner: Learner) -> None:
    batch = Batch(transitions := transitions_of(learner), np.zeros(len(transitions), dtype=np.float32))
    before = {name: value.detach().clone() for name, value in learner.masters.values.items()}
    learner.seen = learner.settings.transitions // 10  # past the warm-up of the learning rate
    losses = [learner.regress(batch) for _ in range(8)]
    assert losses[-1] < losses[0]
    moved = {name for name, value in learner.masters.values.items() if not torch.equal(value, before[name])}
    assert {name for name in before if name.startswith("heads.")} <= moved


def test_a_checkpoint_has_the_heads_and_a_packed_one_nearly_the_same(
    learner: Learner, tiny_base: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(tiny_base, **WITH_SIGNALS)
    write_checkpoint(tmp_path / "whole", recipe, learner, {})
    pack(tmp_path / "whole", tmp_path / "packed")
    size = {
        name: sum(file.stat().st_size for file in (tmp_path / name).rglob("*.safetensors"))
        for name in ("whole", "packed")
    }
    assert size["packed"] < 0.4 * size["whole"]
    question = random_questions(seed=5)[0]
    values = []
    for name in ("whole", "packed"):
        encoder = load_encoder(tmp_path / name, device="cpu", dtype=torch.float32)
        (state,) = encoder.embed_states([encoder.compose_state(encoder.question_tokens(question.text), [])])
        scope = embed_texts(encoder, question.chunks).scope(question)
        values.append(exact_q(state, scope, (), encoder.function, np.arange(len(question.chunks))))
    served = learner.network.serving(learner.function)
    (state,) = served.embed_states([served.compose_state(served.question_tokens(question.text), [])])
    scope = learner_vectors(learner, iter(question.chunks)).scope(question)
    np.testing.assert_allclose(
        values[0], exact_q(state, scope, (), served.function, np.arange(len(question.chunks))), atol=1e-5
    )
    np.testing.assert_allclose(values[1], values[0], atol=0.05)


def test_a_run_goes_on_with_the_heads_and_the_rarity_of_another(
    learner: Learner, tiny_base: Path, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "first", make_recipe(tiny_base, **WITH_SIGNALS), learner, {})
    recipe = make_recipe(tiny_base, start=str(tmp_path / "first"), **WITH_SIGNALS)
    second = build_learner(recipe, CPU, seed=0, texts=[["other words than these"]])
    for name, value in learner.network.heads.state_dict().items():
        torch.testing.assert_close(second.network.heads.state_dict()[name], value)
    without = build_learner(recipe.model_copy(update={"lexical": False}), CPU, seed=0)
    assert without.network.heads.terms is None
    anew = build_learner(recipe.model_copy(update={"anew": ("surroundings",)}), CPU, seed=0).network.heads
    kept = learner.network.heads
    assert anew.surroundings is not None
    assert kept.surroundings is not None
    torch.testing.assert_close(anew.surroundings.gate, torch.zeros_like(kept.surroundings.gate))
    assert torch.nn.functional.softplus(anew.surroundings.bias).item() == pytest.approx(0.25, abs=0.01)
    assert kept.surroundings.gate.abs().max() > 0


def test_rarity_is_that_of_texts_with_a_token(tiny_base: Path) -> None:
    tokenizer = TextTokenizer(tiny_base)
    rarity, length = rarity_of(tokenizer, ["ball", "ball box", "ball box lamp ."])
    (ball,), (box,), (lamp,), (key,), (point,) = tokenizer.tokenize(["ball", "box", "lamp", "key", "."])
    assert 0 < rarity[ball] < rarity[box] < rarity[lamp] < rarity[key] == pytest.approx(1.0)
    assert rarity[point] == 0
    assert not rarity[tokenizer.special].any()
    assert length == pytest.approx(7 / 3)


def test_questions_about_one_document_share_its_pool(learner: Learner) -> None:
    pool = ["ball box key", "lamp river", "stone tower"]
    questions = [replace(question, pool=pool) for question in random_questions(seed=6)]
    for played in learner.rollout(questions):
        for transition in played.transitions:
            assert len(transition.rows) == len(transition.question.chunks) + len(pool)
