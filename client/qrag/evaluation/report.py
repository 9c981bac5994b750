"""The report of an evaluation, as ``report.json`` holds it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from qrag.wire.models import FrozenModel
from qrag.wire.rules import StoppedBy


class ChunkRef(FrozenModel):
    """A chunk that a method selected."""

    document_id: str
    title: str | None
    index: int
    start: int
    end: int
    text: str


class Answer(FrozenModel):
    """What a method selected for a question, in the order of selection."""

    chunks: list[ChunkRef] = Field(default_factory=list)
    stopped_by: StoppedBy | None = None
    """Why the episode ended; None for a method without one."""
    complete: float | None = None
    """The service's probability that the chunks hold all of the evidence."""
    error: str | None = None
    """Why there is no answer; then nothing is found."""


class Score(FrozenModel):
    """An answer, and where in it each expected piece is found."""

    answer: Answer
    found_at: list[int | None]
    """Ranks, from 1."""

    def share(self, count: int | None = None) -> float:
        """The share of the expected pieces among the first ``count`` chunks, or among all."""
        ranks = (rank for rank in self.found_at if rank is not None)
        return sum(count is None or rank <= count for rank in ranks) / len(self.found_at)

    def recall(self, count: int | None = None) -> float:
        """1 where all expected pieces are among them, else 0."""
        return float(self.share(count) == 1)


class Written(FrozenModel):
    """What the service's language model wrote for a question, and how well it fits the accepted answers."""

    text: str = ""
    language_model: str | None = None
    exact: float = 0.0
    f1: float = 0.0
    error: str | None = None
    """Why there is no answer; then nothing fits."""


class QuestionResult(FrozenModel):
    """A question, what was expected and the score of each method, which answers are accepted and what was written."""

    id: str
    question: str
    collection: str
    expected: list[str]
    unresolved: list[str]
    scores: dict[str, Score]
    """Empty where no evidence is expected."""
    answers: list[str] = Field(default_factory=list)
    written: Written | None = None
    """None where no answers are accepted."""


class Figure(FrozenModel):
    """A mean over questions with its 95% interval, by bootstrap."""

    mean: float
    low: float
    high: float


class Bin(FrozenModel):
    """Questions whose estimated probability is alike: its mean, and the share of them that was in fact complete."""

    questions: int
    estimated: float
    complete: float


class Calibration(FrozenModel):
    """How far the service's estimate of completeness can be believed."""

    error: float
    """Expected calibration error: the mean distance of estimate and share, each bin weighing its questions."""
    bins: list[Bin]


class MethodFigures(FrozenModel):
    """The figures of a method over all questions with expected evidence."""

    name: str
    words: str
    recall: Figure
    share: Figure
    chunks: Figure
    recall_at: list[float]
    share_at: list[float]
    """Among the first 1, 2, ... chunks."""
    stopped_by: dict[StoppedBy, int]
    calibration: Calibration | None
    failed: int
    """Questions without an answer."""


class AnswerFigures(FrozenModel):
    """How well the answers fit, over all questions with accepted answers."""

    language_model: str | None
    """None where nothing was written."""
    questions: int
    exact: Figure
    f1: Figure
    failed: int
    """Questions without an answer."""


class MethodComparison(FrozenModel):
    """The differences of a method from an earlier report, on the same questions."""

    name: str
    recall: Figure
    share: Figure
    better: list[str]
    worse: list[str]
    """Ids of questions, by their share."""


class AnswerComparison(FrozenModel):
    """The differences of the answers from those of an earlier report, on the same questions."""

    questions: int
    """With accepted answers in both."""
    exact: Figure
    f1: Figure
    better: list[str]
    worse: list[str]
    """Ids of questions, by their F1."""


class Comparison(FrozenModel):
    """An earlier report beside this one."""

    created_at: datetime
    model: str
    max_steps: int
    questions: int
    """In both reports."""
    only_now: int
    only_before: int
    methods: list[MethodComparison]
    answers: AnswerComparison | None = None
    """None where no question has answers in both."""

    def changes(self) -> list[tuple[str, MethodComparison | AnswerComparison]]:
        """What changed, by its name: each method, and the answers."""
        answers = [] if self.answers is None else [("answers", self.answers)]
        return [*((method.name, method) for method in self.methods), *answers]


class Report(FrozenModel):
    """An evaluation."""

    format: Literal["qrag-eval-1"] = "qrag-eval-1"
    created_at: datetime
    model: str
    max_steps: int
    methods: list[MethodFigures]
    """Empty where no question has expected evidence."""
    answers: AnswerFigures | None = None
    """None where no question has accepted answers."""
    questions: list[QuestionResult]
    comparison: Comparison | None = None

    @property
    def unresolved(self) -> list[QuestionResult]:
        """Questions with an expectation that could not be resolved."""
        return [result for result in self.questions if result.unresolved]


def read_report(path: Path) -> Report:
    """A report that was written before. Raises :class:`OSError`, and :class:`ValueError` for another file."""
    try:
        return Report.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is no report.json of `qrag eval`") from error
