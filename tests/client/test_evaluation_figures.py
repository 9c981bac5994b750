"""The figures of an evaluation against plain computations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrag.evaluation.bm25 import BM25, terms
from qrag.evaluation.figures import bootstrap, calibration, limit, method_figures
from qrag.evaluation.library import Borders
from qrag.evaluation.report import Answer, ChunkRef, Score

WORDS = st.lists(st.sampled_from(["Ana", "ana", "lease", "über", "7", "the", "-"]), max_size=8).map(" ".join)
PROBABILITIES = st.floats(0, 1)
RANKS = st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=1, max_size=4)


def chunk(index: int) -> ChunkRef:
    return ChunkRef(document_id="a", title=None, index=index, start=0, end=1, text="a")


def scored(found_at: Sequence[int | None], complete: float | None = None) -> Score:
    return Score(answer=Answer(chunks=[chunk(index) for index in range(5)], complete=complete), found_at=[*found_at])


@given(texts=st.lists(WORDS, max_size=8), query=WORDS, count=st.integers(1, 9))
def test_bm25_is_the_textbooks(texts: list[str], query: str, count: int) -> None:
    split = [terms(text) for text in texts]
    mean = sum(map(len, split)) / max(1, len(split))

    def score(words: list[str]) -> float:
        total = 0.0
        for term in terms(query):
            holding = sum(term in other for other in split)
            rarity = math.log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
            frequency = words.count(term)
            norm = 1.2 * (1 - 0.75 + 0.75 * len(words) / mean) if mean else 1.2
            total += rarity * frequency * 2.2 / (frequency + norm)
        return total

    expected = [score(words) for words in split]
    index = BM25(texts)
    scores = index.scores(query)
    assert [scores.get(place, 0.0) for place in range(len(texts))] == pytest.approx(expected)
    best = index.best(query, count)
    assert [expected[place] for place in best] == pytest.approx(sorted(filter(None, expected), reverse=True)[:count])


@given(
    lengths=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=6),
    start=st.integers(0, 60),
    length=st.integers(1, 40),
)
def test_chunks_hold_a_span_by_half_of_the_shorter(lengths: list[tuple[int, int]], start: int, length: int) -> None:
    starts: list[int] = []
    ends: list[int] = []
    for gap, size in lengths:
        starts.append((ends[-1] if ends else 0) + gap)
        ends.append(starts[-1] + size)
    span = set(range(start, start + length))
    spans = [set(range(a, b)) for a, b in zip(starts, ends, strict=True)]
    expected = [n for n, s in enumerate(spans) if s & span and 2 * len(s & span) >= min(len(s), len(span))]
    assert list(Borders(starts, ends).holding(start, start + length)) == expected


@given(st.lists(st.tuples(RANKS, PROBABILITIES), min_size=1, max_size=20))
def test_figures_are_means_over_all_questions(given_scores: list[tuple[list[int | None], float]]) -> None:
    scores = [scored(ranks, complete) for ranks, complete in given_scores]
    figures = method_figures("default", scores, 6)
    for count in range(1, 7):
        shares = [sum(rank is not None and rank <= count for rank in ranks) / len(ranks) for ranks, _ in given_scores]
        assert figures.share_at[count - 1] == pytest.approx(sum(shares) / len(shares))
        assert figures.recall_at[count - 1] == pytest.approx(sum(share == 1 for share in shares) / len(shares))
    assert figures.recall.mean == pytest.approx(figures.recall_at[-1])
    assert figures.share.mean == pytest.approx(figures.share_at[-1])
    assert (figures.chunks.mean, figures.chunks.low, figures.chunks.high) == (5, 5, 5)
    error = 0.0
    for place in range(10):
        held = [(p, all(ranks)) for ranks, p in given_scores if min(9, int(p * 10)) == place]
        error += abs(sum(p for p, _ in held) - sum(complete for _, complete in held)) / len(scores)
    assert figures.calibration is not None
    assert figures.calibration.error == pytest.approx(error)
    assert sum(each.questions for each in figures.calibration.bins) == len(scores)


def test_without_estimates_there_is_no_calibration() -> None:
    assert calibration([scored([1]), scored([None])]) is None


def test_an_interval_is_as_wide_as_the_theory_says() -> None:
    column = [float(number % 2) for number in range(400)]
    figure, fixed = bootstrap([column, [0.25] * 400])
    assert figure.mean == 0.5
    assert figure.high - figure.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 400), rel=0.15)
    assert (fixed.mean, fixed.low, fixed.high) == (0.25, 0.25, 0.25)
    assert bootstrap([column, column[::-1]])[0] == figure, "the same resamples each time"


def test_limits_are_read() -> None:
    parsed = limit("share@3=0.5")
    assert (parsed.name, parsed.at, parsed.least, str(parsed)) == ("share", 3, 0.5, "share@3")
    assert limit("recall=1").at is None
    assert (limit("f1=0.5").name, limit("exact=1").least) == ("f1", 1)
    for words in ("recall", "recall=", "recall=nan", "recall=1.1", "recall@0=1", "recall@x=1", "f1@1=1", "speed=1"):
        with pytest.raises(ValueError, match="is no limit like"):
            limit(words)
