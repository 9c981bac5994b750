"""Episodes of which the test says what every state is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from index.episodes.episode import ChunkTokens, Episode
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions
from index.search.scanning.matrices import Matrices, Part
from tests.index.stepping import take_step
from tests.index.strategies import Float32

PLAIN = QFunction(1.0, 0.0, Positions(mode="none"))

StateOf = Callable[[tuple[int, ...]], Float32]
"""The state embedding for the chunks that are selected."""

seeds = st.integers(0, 2**32 - 1)


def random_states(dimension: int, seed: int) -> StateOf:
    """A state embedding for every set of chunks, as a state tower gives one."""

    def state_of(selected: tuple[int, ...]) -> Float32:
        generator = np.random.default_rng([seed, *selected])
        vector = generator.standard_normal(dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    return state_of


def chunk_named_by_its_position(position: int) -> ChunkTokens:
    return ChunkTokens([position], cost=1)


def run(episode: Episode, state_of: StateOf, function: QFunction, watch: Callable[[], None] = lambda: None) -> Episode:
    while episode.stopped_by is None:
        selected = [tuple(ids[0] for ids in path) for path in episode.states()]
        assert len(selected) == episode.width
        assert all(list(path) == sorted(set(path)) for path in selected)  # in document order, none twice
        take_step(episode, np.stack([state_of(path) for path in selected]), function)
        watch()
    return episode


def picks(episode: Episode) -> list[int]:
    return [step.position for step in episode.steps]


def documents(counts: Sequence[int]) -> MatrixScope:
    """Chunks that are unit vectors: a state's coordinates are the Q-values."""
    total = sum(counts)
    return MatrixScope(
        Matrices(np.cumsum([0, *counts]), (Part(0, np.eye(total, total + total % 2, dtype=np.float32)),))
    )


def table(values: dict[tuple[int, ...], list[float]]) -> StateOf:
    return lambda selected: np.array(values[selected], dtype=np.float32)


def toward(order: Sequence[int], size: int = 4) -> StateOf:
    """States that want the chunks in this order, with Q 1.0, 0.9, 0.8 ..."""

    def state_of(selected: tuple[int, ...]) -> Float32:
        vector = np.zeros(size, dtype=np.float32)
        if len(selected) < len(order):
            vector[order[len(selected)]] = 1 - 0.1 * len(selected)
        return vector

    return state_of
