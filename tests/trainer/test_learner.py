"""The learner: how it plays, what its targets are, what each setting trains, and what it leaves alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from index.search.matrix_scope import MatrixScope
from index.search.scanning.matrices import Matrices, Part
from index.search.scoring import exact_q
from index.search.states import State
from tests.trainer.learners import make_learner, random_question, random_questions
from trainer.hyperparameters import ActionMode, Hyperparameters
from trainer.learning.environment import Observation
from trainer.learning.learner import Learner
from trainer.learning.objectives.lambda_returns import lambda_returns
from trainer.learning.rewards import Completion
from trainer.learning.teachers import Clairvoyant
from trainer.learning.transitions import Batch, Transition

# -- rollouts ---------------------------------------------------------------------------------------------------------


def slow_q(
    learner: Learner, observation: Observation, asked_rows: Sequence[int], *, target: bool = False
) -> list[float]:
    """Q of all candidates of one document by the service's code; unavailable ones too."""
    network = learner.target if target else learner.network
    (state,) = network.state_tower.embed([observation.state.ids])
    with torch.no_grad():
        matrix = network.chunks(learner.table[torch.tensor(asked_rows)]).numpy()
    selected = np.flatnonzero(~observation.available).tolist()
    function = replace(learner.function, w=network.w.item(), b=network.b.item())
    scope = MatrixScope(Matrices(np.array([0, len(matrix)]), (Part(0, matrix),), 1.001))
    values = exact_q(State(state), scope, selected, function, np.arange(scope.size))
    values[selected] = -np.inf
    return values.tolist()  # type: ignore[no-any-return]


def test_a_rollout_plays_every_episode_to_its_end(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(behaviour="policy"))
    asked = random_questions(3, 24)
    solved = 0
    for question, played in zip(asked, learner.rollout(asked), strict=True):
        actions = [transition.action for transition in played.transitions]
        assert len(set(actions)) == len(actions) == len(played.rewards) <= question.budget
        found = question.support <= set(actions)
        assert (played.final is None) == found
        assert found or len(actions) == question.budget
        assert played.rewards == [0.0] * (len(actions) - 1) + [1.0 if found else 0.0]
        assert not found or actions[-1] in question.support
        for before, transition in enumerate(played.transitions):
            observation = transition.observation
            assert np.flatnonzero(~observation.available).tolist() == sorted(actions[:before])
            assert set(np.flatnonzero(observation.support)) == question.support - set(actions[:before])
            assert len(transition.q) == len(transition.rows) == len(question.chunks)
        if played.final is not None:
            assert np.flatnonzero(~played.final[0].available).tolist() == sorted(actions)
        solved += found
    assert 0 < solved < len(asked)


def test_imitation_selects_the_support_in_random_order(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(behaviour="support", warm_start=1.0))
    question = random_question(np.random.default_rng(0), (9,), support=3, budget=3)
    orders = set()
    for played in learner.rollout([question] * 60):
        assert played.final is None
        orders.add(tuple(transition.action for transition in played.transitions))
    assert orders == set(itertools.permutations(question.support))


def test_dagger_is_shown_the_support_less_and_less(tiny_base: Path) -> None:
    settings = Hyperparameters(behaviour="dagger", warm_start=0.8, alpha_start=100.0, alpha_end=100.0)
    learner = make_learner(tiny_base, settings)
    episodes = 400
    asked = [random_question(np.random.default_rng(0), (9,), support=1, budget=1)] * episodes
    shown = []
    for progress in (0.0, 0.4, 0.8, 1.0):
        learner.seen = round(progress * settings.transitions)
        found = np.mean([played.final is None for played in learner.rollout(asked)])
        shown.append((found - 1 / 9) / (1 - 1 / 9))  # at this temperature the policy itself finds one in nine
    np.testing.assert_allclose(shown, [1.0, 0.5, 0.0, 0.0], rtol=0, atol=5 * 0.5 / episodes**0.5)


