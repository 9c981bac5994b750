"""Judges the stop rules of a checkpoint on test sets."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import ConfigDict
from tqdm import tqdm

from index.arrays import Float32Array, Float64Array, IntArray
from index.encoders.encoder import Encoder
from qrag.wire.models import FrozenModel
from qrag.wire.rules import Rule
from trainer.datasets.question import Question
from trainer.errors import RecipeError
from trainer.evaluation.playing import Player, together
from trainer.evaluation.suites import TestSet
from trainer.stopping.calibration import BUDGET, asked_elsewhere
from trainer.stopping.mixed import compare
from trainer.stopping.stop_reports import StopReport, StopSet, Target
from trainer.stopping.stops import (
    COSTS,
    Calibrated,
    area_under_curve,
    calibration,
    measure_stops,
    point,
    stop_at,
    stop_at_budget,
    stop_with_oracle,
)
from trainer.stopping.traces import Label, Trace, scores, trace

REMOVED, ELSEWHERE, UNANSWERED = "_removed", "_elsewhere", "_unanswered"
"""What comes behind the name of a test set where its questions have no answer: a chunk of their evidence is gone, they
are asked of another document, or their authors left them without."""

TARGETS = (0.9, 0.95, 0.98)
"""Wanted completeness that is checked."""


class Played(FrozenModel):
    """A test set with the traces of its questions."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    task: str
    length: str
    tokens: int | None
    part: bool
    """Whether the questions are in another set too."""
    traces: tuple[Trace, ...]


def play_sets(player: Player, sets: Iterable[TestSet]) -> Iterator[Played]:
    """Trace the questions of each test set."""
    for test_set in sets:
        player.read(test_set.background)
        task, length, traces = test_set.task, test_set.length, list[Trace]()
        with tqdm(total=test_set.count, desc=f"{task} {length}", unit="question", leave=False, disable=None) as bar:
            for questions in together(test_set.draw()):
                asked = [question for question in questions if question.chunks]  # some were deprived of their only one
                traces += trace(player.encoder, asked, player.vectors(asked), BUDGET)
                bar.update(len(questions))
        yield Played(task=task, length=length, tokens=test_set.tokens, part=test_set.part, traces=tuple(traces))


def unanswerable(test_set: TestSet, seed: int) -> TestSet:
    """The questions of a test set, each without one chunk of its support; not a set of its own."""

    def draw() -> Iterator[Question]:
        generator = np.random.default_rng(seed)
        for question in test_set.draw():
            removed = int(generator.choice(sorted(question.support)))
            yield replace(question.without([removed]), task=f"{question.task}{REMOVED}")

    return replace(test_set, task=f"{test_set.task}{REMOVED}", draw=draw, part=True)


def asked_of_others(test_set: TestSet, seed: int) -> TestSet:
    """The questions of a test set, each asked of what another one is about; not a set of its own.

    Those to which no other document of the set belongs are left out, so it may have none.
    """

    def draw() -> Iterator[Question]:
        generator = np.random.default_rng(seed)
        every = list(test_set.draw())
        for question in every:
            own = set(question.chunks)
            others = [other for other in every if own.isdisjoint(other.chunks)]
            if others:
                elsewhere = asked_elsewhere(question, others[int(generator.integers(len(others)))])
                yield replace(elsewhere, task=f"{question.task}{ELSEWHERE}")

    return replace(test_set, task=f"{test_set.task}{ELSEWHERE}", draw=draw, part=True)


def unanswered(test_set: TestSet) -> TestSet:
    """The questions that the documents of a test set do not answer, as its authors have them; not a set of its own."""
    name = f"{test_set.task}{UNANSWERED}"
    asked = [replace(question, task=name) for question in test_set.unanswered]
    return replace(test_set, task=name, count=len(asked), draw=lambda: iter(asked), part=True)


def judge(encoder: Encoder, played: Sequence[Played], **described: Any) -> StopReport:
    """Judge all rules that the checkpoint is calibrated for; ``described`` are the report's other fields.

    Raises :class:`~trainer.errors.RecipeError` for a checkpoint that is not calibrated, and without questions.
    """
    source = encoder.config.stopping
    if source is None or source.calibration is None or encoder.stopping.head is None:
        raise RecipeError(f"{encoder.config.name} is not calibrated. Run `python -m trainer calibrate` first.")
    judged = [_Judged(encoder, test_set) for test_set in played if test_set.traces]
    whole = [test_set for test_set in judged if not test_set.played.part]
    if not whole:
        raise RecipeError("There are no questions to judge stop rules on.")
    rules, calibrated = list(whole[0].scores), source.calibration
    mixed = compare(
        [trace for test_set in whole for trace in test_set.traces],
        {rule: [values for test_set in whole for values in test_set.scores[rule]] for rule in rules},
        {rule: np.concatenate([test_set.stopped(rule) for test_set in whole]) for rule in rules},
        calibrated.default_rule,
        calibrated.step_cost,
        BUDGET,
    )
    return StopReport(
        default_rule=calibrated.default_rule,
        step_cost=calibrated.step_cost,
        budget=BUDGET,
        sets=tuple(test_set.result(_answered(test_set, whole)) for test_set in judged),
        mixed=mixed,
        **described,
    )


