"""The bags of tokens of the texts in a chunk table, weighed as the lexical signal weighs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix, vstack

from index.arrays import IntArray
from index.encoders.encoder import Encoder
from index.search.scanning.bags import Frequencies, index_bags
from index.search.signals.lexical import Lexical, mixed_rarity


class Bags(NamedTuple):
    """The bags of some texts."""

    counts: csr_matrix
    """How often each text has each token, shape ``[texts, vocabulary]``."""
    lengths: IntArray
    """Number of tokens of each text, shape ``[texts]``."""


class BagTable:
    """The bags of the texts of a chunk table, in the same rows; each text is tokenised once."""

    def __init__(self, encoder: Encoder, lexical: Lexical) -> None:
        self._encoder, self._lexical = encoder, lexical
        empty = csr_matrix((0, len(lexical.rarity)), dtype=np.float32)
        self._bags = Bags(empty, np.empty(0, dtype=np.int64))

    def bags(self, texts: Sequence[str]) -> Bags:
        """The bags of the table's ``texts``."""
        known = len(self._bags.lengths)
        if known < len(texts):
            postings = index_bags(self._encoder.terms(texts[known:]))
            tokens = np.repeat(postings.tokens, np.diff(postings.borders))
            shape = (len(postings.lengths), self._bags.counts.shape[1])
            new = csr_matrix((postings.counts.astype(np.float32), (postings.rows, tokens)), shape=shape)
            lengths = np.concatenate((self._bags.lengths, postings.lengths.astype(np.int64)))
            self._bags = Bags(vstack((self._bags.counts, new), format="csr"), lengths)
        return self._bags


def frequencies_among(bags: Bags, rows: IntArray, tokens: IntArray) -> Frequencies:
    """How common ``tokens`` are in some rows, and how long these are, as the service counts."""
    found = np.asarray((bags.counts[rows][:, tokens] > 0).sum(axis=0)).ravel().astype(np.int64)
    return Frequencies(found, len(rows), int(bags.lengths[rows].sum()))


def term_shares(
    counts: csc_matrix, lengths: IntArray, tokens: IntArray, frequencies: Frequencies, lexical: Lexical
) -> csc_matrix:
    """Rarity times saturated count of each of the ``tokens`` in each row, shape ``[rows, tokens]`` float32.

    ``counts`` has the same shape, ``lengths`` are those of the rows. See :mod:`index.search.signals.lexical`.
    """
    rarity = mixed_rarity(lexical.rarity[tokens].astype(np.float64), frequencies)
    saturated = lexical.saturation.among(frequencies).weight(counts.data, lengths[counts.indices])
    shares = saturated * np.repeat(rarity, np.diff(counts.indptr))
    return csc_matrix((shares.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)