def test_actions_are_drawn_by_the_boltzmann_policy(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(behaviour="policy", alpha_start=0.5, alpha_end=0.5))
    question = random_question(np.random.default_rng(0), (4,), support=1, budget=1)
    draws = 4000
    played = learner.rollout([question] * draws)
    q = played[0].transitions[0].q.astype(np.float64)
    np.testing.assert_allclose(q, slow_q(learner, played[0].transitions[0].observation, range(4)), atol=1e-5)
    policy = np.exp(q / 0.5) / np.exp(q / 0.5).sum()
    counts = np.bincount([one.transitions[0].action for one in played], minlength=4)
    # Five standard deviations.
    np.testing.assert_array_less(np.abs(counts - draws * policy), 5 * np.sqrt(draws * policy * (1 - policy)))


# -- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.9, 0.0])
def test_targets_are_the_returns_from_the_soft_values_of_the_target_network(tiny_base: Path, decay: float) -> None:
    s = Hyperparameters(warm_start=0.0, target_decay=decay, lambda_=0.6, gamma=0.7, reward="shaped")
    learner = make_learner(tiny_base, s)
    with torch.no_grad():  # both networks are the base as yet: move them apart
        for parameter in learner.target.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    generator = np.random.default_rng(1)
    asked = [random_question(generator, (9,), support=1 + at % 3, budget=2 + at % 3) for at in range(8)]
    trajectories = learner.rollout(asked)
    batch = learner.targets(trajectories)
    expected: list[float] = []
    for played in trajectories:
        after = [(transition.observation, transition.rows) for transition in played.transitions[1:]]
        values = [
            soft(learner, *state, target=decay > 0) for state in [*after, *([played.final] if played.final else [])]
        ]
        expected += lambda_returns(played.rewards, [*values, 0.0][: len(played.rewards)], 0.7, 0.6)
    assert {played.final is None for played in trajectories} == {True, False}
    np.testing.assert_allclose(batch.returns, expected, atol=1e-5)
    assert batch.transitions == [transition for played in trajectories for transition in played.transitions]


def soft(
    learner: Learner, observation: Observation, rows: np.ndarray[tuple[int], np.dtype[np.int64]], *, target: bool
) -> float:
    """The soft value of one state, candidate after candidate."""
    q = np.array(slow_q(learner, observation, rows.tolist(), target=target), dtype=np.float64)
    free = q[observation.available]
    return float(free.max() + learner.alpha * np.log(np.exp((free - free.max()) / learner.alpha).sum()))


def test_the_last_return_of_a_completed_episode_is_its_reward(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(warm_start=0.0))
    # All chunks are support: nothing is left to be selected after it, and so nothing to be valued.
    played = learner.rollout([random_question(np.random.default_rng(0), (3,), support=3, budget=3)])
    assert played[0].final is None
    assert learner.targets(played).returns[-1] == 1.0


def test_the_target_network_is_a_moving_average(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(warm_start=0.0, target_decay=0.75, transitions=1000))
    average = {name: value.detach().clone() for name, value in learner.masters.values.items()}
    for _ in range(3):
        learner.update(random_questions(0))
        for name, master in learner.masters.values.items():
            average[name] = 0.75 * average[name] + 0.25 * master.detach()
    target = dict(learner.target.named_parameters())
    for name, value in average.items():
        torch.testing.assert_close(target[name].detach(), value)
        assert torch.equal(target[name], learner.average[name])
    moved = [name for name, master in learner.masters.values.items() if not torch.equal(master, target[name])]
    assert len(moved) > 10


def test_without_a_target_network_the_target_is_the_network(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(warm_start=0.0, target_decay=0.0, transitions=1000))
    learner.update(random_questions(0))
    target = dict(learner.target.named_parameters())
    for name, parameter in learner.network.named_parameters():
        assert torch.equal(parameter, target[name])


def test_the_target_network_is_up_to_date_when_the_warm_start_ends(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(warm_start=0.5, transitions=30))
    assert learner.warm
    while learner.warm:
        learner.update(random_questions(0))
    target = dict(learner.target.named_parameters())
    for name, value in learner.average.items():
        assert torch.equal(target[name], value)
    assert not torch.equal(target["projection.weight"], torch.eye(32))


# -- regression -------------------------------------------------------------------------------------------------------


