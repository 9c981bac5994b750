"""Q-values as differentiable tensors: the same function as :mod:`index.search.scoring`, for a batch of small scopes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from index.arrays import IntArray
from index.search.positions import Positions, cosine_and_sine, rotate_pairs


class Rotation(NamedTuple):
    """Cosine and sine of ``ρθ`` for each candidate and coordinate pair, each ``[states, candidates, d/2]`` float32."""

    cosine: torch.Tensor
    sine: torch.Tensor


def rotation(level_indices: IntArray, positions: Positions, dimension: int, device: torch.device) -> Rotation:
    """The rotation at each level index; ``level_indices`` has shape ``[states, candidates]``."""
    distinct, inverse = np.unique(level_indices, return_inverse=True)
    rho = positions.rho(distinct)
    at = torch.from_numpy(inverse.reshape(level_indices.shape)).to(device)
    tables = (
        torch.from_numpy(table).float().to(device) for table in cosine_and_sine(rho, dimension, positions.rope_base)
    )
    return Rotation(*(table[at] for table in tables))


def rotated_back(states: torch.Tensor, turn: Rotation) -> torch.Tensor:
    """``R(-ρ) s``, shape ``[states, d]``: its products with chunks are those of the state with the chunks at ``ρ``.

    ``turn`` has one candidate for each state. The even coordinates come first, then the odd ones: see :func:`halves`.
    """
    cosine, sine = turn.cosine[:, 0], turn.sine[:, 0]
    return torch.cat(rotate_pairs(states[:, 0::2], states[:, 1::2], cosine, -sine), dim=1)


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
    turned_even, turned_odd = rotate_pairs(even, odd, turn.cosine, turn.sine)
    products = turned_even @ states[:, 0::2, None] + turned_odd @ states[:, 1::2, None]
    return w * products.squeeze(-1) + b
