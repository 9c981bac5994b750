"""The words of a file against the words of its text: what a reader lost shows here, whatever the reason."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

_WORD: Final = re.compile(r"[^\W\d_]+|\d+")
"""Letters or digits: ``x2`` and ``x^2`` have the same words."""

_NEIGHBOURS: Final = 60
"""Words on either side that a word may be joined with in the text."""

_NAMED: Final = 8
"""Words that a warning names."""

_LONGEST_NAMED: Final = 30


def missing_words(texts: Callable[[], Iterable[str]], text: Iterable[str]) -> Counter[str]:
    """The words of a file that its text lacks, and how many of each.

    ``texts`` gives all that the file holds, in order; it is called a second time where words are missing. ``text``
    comes in pieces that end between words. A word that the text has in one with its neighbours is there: formats cut
    words anywhere, and lines end in hyphens.
    """
    lacking = Counter(_words(texts()))
    lacking.subtract(_words(text))
    joined = {word for word, count in lacking.items() if count < 0}
    lacking = +lacking
    if lacking and joined:
        lacking -= Counter(_joined_words(_words(texts()), lacking, joined))
    return lacking


def warning_of(missing: Counter[str]) -> str:
    """What is said of missing words."""
    named = ", ".join(word[:_LONGEST_NAMED] for word in list(missing)[:_NAMED])
    count = missing.total()
    return f"{count:,} word{'s' * (count > 1)} of the file could not be read: {named}{' ...' * (len(missing) > _NAMED)}"


def _words(texts: Iterable[str]) -> Iterator[str]:
    return chain.from_iterable(map(_WORD.findall, texts))


def _joined_words(words: Iterable[str], lacking: Counter[str], joined: set[str]) -> Iterator[str]:
    """Those of the lacking words that are part of a joined one, each time they are."""
    longest = max(map(len, joined))
    window: deque[str] = deque([""] * (2 * _NEIGHBOURS), maxlen=2 * _NEIGHBOURS + 1)
    for word in chain(words, [""] * _NEIGHBOURS):
        window.append(word)
        if window[_NEIGHBOURS] in lacking and _is_joined(window, longest, joined):
            yield window[_NEIGHBOURS]


def _is_joined(window: Sequence[str], longest: int, joined: set[str]) -> bool:
    """Whether the word in the middle and some of its neighbours make a joined one."""
    start = ""
    for first in range(_NEIGHBOURS, -1, -1):
        start = window[first] + start
        whole = start
        for last in range(_NEIGHBOURS + 1, len(window)):
            if len(whole) > longest:
                break
            if whole in joined:
                return True
            whole += window[last]
        if len(start) > longest:
            break
    return False
