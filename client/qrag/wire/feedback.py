"""Feedback, which chunks of an answer helped, and the questions it is about, as they cross HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from qrag.wire import examples
from qrag.wire.documents import ChunkReference
from qrag.wire.models import RequestModel, ResponseModel
from qrag.wire.names import CollectionName
from qrag.wire.retrieval import Question, SufficiencyOut
from qrag.wire.rules import StoppedBy

MAX_JUDGEMENTS = 64
"""Most chunks of one feedback."""

MAX_RECORDS = 100
"""Most records on a page: each may have the texts of all its chunks."""

MAX_REMARK = 10_000
"""Most characters of an answer or a comment."""

FeedbackId = Annotated[
    str, StringConstraints(pattern=r"^fb-[0-9a-f]{24}$"), Field(examples=["fb-0123456789abcdef01234567"])
]
"""The id of feedback, derived from what it says."""

Remark = Annotated[str, StringConstraints(min_length=1, max_length=MAX_REMARK)]
"""A text of a person's own."""


class Judgement(ChunkReference):
    """Whether a chunk helped."""

    helpful: bool


class FeedbackIn(RequestModel):
    """A question, and which chunks of its answer helped."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.FEEDBACK_IN]})

    question: Question
    collection: CollectionName = "default"
    chunks: list[Judgement] = Field(
        min_length=1, max_length=MAX_JUDGEMENTS, description="each once", json_schema_extra={"uniqueItems": True}
    )
    answer: Remark | None = Field(None, description="the right answer, if you know it")
    comment: Remark | None = None

    @model_validator(mode="after")
    def _judges_each_once(self) -> Self:
        seen = set()
        for chunk in self.chunks:
            if (chunk.document_id, chunk.index) in seen:
                raise ValueError(f"chunk {chunk.index} of {chunk.document_id!r} is judged twice: name each chunk once")
            seen.add((chunk.document_id, chunk.index))
        return self


class FeedbackCheckpoint(ResponseModel):
    """The checkpoint that was served then."""

    name: str
    fingerprint: str = Field(description="SHA-256 of what decides which chunks it selects")


class JudgedChunkOut(ResponseModel):
    """A judged chunk, with its text as it was then."""

    document_id: str
    index: int
    text: str
    helpful: bool


class FeedbackOut(ResponseModel):
    """Feedback as it is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.FEEDBACK]})

    id: str
    created_at: datetime
    collection: str
    question: str
    checkpoint: FeedbackCheckpoint
    chunks: list[JudgedChunkOut] = Field(description="by document and index")
    answer: str | None
    comment: str | None


class FeedbackPage(ResponseModel):
    """One page of feedback in order of arrival."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"feedback": [examples.FEEDBACK], "next_cursor": "1"}]})

    feedback: list[FeedbackOut]
    next_cursor: str | None = Field(description="pass as `cursor` for the next page; null on the last")


QuestionId = Annotated[
    str, StringConstraints(pattern=r"^qu-[0-9a-f]{24}$"), Field(examples=["qu-0123456789abcdef01234567"])
]
"""The id of a question each time that it is asked."""


class ReturnedChunk(ResponseModel):
    """A chunk of an answer."""

    document_id: str
    index: int


class QuestionOut(ResponseModel):
    """A question as it was asked, and what came of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.QUESTION]})

    id: str
    asked_at: datetime
    collection: str
    question: str
    checkpoint: FeedbackCheckpoint
    chunks: list[ReturnedChunk] = Field(description="those of the answer, in the order in which they were selected")
    found_nothing: bool = Field(description="whether it ended without a chunk, or as `hopeless`")
    stopped_by: StoppedBy
    sufficiency: SufficiencyOut | None = Field(description="at the end; null where the checkpoint is not calibrated")
    seconds: float = Field(description="from the request to the end of the retrieval")
    request_id: str = Field(description="`X-Request-ID` of the answer")
    feedback: list[FeedbackOut] = Field(
        description="what was said about the answer: on the same question, there, with the same checkpoint, about at "
        "least one of its chunks"
    )


class QuestionPage(ResponseModel):
    """One page of questions in order of arrival."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"questions": [examples.QUESTION], "next_cursor": "1"}]})

    questions: list[QuestionOut]
    next_cursor: str | None = Field(description="pass as `cursor` for the next page; null on the last")
