"""Gates: questions that another checkpoint has to answer as well as the one that is served."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from qrag.wire import examples
from qrag.wire.checks.questions import Alternatives, Question
from qrag.wire.models import PositiveInteger, RequestModel, ResponseModel
from qrag.wire.names import CollectionName
from qrag.wire.retrieval import MAX_STEPS

MAX_GATE_QUESTIONS = 1000
"""Most questions of a gate."""

MAX_NAMED = 100
"""Most questions that the outcome of a gate names as won, and as lost."""


class GateQuestion(Question):
    """A question of a gate, which is about evidence: answers may stand beside it, and nobody looks at them."""

    expected: list[Alternatives] = Field(min_length=1)


class GateIn(RequestModel):
    """Questions that both checkpoints are asked, and how much of their evidence the new one may lose."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.GATE_IN]})

    questions: list[GateQuestion] = Field(
        min_length=1,
        max_length=MAX_GATE_QUESTIONS,
        description="with the pieces of evidence that are expected, as in a file for `qrag eval`",
    )
    collection: CollectionName = Field(default="default", description="of the questions that name none")
    max_steps: PositiveInteger = Field(
        default=6, le=MAX_STEPS, description="most chunks to select; each checkpoint ends before by its own stop rule"
    )
    max_loss: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="refused is a checkpoint whose mean share of the expected pieces is below that of the served one "
        "by more than this",
    )

    @model_validator(mode="after")
    def _tells_questions_apart(self) -> Self:
        twice = next((id for id, count in Counter(self.ids).items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"the id {twice!r} is of two questions")
        return self

    @property
    def ids(self) -> list[str]:
        """The id of each question."""
        return [question.id or str(number) for number, question in enumerate(self.questions, 1)]


class GateSide(ResponseModel):
    """What a checkpoint found, on the mean over the questions."""

    share: float = Field(description="of the expected pieces that were found")
    recall: float = Field(description="1 for a question with all expected pieces, else 0")
    chunks: float = Field(description="selected chunks")


class GateDifference(ResponseModel):
    """The share of the new checkpoint less that of the served one, question by question: mean and 95% interval."""

    mean: float
    low: float
    high: float


class GateOut(ResponseModel):
    """The outcome of a gate."""

    checkpoint: str = Field(description="the one that was to be served")
    against: str = Field(description="the one that was served")
    passed: bool
    finished_at: datetime
    questions: int
    unresolved: int = Field(description="expected pieces that stood nowhere by then; neither can find them")
    max_steps: int
    max_loss: float
    served: GateSide
    candidate: GateSide
    difference: GateDifference
    wins: int = Field(description="questions of which the new checkpoint finds more")
    losses: int
    won: list[str] = Field(description=f"their ids, at most {MAX_NAMED}")
    lost: list[str]
