"""A cross-encoder: reads question and text together and says how well they fit, one pair at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from index.arrays import Float32Array
from index.encoders.loading import compute_dtype
from index.errors import CheckpointError

BATCH_PAIRS = 32
"""Pairs in one forward pass."""

LONGEST = 512
"""Tokens of a pair; a longer text is cut at its end."""

LONGEST_QUESTION = 256
"""Tokens of a question with the evidence so far."""


class CrossEncoder:
    """A sequence classifier with one output, as transformers loads it; safetensors only."""

    def __init__(self, directory: Path, device: torch.device, dtype: torch.dtype | None = None) -> None:
        """``dtype`` defaults to the one that towers compute in on this device.

        Raises :class:`~index.errors.CheckpointError` where the directory holds none.
        """
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            self._model = AutoModelForSequenceClassification.from_pretrained(
                directory, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"transformers cannot load the reranker {directory}: {error}") from error
        if self._model.config.num_labels != 1:
            raise CheckpointError(
                f"The reranker {directory} has {self._model.config.num_labels} outputs instead of one."
            )
        self._model.eval().to(device, dtype or compute_dtype(device))
        self._device = device

    @torch.inference_mode()
    def score(self, question: str, texts: Sequence[str], evidence: Sequence[str] = ()) -> Float32Array:
        """How well each text fits the question and the ``evidence`` so far, larger is better, shape ``[texts]``.

        Question and evidence are read as one question, cut behind :data:`LONGEST_QUESTION` tokens.
        """
        question = self._shortened(" ".join((question, *evidence)))
        scores = np.empty(len(texts), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
        for low in range(0, len(texts), BATCH_PAIRS):
            numbers = order[low : low + BATCH_PAIRS]
            pairs = self._tokenizer(
                [question] * len(numbers),
                [texts[number] for number in numbers],
                truncation="only_second",
                max_length=LONGEST,
                padding=True,
                return_tensors="pt",
            ).to(self._device)
            scores[numbers] = self._model(**pairs).logits[:, 0].float().cpu().numpy()
        return scores

    def _shortened(self, question: str) -> str:
        ends = [
            end
            for _, end in self._tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)[
                "offset_mapping"
            ]
        ]
        return question if len(ends) <= LONGEST_QUESTION else question[: ends[LONGEST_QUESTION - 1]]
