"""Which tokens chunks have, and how often: what the lexical signal knows of a chunk, without a model.

Bags are kept the way they are searched, as *posting lists*: for each token the rows that have it. They follow from the
stored text and the tokenizer alone, so no training and no other document ever makes them stale.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.arrays import IntArray, TokenIds
from index.search.scanning.compiling import compiled

MOST_COUNTED = 255
"""Occurrences of a token in one chunk that are told apart; so many say no more than fewer."""


class Postings(NamedTuple):
    """The bags of some rows, token by token; read-only arrays, as those of a mapped file are."""

    tokens: IntArray
    """Token ids that any row has, increasing, shape ``[t]``."""
    borders: IntArray
    """Shape ``[t + 1]``: the list of token ``tokens[i]`` is ``borders[i] <= entry < borders[i + 1]``."""
    rows: NDArray[np.int32]
    """The row of each entry, increasing within a list."""
    counts: NDArray[np.uint8]
    """How often the row has the token."""
    lengths: NDArray[np.int32]
    """Number of tokens of each row, shape ``[rows]``."""


class Frequencies(NamedTuple):
    """How common tokens are among the chunks that one searches, and how long these are."""

    of_tokens: IntArray
    """In how many chunks each of the tokens stands."""
    chunks: int
    """The chunks that were counted."""
    length: int
    """The number of tokens of all of them."""


def index_bags(texts: Sequence[TokenIds]) -> Postings:
    """The posting lists of tokenised rows."""
    count = len(texts)
    lengths = np.fromiter(map(len, texts), dtype=np.int32, count=count)
    tokens = np.fromiter(chain.from_iterable(texts), dtype=np.int64, count=int(lengths.sum()))
    keys, occurrences = np.unique(tokens * count + np.repeat(np.arange(count), lengths), return_counts=True)
    of_token, rows = np.divmod(keys, max(count, 1))
    distinct, first = np.unique(of_token, return_index=True)
    return _read_only(
        Postings(
            distinct,
            np.append(first, len(keys)).astype(np.int64),
            rows.astype(np.int32),
            np.minimum(occurrences, MOST_COUNTED).astype(np.uint8),
            lengths,
        )
    )


def merged_bags(parts: Sequence[tuple[Postings, int, int]]) -> Postings:
    """The posting lists of stretches of rows laid end to end; each is given by its lists, first row and length."""
    tokens, rows, counts, lengths = [], [], [], []
    start = 0
    for postings, first, count in parts:
        inside = (postings.rows >= first) & (postings.rows < first + count)
        tokens.append(np.repeat(postings.tokens, np.diff(postings.borders))[inside])
        rows.append(postings.rows[inside].astype(np.int64) - first + start)
        counts.append(postings.counts[inside])
        lengths.append(postings.lengths[first : first + count])
        start += count
    all_tokens, all_rows = np.concatenate(tokens), np.concatenate(rows)
    order = np.lexsort((all_rows, all_tokens))
    distinct, firsts = np.unique(all_tokens[order], return_index=True)
    return _read_only(
        Postings(
            distinct,
            np.append(firsts, len(order)).astype(np.int64),
            all_rows[order].astype(np.int32),
            np.concatenate(counts)[order],
            np.concatenate(lengths).astype(np.int32),
        )
    )


def _read_only(postings: Postings) -> Postings:
    """One type of arrays for the compiled loop, wherever they come from."""
    for array in postings:
        array.flags.writeable = False
    return postings


def counts_in(postings: Postings, tokens: IntArray, rows: IntArray) -> IntArray:
    """How often each of the ``rows`` has each of the ``tokens``, shape ``[tokens, rows]``."""
    counts = np.zeros((len(tokens), len(rows)), dtype=np.int64)
    count_terms(postings, tokens, rows, counts)
    return counts


@compiled(fastmath=False)
def count_rows(postings: Postings, first_row: int, rows: int, tokens: IntArray, frequencies: IntArray) -> None:
    """Add to ``frequencies``, shape ``[tokens]``, in how many of some rows each of the ``tokens`` stands."""
    whole = first_row == 0 and rows == len(postings.lengths)
    for number in range(len(tokens)):
        place = np.searchsorted(postings.tokens, tokens[number])
        if place == len(postings.tokens) or postings.tokens[place] != tokens[number]:
            continue
        low, high = postings.borders[place], postings.borders[place + 1]
        if whole:
            frequencies[number] += high - low
        else:
            inside = postings.rows[low:high]
            frequencies[number] += np.searchsorted(inside, first_row + rows) - np.searchsorted(inside, first_row)


@compiled(fastmath=False)
def count_terms(postings: Postings, tokens: IntArray, rows: IntArray, counts: IntArray) -> None:
    """Write :func:`counts_in` over zeros."""
    for number in range(len(tokens)):
        place = np.searchsorted(postings.tokens, tokens[number])
        if place == len(postings.tokens) or postings.tokens[place] != tokens[number]:
            continue
        low, high = postings.borders[place], postings.borders[place + 1]
        for at in range(len(rows)):
            entry = low + np.searchsorted(postings.rows[low:high], rows[at])
            if entry < high and postings.rows[entry] == rows[at]:
                counts[number, at] = postings.counts[entry]
