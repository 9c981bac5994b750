"""A scope whose chunks Qdrant searches (:class:`~index.search.scope.Scope`).

Qdrant is asked for lists: the largest inner products of each group of candidates that share a position, and the
largest sums of token weights. The best of two lists need not hold the best of the sum. But what is on none of them has
at most the sum of their last values (:mod:`index.storage.qdrant.lists`). So whatever could be the best is read and
scored in float64, and once the best of that is above everything that no list shows, it is the best of all. Until then
longer lists are asked for, or more is read, by at most :data:`MOST_CALLS` calls. All states of a step are asked about
by one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np
from qdrant_client.http import models

from index.arrays import BoolArray, Float32Array, IntArray
from index.errors import StorageUnavailable
from index.search.function import QFunction
from index.search.scanning.bags import Frequencies
from index.search.scope import Candidate, Estimate
from index.search.scoring import BLOCK_ROWS, exact_q
from index.search.states import State, States
from index.storage.points import Membership
from index.storage.qdrant.conditions import Admitted, Group, dilated
from index.storage.qdrant.contenders import LIKELY, Contenders, rounded
from index.storage.qdrant.contents import READ_CHUNKS, Contents, Statistics
from index.storage.qdrant.layout import EMBEDDING, NUMBER_BITS, Chunk, point_ids
from index.storage.qdrant.lists import Ranking, exact_request, ranking

LISTED = 64
"""Least length of the lists of the first call."""

LISTED_OF = 512
"""One of so many candidates is listed by the first call where that is more: a long list is cheap beside a second
reading of a large scope."""

LONGER = 4
"""How many times as long the lists of the next call are."""

MOST_CALLS = 3
"""Most calls of a step, searches and reads; what they leave open is not exact."""

MOST_GROUPS = 2048
"""Groups of candidates that share a position, of one state, above which every candidate is read instead: positions
that are hardly quantised, or not at all."""


@dataclass(frozen=True)
class QdrantScope:
    """Documents of one space."""

    contents: Contents
    membership: Membership
    offsets: IntArray
    """Where each document begins, shape ``[documents + 1]``."""
    mask: BoolArray | None = None
    """Which candidates may be selected, shape ``[size]``; none: all of them."""
    unmasked: QdrantScope | None = None
    """The scope that this one masks, whose statistics are this one's."""

    @classmethod
    def of(cls, contents: Contents, membership: Membership) -> QdrantScope:
        """The scope of some documents."""
        return cls(contents, membership, np.cumsum([0, *membership.counts.tolist()], dtype=np.int64))

    @property
    def size(self) -> int:
        """The number of candidates."""
        return int(self.offsets[-1])

    @property
    def read_size(self) -> int:
        """How many candidates are listed for one state: Qdrant reads the others."""
        return min(self.size, 2 * self.listed)

    @property
    def listed(self) -> int:
        """The length of the lists of the first call."""
        return max(LISTED, self.size // LISTED_OF)

    def masked(self, excluded: IntArray) -> QdrantScope:
        """The same axis, on which the ``excluded`` positions may not be selected either."""
        mask = np.ones(self.size, dtype=np.bool_) if self.mask is None else self.mask.copy()
        mask[excluded] = False
        return replace(self, mask=mask, unmasked=self.unmasked or self)

    def document_of(self, position: int) -> int:
        """The document that the candidate at ``position`` belongs to."""
        return int(np.searchsorted(self.offsets, position, side="right")) - 1

    def rows(self, positions: IntArray) -> Float32Array:
        """The embeddings at ``positions``, shape ``[len(positions), d]``."""
        embeddings = [chunk.embedding for chunk in self._chunks(positions)]
        return np.array(embeddings, dtype=np.float32).reshape(-1, self.contents.dimension)

    def term_counts(self, tokens: IntArray, positions: IntArray) -> IntArray:
        """How often each candidate has each token, shape ``[len(tokens), len(positions)]``."""
        counts = np.zeros((len(tokens), len(positions)), dtype=np.int64)
        for number, chunk in enumerate(self._chunks(positions)):
            places = np.searchsorted(chunk.bag.tokens, tokens)
            has = np.append(chunk.bag.tokens, -1)[places] == tokens
            counts[has, number] = chunk.bag.counts[places[has]]
        return counts

    def frequencies(self, tokens: IntArray) -> Frequencies:
        """In how many candidates each token stands, those that are masked among them."""
        of_tokens = np.zeros(len(tokens), dtype=np.int64)
        known = tokens < len(self.statistics.frequencies)
        of_tokens[known] = self.statistics.frequencies[tokens[known]]
        return Frequencies(of_tokens, self.size, self.statistics.length)

    def lengths(self, positions: IntArray) -> IntArray:
        """The number of tokens of each candidate, shape ``[len(positions)]``."""
        return np.array([chunk.bag.length for chunk in self._chunks(positions)], dtype=np.int64)

    def estimate(
        self, states: States, selections: Sequence[Sequence[int]], function: QFunction, count: int = 1
    ) -> list[Estimate]:
        """``Q(s, i)`` of the candidates that could be among the ``count`` best of each state."""
        estimates: dict[int, Estimate] = {}
        rankings: dict[int, Ranking] = {}
        for number, (state, selected) in enumerate(zip(states, selections, strict=True)):
            if (ranked := self._ranking(state, selected, function)) is None:
                estimates[number] = self._read_whole(state, selected, function)
            else:
                rankings[number] = ranked
        left, length = MOST_CALLS, max(self.listed, 2 * count)
        while rankings and left:
            asked = {number: ranked.requests(length) for number, ranked in rankings.items()}
            results = iter(self.contents.search([request for requests in asked.values() for request in requests]))
            listed = {
                number: rankings[number].read(list(islice(results, len(requests))), length, self.positions)
                for number, requests in asked.items()
            }
            contenders = [
                Contenders(states[number], selections[number], lists, self.offsets, self.mask)
                for number, lists in listed.items()
            ]
            left -= 1
            left -= self._score(contenders, function, count, left)
            for number, scored in zip(listed, contenders, strict=True):
                estimates[number] = scored.estimate(count)
                if estimates[number].exact:
                    del rankings[number]
            length *= LONGER
        return [estimates[number] for number in range(len(states))]

    def _ranking(self, state: State, selected: Sequence[int], function: QFunction) -> Ranking | None:
        """How Qdrant ranks the candidates for a state; none where it cannot."""
        if any(signal is not function.lexical for signal in function.further):
            return None
        selected_ids = self.ids(np.asarray(selected, dtype=np.int64))
        admitted = Admitted(self.membership, self.offsets, self.mask)
        around = admitted
        if state.surroundings and self.mask is not None:  # what may not be selected counts beside what may
            around = replace(admitted, mask=dilated(self.mask, self.offsets))
        if not function.turning.turns(state):
            condition = around.anywhere(selected_ids)
            groups = [] if condition is None else [Group(0, condition)]
        elif function.positions.mode == "relative":
            groups = around.groups(selected, function.positions)
        else:
            return None
        if len(groups) > MOST_GROUPS:
            return None
        return ranking(state, groups, admitted.anywhere(selected_ids), function, self, self.statistics)

    def _score(self, contenders: Sequence[Contenders], function: QFunction, count: int, calls: int) -> int:
        """Score what could be the best of each state by at most so many calls; returns how many were made.

        What is cached is scored first. It may show that nothing else could be, as chunks that were among the best of
        one state are often among those of the next. Otherwise the likeliest are read by one call, and by another one
        what could still be better. A call that could not make the best certain is left for longer lists, but the last
        one reads what they have shown.
        """
        known = [self._cached(one, one.likely() if calls else one.positions) for one in contenders]
        self._score_at(known, contenders, function)
        reads = (LIKELY + count, READ_CHUNKS) if calls > 1 else (READ_CHUNKS,) * calls
        for made, most in enumerate(reads):
            if made:
                read = [one for one in contenders if one.lists_suffice(count)]
            elif calls == 1 or any(len(one.possible(count)) and one.lists_may_suffice(count) for one in contenders):
                # For all: it costs no call more, and no state is left without a candidate.
                read = list(contenders)
            else:
                read = []
            possible = [one.possible(count)[: min(most, READ_CHUNKS // one.width)] for one in read]
            if not any(map(len, possible)):
                return made
            self._score_at(possible, read, function)
        return len(reads)

    def _score_at(self, positions: Sequence[IntArray], contenders: Sequence[Contenders], function: QFunction) -> None:
        """Score some candidates of each state, whose chunks are read together."""
        needed = np.unique(
            np.concatenate([one.parts(at).ravel() for one, at in zip(contenders, positions, strict=True)])
        )
        self._chunks(needed[needed >= 0])
        for one, at in zip(contenders, positions, strict=True):
            one.scored(at, exact_q(one.state, self, one.selected, function, at))

    def _cached(self, contenders: Contenders, candidates: IntArray) -> IntArray:
        """Which of some candidates of a state can be scored without reading."""
        parts = contenders.parts(candidates)
        missing = np.array([self.contents.kept(id) is None for id in self.ids(parts.ravel()).tolist()], dtype=np.bool_)
        return candidates[~(missing.reshape(parts.shape) & (parts >= 0)).any(axis=0)]

    def _read_whole(self, state: State, selected: Sequence[int], function: QFunction) -> Estimate:
        """Every candidate, scored here."""
        left = np.ones(self.size, dtype=np.bool_) if self.mask is None else self.mask.copy()
        left[list(selected)] = False
        positions = np.flatnonzero(left)
        blocks = np.split(positions, range(BLOCK_ROWS, len(positions), BLOCK_ROWS))
        q = np.concatenate([exact_q(state, self, selected, function, block) for block in blocks])
        return rounded(positions, q, exact=True)

    def nearest(self, query: Float32Array, count: int) -> list[Candidate]:
        """The ``count`` largest inner products with ``query``, shape ``[d]``, largest first."""
        condition = Admitted(self.membership, self.offsets, self.mask).anywhere(np.empty(0, dtype=np.int64))
        if condition is None or count < 1:
            return []
        (points,) = self.contents.search([exact_request(query.tolist(), EMBEDDING, condition, count)])
        positions = self.positions(points).tolist()
        candidates = [Candidate(at, point.score) for at, point in zip(positions, points, strict=True)]
        return sorted(candidates, key=lambda candidate: (-candidate.q, candidate.position))

    @cached_property
    def statistics(self) -> Statistics:
        """What is known of all candidates together, read once."""
        if self.unmasked is not None:
            return self.unmasked.statistics
        return self.contents.statistics(self.membership.uids, self.membership.counts)

    def ids(self, positions: IntArray) -> IntArray:
        """The ids of the points at ``positions``, same shape."""
        document = np.searchsorted(self.offsets, positions, side="right") - 1
        return point_ids(self.membership.uids[document], positions - self.offsets[document])

    def positions(self, points: Sequence[models.ScoredPoint]) -> IntArray:
        """Where points of the scope stand on the candidate axis, shape ``[points]``."""
        ids = np.array([point.id for point in points], dtype=np.int64)
        uids, numbers = ids >> NUMBER_BITS, ids & ((1 << NUMBER_BITS) - 1)
        document = np.searchsorted(self.membership.uids, uids).clip(max=len(self.membership.uids) - 1)
        if (self.membership.uids[document] != uids).any() or (numbers >= self.membership.counts[document]).any():
            raise StorageUnavailable(
                "Qdrant has returned chunks that were not asked for: see that its shards are whole"
            )
        positions: IntArray = self.offsets[document] + numbers
        return positions

    def _chunks(self, positions: IntArray) -> list[Chunk]:
        return self.contents.chunks(self.ids(positions))
