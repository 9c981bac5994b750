"""The bags of tokens of the texts in a chunk table, weighed as the lexical signal weighs them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix, vstack

from index.arrays import Float32Array
from index.encoders.encoder import Encoder
from index.search.scanning.bags import Postings, index_bags
from index.search.signals.lexical import Lexical, Saturation


def weighed(postings: Postings, rarity: Float32Array, saturation: Saturation) -> csr_matrix:
    """``β`` of rows and tokens, shape ``[rows, vocabulary]``: what a token of weight 1 adds to a row's Q, times 1/v."""
    tokens = np.repeat(postings.tokens, np.diff(postings.borders))
    weights = rarity[tokens] * saturation.weight(
        postings.counts.astype(np.int64), postings.lengths[postings.rows].astype(np.int64)
    )
    shape = (len(postings.lengths), len(rarity))
    return csr_matrix((weights.astype(np.float32), (postings.rows, tokens)), shape=shape)


class BagTable:
    """The bags of the texts of a chunk table, in the same rows; each text is tokenised once."""

    def __init__(self, encoder: Encoder, lexical: Lexical) -> None:
        self._encoder, self._lexical = encoder, lexical
        self._matrix = csr_matrix((0, len(lexical.rarity)), dtype=np.float32)

    def matrix(self, texts: Sequence[str]) -> csr_matrix:
        """``β`` of the table's ``texts``, shape ``[texts, vocabulary]``."""
        known = self._matrix.shape[0]
        if known < len(texts):
            postings = index_bags(self._encoder.terms(texts[known:]))
            new = weighed(postings, self._lexical.rarity, self._lexical.saturation)
            self._matrix = vstack((self._matrix, new), format="csr")
        return self._matrix
