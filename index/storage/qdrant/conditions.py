"""Which points a search may see, as conditions of Qdrant: the documents of a scope, what is masked, and intervals.

Everything here only narrows a search by what the scope itself contains, so isolation is the engine's as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from qdrant_client.http import models

from index.arrays import BoolArray, IntArray
from index.search.positions import Positions
from index.storage.points import Membership


class Group(NamedTuple):
    """Candidates with one position: one search of a state."""

    level: int
    """Their level index (:mod:`index.search.positions`)."""
    condition: models.Filter


@dataclass(frozen=True)
class Admitted:
    """The candidates of a scope that a search may see."""

    membership: Membership
    offsets: IntArray
    mask: BoolArray | None = None
    """Shape ``[size]``; none: all of them."""

    @cached_property
    def whole(self) -> BoolArray:
        """Which documents may be seen whole, shape ``[documents]``."""
        if self.mask is None:
            return np.ones(len(self.membership.uids), dtype=np.bool_)
        return np.logical_and.reduceat(self.mask, self.offsets[:-1])

    @cached_property
    def runs(self) -> dict[int, list[tuple[int, int]]]:
        """The runs of chunk numbers that may be seen of each document that may be seen in part."""
        if self.mask is None:
            return {}
        partly = np.logical_or.reduceat(self.mask, self.offsets[:-1]) & ~self.whole
        return {
            document: _runs(self.mask[slice(*self.offsets[document : document + 2])])
            for document in np.flatnonzero(partly).tolist()
        }

    def anywhere(self, selected: IntArray) -> models.Filter | None:
        """All of them but the points with the ``selected`` ids; none where there is nothing."""
        condition = self._documents(())
        if condition is None or not len(selected):
            return condition
        return models.Filter(must=[condition], must_not=[models.HasIdCondition(has_id=selected.tolist())])

    def groups(self, selected: Sequence[int], positions: Positions) -> list[Group]:
        """All of them but the ``selected`` positions of the candidate axis, by their level index.

        Positions are relative.
        """
        document_of = np.searchsorted(self.offsets, np.asarray(selected, dtype=np.int64), side="right") - 1
        visited = sorted(set(document_of.tolist()))
        groups: list[Group] = []
        unvisited = self._documents(visited)
        for level in self._unvisited_levels(visited, positions.levels) if unvisited is not None else ():
            along = _range("along", level / positions.levels, (level + 1) / positions.levels)
            groups.append(Group(level, models.Filter(must=[along, unvisited])))
        for document in visited:
            start, end = self.offsets[document : document + 2].tolist()
            inside = [position - start for position in selected if start <= position < end]
            for level, low, high in _stretches(inside, end - start, positions.levels):
                condition = self._part(document, low, high)
                if condition is not None:
                    groups.append(Group(level, condition))
        return groups

    def _unvisited_levels(self, visited: Sequence[int], levels: int) -> list[int]:
        """The levels that any chunk of a document has of which nothing is selected."""
        counts = np.unique(np.delete(np.diff(self.offsets), visited))
        if (counts >= levels).any():
            return list(range(levels))
        return sorted({levels * number // count for count in counts.tolist() for number in range(count)})

    def _documents(self, visited: Sequence[int]) -> models.Filter | None:
        """What may be seen of the documents that are not among the ``visited``; none where nothing may."""
        uids = self.membership.uids
        left = self.whole.copy()
        left[list(visited)] = False
        parts = [
            models.Filter(must=[_among(uids[document : document + 1]), _range("number", low, high)])
            for document, runs in self.runs.items()
            if document not in visited
            for low, high in runs
        ]
        if left.any():
            parts.append(self._named(left))
        if len(parts) > 1:
            return models.Filter(should=parts)
        return parts[0] if parts else None

    def _named(self, left: BoolArray) -> models.Filter:
        """Some documents of the scope, by the shorter one of two conditions."""
        membership, named, others = self.membership, self.membership.uids[left], self.membership.uids[~left]
        if membership.hidden is None or len(named) <= len(membership.hidden) + len(others):
            return models.Filter(must=[_among(named)])
        others = np.concatenate((membership.hidden, others))
        return models.Filter(
            must=[
                models.FieldCondition(key="collection", match=models.MatchValue(value=membership.collection)),
                models.FieldCondition(key="uid", range=models.Range(lte=int(membership.uids[-1]))),
            ],
            must_not=[_among(others)] if len(others) else None,
        )

    def _part(self, document: int, low: int, high: int) -> models.Filter | None:
        """What may be seen of the chunks ``low <= number < high`` of a document; none where nothing may."""
        runs = [(0, high)] if self.whole[document] else self.runs.get(document, [])
        inside = [(max(first, low), min(end, high)) for first, end in runs if first < high and end > low]
        if not inside:
            return None
        ranges = [_range("number", first, end) for first, end in inside]
        within = ranges[0] if len(ranges) == 1 else models.Filter(should=ranges)
        return models.Filter(must=[_among(self.membership.uids[document : document + 1]), within])


def dilated(mask: BoolArray, offsets: IntArray) -> BoolArray:
    """Which chunks a mask admits, or stand beside such a chunk in its document; same shape."""
    inner = np.ones(len(mask), dtype=np.bool_)  # has a chunk before it in its document
    inner[offsets[:-1]] = False
    wide = mask.copy()
    wide[1:] |= mask[:-1] & inner[1:]
    wide[:-1] |= mask[1:] & inner[1:]
    return wide


def _stretches(selected: Sequence[int], count: int, levels: int) -> list[tuple[int, int, int]]:
    """The level index, first number and end of each stretch of a document's chunks with one position.

    Selected chunks, with which all intervals but the first begin, are left out.
    """
    stretches = []
    for interval, (begin, close) in enumerate(pairwise((0, *selected, count))):
        length = close - begin
        if length == 0:  # the first chunk is selected: its interval is empty
            continue
        borders = -(-np.arange(levels + 1) * length // levels)  # rounded up: the first chunk of each level
        borders = np.maximum(borders, int(interval > 0))
        stretches += [
            (interval * levels + level, begin + low, begin + high)
            for level, (low, high) in enumerate(pairwise(borders.tolist()))
            if low < high
        ]
    return stretches


def _runs(mask: BoolArray) -> list[tuple[int, int]]:
    borders = np.flatnonzero(np.diff(mask, prepend=False, append=False)).tolist()
    return list(zip(borders[::2], borders[1::2], strict=True))


def _among(uids: IntArray) -> models.FieldCondition:
    return models.FieldCondition(key="uid", match=models.MatchAny(any=uids.tolist()))


def _range(key: str, low: float, high: float) -> models.FieldCondition:
    return models.FieldCondition(key=key, range=models.Range(gte=low, lt=high))
