"""The best candidates by exact Q, from what an estimate leaves open.

Which part scores what, and why:

* :mod:`index.search.scanning.scan` reads every candidate once, for all states of a step. Each value is within a known
  bound of the true one (:mod:`index.search.signals`).
* **float64 decides.** Rounding in codes and single precision can change the order of the values. All chunks
  within the error bound of the best are scored again in float64 from their embeddings, so the argmax is the argmax of
  exact arithmetic; ties go to the first chunk in document order.
* :mod:`index.search.preselection` chooses the candidates that are scored where a scope is too large to be read for each
  step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.arrays import Float64Array, IntArray
from index.search.function import QFunction
from index.search.scope import Candidate, Estimate, Scope
from index.search.signals.protocol import Chunks
from index.search.states import State
from index.search.surroundings import averaged, beside

BLOCK_ROWS = 4096
"""Contenders scored at once: a document of repeated lines makes hundreds of thousands of them."""


def best(
    estimate: Estimate,
    count: int,
    state: State,
    scope: Scope,
    selected: Sequence[int],
    function: QFunction,
) -> list[Candidate]:
    """The ``count`` best candidates by exact Q, best first; fewer if fewer are left.

    ``estimate`` is this state's from :meth:`~index.search.scope.Scope.estimate`. Everything that it cannot tell
    from the ``count``-th best is scored again in float64 before it is ordered.
    """
    values = estimate.values
    if estimate.positions is None and scope.mask is None:
        remaining = scope.size - len(selected)
    else:
        remaining = int(np.count_nonzero(values > -np.inf))
    count = min(count, remaining)
    if count <= 0:
        return []
    cut = values.max() if count == 1 else np.partition(values, -count)[-count]
    contenders = np.flatnonzero(values >= cut - 2 * estimate.error)
    if estimate.positions is not None:
        contenders = estimate.positions[contenders]
    exact = np.concatenate(
        [
            exact_q(state, scope, selected, function, contenders[low : low + BLOCK_ROWS])
            for low in range(0, len(contenders), BLOCK_ROWS)
        ]
    )
    order = np.lexsort((contenders, -exact))[:count]
    return [Candidate(int(contenders[i]), float(exact[i])) for i in order]


def exact_q(
    state: State, chunks: Chunks, selected: Sequence[int], function: QFunction, positions: IntArray
) -> Float64Array:
    """``Q(s, i)`` in float64 at the given positions of the candidate axis, same shape."""
    products = averaged_products(state, chunks, selected, function, positions)
    return sum((signal.exact(state, chunks, selected, positions) for signal in function.further), start=products)


def averaged_products(
    state: State, chunks: Chunks, selected: Sequence[int], function: QFunction, positions: IntArray
) -> Float64Array:
    """The inner products at the given positions, averaged with those beside them, in float64, same shape.

    See :mod:`index.search.surroundings`.
    """
    signal = function.inner_product
    if not state.surroundings:
        return signal.exact(state, chunks, selected, positions)
    around = beside(positions, chunks.offsets, selected)
    needed, place = np.unique(np.concatenate((positions[None], around)), return_inverse=True)
    values = signal.exact(state, chunks, selected, needed[needed >= 0])
    own, *others = np.concatenate((np.zeros(int(np.count_nonzero(needed < 0))), values))[place.reshape(3, -1)]
    return averaged(own, np.stack(others), (around >= 0).astype(np.float64), state.surroundings)
