"""BM25 over words: what shares telling words with a text, without a model."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np


def words(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text in lower case, without English stop words; of some texts none are left."""
    words_of_texts: list[list[str]] = bm25s.tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)
    return words_of_texts


def most_alike(texts: Sequence[str], sentences: Sequence[str], count: int) -> list[str]:
    """The sentences that are among the ``count`` best for any of the texts, each once, in their order.

    A sentence without a word of a text is not alike, however few there are.
    """
    distinct = list(dict.fromkeys(sentences))
    queries = [query for query in words(texts) if query]
    if not distinct or not queries:
        return []
    index = bm25s.BM25()
    index.index(words(distinct), show_progress=False)
    best, scores = index.retrieve(queries, k=min(count, len(distinct)), show_progress=False)
    return [distinct[number] for number in np.unique(best[scores > 0])]
