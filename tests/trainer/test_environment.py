"""The trainer's episodes: the states, positions and selections of the service, and what each action is worth."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from index.episodes.episode import ChunkTokens, Episode, Limits
from index.episodes.stepping import step_once
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions
from index.search.scanning.matrices import Matrices, Part
from tests.index import reference, strategies
from tests.trainer.learners import make_learner, random_question, random_questions
from trainer.datasets.question import Question
from trainer.hyperparameters import Hyperparameters, RewardName
from trainer.learning.environment import Environment, Observer, document_levels
from trainer.learning.learner import Learner
from trainer.learning.rewards import Completion, Reward, Shaped, reward_of
from trainer.learning.teachers import Clairvoyant

# -- the course of an episode -----------------------------------------------------------------------------------------


def question(chunks: int, support: set[int], budget: int) -> Question:
    texts = [f"chunk {number}" for number in range(chunks)]
    return Question("1", "test", "Where?", texts, (chunks,), frozenset(support), budget)


def started(chunks: int, support: set[int], budget: int = 9, selected: tuple[int, ...] = ()) -> Environment:
    return Environment(question(chunks, support, budget), [], budget, list(selected))


def step(environment: Environment, position: int, reward: Reward) -> float:
    """Select a chunk; its reward."""
    (brought,) = reward.rewards([environment.select(position)])
    return brought


def test_an_episode_ends_when_all_support_is_found() -> None:
    environment = started(6, {1, 4}, budget=5)
    rewards = [step(environment, position, Completion()) for position in (4, 2)]
    assert (environment.done, environment.missing, environment.selected) == (False, 1, [2, 4])
    rewards.append(step(environment, 1, Completion()))
    assert (environment.done, environment.truncated, environment.selected) == (True, False, [1, 2, 4])
    assert rewards == [0, 0, 1]


def test_an_episode_is_cut_off_when_the_budget_is_spent() -> None:
    environment = started(6, {1, 4}, budget=2)
    assert [step(environment, position, Shaped()) for position in (4, 2)] == [0, 0]
    assert (environment.done, environment.truncated, environment.missing) == (True, True, 1)


def test_support_found_with_the_last_selection_is_no_cut() -> None:
    environment = started(6, {1, 4}, budget=2, selected=(4,))
    assert step(environment, 1, Completion()) == 1
    assert (environment.done, environment.truncated) == (True, False)


@pytest.mark.parametrize(("kind", "worth"), [("completion", 1.0), ("shaped", 0.5 + 0.5 * 2 / 3)])
def test_the_final_reward(kind: RewardName, worth: float) -> None:
    environment, reward = started(6, {1, 4}, selected=(0, 1)), reward_of(kind)
    assert step(environment, 4, reward) == worth == reward.worth(environment.question, [0, 1, 4])
    assert reward.worth(environment.question, [1, 4]) == 1.0
    assert reward.worth(environment.question, [0, 4]) == 0.0
    assert step(environment, 5, reward) == 0.0  # nothing was missing


# -- what an action is worth ------------------------------------------------------------------------------------------


def best_return(environment: Environment, action: int, gamma: float, reward: Reward) -> float:
    """The largest discounted sum of rewards, over every order of selecting the chunks after the action."""
    rest = [p for p in range(len(environment.question.chunks)) if p not in (*environment.selected, action)]
    best = -np.inf
    for order in itertools.permutations(rest):
        trial = Environment(environment.question, [], 99, list(environment.selected))
        total = discount = 0.0
        for position in (action, *order):
            if trial.done:
                break
            discount = 1.0 if not discount else discount * gamma
            total += discount * step(trial, position, reward)
        best = max(best, total)
    return best


@settings(deadline=None, max_examples=40)
@given(
    chunks=st.integers(1, 6),
    gamma=st.sampled_from([0.5, 0.8, 1.0]),
    reward=st.sampled_from([Completion(), Shaped()]),
    data=st.data(),
)
def test_the_clairvoyant_value_is_that_of_a_brute_force_search(
    chunks: int, gamma: float, reward: Reward, data: st.DataObject
) -> None:
    support = data.draw(st.sets(st.integers(0, chunks - 1), min_size=1))
    selected = data.draw(st.sets(st.integers(0, chunks - 1)).filter(lambda chosen: not support <= chosen))
    environment = started(chunks, support, selected=tuple(sorted(selected)))
    values = Clairvoyant(reward, gamma).score(environment.question, selected, np.arange(chunks))
    for action in set(range(chunks)) - selected:
        assert values[action] == pytest.approx(best_return(environment, action, gamma, reward), rel=1e-6)


@pytest.mark.parametrize("reward", [Completion(), Shaped()])
@pytest.mark.parametrize("selected", [(), (0,), (1, 5)])
@pytest.mark.parametrize("enough", [None, 2])
def test_chunks_that_hold_the_same_fact_and_enough_of_the_facts_are_worth_what_they_bring(
    reward: Reward, selected: tuple[int, ...], enough: int | None
) -> None:
    environment = started(6, {0, 1, 2, 3, 4}, selected=selected)
    facts = (frozenset({0, 1}), frozenset({2}), frozenset({3, 4}))
    environment.question = replace(environment.question, facts=facts, enough=enough)
    values = Clairvoyant(reward, 0.8).score(environment.question, selected, np.arange(6))
    for action in set(range(6)).difference(selected):
        assert values[action] == pytest.approx(best_return(environment, action, 0.8, reward), rel=1e-6)
    assert values.max() <= 1


# -- observations -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), strategies.positions, st.data())
def test_levels_are_the_positions_of_the_formula(counts: list[int], positions: Positions, data: st.DataObject) -> None:
    selected = data.draw(strategies.selections(sum(counts)))
    rho = positions.rho(document_levels(counts, selected, positions))
    assert rho.shape == (sum(counts),)
    first = 0
    for count in counts:
        inside = [position - first for position in selected if first <= position < first + count]
        for i in set(range(count)) - set(inside):
            assert rho[first + i] == pytest.approx(reference.rho(i, count, inside, positions))
        first += count


@pytest.fixture(scope="module")
def learner(tiny_base: Path) -> Learner:
    """One whose policy is greedy: the temperature is next to nothing."""
    return make_learner(tiny_base, Hyperparameters(alpha_start=1e-9, alpha_end=1e-9, action_mode="adapter"))


def test_an_observation_says_what_the_networks_read(learner: Learner) -> None:
    observer = Observer(learner.network.encoder)
    asked = question(6, {1, 4}, budget=4)
    environment = observer.start(asked)
    assert environment.budget == 4
    for position in (4, 2):
        environment.select(position)
    observation = observer.observe(environment)
    encoder = learner.network.encoder
    expected = encoder.compose_state(encoder.question_tokens("Where?"), encoder.state_tokens(["chunk 2", "chunk 4"]))
    assert observation.state == expected
    assert observation.available.tolist() == [True, True, False, True, False, True]
    assert observation.support.tolist() == [False, True, False, False, False, False]
    assert observation.selected == (2, 4)
    values = Clairvoyant(Completion(), 0.8).score(asked, observation.selected, np.array([1, 0, 3, 5]))
    assert values == pytest.approx([1, 0.8, 0.8, 0.8])
    levels = document_levels((6,), [2, 4], encoder.function.positions)
    np.testing.assert_array_equal(observation.levels, levels)


def test_states_that_are_too_long_are_cut_as_the_service_cuts_them(learner: Learner) -> None:
    encoder = learner.network.encoder
    asked = Question("1", "test", "why " * 100, ["ball " * 40, "key " * 60, "box"], (3,), frozenset({2}), 3)
    observer = Observer(encoder)
    environment = observer.start(asked)
    for position in (1, 0):
        environment.select(position)
    state = observer.observe(environment).state
    tokens = encoder.question_tokens(asked.text)[: encoder.question_limit]
    assert state == encoder.compose_state(tokens, encoder.state_tokens(asked.chunks[:2]))
    assert len(state.ids) == encoder.config.state_tokens


def served(learner: Learner, asked: Question) -> list[int]:
    """What the service selects with the learner's networks."""
    encoder, network = learner.network.encoder, learner.network
    with torch.no_grad():
        matrix = network.chunks(torch.from_numpy(encoder.embed_actions(encoder.cut_action_inputs(asked.chunks))))
    scope = MatrixScope(Matrices(np.cumsum([0, *asked.counts]), (Part(0, matrix.numpy()),), norm_bound=1.001))

    def read_chunk(position: int) -> ChunkTokens:
        return ChunkTokens(encoder.state_tokens([asked.chunks[position]])[0], 0)

    tokens = encoder.question_tokens(asked.text)[: encoder.question_limit]
    episode = Episode(scope, Limits(asked.budget), read_chunk, question=tokens)
    while episode.stopped_by is None:
        step_once(encoder, [episode], learner.function)
    return [step.position for step in episode.steps]


@pytest.mark.parametrize("mode", ["relative", "absolute", "none"])
def test_a_greedy_rollout_selects_what_the_service_selects(tiny_base: Path, mode: str) -> None:
    settings = Hyperparameters(
        behaviour="policy", alpha_start=1e-9, alpha_end=1e-9, action_mode="adapter", batch_tokens=150
    )
    positions = Positions.model_validate({"mode": mode, "levels": 8})
    learner = make_learner(tiny_base, settings, positions=positions)
    with torch.no_grad():  # any projection will do, but for the identity
        assert learner.network.projection is not None
        learner.network.projection.weight.add_(0.3 * torch.randn(32, 32))
        for name, value in {"w": -1.5, "b": 0.25}.items():
            learner.masters.values[name].fill_(value)
            learner.network.get_parameter(name).fill_(value)
    generator = np.random.default_rng(5)
    asked = [*random_questions(1, 12), random_question(generator, (90,), budget=5), random_question(generator, (40, 2))]
    steps = 0
    for one, trajectory in zip(asked, learner.rollout(asked), strict=True):
        actions = [transition.action for transition in trajectory.transitions]
        assert actions == served(learner, one)[: len(actions)]
        steps += len(actions)
    assert steps > 2 * len(asked)
