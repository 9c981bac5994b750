"""What a search reads of stored chunks: their place in a scope, and which tokens each has, how often."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from index.arrays import IntArray, TokenIds
from index.errors import MovingError
from index.search.scanning.bags import MOST_COUNTED
from index.search.scope import Scope
from index.storage.protocols import Scopes

VOCABULARY = 1 << 19
"""Tokens are numbers below this."""

HINTED_TOGETHER = 64
"""Chunks whose likely tokens are counted together: each token is looked for in each of them."""


class Searchable(NamedTuple):
    """A document in a scope, which holds others as well."""

    scope: Scope
    first: int
    """The position of its first chunk."""
    chunks: int

    def positions(self, low: int, high: int) -> IntArray:
        """The positions of its chunks ``low <= number < high``."""
        return np.arange(self.first + low, self.first + min(high, self.chunks))


def searchable(scopes: Scopes, documents: Iterable[tuple[str, str]]) -> Mapping[int, Searchable]:
    """Documents, given as collection and id, by ``uid``, as far as they are whole: a scope for each collection.

    Raises :class:`~index.errors.UnknownDocument` or :class:`~index.errors.UnknownCollection`.
    """
    ids: dict[str, list[str]] = defaultdict(list)
    for collection, id in documents:
        ids[collection].append(id)
    found: dict[int, Searchable] = {}
    for collection, members in ids.items():
        scope, uids = (together := scopes.scope(collection, members)).scope, together.uids.tolist()
        offsets = scope.offsets.tolist()
        for uid, first, end in zip(uids, offsets[:-1], offsets[1:], strict=True):
            found[uid] = Searchable(scope, first, end - first)
    return found


def read_bags(scope: Scope, positions: IntArray, likely: Sequence[TokenIds]) -> list[TokenIds]:
    """The bags of the chunks at ``positions``; a chunk without one gets its ``likely`` one, which its text has now.

    They are asked for the likely tokens first; where these are not all, as under a title that was changed after
    indexing, for every other. Tokens have lost their order. Raises :class:`~index.errors.MovingError` where tokens
    cannot be found.
    """
    bags: list[TokenIds] = []
    for low in range(0, len(positions), HINTED_TOGETHER):
        bags += _read(scope, positions[low : low + HINTED_TOGETHER], likely[low : low + HINTED_TOGETHER])
    return bags


def _read(scope: Scope, positions: IntArray, likely: Sequence[TokenIds]) -> list[TokenIds]:
    lengths = scope.lengths(positions).tolist()
    tokens = np.unique(np.fromiter((token for bag in likely for token in bag), dtype=np.int64))
    counts = scope.term_counts(tokens, positions)
    expected = np.zeros_like(counts)
    for column, bag in enumerate(likely):
        places = np.searchsorted(tokens, np.asarray(bag, dtype=np.int64))
        expected[:, column] = np.bincount(places, minlength=len(tokens))
    as_likely = (np.minimum(expected, MOST_COUNTED) == counts).all(axis=0)
    bags: list[TokenIds] = []
    for column, bag in enumerate(likely):
        if lengths[column] == 0 or (lengths[column] == len(bag) and as_likely[column]):
            bags.append(bag)
        else:
            bags.append(_searched(scope, positions[column : column + 1], lengths[column]))
    return bags


def _searched(scope: Scope, position: IntArray, length: int) -> TokenIds:
    """The bag of one chunk with so many tokens, of which nothing is known."""
    everything = np.arange(VOCABULARY)
    tokens = everything[scope.frequencies(everything).of_tokens > 0]
    counts = scope.term_counts(tokens, position)[:, 0]
    missing = length - int(counts.sum())
    if missing:  # occurrences of one token beyond this are not counted
        most = np.flatnonzero(counts == MOST_COUNTED)
        if not len(most) or missing < 0:
            raise MovingError(
                "The stored tokens of a chunk cannot be read. Start the service once, so that it makes what is missing "
                "again, then export."
            )
        counts[most[0]] += missing
    bag: list[int] = np.repeat(tokens, counts).tolist()
    return bag
