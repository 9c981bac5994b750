"""The lexical signal: ``v · Σ_t θ_t(s) · β_t(c)`` over the tokens of a state.

The inner product alone loses names, numbers and rare words. Here the state tower weighs its tokens, ``θ``, so that a
name which a selected chunk brings up can weigh more than the question's own words; ``β`` says what an index knows of
a chunk without a model: whether it has the token, how rare that is, and how long the chunk is, as BM25 weighs them
(Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework"). The idea of weights by a model over bags of
tokens is SiDR's (arXiv 2405.01924).

How rare a token is, is counted among the chunks that are searched: in a life of Franklin his name tells nothing. It is
what the posting lists say at the moment, so nothing goes stale when documents come and go, and nothing leaks from one
collection into another. Among few chunks it says little; so it is mixed with a constant of the checkpoint, counted in
the texts of its training, which weighs as :data:`PRIOR_CHUNKS` chunks do. So is the mean length of a chunk: one of 150
tokens is long among lines and short among pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from index.arrays import Float32Array, Float64Array, IntArray, TokenIds
from index.search.scanning.bags import Frequencies
from index.search.scanning.kernels import Terms, add_terms
from index.search.scanning.matrices import Bags, Matrices
from index.search.scanning.threads import run_tasks, thread_count
from index.search.signals.protocol import UNIT, Chunks
from index.search.states import State, States, TermWeights
from qrag.wire.models import FrozenModel

KEPT_TERMS = 32
"""Tokens of a state that are searched: those whose weight times rarity is largest."""


PRIOR_CHUNKS = 100
"""The number of chunks from which on what is counted there weighs more than what the texts of the training say."""


class Saturation(FrozenModel):
    """How much a token's occurrences in a chunk count; part of a checkpoint.

    ``f (k1 + 1) / (f + k1 (1 - b + b · length / mean_length))`` for ``f`` occurrences, as in BM25.
    """

    k1: float = 1.2
    b: float = 0.75
    mean_length: float = 64.0

    def among(self, frequencies: Frequencies) -> Saturation:
        """The same where the mean length is that of the chunks that one searches, mixed with this one."""
        mixed = (frequencies.length + PRIOR_CHUNKS * self.mean_length) / (frequencies.chunks + PRIOR_CHUNKS)
        return self.model_copy(update={"mean_length": mixed})

    @property
    def flat(self) -> float:
        """``k1 (1 - b)``."""
        return self.k1 * (1 - self.b)

    @property
    def slope(self) -> float:
        """``k1 b / mean_length``."""
        return self.k1 * self.b / self.mean_length

    def weight(self, counts: IntArray, lengths: IntArray) -> Float64Array:
        """The weight of ``counts`` occurrences, shape ``[tokens, chunks]``, in chunks of these ``lengths``."""
        saturated: Float64Array = counts * (self.k1 + 1) / (counts + self.flat + self.slope * lengths)
        return saturated


@dataclass(frozen=True, slots=True, eq=False)
class Lexical:
    """The signal (:class:`~index.search.signals.protocol.Signal`)."""

    factor: float
    """``v``."""
    rarity: Float32Array
    """How rare each token is in the texts of the training, shape ``[vocabulary]``; 0 for tokens that say nothing."""
    saturation: Saturation

    def add(
        self,
        states: States,
        matrices: Matrices,
        selections: Sequence[Sequence[int]],  # noqa: ARG002  # a token does not care what is selected
        values: Float32Array,
    ) -> list[float]:
        """Read the posting lists of the states' tokens."""
        terms = [self.terms(state) for state in states]
        tokens = np.concatenate([term.tokens for term in terms])
        frequencies = [matrices.frequencies(term.tokens) for term in terms]
        scaled = [self._scaled(term, of_state) for term, of_state in zip(terms, frequencies, strict=True)]
        weights = np.concatenate(scaled)
        ends = np.cumsum([len(term.tokens) for term in terms], dtype=np.int64)
        highest = np.maximum(values.max(axis=1, initial=0.0), -values.min(axis=1, initial=0.0))
        together = Terms(tokens, weights, ends)
        saturation = self.saturation.among(frequencies[0])  # how long chunks are is the same for all states
        flat, slope = saturation.flat, saturation.slope

        def add_some(bags: Sequence[Bags]) -> None:
            for start, postings, first_row, count in bags:
                add_terms(postings, first_row, count, together, flat, slope, values[:, start : start + count])

        # Few entries are read of each of many lists, so it is memory that one waits for: threads wait together.
        threads = thread_count(values)
        run_tasks([partial(add_some, matrices.bags[first::threads]) for first in range(threads)], threads)
        most = [float(np.abs(weights_of_state).sum()) for weights_of_state in scaled]
        return [
            (len(term.tokens) + 2) * UNIT * (float(high) + total)
            for term, high, total in zip(terms, highest, most, strict=True)
        ]

    def exact(
        self,
        state: State,
        chunks: Chunks,
        selected: Sequence[int],  # noqa: ARG002
        positions: IntArray,
    ) -> Float64Array:
        """The sum over the state's tokens, in float64."""
        total = np.zeros(len(positions))
        for _, share in self.shares(state, chunks, positions):
            total += share
        return total

    def shares(self, state: State, chunks: Chunks, positions: IntArray) -> list[tuple[int, Float64Array]]:
        """What each of the state's tokens adds at some positions: token ids, and values of the positions' shape."""
        terms = self.terms(state)
        if not len(positions):
            return []
        counts = chunks.term_counts(terms.tokens, positions)
        lengths = chunks.lengths(positions)
        frequencies = chunks.frequencies(terms.tokens)
        shares = self.weights(terms, frequencies)[:, None] * self.saturation.among(frequencies).weight(counts, lengths)
        return list(zip(terms.tokens.tolist(), shares, strict=True))

    def covered(self, question: TokenIds, texts: Sequence[TokenIds]) -> float:
        """The share of a question's tokens that some of the texts have, each weighing as it is rare.

        Rare in the texts of the training, so that a name that nobody here has heard of weighs most. 0 where every token
        of the question says nothing.
        """
        tokens = np.unique(np.array(question, dtype=np.int64))
        rarity = self.rarity[tokens].astype(np.float64)
        total = float(rarity.sum())
        if total == 0.0:
            return 0.0
        held = np.isin(tokens, np.fromiter(chain.from_iterable(texts), np.int64))
        return float(rarity[held].sum()) / total

    def terms(self, state: State) -> TermWeights:
        """The weights of a state's tokens. Raises :class:`ValueError` where it has none."""
        if state.terms is None:
            raise ValueError("the state has no weights of tokens: embed it with the checkpoint of this signal")
        return state.terms

    def weights(self, terms: TermWeights, frequencies: Frequencies) -> Float64Array:
        """``v θ`` times rarity of each token."""
        rarity = mixed_rarity(self.rarity[terms.tokens].astype(np.float64), frequencies)
        weights: Float64Array = self.factor * terms.weights.astype(np.float64) * rarity
        return weights

    def _scaled(self, terms: TermWeights, frequencies: Frequencies) -> Float64Array:
        """What a chunk gets for each token, were its occurrences not saturated."""
        return self.weights(terms, frequencies) * (self.saturation.k1 + 1)


def mixed_rarity(prior: Float64Array, frequencies: Frequencies) -> Float64Array:
    """How rare each token is where one searches, 0 to 1, mixed with what the ``prior`` says, same shape.

    That of a token in ``f`` of ``n`` chunks is ``ln(1 + (n - f + .5) / (f + .5))``, as a share of that of a token in
    none; it weighs ``n / (n + PRIOR_CHUNKS)``. A token of rarity 0 is never searched.
    """
    count, of_tokens = frequencies.chunks, frequencies.of_tokens
    here = np.log1p((count - of_tokens + 0.5) / (of_tokens + 0.5)) / np.log1p((count + 0.5) / 0.5)
    share = count / (count + PRIOR_CHUNKS)
    mixed: Float64Array = np.where(prior > 0, (1 - share) * prior + share * here, 0.0)
    return mixed
