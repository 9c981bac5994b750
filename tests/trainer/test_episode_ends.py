"""Ends of episodes: nothing is left to select, all are complete at once, the budget is spent by then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.learners import make_learner, random_question, random_questions
from trainer.hyperparameters import Hyperparameters
from trainer.learning.transitions import Batch


@pytest.mark.parametrize("lambda_", [0.0, 0.8, 1.0])
def test_where_all_is_selected_and_evidence_is_missing_nothing_can_be_gained(tiny_base: Path, lambda_: float) -> None:
    learner = make_learner(tiny_base, Hyperparameters(warm_start=0.0, lambda_=lambda_, stop=True, transitions=1000))
    generator = np.random.default_rng(0)
    asked = [replace(random_question(generator, (3,), budget=5), budget=5) for _ in range(4)]
    asked = [question.without([min(question.support)]) for question in asked]
    trajectories = learner.rollout(asked)
    assert all(not played.final[0].available.any() for played in trajectories if played.final is not None)
    returns = learner.targets(trajectories).returns.reshape(4, 2)
    assert np.isfinite(returns).all()
    assert (returns[:, -1] == 0).all()
    figures = learner.update(asked)
    assert np.isfinite(figures["loss"])
    assert figures["solved"] == 0
    assert all(torch.isfinite(value).all() for value in learner.masters.values.values())


def test_episodes_that_are_all_complete_after_a_selection_have_their_reward_as_return(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(warm_start=0.0, transitions=1000))
    asked = [random_question(np.random.default_rng(1), (1,), support=1, budget=1)] * 2
    assert learner.targets(learner.rollout(asked)).returns.tolist() == [1.0, 1.0]
    assert learner.update(asked)["solved"] == 1


def test_with_stop_the_complete_state_is_met_where_the_budget_is_spent_by_then(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(behaviour="support", warm_start=1.0, stop=True))
    asked = [replace(question, budget=len(question.support)) for question in random_questions(3, 12)]
    for question, played in zip(asked, learner.rollout(asked), strict=True):
        complete = [transition.observation.complete for transition in played.transitions]
        assert complete == [False] * len(question.support) + [True]
        assert played.rewards == [0.0] * (len(question.support) - 1) + [1.0, 0.0]
        assert played.final is None
    whole = replace(asked[0], chunks=asked[0].chunks[:1], counts=(1,), support=frozenset({0}), budget=1)
    (played,) = learner.rollout([whole])
    assert len(played.transitions) == 1  # there is nothing more to select


def test_a_process_with_too_few_transitions_for_a_part_takes_the_step_of_the_others(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(warm_start=0.0, transitions=1000))
    assert learner.regress(Batch([], np.zeros(0, dtype=np.float32))) == 0
