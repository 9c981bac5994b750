"""The value of evidence to a frozen reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from index.arrays import Float64Array
from trainer.datasets.question import Question
from trainer.readers.matching import contains
from trainer.readers.protocol import Prompt, Reader, Request, Scores, generated, replied, scored
from trainer.readers.wording import asked_and_answered

Form = Literal["joint", "answer", "group"]
"""What is to be probable: see :class:`Judge`."""

FORMS: tuple[Form, ...] = get_args(Form)

MOST_TOKENS = 24
"""Most tokens of an answer that is written to be checked."""

GROUP = 8
"""Most answers of the form ``group``."""

State = tuple[Question, tuple[int, ...]]
"""A question and the positions of its chunks that are read, in this order."""

Key = tuple[tuple[str, tuple[str, ...]], tuple[str, ...]]
"""A question with its gold answers, and the texts of the chunks that are read."""


class Judge:
    """Values of sets of chunks, in nats: log-probabilities that a reader gives, each asked for once.

    ======  ===========================================================================================================
    joint   ``log P(question, answer | chunks)``: with equally likely sets of chunks the posterior of a set is
            proportional to its exponential; the question names what the first chunks of a chain are about, the answer
            what the last one says
    answer  ``log P(answer | question, chunks)``, R3's ``S`` (arXiv 2510.24652)
    group   the mean of ``answer`` over right answers less the mean over wrong ones, which the reader itself wrote
    ======  ===========================================================================================================

    Of several gold answers the most probable one counts.
    """

    def __init__(self, reader: Reader, form: Form) -> None:
        self._reader, self.form = reader, form
        self._known: dict[Key, float] = {}
        self._groups: dict[tuple[str, tuple[str, ...]], tuple[list[str], list[str]]] = {}

    def values(self, states: Sequence[State]) -> Float64Array:
        """The value of each state, shape ``[states]``; raises as :class:`~trainer.readers.protocol.Reader` says.

        Every question has an answer.
        """
        keys = [_key(state) for state in states]
        unknown = {key: question for (question, _), key in zip(states, keys, strict=True) if key not in self._known}
        if unknown:
            if self.form == "group":
                self._write_groups(list(unknown.values()))
            requests = [self._requests(question, texts) for (_, texts), question in unknown.items()]
            self._keep(unknown, requests, scored(self._reader, [one for some in requests for one in some]))
        return np.array([self._known[key] for key in keys], dtype=np.float64)

    def correct(self, states: Sequence[State]) -> list[bool]:
        """Whether what the reader answers from each state contains a gold answer.

        With the form ``answer`` the values of these states are known afterwards: each prompt is read once for both.
        """
        unknown = {_key(state): state[0] for state in states}
        if self.form == "answer":
            requests = [self._requests(question, texts) for (_, texts), question in unknown.items()]
            scores, replies = replied(self._reader, [one for some in requests for one in some], MOST_TOKENS)
            self._keep(unknown, requests, scores)
            firsts = np.cumsum([0, *map(len, requests)])[:-1]
            written = [replies[first] for first in firsts]
        else:
            prompts = [Prompt(question.text, texts) for (_, texts), question in unknown.items()]
            written = generated(self._reader, prompts, MOST_TOKENS)
        texts = {key: generation.text for key, generation in zip(unknown, written, strict=True)}
        return [contains(texts[_key(state)], state[0].answers) for state in states]

    def _keep(self, asked: Mapping[Key, Question], requests: Sequence[Sequence[Request]], scores: Scores) -> None:
        """Know the values of what was asked, from the scores of each one's requests."""
        values = iter(scores.log_probability)
        for (key, question), some in zip(asked.items(), requests, strict=True):
            self._known[key] = self._value(question, np.array([next(values) for _ in some]))

    def _requests(self, question: Question, contexts: tuple[str, ...]) -> list[Request]:
        if self.form == "joint":
            pairs = [asked_and_answered(question.text, answer) for answer in question.answers]
            return [Request(Prompt(None, contexts), pair) for pair in pairs]
        right, wrong = (
            self._groups.get((question.text, question.answers), ((), ())) if self.form == "group" else ((), ())
        )
        return [Request(Prompt(question.text, contexts), text) for text in (*question.answers, *right, *wrong)]

    def _value(self, question: Question, values: Float64Array) -> float:
        if self.form != "group":
            return float(values.max())
        right, wrong = self._groups[question.text, question.answers]
        gold, own = values[: len(question.answers)], values[len(question.answers) : len(values) - len(wrong)]
        good = np.mean([gold.max(), *own]) if right else gold.max()
        return float(good - (values[len(values) - len(wrong) :].mean() if wrong else 0.0))

    def _write_groups(self, questions: Sequence[Question]) -> None:
        """Let the reader answer from nothing and from single chunks: the answers that differ make the group."""
        named = {(question.text, question.answers): question for question in questions}
        new = {name: question for name, question in named.items() if name not in self._groups}
        prompts = [
            [Prompt(question.text), *(Prompt(question.text, (chunk,)) for chunk in question.chunks[: GROUP - 1])]
            for question in new.values()
        ]
        written = iter(generated(self._reader, [one for some in prompts for one in some], MOST_TOKENS))
        for (name, question), some in zip(new.items(), prompts, strict=True):
            answers = dict.fromkeys(next(written).text.strip() for _ in some)
            right = [answer for answer in answers if answer and contains(answer, question.answers)]
            wrong = [answer for answer in answers if answer and not contains(answer, question.answers)]
            self._groups[name] = (right, wrong)


def _key(state: State) -> Key:
    question, positions = state
    return (question.text, question.answers), tuple(question.chunks[position] for position in positions)
