"""The warm start learns from a state where it is met; the lowest layers of a tower may stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.learners import WITH_SIGNALS, make_learner, random_questions, unsettle
from trainer.hyperparameters import Hyperparameters


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
