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
        places: dict[str, array[int]] = defaultdict(lambda: array("l"))
        counts: dict[str, array[int]] = defaultdict(lambda: array("l"))
        for place, text in enumerate(texts):
            counted = Counter(terms(text))
            lengths.append(counted.total())
            for term, count in counted.items():
                places[term].append(place)
                counts[term].append(count)
        mean = sum(lengths) / len(lengths) if lengths else 0.0
        norms = array("d", (K1 * (1 - B + B * length / mean) if mean else K1 for length in lengths))
        self._places = dict(places)
        self._scores: dict[str, array[float]] = {}
        """What a term adds to the score of each text that has it."""
        for term, among in places.items():
            weight = math.log(1 + (len(norms) - len(among) + 0.5) / (len(among) + 0.5)) * (K1 + 1)
            pairs = zip(among, counts[term], strict=True)
            self._scores[term] = array("d", (weight * count / (count + norms[place]) for place, count in pairs))

    def scores(self, query: str) -> dict[int, float]:
        """The score of each text that has a term of the query."""
        scores: dict[int, float] = defaultdict(float)
        for term in terms(query):
            if term in self._places:
                for place, score in zip(self._places[term], self._scores[term], strict=True):
                    scores[place] += score
        return scores

    def best(self, query: str, count: int) -> Sequence[int]:
        """The texts with the largest scores, best first; of equal ones the first."""
        ranked = ((-score, place) for place, score in self.scores(query).items())
        return [place for _, place in heapq.nsmallest(count, ranked)]
