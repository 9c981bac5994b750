"""What the warm start learns from a state where it is met, and what it leaves as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer.learners import WITH_SIGNALS, make_learner, random_questions, unsettle
from trainer.hyperparameters import Hyperparameters
from trainer.learning.transitions import Batch


@pytest.mark.parametrize("fields", [{}, WITH_SIGNALS])
@pytest.mark.parametrize("stop", [False, True])
def test_learning_on_the_way_is_one_step_on_the_same_episodes(
    tiny_base: Path, fields: dict[str, Any], stop: bool
) -> None:
    settings = Hyperparameters(
        warm_start=1.0, behaviour="policy", alpha_start=1e-6, alpha_end=1e-6, stop=stop, batch_tokens=100
    )
    asked = random_questions(4, 9)
    at_once, apart = (make_learner(tiny_base, settings, **fields) for _ in range(2))
    for learner in (at_once, apart):
        unsettle(learner)
    played, loss = at_once.learn_on_the_way(asked)
    batch = apart.targets(apart.rollout(asked))
    assert [t.action for episode in played for t in episode.transitions] == [t.action for t in batch.transitions]
    assert apart.regress(batch) == pytest.approx(loss, abs=1e-5)
    for name, value in at_once.masters.values.items():
        # Adam's first step is as long for a tiny gradient, whose sign rounding may decide.
        close = torch.isclose(value, apart.masters.values[name], atol=1e-6)
        assert close.float().mean() > 0.99, name


def test_frozen_layers_stay_the_base_models(tiny_base: Path) -> None:
    settings = Hyperparameters(warm_start=1.0, frozen_layers=1, transitions=100)
    learner = make_learner(tiny_base, settings)
    before = {name: value.clone() for name, value in learner.network.state.named_parameters()}
    for _ in range(3):
        learner.update(random_questions(1, 6))
    changed = {name for name, value in learner.network.state.named_parameters() if not torch.equal(before[name], value)}
    assert changed
    assert not any(name.startswith(("embeddings.", "encoder.layer.0.")) for name in changed)


@pytest.mark.parametrize("keep_order", [False, True])
def test_chunks_keep_their_order_where_nothing_is_left_to_find(tiny_base: Path, keep_order: bool) -> None:
    settings = Hyperparameters(behaviour="support", warm_start=1.0, stop=True, keep_order=keep_order, weight_decay=0.0)
    learner = make_learner(tiny_base, settings)
    asked = [replace(question, budget=len(question.support) + 3) for question in random_questions(3, 20)]
    played = [transition for episode in learner.rollout(asked) for transition in episode.transitions]
    learner.seen = settings.transitions // 10
    for complete in (True, False):
        some = [transition for transition in played if transition.observation.complete is complete]
        before = {name: learner.masters.values[name].detach().clone() for name in ("projection.weight", "stop")}
        learner.regress(Batch(some, np.zeros(len(some), dtype=np.float32)))
        changed = {name for name, value in before.items() if not torch.equal(value, learner.masters.values[name])}
        assert changed == ({"stop"} if complete and keep_order else {"projection.weight", "stop"})