def _answered(judged: _Judged, whole: Sequence[_Judged]) -> _Judged | None:
    """The test set whose questions ``judged`` has without an answer; none where they have one."""
    named = {(one.played.task, one.played.length): one for one in whole}
    task, length = judged.played.task, judged.played.length
    without = [task.removesuffix(ending) for ending in (REMOVED, ELSEWHERE, UNANSWERED) if task.endswith(ending)]
    return named.get((without[0], length)) if without else None


class _Judged:
    """The traces of a test set with the scores of all rules."""

    def __init__(self, encoder: Encoder, played: Played) -> None:
        source = encoder.config.stopping
        assert source is not None
        assert source.calibration is not None
        self.played, self.traces, self.calibration = played, played.traces, source.calibration
        self.scores: dict[Rule, list[Float32Array]] = {
            rule: scores(played.traces, encoder.stopping, rule, encoder.function) for rule in self.calibration.curves
        }
        self.estimates = [
            [encoder.stopping.sufficiency(moment, encoder.function) for moment in trace.moments]
            for trace in self.traces
        ]

    def stopped(self, rule: Rule, **wish: float) -> IntArray:
        """Selections after which the rule, calibrated for a wish or the default cost, stops each episode."""
        return stop_at(self.traces, self.scores[rule], self.calibration.rule_for(rule, **wish).threshold)

    @property
    def last(self) -> list[tuple[int, int]]:
        """The state in which the default rule stops each episode: its number, and how many are selected.

        A trace may end before the rule stops: then its last state stands for the later ones.
        """
        return [
            (episode, min(int(taken), len(self.traces[episode].moments) - 1))
            for episode, taken in enumerate(self.stopped(self.calibration.default_rule))
        ]

    def complete_at_stop(self, label: Label | None = None) -> Float64Array:
        """The estimate of p(complete) where the default rule stops; with a ``label``, in such states alone."""
        estimates = [
            self.estimates[episode][taken]
            for episode, taken in self.last
            if label in (None, self.traces[episode].label(taken))
        ]
        return np.array([estimate.complete for estimate in estimates if estimate is not None])

    def result(self, answered: _Judged | None) -> StopSet:
        """All measures; ``answered`` has the same questions where they have an answer."""
        last = self.last
        every = [(episode, taken) for episode, trace in enumerate(self.traces) for taken in range(len(trace.moments))]
        at_stop = [self.estimates[episode][taken] for episode, taken in last]
        return StopSet(
            task=self.played.task,
            length=self.played.length,
            tokens=self.played.tokens,
            questions=len(self.traces),
            budgets=tuple(
                measure_stops(self.traces, stop_at_budget(self.traces, budget)) for budget in range(1, BUDGET + 1)
            ),
            rules={
                rule: tuple(measure_stops(self.traces, self.stopped(rule, step_cost=cost)) for cost in COSTS)
                for rule in self.scores
            },
            oracle=measure_stops(self.traces, stop_with_oracle(self.traces)),
            targets=tuple(map(self._target, TARGETS)),
            complete=self._calibrated(every, "complete", 0),
            complete_at_stop=self._calibrated(last, "complete", 0),
            hopeless=self._calibrated(every, "hopeless", 2),
            hopeless_at_stop=statistics.fmean(estimate.hopeless for estimate in at_stop if estimate is not None),
            told_apart=None
            if answered is None
            else area_under_curve(answered.complete_at_stop(0), self.complete_at_stop()),
        )

    def _target(self, wanted: float) -> Target:
        """What asking the default rule for a completeness brings."""
        most = point(self.traces, stop_at_budget(self.traces, BUDGET)).recall
        reached = point(self.traces, self.stopped(self.calibration.default_rule, target_recall=wanted))
        return Target(wanted=wanted, reached=reached.recall / most if most else 0.0, chunks=reached.chunks)

    def _calibrated(self, states: Sequence[tuple[int, int]], name: str, label: Label) -> Calibrated:
        """How far the estimate of this name can be believed in states, each an episode and its selections."""
        estimates = np.array([getattr(self.estimates[episode][taken], name) for episode, taken in states])
        truths = np.array([self.traces[episode].label(taken) == label for episode, taken in states])
        episodes = np.array([episode for episode, _ in states])
        return calibration(estimates, truths, 1 / np.bincount(episodes)[episodes], episodes)
