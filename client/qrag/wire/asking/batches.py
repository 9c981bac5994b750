"""Request and answer of ``POST /retrieve/batch``: several questions over one place, and what came of each."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from qrag.wire import examples
from qrag.wire.documents import ChunkReference
from qrag.wire.filters import Filter, LocationFilter, must_be_shallow
from qrag.wire.models import PositiveInteger, Problem, RequestModel, ResponseModel, whole_number
from qrag.wire.names import CollectionName, DocumentId
from qrag.wire.retrieval import (
    MAX_EXCLUDED,
    MAX_GIVEN,
    MAX_RERANKED,
    MAX_STEPS,
    MAX_TOTAL_CHUNKS,
    Question,
    RetrieveIn,
    RetrieveOut,
)
from qrag.wire.rules import Stop

MAX_BATCH = 64
"""Most questions of a batch."""


class BatchQuestion(RequestModel):
    """A question of a batch, with what differs from the others."""

    question: Question
    given: list[ChunkReference] = Field(
        default=[], max_length=MAX_GIVEN, description="chunks that you hold already for this question"
    )
    exclude: list[ChunkReference] = Field(
        default=[], max_length=MAX_EXCLUDED, description="chunks that are never selected for this question"
    )
    max_steps: Annotated[int, Field(ge=1, le=MAX_STEPS), BeforeValidator(whole_number)] | None = Field(
        default=None, description="by default that of the batch"
    )
    stop: Stop | None = Field(default=None, description="by default that of the batch")
    decompose: bool | None = Field(default=None, description="by default that of the batch")


def _form(value: object) -> str:
    return "text" if isinstance(value, str) else "fields"


class BatchIn(RequestModel):
    """Questions that are answered from one read of the same documents, and what they share."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"questions": ["Who signed the lease?", "Where did Orion move?"], "max_steps": 3},
                {
                    "questions": [
                        "Who signed the lease?",
                        {"question": "Where did Orion move?", "max_steps": 2, "stop": {"rule": "budget"}},
                    ],
                    "collection": "default",
                    "filter": {"field": "year", "gte": 2020},
                    "order": "selection",
                },
            ]
        }
    )

    questions: list[
        Annotated[Annotated[Question, Tag("text")] | Annotated[BatchQuestion, Tag("fields")], Discriminator(_form)]
    ] = Field(
        min_length=1,
        max_length=MAX_BATCH,
        description="each a text, or an object with what differs from the others",
    )
    collection: CollectionName = "default"
    document_ids: list[DocumentId] | None = Field(
        default=None, min_length=1, max_length=1000, description="search only these documents of the collection"
    )
    filter: Filter | None = Field(default=None, description="search only documents whose metadata matches")
    location: LocationFilter | None = Field(
        default=None, description="select only chunks that stand there in their files; the whole documents are searched"
    )
    max_total_chunks: PositiveInteger = Field(
        default=MAX_TOTAL_CHUNKS,
        le=MAX_TOTAL_CHUNKS,
        description="most chunks of a question: the given and the new ones",
    )
    max_steps: PositiveInteger = Field(default=6, le=MAX_STEPS, description="most chunks to select for each question")
    stop: Stop = Field(
        default=Stop(), description="when to stop before `max_steps`; by default as the checkpoint was calibrated"
    )
    rerank: Annotated[int, Field(ge=2, le=MAX_RERANKED), BeforeValidator(whole_number)] | None = Field(
        default=None, description="a second look, by which one question at a time selects"
    )
    max_context_tokens: PositiveInteger | None = Field(
        default=None, description="stop before the `context` of a question gets longer"
    )
    order: Literal["document", "selection"] = Field(
        default="document", description="order of `chunks` and of the texts in `context`"
    )
    decompose: bool = Field(default=False, description="let the language model split each question first")

    _is_shallow = field_validator("filter", mode="before")(must_be_shallow)

    def retrievals(self) -> list[RetrieveIn]:
        """The questions as requests of their own, which all search the same."""
        shared = {name: getattr(self, name) for name in self.model_fields_set - {"questions"}}
        return [
            RetrieveIn.model_validate({**shared, **_own(question), "collection": self.collection})
            for question in self.questions
        ]


def _own(question: str | BatchQuestion) -> dict[str, object]:
    if isinstance(question, str):
        return {"question": question}
    own = {name: getattr(question, name) for name in question.model_fields_set}
    return {name: value for name, value in own.items() if value is not None}


class BatchItem(ResponseModel):
    """What came of one question: a result, or the problem because of which there is none."""

    result: RetrieveOut | None = None
    problem: Problem | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.result is None) == (self.problem is None):
            raise ValueError("an item has a result or a problem")
        return self


class BatchOut(ResponseModel):
    """What came of each question, in their order."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BATCH]})

    items: list[BatchItem]
