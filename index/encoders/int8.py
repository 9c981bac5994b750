"""Weights in one byte a number: each row of a matrix has a scale of its own.

A quarter of the size of single precision. Matrices are rounded to whole numbers from -127 to 127; vectors (norms and
biases), which are few, stay in single precision.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

LARGEST = 127
"""Largest magnitude of a number."""

SCALE = ".scale"
"""What is behind a matrix' name in that of its scales."""


def to_int8(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as they are stored: for a matrix two of them, ``int8`` rows and their scales."""
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().float().cpu()
        if value.ndim != 2:
            stored[name] = value.contiguous()
            continue
        scale = value.abs().amax(dim=1) / LARGEST
        scale[scale == 0] = 1.0
        stored[name] = (value / scale[:, None]).round().to(torch.int8).contiguous()
        stored[name + SCALE] = scale
    return stored


def from_int8(stored: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors in single precision. Raises :class:`KeyError` where a matrix has no scales."""
    return {
        name: value if value.dtype != torch.int8 else value.float() * stored[name + SCALE][:, None]
        for name, value in stored.items()
        if not name.endswith(SCALE)
    }
