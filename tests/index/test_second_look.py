"""A second look: of the best by Q, each step selects the one that somebody else scores highest."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index.episodes.episode import Episode, Limits
from tests.index.episodes import PLAIN, chunk_named_by_its_position, documents, picks, random_states, seeds, toward
from tests.index.stepping import take_step


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(2, 5), st.integers(1, 4), seeds)
def test_each_step_selects_the_best_of_the_contenders(size: int, count: int, steps: int, seed: int) -> None:
    worth = np.random.default_rng(seed).permutation(size).astype(np.float32)
    state_of = random_states(size + size % 2, seed)
    episode = Episode(documents([size]), Limits(steps, second_look=count), chunk_named_by_its_position)
    expected: list[int] = []
    while episode.stopped_by is None:
        before = episode.selected
        take_step(episode, state_of(before)[None], PLAIN)
        if episode.stopped_by is not None:
            break
        free = [position for position in range(size) if position not in before]
        by_q = sorted(free, key=lambda position: (-state_of(before)[position], position))
        assert list(episode.contenders) == by_q[:count]
        assert episode.selected == before  # nothing is selected yet
        expected.append(max(episode.contenders, key=lambda position: worth[position]))
        episode.choose(worth[list(episode.contenders)])
        assert not episode.contenders
    assert picks(episode) == expected
    assert len(expected) == min(steps, size)
    assert [step.second_score for step in episode.steps] == [worth[position] for position in expected]


def test_what_does_not_fit_the_context_is_no_contender() -> None:
    limits = Limits(3, max_context_tokens=2, second_look=3)
    episode = Episode(documents([4]), limits, chunk_named_by_its_position)
    for choice in (1, 0):
        take_step(episode, toward([2, 0])(episode.selected)[None], PLAIN)
        episode.choose(np.eye(len(episode.contenders), dtype=np.float32)[choice])
    take_step(episode, toward([2, 0])(episode.selected)[None], PLAIN)
    assert episode.stopped_by == "context"
    assert len(episode.steps) == 2


def test_without_one_the_largest_q_decides() -> None:
    episode = Episode(documents([4]), Limits(1), chunk_named_by_its_position)
    take_step(episode, toward([2])(())[None], PLAIN)
    assert picks(episode) == [2]
    assert episode.steps[0].second_score is None
