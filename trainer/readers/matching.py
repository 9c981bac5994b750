"""How well a written answer matches the gold ones: exact match and F1 of SQuAD (Rajpurkar et al. 2016, 1606.05250)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")

PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """The answer in lower case, without punctuation, articles and superfluous blanks."""
    return " ".join(ARTICLES.sub(" ", answer.casefold().translate(PUNCTUATION)).split())


def exact_match(written: str, gold: Sequence[str]) -> float:
    """1 where the normalized answer is one of the gold ones, else 0."""
    return _best(written, gold, lambda left, right: float(left == right))


def f1(written: str, gold: Sequence[str]) -> float:
    """The harmonic mean of precision and recall of the answer's words, against the gold answer it fits best."""
    return _best(written, gold, _f1)


def contains(written: str, gold: Sequence[str]) -> bool:
    """Whether one of the gold answers stands in the written one, word for word: R3's test of a document."""
    text = f" {normalized(written)} "
    return any(f" {answer} " in text for answer in map(normalized, gold) if answer)


def _best(written: str, gold: Sequence[str], score: Callable[[str, str], float]) -> float:
    return max(score(normalized(written), normalized(answer)) for answer in gold)


def _f1(written: str, gold: str) -> float:
    left, right = written.split(), gold.split()
    if not left or not right:
        return float(left == right)
    common = sum((Counter(left) & Counter(right)).values())
    return 2 * common / (len(left) + len(right))
