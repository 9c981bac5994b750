"""Weights in one byte a number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from index.encoders.int8 import from_int8, to_int8


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_rounding_is_at_most_half_a_step_of_its_row(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator) * 10
    stored = to_int8({"weight": matrix})
    restored = from_int8(stored)["weight"]
    step = matrix.abs().amax(dim=1, keepdim=True) / 127
    assert stored["weight"].dtype == torch.int8
    assert ((restored - matrix).abs() <= 0.5 * step + 1e-6).all()
    assert torch.equal(from_int8(to_int8({"weight": restored}))["weight"], restored)


def test_vectors_and_rows_of_zeros_are_exact() -> None:
    tensors = {"bias": torch.tensor([0.1, -3.0]), "weight": torch.tensor([[0.0, 0.0], [1.0, -1.0]])}
    restored = from_int8(to_int8(tensors))
    assert all(torch.equal(restored[name], value) for name, value in tensors.items())


def test_a_matrix_without_scales_is_refused() -> None:
    stored = to_int8({"weight": torch.eye(2)})
    del stored["weight.scale"]
    with pytest.raises(KeyError):
        from_int8(stored)