def gradients(tiny_base: Path, s: Hyperparameters, batch: Sequence[Transition]) -> dict[str, torch.Tensor]:
    """The step that plain gradient descent takes on a batch."""
    learner = make_learner(tiny_base, s)
    learner.rollout(random_questions(0, 9))  # fills the table of chunks with the same rows
    before = {name: value.detach().clone() for name, value in learner.masters.values.items()}
    parameters = list(learner.masters.values.values())
    learner.optimizer = torch.optim.SGD([{"params": parameters, "peak": 100.0}])  # type: ignore[assignment]
    learner.regress(Batch(list(batch), np.linspace(0, 1, len(batch), dtype=np.float32)))
    return {name: value.detach() - before[name] for name, value in learner.masters.values.items()}


@pytest.mark.parametrize("mode", ["frozen", "adapter", "refreshed"])
@pytest.mark.parametrize("warm_start", [1.0, 0.0])
def test_the_size_of_a_pass_changes_no_gradient(tiny_base: Path, mode: ActionMode, warm_start: float) -> None:
    s = Hyperparameters(action_mode=mode, warm_start=warm_start, batch_tokens=10_000)
    played = make_learner(tiny_base, s).rollout(random_questions(0, 9))
    # Refreshed: a chunk that one state wants live is live for all states of its pass, so here each has its own chunks.
    each = 1 if mode == "refreshed" else None
    transitions = [transition for trajectory in played for transition in trajectory.transitions[:each]]
    whole, parts = (gradients(tiny_base, replace(s, batch_tokens=tokens), transitions) for tokens in (10_000, 30))
    assert max(float(step.abs().max()) for step in whole.values()) > 1e-3
    for name, step in whole.items():
        torch.testing.assert_close(parts[name], step, atol=1e-5, rtol=1e-3)


def test_few_candidates_are_the_support_and_the_best_of_the_rest(tiny_base: Path) -> None:
    s = Hyperparameters(warm_start=1.0, contrast=0.0)
    question = random_question(np.random.default_rng(2), (12,), support=2, budget=2)
    (trajectory,) = make_learner(tiny_base, s).rollout([question])
    (transition,) = trajectory.transitions[:1]
    order = sorted(set(range(12)) - question.support, key=lambda p: -transition.q[p])
    kept = sorted([*question.support, *order[:4]])
    observation = transition.observation
    smaller = transition._replace(
        observation=observation._replace(
            levels=observation.levels[kept],
            available=observation.available[kept],
            support=observation.support[kept],
        ),
        candidates=transition.candidates[kept],
        rows=transition.rows[kept],
        q=transition.q[kept],
        action=0,
    )
    losses = []
    for settings_, batch in ((replace(s, candidates=6), transition), (s, smaller), (s, transition)):
        learner = make_learner(tiny_base, settings_)
        learner.table.rows(question.chunks)
        losses.append(learner.regress(Batch([batch], np.zeros(1, dtype=np.float32))))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_modules_are_the_masters_rounded(tiny_base: Path, dtype: torch.dtype) -> None:
    learner = make_learner(tiny_base, Hyperparameters(), dtype=dtype)
    before = {name: value.detach().clone() for name, value in learner.masters.values.items()}
    for _ in range(2):
        learner.update(random_questions(0))
    live = {name: value for name, value in learner.network.named_parameters() if value.requires_grad}
    assert live.keys() == learner.masters.values.keys()
    assert {value.dtype for value in learner.masters.values.values()} == {torch.float32}
    assert {value.dtype for name, value in live.items() if name.startswith("state.")} == {dtype}
    for name, parameter in live.items():
        assert torch.equal(parameter, learner.masters.values[name].to(parameter.dtype))
        assert not torch.equal(learner.masters.values[name], before[name])


TRAINED: dict[ActionMode, set[str]] = {
    "frozen": {"state", "w", "b"},
    "adapter": {"state", "projection", "w", "b"},
    "refreshed": {"state", "action", "w", "b"},
}


