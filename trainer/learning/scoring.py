"""Q-values as differentiable tensors: the same function as :mod:`index.search.scoring`, for a batch of small scopes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from index.arrays import IntArray
from index.search.positions import Positions


class Rotation(NamedTuple):
    """Cosine and sine of ``ρθ`` for each candidate and coordinate pair, each ``[states, candidates, d/2]`` float32."""

    cosine: torch.Tensor
    sine: torch.Tensor


def rotation(level_indices: IntArray, positions: Positions, dimension: int, device: torch.device) -> Rotation:
    """The rotation at each level index; ``level_indices`` has shape ``[states, candidates]``."""
    distinct, inverse = np.unique(level_indices, return_inverse=True)
    rho = positions.rho(distinct)
    angle = rho[:, None] * positions.rope_base ** (-np.arange(0, dimension, 2) / dimension)
    at = torch.from_numpy(inverse.reshape(level_indices.shape)).to(device)
    tables = (torch.from_numpy(table).float().to(device) for table in (np.cos(angle), np.sin(angle)))
    return Rotation(*(table[at] for table in tables))


def rotated_back(states: torch.Tensor, turn: Rotation) -> torch.Tensor:
    """``R(-ρ) s``, shape ``[states, d]``: its products with chunks are those of the state with the chunks at ``ρ``.

    ``turn`` has one candidate for each state. The even coordinates come first, then the odd ones: see :func:`halves`.
    """
    cosine, sine = turn.cosine[:, 0], turn.sine[:, 0]
    even, odd = states[:, 0::2], states[:, 1::2]
    return torch.cat((even * cosine + odd * sine, odd * cosine - even * sine), dim=1)


def halves(chunks: torch.Tensor) -> torch.Tensor:
    """The even coordinates, then the odd ones."""
    return torch.cat((chunks[..., 0::2], chunks[..., 1::2]), dim=-1)


def q_values(
    states: torch.Tensor, chunks: torch.Tensor, rows: torch.Tensor, turn: Rotation, w: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    """``w · <s, R(ρ) a> + b``, shape ``[states, candidates]``.

    ``states`` has shape ``[states, d]``; the candidates are the rows of ``chunks``, shape ``[m, d]``, that ``rows``
    names, shape ``[states, candidates]``.
    """
    # The halves of the pairs apart: contiguous memory, several times the speed of strided pairs on a CPU.
    even, odd = (chunks[:, half::2].contiguous()[rows] for half in (0, 1))
    turned_even = even * turn.cosine - odd * turn.sine
    turned_odd = even * turn.sine + odd * turn.cosine
    products = turned_even @ states[:, 0::2, None] + turned_odd @ states[:, 1::2, None]
    return w * products.squeeze(-1) + b
