"""Request and answer of ``POST /answer``: those of ``POST /retrieve``, and the text that the language model wrote."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field

from qrag.wire import examples
from qrag.wire.models import ResponseModel, whole_number
from qrag.wire.retrieval import (
    QUESTION_AND_ONE_WAY,
    Citation,
    RetrieveIn,
    RetrieveOut,
    SufficiencyOut,
)

MARKERS = re.compile(r"[\[【]\^?\d{1,9}(?:\s*(?:,|;|-|–)\s*\d{1,9})*(?:†[^\[\]【】\n]{0,200})?[\]】]")
"""What refers to passages in an answer: ``[1]``, ``[1, 2]``, ``[1-3]``; as some models write them, ``[^1]``, ``【1】``,
``【1†source】``."""


class AnswerIn(RetrieveIn):
    """A question, where and how to search for its evidence, and how to write the answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"question": "Where did the office of the person who signed the lease move?", "max_steps": 4},
                {"question": "Who signed the lease?", "max_answer_tokens": 200, "temperature": 0},
            ],
            "allOf": QUESTION_AND_ONE_WAY,
        }
    )

    max_answer_tokens: Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(whole_number)] | None = Field(
        default=None, description="most tokens of the answer; by default what the endpoint allows"
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=None, description="of the language model; by default the endpoint's own"
    )


class CitedPassage(Citation):
    """A passage that the answer refers to by its marker."""

    text: str


class AnswerOut(ResponseModel):
    """The answer, the passages it cites, and everything that was retrieved for it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ANSWER]})

    answer: str
    citations: list[CitedPassage] = Field(description="the passages that the answer refers to, each once")
    unknown_markers: list[str] = Field(description="markers in the answer that no passage has", examples=[["[7]"]])
    sufficiency: SufficiencyOut | None = Field(
        description="how likely the passages hold all of the evidence; null where the checkpoint was not calibrated"
    )
    evidence_likely_missing: bool = Field(
        description="whether the language model was told that some of the evidence is likely missing: nothing was "
        "found, or `sufficiency.complete` is below one half"
    )
    finish_reason: str | None = Field(description="why the language model stopped: `stop`, or `length` at its limit")
    language_model: str
    generation_ms: float
    retrieval: RetrieveOut


class TokenEvent(ResponseModel):
    """The next piece of the answer, as it is streamed."""

    text: str
