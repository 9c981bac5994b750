"""BM25 over the chunks that were fetched from the service: a peer that needs no model."""

from __future__ import annotations

import heapq
import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

K1 = 1.2
"""How soon repeating a term stops to count."""

B = 0.75
"""How far the score of a text is divided by its length."""

_TERM = re.compile(r"\w+")


def terms(text: str) -> list[str]:
    """The words of a text, without case."""
    return _TERM.findall(text.casefold())


class BM25:
    """An index of texts; each is known by its place among them."""

    def __init__(self, texts: Iterable[str]) -> None:
        lengths = array("d")
        self._places: dict[str, array[int]] = defaultdict(lambda: array("l"))
        self._counts: dict[str, array[int]] = defaultdict(lambda: array("l"))
        for place, text in enumerate(texts):
            counted = Counter(terms(text))
            lengths.append(counted.total())
            for term, count in counted.items():
                self._places[term].append(place)
                self._counts[term].append(count)
        mean = sum(lengths) / len(lengths) if lengths else 0.0
        self._norms = array("d", (K1 * (1 - B + B * length / mean) if mean else K1 for length in lengths))

    def scores(self, query: str) -> dict[int, float]:
        """The score of each text that has a term of the query."""
        scores: dict[int, float] = defaultdict(float)
        for term in terms(query):
            if term not in self._places:
                continue
            places, counts = self._places[term], self._counts[term]
            weight = math.log(1 + (len(self._norms) - len(places) + 0.5) / (len(places) + 0.5)) * (K1 + 1)
            for place, count in zip(places, counts, strict=True):
                scores[place] += weight * count / (count + self._norms[place])
        return scores

    def best(self, query: str, count: int) -> Sequence[int]:
        """The texts with the largest scores, best first; of equal ones the first."""
        scores = self.scores(query)
        return heapq.nsmallest(count, scores, key=lambda place: (-scores[place], place))
