"""Episodes that go on: with chunks that are held from the beginning, and without chunks that are excluded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.episodes.episode import Episode, Held, Limits
from index.episodes.head import Sufficiency
from index.episodes.rules import STOP_RULES, StopBelow
from index.search.scope import Scope
from index.storage.vectors import ChunkAddress, SearchScope
from tests.index import reference, strategies
from tests.index.episodes import (
    PLAIN,
    StateOf,
    chunk_named_by_its_position,
    documents,
    picks,
    random_states,
    run,
    seeds,
    toward,
)
from tests.index.strategies import Case


def selected(episode: Episode) -> list[Held]:
    return [Held(step.position, step.q) for step in episode.steps]


def played(case: Case, steps: int, state_of: StateOf, held: list[Held], scope: Scope | None = None) -> Episode:
    episode = Episode(scope or case.scope, Limits(steps), chunk_named_by_its_position, held=held)
    return run(episode, state_of, case.function)


@settings(max_examples=200)
@given(strategies.cases(), st.integers(1, 4), st.integers(1, 4), seeds)
def test_two_calls_select_what_one_selects(case: Case, first: int, second: int, seed: int) -> None:
    state_of = random_states(len(case.state), seed)
    whole = played(case, first + second, state_of, [])
    begun = played(case, first, state_of, [])
    continued = played(case, second, state_of, selected(begun))
    assert picks(begun) + picks(continued) == picks(whole)
    q = [step.q for step in (*begun.steps, *continued.steps)]
    np.testing.assert_allclose(q, [step.q for step in whole.steps], rtol=0, atol=1e-5)
    assert continued.selected == whole.selected
    assert continued.stopped_by == whole.stopped_by


@settings(max_examples=200)
@given(strategies.cases(), st.data(), seeds)
def test_held_and_excluded_chunks_by_brute_force(case: Case, data: st.DataObject, seed: int) -> None:
    """Held chunks are in the state and part the documents; excluded ones do neither, and both are never selected."""
    size = case.scope.size
    kinds = data.draw(st.lists(st.sampled_from(["held", "excluded", "open"]), min_size=size, max_size=size))
    held, excluded = ([i for i, kind in enumerate(kinds) if kind == name] for name in ("held", "excluded"))
    state_of = random_states(len(case.state), seed)
    scope = case.scope.masked(np.array(excluded, dtype=np.int64))
    episode = played(case, 3, state_of, [Held(position) for position in reversed(held)], scope)
    state = set(held)
    for step in episode.steps:
        now = tuple(sorted(state))
        values = reference.q_of(state_of(now), case.scope, now, case.function)
        ranked = [position for position in reference.ranking(values) if position not in excluded]
        assert step.position == ranked[0]
        assert step.q == pytest.approx(values[ranked[0]], abs=1e-10 * case.scale)
        state.add(step.position)
    left = size - len(state) - len(excluded)
    assert episode.stopped_by == ("budget" if len(episode.steps) == 3 else "exhausted")
    assert len(episode.steps) == 3 or left == 0


def test_nothing_is_selected_where_everything_is_held_or_excluded() -> None:
    scope = documents([2, 2])
    for held, excluded in (([0, 1, 2, 3], []), ([0, 3], [1, 2]), ([], [0, 1, 2, 3])):
        masked = scope.masked(np.array(excluded, dtype=np.int64))
        episode = Episode(masked, Limits(3), chunk_named_by_its_position, held=[Held(position) for position in held])
        run(episode, toward([]), PLAIN)
        assert (picks(episode), episode.stopped_by) == ([], "exhausted")
        assert episode.selected == tuple(held)


def test_a_budget_of_nothing_selects_nothing() -> None:
    episode = run(Episode(documents([4]), Limits(0), chunk_named_by_its_position, held=[Held(1)]), toward([]), PLAIN)
    assert (picks(episode), episode.stopped_by) == ([], "budget")


def test_rules_know_what_was_selected_before() -> None:
    """The head reads the Q-values of all that is in the state: the rule ends both ways of asking at the same chunk."""
    seen: list[tuple[float, ...]] = []

    class Noting:
        assesses = True

        def sufficiency(self, moment: object, _function: object) -> Sufficiency:
            seen.append(moment.selected)  # type: ignore[attr-defined]
            return Sufficiency(complete=0.0, hopeless=0.0)

    limits = Limits(2, stop=StopBelow(STOP_RULES["sufficiency"], 0.5))
    held = [Held(3, 0.7), Held(0)]
    stopping = Noting()
    episode = Episode(documents([4]), limits, chunk_named_by_its_position, stopping, held)  # type: ignore[arg-type]
    run(episode, lambda _: np.array([0, 0.5, 0.25, 0], dtype=np.float32), PLAIN)
    assert picks(episode) == [1, 2]
    assert seen == [(0.7, 1.0), (0.7, 1.0, 0.5), (0.7, 1.0, 0.5, 0.25)]


def test_every_chunk_is_found_at_its_address_and_no_other_is() -> None:
    counts, uids = [3, 1, 4], [5, 9, 12]
    scope = SearchScope(documents(counts), np.array(uids))
    addresses = [scope.address(position) for position in range(8)]
    assert [scope.position(address) for address in addresses] == list(range(8))
    for address in ((5, 3), (9, 1), (12, 4), (4, 0), (8, 0), (13, 0), (-1, 0)):
        assert scope.position(ChunkAddress(*address)) is None
    empty = SearchScope(documents([]), np.array([], dtype=np.int64))
    assert empty.position(ChunkAddress(5, 0)) is None
