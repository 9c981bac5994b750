"""The trainer's Q-values are those of the service, and can be differentiated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from index.arrays import IntArray
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions
from index.search.scanning.matrices import Matrices, Part
from index.search.scoring import exact_q
from index.search.states import State
from tests.index import reference, strategies
from tests.index.strategies import Float32
from trainer.learning.environment import document_levels
from trainer.learning.scoring import rotation, turned_products

CPU = torch.device("cpu")


class Asked(NamedTuple):
    """A state, and the documents it selects from."""

    state: Float32
    rows: IntArray
    """The rows of the candidates in the table of chunks."""
    counts: list[int]
    selected: list[int]


class Batch(NamedTuple):
    """States of different documents over one table of chunks."""

    chunks: Float32
    states: list[Asked]
    function: QFunction


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    dimension = 2 * draw(st.integers(1, 6))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    chunks = strategies.random_vectors(draw(st.integers(1, 15)), dimension, seed)
    states = []
    for number in range(draw(st.integers(1, 4))):
        counts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
        states.append(
            Asked(
                strategies.random_vectors(1, dimension, seed + number)[0],
                generator.integers(len(chunks), size=sum(counts)),
                counts,
                draw(strategies.selections(sum(counts))),
            )
        )
    w, b = draw(st.sampled_from([1.0, 1.5, -2.0, 0.0])), draw(st.sampled_from([0.0, -0.25, 3.0]))
    return Batch(chunks, states, QFunction(w, b, draw(strategies.positions)))


def trained_q(batch: Batch) -> torch.Tensor:
    """The trainer's Q-values, states padded to one width."""
    width = max(len(asked.rows) for asked in batch.states)
    rows, levels = (np.zeros((len(batch.states), width), dtype=np.int64) for _ in range(2))
    for at, asked in enumerate(batch.states):
        rows[at, : len(asked.rows)] = asked.rows
        levels[at, : len(asked.rows)] = document_levels(asked.counts, asked.selected, batch.function.positions)
    turn = rotation(levels, batch.function.positions, batch.chunks.shape[1], CPU)
    states = torch.from_numpy(np.stack([asked.state for asked in batch.states]))
    products = turned_products(states, torch.from_numpy(batch.chunks), torch.from_numpy(rows), turn)
    return batch.function.w * products + batch.function.b


@settings(deadline=None, max_examples=200)
@given(batches())
def test_q_values_are_those_of_the_formula_and_of_the_service(batch: Batch) -> None:
    trained = trained_q(batch).numpy()
    assert trained.dtype == np.float32
    for values, asked in zip(trained, batch.states, strict=True):
        matrix = batch.chunks[asked.rows]
        formula = reference.q(State(asked.state), matrix, asked.counts, asked.selected, batch.function)
        scope = MatrixScope(Matrices(np.cumsum([0, *asked.counts]), (Part(0, matrix),)))
        served = exact_q(State(asked.state), scope, asked.selected, batch.function, np.arange(scope.size))
        free = formula > -np.inf
        assert np.flatnonzero(~free).tolist() == asked.selected
        np.testing.assert_allclose(values[: len(asked.rows)][free], formula[free], rtol=0, atol=1e-5)
        np.testing.assert_allclose(values[: len(asked.rows)][free], served[free], rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), strategies.positions)
def test_gradients_are_the_slopes(seed: int, positions: Positions) -> None:
    generator = torch.Generator().manual_seed(seed)
    states, chunks = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (2, 5))
    w, b = (torch.tensor(value, dtype=torch.float64) for value in (1.5, -0.25))
    rows = torch.tensor([[0, 1, 2, 1], [4, 4, 0, 3]])
    levels = np.array([[0, 3, 3, 7], [1, 2, 0, 40]])
    turn = rotation(levels, positions, 6, CPU)
    arguments = [tensor.requires_grad_() for tensor in (states, chunks, w, b)]
    assert torch.autograd.gradcheck(
        lambda states, chunks, w, b: w * turned_products(states, chunks, rows, turn) + b, arguments, eps=1e-6, atol=1e-6
    )


def test_a_rotation_keeps_lengths() -> None:
    levels = np.arange(12).reshape(3, 4)
    turn = rotation(levels, Positions(levels=5), 8, CPU)
    assert turn.cosine.shape == turn.sine.shape == (3, 4, 4)
    torch.testing.assert_close(turn.cosine.square() + turn.sine.square(), torch.ones(3, 4, 4))
    assert torch.equal(turn.cosine[0, 0], torch.ones(4))
    assert not torch.equal(turn.cosine[0, 1], turn.cosine[0, 2])
