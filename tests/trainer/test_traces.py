"""A trace says what every stop rule would have done in a real episode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.episodes.episode import Limits
from index.episodes.rules import STOP_RULES, StopBelow
from qrag.wire.rules import RULES, Rule
from tests.random_checkpoints import calibrate_at_random, write_random_checkpoint
from trainer.datasets.question import Question
from trainer.evaluation.playing import Player, run_together, start
from trainer.stopping.traces import PAST, Trace, scores, trace

WORDS = ["lamp", "garden", "Ann", "took", "left", "the", "milk", "went", "kitchen", "boat", "old", "green"]
BUDGET = 5


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    directory = tmp_path_factory.mktemp("traced")
    calibrate_at_random(directory, write_random_checkpoint(directory, seed=3))
    return load_encoder(directory)


def questions(seed: int, count: int) -> list[Question]:
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        chunks = [" ".join(generator.choice(WORDS, size=6)) for _ in range(int(generator.integers(2, 9)))]
        support = frozenset(generator.choice(len(chunks), size=min(2, len(chunks)), replace=False).tolist())
        found.append(Question(f"{number}", f"task{number % 2}", "Where is Ann?", chunks, (len(chunks),), support, 3))
    return found


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.sampled_from(RULES), st.floats(0, 1))
def test_every_rule_stops_a_trace_where_it_stops_an_episode(
    encoder: Encoder, seed: int, rule: Rule, quantile: float
) -> None:
    asked = questions(seed, 5)
    vectors = Player(encoder).vectors(asked)
    traces = trace(encoder, asked, vectors, BUDGET)
    values = scores(traces, encoder.stopping, rule, encoder.function)
    seen = np.concatenate(values)
    threshold = float(np.quantile(seen[np.isfinite(seen)], quantile)) + 1e-4
    episodes = [
        start(encoder, one, vectors, Limits(BUDGET, stop=StopBelow(STOP_RULES[rule], threshold)), encoder.stopping)
        for one in asked
    ]
    run_together(encoder, asked, episodes)
    for one, traced, own, episode in zip(asked, traces, values, episodes, strict=True):
        stopped = traced.stop(own, threshold)
        if stopped < len(own):  # it was traced so far
            assert stopped == len(episode.steps)
            right = [step.position in one.support for step in episode.steps]
            assert traced.hits[stopped] == sum(right)
        else:
            assert traced.found_after is not None
            assert len(episode.steps) > traced.found_after + PAST


def test_a_trace_goes_a_little_past_the_end(encoder: Encoder) -> None:
    asked = questions(5, 40)
    traces = trace(encoder, asked, Player(encoder).vectors(asked), BUDGET)
    assert {one.found_after is None for one in traces} == {True, False}
    for one, question in zip(traces, asked, strict=True):
        assert one.budget == min(BUDGET, len(question.chunks))
        assert one.hits[0] == 0
        assert len(one.hits) == len(one.moments)
        complete = [hits == one.support for hits in one.hits]
        if one.found_after is None:
            assert not any(complete)
            assert len(one.moments) == one.budget + 1
            assert {one.label(taken) for taken in range(len(one.moments))} == {2}
        else:
            assert complete.index(True) == one.found_after
            assert len(one.moments) == min(one.budget, one.found_after + PAST) + 1
            labels = [one.label(taken) for taken in range(len(one.moments))]
            assert labels == [1] * one.found_after + [0] * (len(labels) - one.found_after)


def test_evidence_that_was_taken_out_is_never_complete(encoder: Encoder) -> None:
    whole = next(one for one in questions(7, 20) if len(one.support) == 2 and len(one.chunks) > 3)
    poorer = whole.without([min(whole.support)])
    assert len(poorer.chunks) == len(whole.chunks) - 1
    assert (poorer.removed, len(poorer.support), poorer.counts) == (1, 1, (len(poorer.chunks),))
    (kept,) = poorer.support
    assert poorer.chunks[kept] == whole.chunks[max(whole.support)]
    (found,) = trace(encoder, [poorer], Player(encoder).vectors([poorer]), BUDGET)
    assert (found.found_after, found.support, found.removed) == (None, 2, 1)
    assert found.hits[-1] <= 1


def test_documents_without_chunks_are_gone() -> None:
    question = Question("1", "t", "Who?", ["a", "b", "c", "d"], (1, 2, 1), frozenset({0, 2}), 2)
    poorer = question.without([0, 1])
    assert (list(poorer.chunks), poorer.counts, poorer.removed) == (["c", "d"], (1, 1), 1)
    assert poorer.support == {0}
    assert question.without([0, 2]).support == frozenset()
    assert question.without([]) == question


def test_stopping_at_a_threshold_of_the_score() -> None:
    one = Trace("t", (), (0, 1, 2), 2, 2, budget=4, question="q")
    assert one.stop([0.9, 0.5, 0.1], 0.0) == 4  # it would go on past the trace
    assert one.stop([0.9, 0.5, 0.1], 0.5) == 2  # at the threshold it goes on
    assert one.stop([0.9, 0.5, 0.1], 0.6) == 1
    assert one.stop([0.9, 0.5, 0.1], 1.0) == 0
