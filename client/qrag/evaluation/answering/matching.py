"""How well a text fits the accepted answers: exact match and F1 of SQuAD (Rajpurkar et al. 2016, 1606.05250)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation and articles."""
    return _ARTICLES.sub(" ", text.casefold().translate(_PUNCTUATION)).split()


def exact_match(text: str, accepted: Sequence[str]) -> float:
    """1 where a text has the words of an accepted answer, all and in order, else 0."""
    return float(words(text) in map(words, accepted))


def f1(text: str, accepted: Sequence[str]) -> float:
    """The harmonic mean of precision and recall of a text's words, against the accepted answer that it fits best."""
    return max(_f1(words(text), words(answer)) for answer in accepted)


def _f1(written: Sequence[str], accepted: Sequence[str]) -> float:
    if not written or not accepted:
        return float(written == accepted)
    return 2 * (Counter(written) & Counter(accepted)).total() / (len(written) + len(accepted))
