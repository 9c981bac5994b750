"""Ten thousand steps, each against the argmax of float64."""

from __future__ import annotations

import numpy as np
import pytest

from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions, all_level_indices, rotate
from index.search.scanning.matrices import Matrices
from index.search.scoring import best
from index.search.states import State, States
from tests.index import strategies


@pytest.mark.parametrize("kind", ["segment", "half"])
@pytest.mark.parametrize("counts", [[2058], [30] * 68 + [10]])
def test_ten_thousand_steps_choose_what_float64_chooses(kind: strategies.Kind, counts: list[int]) -> None:
    generator = np.random.default_rng(len(counts))
    offsets = np.cumsum([0, *counts])
    matrix = strategies.random_vectors(int(offsets[-1]), 32, seed=1)
    scope = MatrixScope(Matrices(offsets, strategies.split(matrix, [700, 1500], kinds=[kind]), 1.0001))
    positions = Positions(levels=128)
    function = QFunction(1.5, -0.25, positions)
    for _ in range(25):
        states = strategies.random_vectors(100, 32, seed=int(generator.integers(2**32)))
        chosen = [sorted(generator.choice(scope.size, 3, replace=False).tolist()) for _ in states]
        found = scope.estimate(States(states), chosen, function)
        for state, selected, estimated in zip(states, chosen, found, strict=True):
            level = all_level_indices(offsets, selected, positions)
            turned = rotate(matrix.astype(np.float64), positions.rho(level), positions.rope_base)
            q = turned @ state.astype(np.float64)
            q[selected] = -np.inf
            assert best(estimated, 1, State(state), scope, selected, function)[0].position == q.argmax()
