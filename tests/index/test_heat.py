"""Heat maps hold the largest true Q-value of each stretch, of the documents that matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.episodes.episode import Episode, Limits
from index.episodes.heat import MAPPED_DOCUMENTS, HeatMap, heat_maps
from index.search.scope import Candidate, Estimate
from index.search.scoring import best
from index.search.states import State, States
from tests.index import reference, strategies
from tests.index.episodes import PLAIN, chunk_named_by_its_position, documents, random_states, run, toward
from tests.index.strategies import Case


def slowly(values: dict[int, float], chunks: int, stretches: int) -> list[float]:
    """The largest value of each stretch, chunk by chunk; ``values`` are by chunk, of some chunks only."""
    count = min(stretches, chunks)
    found = [-math.inf] * count
    for chunk, value in values.items():
        (stretch,) = (k for k in range(count) if k * chunks <= chunk * count < (k + 1) * chunks)
        found[stretch] = max(found[stretch], value)
    return found


@given(strategies.cases(), st.integers(1, 20), st.integers(1, 12))
def test_every_stretch_has_the_largest_of_its_true_values(case: Case, stretches: int, count: int) -> None:
    state, scope, selected, function, scale, *_ = case
    (estimated,) = scope.estimate(States(state[None]), [selected], function)
    candidates = best(estimated, count, State(state), scope, selected, function)
    exact = reference.q_of(state, scope, selected, function)
    found = heat_maps(estimated, scope, candidates, selected, stretches)
    positions = [*(each.position for each in candidates[:1]), *selected]
    positions += [each.position for each in candidates[1:]]
    assert [heat.document for heat in found] == list(dict.fromkeys(map(scope.document_of, positions)))
    for heat in found:
        start, stop = scope.offsets[heat.document : heat.document + 2].tolist()
        assert heat.chunks == stop - start
        assert heat.selected == tuple(p - start for p in selected if start <= p < stop)
        expected = slowly(dict(enumerate(exact[start:stop].tolist())), heat.chunks, stretches)
        assert [*heat.largest] == pytest.approx(expected, rel=0, abs=estimated.error + 1e-6 * scale)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 40), st.data())
def test_values_of_some_candidates_are_where_these_are(counts: list[int], stretches: int, data: st.DataObject) -> None:
    scope = documents(counts)
    positions = data.draw(st.permutations(range(scope.size)))[: data.draw(st.integers(1, scope.size))]
    values = np.random.default_rng(len(positions)).standard_normal(len(positions)).astype(np.float32)
    known = dict(zip(positions, values.tolist(), strict=True))
    candidates = [Candidate(position, 0.0) for position in positions]
    found = heat_maps(Estimate(values, 0.0, np.array(positions)), scope, candidates, [], stretches)
    assert {heat.document for heat in found} == {scope.document_of(position) for position in positions}
    for heat in found:
        start = int(scope.offsets[heat.document])
        inside = {p - start: q for p, q in known.items() if start <= p < start + heat.chunks}
        assert heat.largest.tolist() == slowly(inside, heat.chunks, stretches)


def test_documents_that_matter_most_come_first_and_the_rest_is_left_out() -> None:
    scope = documents([2] * 20)
    values = np.linspace(1, 0, 40).astype(np.float32)
    candidates = [Candidate(position, 0.0) for position in range(20, 40)]
    found = heat_maps(Estimate(values, 0.0), scope, candidates, [6, 7, 38], 1)
    assert [heat.document for heat in found] == [10, 3, 19, 11, 12, 13, 14, 15]
    assert len(found) == MAPPED_DOCUMENTS
    assert [heat.selected for heat in found[:3]] == [(), (0, 1), (0,)]


@pytest.mark.parametrize("beam_width", [1, 3])
def test_steps_show_the_state_that_they_were_taken_in(beam_width: int) -> None:
    scope, state_of = documents([5, 7]), random_states(12, seed=3)
    limits = Limits(4, beam_width=beam_width, candidates=12, stretches=512)
    episode = run(Episode(scope, limits, chunk_named_by_its_position), state_of, PLAIN)
    assert len(episode.steps) == 4
    for number, step in enumerate(episode.steps):
        before = tuple(sorted(other.position for other in episode.steps[:number]))
        values = np.where(np.isin(np.arange(12), before), -np.inf, state_of(before))
        shown = {heat.document: heat for heat in step.heat}
        assert {*shown} == {0, 1}
        assert [*shown[0].largest, *shown[1].largest] == pytest.approx(values.tolist(), abs=0.01)
        assert [*shown[0].selected, *(5 + chunk for chunk in shown[1].selected)] == [*before]


def test_nothing_is_mapped_unless_asked_for() -> None:
    asked: list[tuple[tuple[HeatMap, ...], ...]] = []
    for stretches in (0, 1):
        limits = Limits(2, candidates=3, stretches=stretches)
        episode = run(Episode(documents([4]), limits, chunk_named_by_its_position), toward([1, 2]), PLAIN)
        asked.append(tuple(step.heat for step in episode.steps))
    assert asked[0] == ((), ())
    assert all(asked[1])
