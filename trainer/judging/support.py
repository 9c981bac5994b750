"""Which chunks a question needs, by what they are worth to a frozen reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from index.arrays import Float64Array
from trainer.datasets.question import Question
from trainer.judging.judge import Judge
from trainer.tasks.judgements import Judgement

CONTENDERS = 5
"""Chunks, the best ones by themselves, that are tried beside those chosen so far."""

SINGLE_SHARE = 0.25
"""How much of a chunk's own value counts when it is tried beside others: where the reader gets lost between several
texts, one alone is the surer sign."""

LEAST_GAIN = 4.0
"""Nats by which the last chunk that a question needs makes it more probable, unless told otherwise: chunks that have
nothing to do with a question add less, by chance."""

TOGETHER = 32
"""Questions judged together, unless told otherwise: a reader fills its batches from all of them."""


@dataclass
class _Search:
    """The greedy search of one question."""

    question: Question
    candidates: Sequence[int]
    values: Float64Array
    """What each candidate is worth by itself."""
    value: float
    """What the chosen chunks are worth together."""
    chosen: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    open: bool = True

    @property
    def contenders(self) -> list[int]:
        """The chunks to try next."""
        order = np.argsort(-self.values, kind="stable").tolist()
        left = [self.candidates[place] for place in order if self.candidates[place] not in self.chosen]
        return left[:CONTENDERS]

    def choose(self, contenders: Sequence[int], values: Sequence[float], least_gain: float) -> None:
        """Add the best of the contenders, whose ``values`` are those beside what is chosen; or end the search."""
        own = dict(zip(self.candidates, self.values, strict=True))
        weighed = [value + SINGLE_SHARE * own[chunk] for chunk, value in zip(contenders, values, strict=True)]
        best = int(np.argmax(weighed))
        gain = values[best] - self.value
        if gain < least_gain:
            self.open = False
            return
        self.chosen.append(contenders[best])
        self.gains.append(gain)
        self.value = values[best]


def find_support(
    judge: Judge,
    questions: Sequence[Question],
    candidates: Mapping[str, Sequence[int]],
    *,
    least_gain: float,
    most_chunks: int,
    pools: bool = False,
    together: int = TOGETHER,
) -> Iterator[Judgement]:
    """The judgement of each question, in order.

    Chunks are chosen one by one, each the best beside those before it, until none makes question or answer (as the
    judge's form has it) ``least_gain`` nats more probable or ``most_chunks`` are chosen. ``candidates`` has the
    positions to read by the question's id; with ``pools`` the reader also answers from each of them. Raises as
    :class:`~trainer.readers.protocol.Reader` says.
    """
    for first in range(0, len(questions), together):
        group = questions[first : first + together]
        # Before the values, which are known from it in one reading where the judge's form allows.
        alone = [(question, (chunk,)) for question in group for chunk in candidates[question.id]] if pools else []
        correct = iter(judge.correct(alone))
        searches = _started(judge, group, candidates)
        for _ in range(most_chunks):
            running = [search for search in searches if search.open and len(search.candidates) > len(search.chosen)]
            tried = [search.contenders for search in running]
            states = [
                (search.question, (*search.chosen, chunk))
                for search, contenders in zip(running, tried, strict=True)
                for chunk in contenders
            ]
            values = iter(judge.values(states).tolist())
            for search, contenders in zip(running, tried, strict=True):
                search.choose(contenders, [next(values) for _ in contenders], least_gain)
        for search in searches:
            yield Judgement(
                id=search.question.id,
                chunks=len(search.question.chunks),
                candidates=tuple(search.candidates),
                values=tuple(round(value, 3) for value in search.values.tolist()),
                support=tuple(search.chosen),
                gains=tuple(round(gain, 3) for gain in search.gains),
                correct=tuple(next(correct) for _ in search.candidates) if pools else None,
            )


def _started(judge: Judge, group: Sequence[Question], candidates: Mapping[str, Sequence[int]]) -> list[_Search]:
    """The searches with the values of nothing and of each candidate by itself."""
    nothing = judge.values([(question, ()) for question in group]).tolist()
    single = judge.values([(question, (chunk,)) for question in group for chunk in candidates[question.id]])
    ends = np.cumsum([len(candidates[question.id]) for question in group])[:-1]
    return [
        _Search(question, candidates[question.id], values, value)
        for question, values, value in zip(group, np.split(single, ends), nothing, strict=True)
    ]
