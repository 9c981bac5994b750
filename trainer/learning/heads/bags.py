"""The bags of tokens of the texts in a chunk table, saturated as the lexical signal saturates them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix, vstack

from index.arrays import Float32Array, IntArray
from index.encoders.encoder import Encoder
from index.search.scanning.bags import Frequencies, Postings, index_bags
from index.search.signals.lexical import Lexical, Saturation, mixed_rarity


def saturated(postings: Postings, vocabulary: int, saturation: Saturation) -> csr_matrix:
    """The weight of each row's occurrences of each token, shape ``[rows, vocabulary]``; rarity comes to it."""
    tokens = np.repeat(postings.tokens, np.diff(postings.borders))
    weights = saturation.weight(postings.counts.astype(np.int64), postings.lengths[postings.rows].astype(np.int64))
    shape = (len(postings.lengths), vocabulary)
    return csr_matrix((weights.astype(np.float32), (postings.rows, tokens)), shape=shape)


class BagTable:
    """The bags of the texts of a chunk table, in the same rows; each text is tokenised once."""

    def __init__(self, encoder: Encoder, lexical: Lexical) -> None:
        self._encoder, self._lexical = encoder, lexical
        self._matrix = csr_matrix((0, len(lexical.rarity)), dtype=np.float32)

    def matrix(self, texts: Sequence[str]) -> csr_matrix:
        """:func:`saturated` of the table's ``texts``."""
        known = self._matrix.shape[0]
        if known < len(texts):
            postings = index_bags(self._encoder.terms(texts[known:]))
            new = saturated(postings, len(self._lexical.rarity), self._lexical.saturation)
            self._matrix = vstack((self._matrix, new), format="csr")
        return self._matrix


def rarity_among(bags: csr_matrix, rows: IntArray, tokens: IntArray, prior: Float32Array) -> Float32Array:
    """How rare ``tokens`` are among some rows, as the service counts it (:mod:`index.search.signals.lexical`).

    ``prior`` is the rarity of each token of the vocabulary in the texts of the training.
    """
    found = np.asarray((bags[rows][:, tokens] > 0).sum(axis=0)).ravel().astype(np.int64)
    mixed = mixed_rarity(prior[tokens].astype(np.float64), Frequencies(found, len(rows)))
    return mixed.astype(np.float32)
