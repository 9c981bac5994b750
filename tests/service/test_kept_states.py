"""States that episodes come to again are embedded once, as long as they are among those used latest."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.encoders.encoder import Encoder, StateInput
from index.encoders.loading import load_encoder
from index.search.states import States
from service.engine.kept_states import KeptStates

QUESTIONS = ["Where is Ann?", "Who signed the lease, and where did the office move?", "Why?", "Which of the two?"]


@pytest.fixture(scope="module")
def inputs(encoder: Encoder) -> list[StateInput]:
    (chunk,) = encoder.state_tokens(["Ann took the ball to the kitchen."])
    return [
        encoder.compose_state(encoder.question_tokens(question), chunks)
        for question in QUESTIONS
        for chunks in ([], [chunk])
    ]


def assert_equal(states: States, others: States) -> None:
    """The same states, but for what rounds otherwise in another batch."""
    for state, other in zip(states, others, strict=True):
        np.testing.assert_allclose(state.embedding, other.embedding, atol=1e-5)
        assert (state.terms is None) == (other.terms is None)
        if state.terms is not None and other.terms is not None:
            np.testing.assert_array_equal(state.terms.tokens, other.terms.tokens)
            np.testing.assert_allclose(state.terms.weights, other.terms.weights, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(
    batches=st.lists(st.lists(st.integers(0, 2 * len(QUESTIONS) - 1), min_size=1, max_size=4), max_size=8),
    most=st.integers(1, 6),
)
def test_what_is_kept_is_what_would_be_embedded(
    encoder: Encoder, inputs: list[StateInput], batches: list[list[int]], most: int
) -> None:
    kept = KeptStates(most)
    for batch in batches:
        states = [inputs[number] for number in batch]
        assert_equal(kept.read_by(encoder).embed_states(states), encoder.embed_states(states))
        assert len(kept) <= most
    assert kept.hits + kept.misses == sum(map(len, batches))


def test_the_states_used_latest_are_kept(encoder: Encoder, inputs: list[StateInput]) -> None:
    kept = KeptStates(most=2)

    def missed(*numbers: int) -> int:
        before = kept.misses
        kept.read_by(encoder).embed_states([inputs[number] for number in numbers])
        return kept.misses - before

    assert missed(0, 1, 0) == 2
    assert missed(0) == 0
    assert missed(2) == 1  # in place of 1
    assert [missed(0), missed(1)] == [0, 1]
    assert (kept.hits, kept.misses) == (3, 4)


def test_a_state_is_told_from_one_whose_question_ends_elsewhere(encoder: Encoder, inputs: list[StateInput]) -> None:
    """The same tokens, of which more belong to the question, are weighed otherwise."""
    kept = KeptStates()
    other = encoder.compose_state(inputs[1].ids[1:-1], [])
    assert other.ids == inputs[1].ids
    kept.read_by(encoder).embed_states([inputs[1], other])
    assert kept.misses == 2


def test_each_checkpoint_reads_for_itself_and_none_is_held(encoder: Encoder, tiny_checkpoint: Path) -> None:
    kept = KeptStates()
    other = load_encoder(tiny_checkpoint, device="cpu")
    for reads, counts in ((other, (0, 1)), (encoder, (0, 2)), (other, (1, 2)), (encoder, (2, 2))):
        state = reads.compose_state(reads.question_tokens(QUESTIONS[0]), [])
        assert_equal(kept.read_by(reads).embed_states([state]), reads.embed_states([state]))
        assert (kept.hits, kept.misses) == counts
    assert len(kept) == 2
    released = weakref.ref(other)
    del other, reads
    gc.collect()
    assert released() is None
    assert len(kept) == 1
