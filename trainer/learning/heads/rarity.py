"""How rare each token is, in the texts that a run trains on: a constant of the checkpoint from then on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.arrays import Float32Array
from index.encoders.tokenizer import TextTokenizer

TOGETHER = 4096
"""Texts tokenised at once."""


def rarity_of(tokenizer: TextTokenizer, texts: Sequence[str]) -> tuple[Float32Array, float]:
    """The rarity of each token of the vocabulary, 0 to 1, and the mean number of tokens of a text.

    BM25's ``ln(1 + (n - f + .5) / (f + .5))`` for a token in ``f`` of ``n`` texts, as a share of that of a token in
    none. Tokens without a letter or a digit, and special ones, have rarity 0.
    """
    frequency = np.zeros(tokenizer.size, dtype=np.int64)
    length = 0
    for low in range(0, len(texts), TOGETHER):
        for ids in tokenizer.tokenize(texts[low : low + TOGETHER]):
            length += len(ids)
            frequency[list(set(ids))] += 1
    raw = np.log1p((len(texts) - frequency + 0.5) / (frequency + 0.5))
    rarity = raw / np.log1p((len(texts) + 0.5) / 0.5)
    rarity[[not any(map(str.isalnum, token)) for token in tokenizer.vocabulary]] = 0.0
    rarity[tokenizer.special] = 0.0
    return rarity.astype(np.float32), length / max(1, len(texts))
