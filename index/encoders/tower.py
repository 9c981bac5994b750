"""One encoder of the two: token ids to embeddings, in batches that hold little padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from index.arrays import Float32Array, TokenIds
from index.encoders.packing import is_packed, pack_inputs, packed_hidden_states
from index.encoders.tokenizer import TextTokenizer

CPU_BATCH_TOKENS = 2048
"""Tokens in one forward pass on a CPU: enough to fill the cores, short enough for other work to wait."""

GPU_BATCH_TOKENS = 65_536
"""Tokens in one forward pass on a GPU."""


class Tower:
    """One encoder: token ids to embeddings.

    The model is set to packed inputs where it can read them. ``projection`` is an adapter behind a frozen model: a
    linear map of its (normalised) embedding.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: TextTokenizer,
        *,
        pooling: str,
        normalize: bool,
        projection: torch.nn.Linear | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.model = model
        pack_inputs(model)
        self.projection = projection
        self._pooling = pooling
        self._normalize = normalize
        self._device = next(model.parameters()).device
        self.batch_tokens = GPU_BATCH_TOKENS if self._device.type == "cuda" else CPU_BATCH_TOKENS

    def embed(self, inputs: Sequence[TokenIds]) -> Float32Array:
        """Embeddings of complete inputs (special tokens included), shape ``[len(inputs), d]``.

        Inputs of similar length share a batch, so little is computed for padding.
        """
        embeddings: list[Float32Array] = []
        order: list[int] = []
        for batch in self.batches(inputs):
            embeddings.append(self._embed_batch([inputs[i] for i in batch]))
            order.extend(batch)
        result = np.empty((len(inputs), embeddings[0].shape[1]), dtype=np.float32)
        result[order] = np.concatenate(embeddings)
        return result

    def batches(self, inputs: Sequence[TokenIds]) -> Iterator[list[int]]:
        """The numbers of the inputs in groups for one forward pass each; similar lengths share one."""
        return token_batches([len(ids) for ids in inputs], self.batch_tokens, padded=not is_packed(self.model))

    @torch.inference_mode()
    def _embed_batch(self, inputs: Sequence[TokenIds]) -> Float32Array:
        embeddings: Float32Array = self.forward(inputs).cpu().numpy()
        return embeddings

    def forward(self, inputs: Sequence[TokenIds]) -> torch.Tensor:
        """Embeddings of one batch, as a float32 tensor on the tower's device; gradients can flow through it."""
        return self.read(inputs)[0]

    def read(self, inputs: Sequence[TokenIds]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """:meth:`forward`, and the last layer's output for each input, shape ``[tokens, d]``."""
        if is_packed(self.model):
            outputs = packed_hidden_states(self.model, inputs)
            pooled = self._pooled(outputs)
        else:
            hidden, mask, lengths = self._padded(inputs)
            outputs = [row[:length] for row, length in zip(hidden, lengths.tolist(), strict=True)]
            pooled = _pool(hidden.float(), mask, lengths, self._pooling)
        if self._normalize:
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        return (pooled if self.projection is None else project(self.projection, pooled)), outputs

    def _pooled(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        if self._pooling == "mean":
            return torch.stack([output.float().mean(dim=0) for output in outputs])
        return torch.stack([output[0 if self._pooling == "cls" else -1].float() for output in outputs])

    def _padded(self, inputs: Sequence[TokenIds]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The last layer's output of a padded batch, its mask and its lengths."""
        lengths = torch.tensor([len(ids) for ids in inputs])
        padded = np.full((len(inputs), int(lengths.max())), self.tokenizer.padding, dtype=np.int64)
        for row, ids in zip(padded, inputs, strict=True):
            row[: len(ids)] = ids
        lengths = lengths.to(self._device)
        mask = torch.arange(padded.shape[1], device=self._device)[None] < lengths[:, None]
        hidden = self.model(
            input_ids=torch.from_numpy(padded).to(self._device), attention_mask=mask.long()
        ).last_hidden_state
        return hidden, mask, lengths


def project(projection: torch.nn.Linear, embeddings: torch.Tensor) -> torch.Tensor:
    """The adapter's embeddings, shape ``[n, d]``, normalised."""
    return torch.nn.functional.normalize(projection(embeddings), dim=1)


def _pool(hidden: torch.Tensor, mask: torch.Tensor, lengths: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector ``[n, d]`` for each sequence of ``hidden``, shape ``[n, tokens, d]``, padded on the right."""
    if pooling == "mean":
        return (hidden * mask[..., None]).sum(dim=1) / lengths[:, None]
    if pooling == "cls":
        return hidden[:, 0]
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]


def token_batches(lengths: Sequence[int], budget: int, *, padded: bool = True) -> Iterator[list[int]]:
    """Indices of inputs, longest first, in batches of at most ``budget`` tokens, padding included if they are padded.

    An input longer than the budget gets a batch of its own.
    """
    batch: list[int] = []
    longest = tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and ((len(batch) + 1) * longest if padded else tokens + lengths[i]) > budget:
            yield batch
            batch = []
        if not batch:
            longest, tokens = lengths[i], 0
        batch.append(i)
        tokens += lengths[i]
    if batch:
        yield batch
