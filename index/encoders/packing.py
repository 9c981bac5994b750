"""Inputs laid end to end in one row: on a CPU nothing is computed for padding.

States of a crowd differ in length by a factor of five, and half of a padded batch would be padding. Everything in a
transformer but attention works on each token by itself; attention is computed input by input. The result is that of
a padded batch up to rounding.

This needs a model whose layers pass keyword arguments on to the attention, and that accepts explicit position ids.
BERT does both, and many embedding models are BERTs; others, and all models on a GPU, get padded batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

PACKED = "packed"
"""The attention's name in transformers."""


def _attention(
    module: torch.nn.Module,  # noqa: ARG001  # transformers passes this and the mask
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,  # noqa: ARG001
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    lengths: list[int],
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each input; ``query``, ``key`` and ``value`` have shape ``[1, heads, tokens, d / heads]``."""
    inputs = zip(*(torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)), strict=True)
    attend = torch.nn.functional.scaled_dot_product_attention
    mixed = torch.cat([attend(q, k, v, scale=scaling, dropout_p=dropout) for q, k, v in inputs], dim=2)
    return mixed.transpose(1, 2), None


def _no_mask(*_: Any, **__: Any) -> None:
    """No mask: splitting keeps the inputs apart."""


AttentionInterface.register(PACKED, _attention)
AttentionMaskInterface.register(PACKED, _no_mask)


def pack_inputs(model: PreTrainedModel) -> None:
    """Let a model read packed inputs from now on, where it can and where that is faster."""
    if model.device.type == "cpu" and model.config.model_type == "bert" and not model.config.is_decoder:
        model.set_attn_implementation(PACKED)


def is_packed(model: PreTrainedModel) -> bool:
    """Whether :func:`packed_hidden_states` must be used to call the model."""
    return bool(model.config._attn_implementation == PACKED)


def packed_hidden_states(model: PreTrainedModel, inputs: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """The last layer's output for each input, shape ``[tokens, d]``."""
    lengths = [len(ids) for ids in inputs]
    ids = np.fromiter(chain.from_iterable(inputs), dtype=np.int64, count=sum(lengths))
    positions = np.concatenate([np.arange(length) for length in lengths])
    hidden: torch.Tensor = model(
        input_ids=torch.from_numpy(ids)[None], position_ids=torch.from_numpy(positions)[None], lengths=lengths
    ).last_hidden_state[0]
    return list(torch.split(hidden, lengths))