@pytest.mark.parametrize("warm_start", [1.0, 0.0])
@pytest.mark.parametrize("mode", ["frozen", "adapter", "refreshed"])
def test_each_mode_trains_what_it_says_and_nothing_else(tiny_base: Path, mode: ActionMode, warm_start: float) -> None:
    learner = make_learner(tiny_base, Hyperparameters(action_mode=mode, warm_start=warm_start, transitions=1000))
    before = {name: value.detach().clone() for name, value in learner.network.named_parameters()}
    learner.update(random_questions(0))
    changed = {name for name, value in learner.network.named_parameters() if not torch.equal(value, before[name])}
    layers = {name for name in before if name.split(".")[0] in TRAINED[mode]}
    assert changed == {name for name in layers if ".embeddings." not in name and ".pooler." not in name}
    assert {name.split(".")[0] for name in changed} == TRAINED[mode]


def test_nothing_is_dropped_out(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters())
    learner.update(random_questions(0))
    dropouts = [
        module
        for network in (learner.network, learner.target)
        for module in network.modules()
        if isinstance(module, torch.nn.Dropout)
    ]
    assert dropouts
    assert not any(module.training for module in dropouts)


def test_stored_embeddings_are_renewed_on_schedule(tiny_base: Path) -> None:
    s = Hyperparameters(action_mode="refreshed", refresh_updates=2, transitions=1000, learning_rate=0.1)
    learner = make_learner(tiny_base, s)
    asked = random_questions(0)
    texts = [chunk for question in asked for chunk in question.chunks]
    stored = learner.table[torch.from_numpy(learner.table.rows(texts))].clone()
    encoder = learner.network.encoder
    for update in (1, 2):
        learner.update(asked)
        now = torch.from_numpy(encoder.embed_actions(encoder.cut_action_inputs(texts)))
        found = learner.table[torch.from_numpy(learner.table.rows(texts))]
        assert not torch.allclose(now, stored, atol=1e-5)
        if update == 1:
            assert torch.equal(found, stored)
        else:
            torch.testing.assert_close(found, now, atol=1e-5, rtol=0)


# -- schedules --------------------------------------------------------------------------------------------------------


def test_rates_and_temperature_follow_their_schedules(tiny_base: Path) -> None:
    s = Hyperparameters(
        transitions=1000, alpha_start=0.5, alpha_end=0.1, learning_rate=2.0, head_learning_rate=4.0, warm_start=0.6
    )
    learner = make_learner(tiny_base, s)
    batch = learner.targets(learner.rollout(random_questions(0)))
    rates = []
    for learner.seen in (0, 25, 50, 525, 1000):
        learner.regress(batch)
        rates.append([group["lr"] for group in learner.optimizer.param_groups])
    half = 0.01 + 0.99 * 0.5
    assert rates == [pytest.approx([2 * f, 4 * f]) for f in (0.01, 0.5, 1.0, half, 0.01)]
    for learner.seen, alpha, warm in ((0, 0.5, True), (599, 0.2604, True), (600, 0.26, False), (5000, 0.1, False)):
        assert learner.alpha == pytest.approx(alpha)
        assert learner.warm == warm


def test_an_update_counts_its_transitions_and_reports(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(transitions=1000, minibatch=5))
    asked = random_questions(4, 12)
    figures = learner.update(asked)
    assert learner.updates == 1
    assert learner.seen == pytest.approx(figures["steps"] * 12)
    assert 0 <= figures["solved"] <= 1
    assert figures["alpha"] == learner.alpha < 0.1
    assert math.isfinite(figures["loss"])
    assert figures["loss"] > 0


def test_the_same_seed_plays_and_learns_the_same(tiny_base: Path) -> None:
    learners = [make_learner(tiny_base, Hyperparameters(transitions=1000), seed=seed) for seed in (7, 7, 8)]
    for learner in learners:
        for _ in range(2):
            learner.update(random_questions(0))
    first, same, other = (learner.masters.values["projection.weight"] for learner in learners)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


# -- STOP -------------------------------------------------------------------------------------------------------------


