"""Soft values, λ-returns and the clairvoyant loss against slow, obvious computations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.hyperparameters import Hyperparameters
from trainer.learning.objectives.lambda_returns import lambda_returns, soft_value
from trainer.learning.objectives.warm_start import clairvoyant_loss

# -- soft values ------------------------------------------------------------------------------------------------------

q_numbers = st.floats(-3, 3, width=32)
alphas = st.sampled_from([0.01, 0.05, 0.3, 1.0])


@st.composite
def masked(draw: st.DrawFn) -> tuple[list[float], list[bool]]:
    """Q-values and which of them are available: one at least."""
    q = draw(st.lists(q_numbers, min_size=1, max_size=12))
    available = draw(st.lists(st.booleans(), min_size=len(q), max_size=len(q)))
    available[draw(st.integers(0, len(q) - 1))] = True
    return q, available


@settings(deadline=None)
@given(masked(), alphas)
def test_the_soft_value_is_that_of_the_available_candidates(case: tuple[list[float], list[bool]], alpha: float) -> None:
    q, available = case
    value = soft_value(torch.tensor([q]), torch.tensor([available]), alpha).item()
    free = [number for number, usable in zip(q, available, strict=True) if usable]
    largest = max(free)
    expected = largest + alpha * math.log(sum(math.exp((number - largest) / alpha) for number in free))
    assert value == pytest.approx(expected, abs=1e-5)
    assert largest - 1e-5 <= value <= largest + alpha * math.log(len(free)) + 1e-5


@pytest.mark.parametrize("huge", [1e30, math.inf, -1e30, math.nan])
def test_a_selected_chunk_changes_no_value_whatever_its_q(huge: float) -> None:
    q = torch.tensor([[0.5, 0.2, 0.1], [0.5, huge, 0.1]])
    available = torch.tensor([[True, False, True]] * 2)
    plain, other = soft_value(q, available, 0.05).tolist()
    assert plain == other == pytest.approx(0.5 + 0.05 * math.log(1 + math.exp(-8)), abs=1e-6)


def test_a_state_with_nothing_left_to_select_is_worth_nothing() -> None:
    q = torch.tensor([[0.5, 0.2], [0.5, 0.2]])
    values = soft_value(q, torch.tensor([[False, False], [True, False]]), 0.05).tolist()
    assert values == [0.0, pytest.approx(0.5)]


# -- λ-returns --------------------------------------------------------------------------------------------------------

shares = st.sampled_from([0.0, 0.3, 0.8, 1.0])
reals = st.floats(-2, 2)


@st.composite
def episodes(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """Rewards, and the value of the state after each: the last is 0 after completion, or that of a cut-off state."""
    rewards = draw(st.lists(reals, min_size=1, max_size=7))
    values = draw(st.lists(reals, min_size=len(rewards), max_size=len(rewards)))
    if draw(st.booleans()):
        values[-1] = 0.0
    return rewards, values


def n_step_return(rewards: Sequence[float], values: Sequence[float], t: int, n: int, gamma: float) -> float:
    """``n`` rewards from ``t`` on, and then the value of the state they lead to."""
    return sum(gamma**k * rewards[t + k] for k in range(n)) + gamma**n * values[t + n - 1]


@settings(deadline=None)
@given(episodes(), shares, shares)
def test_lambda_returns_are_the_weighted_n_step_returns(
    episode: tuple[list[float], list[float]], gamma: float, lambda_: float
) -> None:
    rewards, values = episode
    returns = lambda_returns(rewards, values, gamma, lambda_)
    assert len(returns) == len(rewards)
    for t, found in enumerate(returns):
        longest = len(rewards) - t
        expected = lambda_ ** (longest - 1) * n_step_return(rewards, values, t, longest, gamma)
        for n in range(1, longest):
            expected += (1 - lambda_) * lambda_ ** (n - 1) * n_step_return(rewards, values, t, n, gamma)
        assert found == pytest.approx(expected, abs=1e-9)


@given(episodes(), shares)
def test_lambda_one_is_the_discounted_sum_and_lambda_zero_one_step(
    episode: tuple[list[float], list[float]], gamma: float
) -> None:
    rewards, values = episode
    last = len(rewards)
    whole = [
        sum(gamma ** (k - t) * rewards[k] for k in range(t, last)) + gamma ** (last - t) * values[-1]
        for t in range(last)
    ]
    assert lambda_returns(rewards, values, gamma, 1.0) == pytest.approx(whole, abs=1e-9)
    steps = [reward + gamma * value for reward, value in zip(rewards, values, strict=True)]
    assert lambda_returns(rewards, values, gamma, 0.0) == pytest.approx(steps, abs=1e-12)


# -- the clairvoyant loss ---------------------------------------------------------------------------------------------


def slow_loss(
    q: Sequence[float], optimal: Sequence[float], available: Sequence[bool], support: Sequence[bool], s: Hyperparameters
) -> float:
    """The loss of one state, candidate after candidate."""
    groups: dict[bool, list[float]] = {True: [], False: []}
    everything = wanted = 0.0
    for value, best, usable, needed in zip(q, optimal, available, support, strict=True):
        if usable:
            groups[needed].append((value - best) ** 2)
            everything += math.exp(value / s.contrast_alpha)
            wanted += math.exp(value / s.contrast_alpha) if needed else 0.0
    errors = sum(sum(group) / len(group) for group in groups.values() if group)
    return s.squared * errors - s.contrast * math.log(wanted / everything)


weights = st.sampled_from([0.0, 1.0, 0.3])


@st.composite
def visited(draw: st.DrawFn) -> tuple[list[float], list[float], list[bool], list[bool]]:
    """Q, optimal Q, availability and missing support of a state, which misses one chunk at least."""
    q, available = draw(masked())
    support = [usable and draw(st.booleans()) for usable in available]
    support[available.index(True)] = True
    return q, draw(st.lists(q_numbers, min_size=len(q), max_size=len(q))), available, support


@settings(deadline=None)
@given(st.lists(visited(), min_size=1, max_size=4), weights, weights, st.sampled_from([0.1, 1.0]))
def test_the_clairvoyant_loss_is_that_of_a_loop_and_padding_does_not_matter(
    states: list[tuple[list[float], list[float], list[bool], list[bool]]], squared: float, contrast: float, alpha: float
) -> None:
    s = Hyperparameters(squared=squared, contrast=contrast, contrast_alpha=alpha)
    width = max(len(q) for q, *_ in states) + 1

    def padded(column: int, junk: float | bool) -> torch.Tensor:
        return torch.tensor([list(state[column]) + [junk] * (width - len(state[column])) for state in states])

    loss = clairvoyant_loss(padded(0, 100.0), padded(1, -9.0), padded(2, False), padded(3, False), s)
    assert loss.shape == (len(states),)
    for found, state in zip(loss.tolist(), states, strict=True):
        assert found == pytest.approx(slow_loss(*state, s), rel=1e-4, abs=1e-4)


def test_unavailable_candidates_have_no_gradient() -> None:
    q = torch.tensor([[0.3, 50.0, 0.1, -0.2]], requires_grad=True)
    available = torch.tensor([[True, False, True, True]])
    support = torch.tensor([[True, False, False, False]])
    clairvoyant_loss(q, torch.ones(1, 4), available, support, Hyperparameters()).sum().backward()  # type: ignore[no-untyped-call]
    assert q.grad is not None
    assert q.grad[0, 1] == 0
    assert (q.grad[0, [0, 2, 3]] != 0).all()


def test_the_loss_is_least_where_q_is_optimal_but_for_the_contrast() -> None:
    optimal = torch.tensor([[1.0, 0.8, 0.8]])
    everything, support = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[True, False, False]])
    assert clairvoyant_loss(optimal, optimal, everything, support, Hyperparameters(contrast=0)).item() == 0
    assert clairvoyant_loss(optimal, optimal, everything, support, Hyperparameters()).item() > 0
