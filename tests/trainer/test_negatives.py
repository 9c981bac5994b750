"""Hard negatives: those a slow search over the whole pool finds, and what the warm start makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from index.arrays import Float32Array
from index.encoders.encoder import ReadStates
from index.search.matrix_scope import MatrixScope
from index.search.scanning.bags import index_bags
from index.search.scanning.matrices import Matrices, Part
from index.search.scoring import exact_q
from tests.trainer.learners import WITH_SIGNALS, make_learner, random_question, unsettle, words
from trainer.datasets.question import Question
from trainer.hyperparameters import ActionMode, Hyperparameters
from trainer.learning.learner import Learner
from trainer.learning.objectives.warm_start import WarmStart
from trainer.learning.training import learner_vectors
from trainer.learning.transitions import Batch, Transition


def pool_of(seed: int, count: int = 40) -> list[str]:
    generator = np.random.default_rng(seed)
    return [f"pool {number} {words(generator, 6)}" for number in range(count)]


def questions_with(pool: list[str], counts: tuple[int, ...], how_many: int = 3) -> list[Question]:
    generator = np.random.default_rng(len(pool))
    return [replace(random_question(generator, counts), pool=pool) for _ in range(how_many)]


def served_q(learner: Learner, transition: Transition, text: str, level: int) -> float:
    """By the service's code: the text as one of many chunks of a document, so that it stands at the level."""
    levels = learner.network.encoder.function.positions.levels
    (row,) = learner.table.rows([text])
    vector = learner.network.chunks(learner.table[torch.tensor([row])]).detach().numpy()
    encoder = learner.network.serving(learner.function)
    chunks = np.repeat(vector, levels, axis=0)
    postings = index_bags(encoder.terms([text] * levels))
    # Tokens are counted in the question's own chunks.
    own = learner_vectors(learner, iter(transition.question.chunks)).scope(transition.question).matrices
    part = Part(0, chunks, postings=postings)
    scope = MatrixScope(Matrices(np.array([0, levels]), (part,), norm_bound=1.1, counted=own))
    (state,) = encoder.embed_states([transition.observation.state])
    alone = state._replace(surroundings=0.0)  # a text of a pool has nothing beside it
    return float(exact_q(alone, scope, [], learner.function, np.array([level]))[0])


@pytest.mark.parametrize("mode", ["frozen", "adapter", "refreshed"])
@pytest.mark.parametrize("signals", [False, True])
def test_they_are_the_best_of_the_pool_where_they_stand(tiny_base: Path, mode: ActionMode, signals: bool) -> None:
    settings = Hyperparameters(hard_negatives=5, action_mode=mode)
    learner = make_learner(tiny_base, settings, **(WITH_SIGNALS if signals else {}))
    unsettle(learner)
    if learner.network.projection is not None:
        torch.nn.init.normal_(learner.network.projection.weight)
    pool = pool_of(1)
    for trajectory in learner.rollout(questions_with(pool, (7,))):
        transition = trajectory.transitions[0]  # nothing is selected: all levels are those of one interval
        observation = transition.observation
        assert len(transition.rows) == len(observation.levels) == len(transition.q) == 7 + 5
        (level,) = set(observation.levels[7:].tolist())
        assert level in observation.levels[:7]
        expected = {text: served_q(learner, transition, text, level) for text in pool}
        best = sorted(expected, key=lambda text: -expected[text])[:5]
        assert learner.table.texts(transition.rows[7:]) == best
        np.testing.assert_allclose(transition.q[7:], [expected[text] for text in best], atol=1e-5)
        assert observation.available[7:].all()
        assert not observation.support[7:].any()


def test_chunks_of_the_question_are_none(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(hard_negatives=50))
    (question,) = questions_with([], (4, 2), 1)
    pool = [*question.chunks, *pool_of(2, 9), "pool once more", "pool once more"]
    for transition in learner.rollout([replace(question, pool=pool)])[0].transitions:
        found = learner.table.texts(transition.rows[6:])
        assert sorted(found) == sorted([*pool_of(2, 9), "pool once more"])


def test_each_question_has_those_of_its_own_pool(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(hard_negatives=3))
    pools = [pool_of(3), [f"other {text}" for text in pool_of(3)], []]
    questions = [question for pool in pools for question in questions_with(pool, (5,), 2)]
    played = learner.rollout(questions)
    for question, trajectory in zip(questions, played, strict=True):
        for transition in trajectory.transitions:
            found = learner.table.texts(transition.rows[5:])
            assert len(found) == (3 if question.pool else 0)
            assert set(found) <= set(question.pool)


@pytest.mark.parametrize(("warm_start", "count"), [(1.0, 0), (0.0, 3)])
def test_there_are_none_where_they_are_not_asked_for(tiny_base: Path, warm_start: float, count: int) -> None:
    learner = make_learner(tiny_base, Hyperparameters(hard_negatives=count, warm_start=warm_start))
    played = learner.rollout(questions_with(pool_of(4), (7,)))
    assert {len(transition.rows) for trajectory in played for transition in trajectory.transitions} == {7}


def test_a_step_makes_them_less_attractive(tiny_base: Path) -> None:
    learner = make_learner(
        tiny_base, Hyperparameters(hard_negatives=4, squared=0.0, learning_rate=1e-3, head_learning_rate=1e-2)
    )
    questions = questions_with(pool_of(5), (7,), 8)
    first = [trajectory.transitions[0] for trajectory in learner.rollout(questions)]
    learner.seen = 4000  # past the warm-up of the learning rate
    for _ in range(5):
        learner.regress(Batch(first, np.zeros(len(first), dtype=np.float32)))
    states = learner.network.embed_states([t.observation.state for t in first], 1000)
    again, _ = learner.scorer.chosen_q(states, first, [np.arange(11)] * len(first))

    def lead(q: Float32Array, transition: Transition) -> float:
        return float(q[transition.observation.support].max() - q[7:].max())

    before = [lead(t.q, t) for t in first]
    after = [lead(q, t) for q, t in zip(again.detach().numpy(), first, strict=True)]
    assert np.mean(after) > np.mean(before) + 0.01


def test_an_update_searches_with_the_adapter_as_it_is(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Hyperparameters(hard_negatives=4, head_learning_rate=0.3, transitions=100, warm_start=1.0)
    learner = make_learner(tiny_base, settings)
    questions = questions_with(pool_of(6), (7,), 8)
    rolled_out: list[tuple[float, float]] = []
    real = WarmStart.losses

    def losses(
        self: WarmStart, states: ReadStates, transitions: Sequence[Transition], returns: torch.Tensor
    ) -> torch.Tensor:
        """Called before the network changes."""
        transition = transitions[0]
        if not transition.observation.selected:
            level = int(transition.observation.levels[-1])
            best = max(served_q(learner, transition, text, level) for text in questions[0].pool)
            rolled_out.append((float(transition.q[7:].max()), best))
        return real(self, states, transitions, returns)

    monkeypatch.setattr(WarmStart, "losses", losses)
    for _ in range(3):
        learner.update(questions)
    assert len(rolled_out) >= 3
    for found, best in rolled_out:
        assert found == pytest.approx(best, abs=1e-5)