def test_with_stop_an_episode_goes_on_past_its_end(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters(behaviour="support", warm_start=1.0, stop=True))
    asked = [replace(question, budget=len(question.support) + 3) for question in random_questions(3, 60)]
    past = []
    for question, played in zip(asked, learner.rollout(asked), strict=True):
        support, chunks = len(question.support), len(question.chunks)
        assert played.final is None
        assert [t.observation.complete for t in played.transitions[:support]] == [False] * support
        later = played.transitions[support:]
        assert all(t.observation.complete and not t.observation.support.any() for t in later)
        teacher = Clairvoyant(Completion(), 0.8)
        assert not any(teacher.score(question, t.observation.selected, t.candidates).any() for t in later)
        assert len(later) >= min(1, chunks - support)
        actions = [t.action for t in played.transitions]
        assert len(set(actions)) == len(actions)
        assert played.rewards == [0.0] * (support - 1) + [1.0] + [0.0] * len(later)
        past.append(len(later))
    assert {1, 2} <= set(past)


def test_what_comes_after_the_end_changes_no_return(tiny_base: Path) -> None:
    settings = Hyperparameters(warm_start=0.0, lambda_=0.6, stop=True)
    learner = make_learner(tiny_base, settings)
    asked = [replace(question, budget=8) for question in random_questions(4, 30)]
    trajectories = learner.rollout(asked)
    returns = iter(learner.targets(trajectories).returns.tolist())
    cut = []
    for played in trajectories:
        own = [t for t in played.transitions if not t.observation.complete]
        cut.append(played._replace(transitions=own, rewards=played.rewards[: len(own)]))
    expected = iter(learner.targets(cut).returns.tolist())
    later = 0
    for played in trajectories:
        for transition in played.transitions:
            value = next(returns)
            if transition.observation.complete:
                assert value == 0
                later += 1
            else:
                assert value == pytest.approx(next(expected), abs=1e-6)
    assert later > 0


@pytest.mark.parametrize("warm_start", [1.0, 0.0])
def test_stop_becomes_the_best_action_where_nothing_is_missing(tiny_base: Path, warm_start: float) -> None:
    settings = Hyperparameters(
        transitions=6000,
        warm_start=warm_start,
        behaviour="policy",
        stop=True,
        learning_rate=3e-3,
        head_learning_rate=1e-2,
        minibatch=32,
    )
    learner = make_learner(tiny_base, settings)
    asked = [replace(question, budget=6) for question in random_questions(5, 4)]
    while learner.seen < settings.transitions / 2:
        learner.update(asked * 4)
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for played in learner.rollout(asked * 4):
        states = learner.network.embed_states([t.observation.state for t in played.transitions], 1024)
        stop = learner.network.stop_values(states.embeddings)
        for transition, value in zip(played.transitions, stop.tolist(), strict=True):
            gaps[transition.observation.complete].append(value - transition.q[transition.observation.available].max())
    assert np.mean(gaps[True]) > 0.1
    assert np.mean(gaps[False]) < -0.1


def test_stop_becomes_the_best_action_where_the_rest_is_not_there(tiny_base: Path) -> None:
    settings = Hyperparameters(
        transitions=6000, warm_start=1.0, stop=True, learning_rate=3e-3, head_learning_rate=1e-2, minibatch=32
    )
    learner = make_learner(tiny_base, settings)
    asked = [replace(q, budget=4).without([min(q.support)]) for q in random_questions(5, 6) if len(q.support) > 1]
    assert asked
    while learner.seen < settings.transitions / 2:
        learner.update(asked * 4)
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for played in learner.rollout(asked * 4):
        assert played.final is not None
        actions = [t.action for t in played.transitions]
        assert len(set(actions)) == len(actions)
        states = learner.network.embed_states([t.observation.state for t in played.transitions], 1024)
        for transition, value in zip(
            played.transitions, learner.network.stop_values(states.embeddings).tolist(), strict=True
        ):
            left = bool(transition.observation.support.any())
            gaps[left].append(value - transition.q[transition.observation.available].max())
    assert np.mean(gaps[False]) > 0.1
    assert np.mean(gaps[True]) < -0.1


def test_without_stop_nothing_of_it_is_there(tiny_base: Path) -> None:
    learner = make_learner(tiny_base, Hyperparameters())
    assert learner.network.stop is None
    assert "stop" not in learner.masters.values
