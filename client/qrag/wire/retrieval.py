"""Request and answer of ``POST /retrieve``: the question with its limits, and the evidence."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, field_validator, model_validator

from qrag.wire import examples
from qrag.wire.documents import Location
from qrag.wire.filters import Filter, LocationFilter
from qrag.wire.models import RequestModel, ResponseModel
from qrag.wire.names import CollectionName, DocumentId
from qrag.wire.rules import Rule, StoppedBy

MAX_STEPS = 32
"""Most chunks of one retrieval."""

MAX_BEAM_WIDTH = 16
"""Most paths of a beam."""

MAX_FILTER_LEVELS = 64
"""Most levels of objects and lists in a filter."""

MAX_FILTER_VALUES = 3000
"""Most names and values in a filter."""

TRACE_CANDIDATES = 10
"""Candidates of each step that a trace shows."""

MAX_RERANKED = 100
"""Most chunks of a step that are looked at a second time."""

MAX_STRETCHES = 512
"""Most stretches of a document in a heat map."""


def whole_number(value: object) -> object:
    """Convert ``4.0`` to the integer that JSON Schema takes it for, and return any other value unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


PositiveInteger = Annotated[int, Field(ge=1), BeforeValidator(whole_number)]
"""A positive integer as JSON Schema defines integers: `4.0` is one, `"4"` is not."""


_NUMBER: dict[str, JsonValue] = {"type": "number"}
"""JSON Schema of a number."""


def _never(**fields: JsonValue) -> JsonValue:
    """JSON Schema of an object that does not have all of these fields with these values."""
    return {"not": {"properties": {**fields}, "required": [*fields]}}


_STOP_SAYS_ONE_THING: list[JsonValue] = [
    _never(step_cost=_NUMBER, target_recall=_NUMBER),
    _never(step_cost=_NUMBER, threshold=_NUMBER),
    _never(target_recall=_NUMBER, threshold=_NUMBER),
    _never(rule={"const": "budget"}, step_cost=_NUMBER),
    _never(rule={"const": "budget"}, target_recall=_NUMBER),
    _never(rule={"const": "budget"}, threshold=_NUMBER),
    {"not": {"properties": {"rule": {"type": "null"}, "threshold": _NUMBER}, "required": ["threshold"]}},
]
"""The checks of `Stop._says_one_thing` as JSON Schema."""


NO_BEAM_BESIDE_RERANK: list[JsonValue] = [_never(rerank=_NUMBER, beam_width={**_NUMBER, "minimum": 2})]
"""The check of `EpisodeIn._chooses_one_way` as JSON Schema."""


class Stop(RequestModel):
    """When to stop: by the cost of a chunk, by the recall to reach, or by the threshold of a rule.

    A rule ends the episode where its score falls below the threshold. The score of `threshold` is the largest Q-value,
    that of `action` the distance of the largest Q-value from the Q-value of the learned STOP action, that of
    `sufficiency` the probability that going on will complete the evidence. `budget` selects `max_steps` chunks.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"step_cost": 0.05}, {"target_recall": 0.95}, {"rule": "budget"}],
            "allOf": _STOP_SAYS_ONE_THING,
        }
    )

    rule: Literal["budget"] | Rule | None = Field(
        default=None, description="by default the one that the checkpoint prefers"
    )
    step_cost: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="cost of a chunk, where complete evidence is worth 1; selects the calibrated threshold with the "
        "largest gain",
    )
    target_recall: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share to answer of the questions whose evidence the calibrated budget would find; selects the "
        "calibrated threshold with the fewest chunks",
    )
    threshold: float | None = Field(
        default=None, allow_inf_nan=False, description="a threshold of your own; needs a `rule`"
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> Stop:
        given = [name for name in ("step_cost", "target_recall", "threshold") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give {given[0]} or {given[1]}, not both")
        if self.rule == "budget" and given:
            raise ValueError(f"the rule budget has no {given[0]}: max_steps is the budget")
        if self.threshold is not None and self.rule is None:
            raise ValueError("a threshold is one of a rule: name the rule")
        return self


def must_be_shallow(filter: object) -> object:
    """Refuse a filter that is nested too deep or too long: it would keep the service busy."""
    level: list[object] = [filter]
    depth = values = 0
    while level:
        level = [
            member
            for node in level
            if isinstance(node, dict | list)
            for member in (node.values() if isinstance(node, dict) else node)
        ]
        depth += 1
        values += len(level)
        if values > MAX_FILTER_VALUES:
            raise ValueError(f"a filter may have at most {MAX_FILTER_VALUES} names and values in all")
        if depth > MAX_FILTER_LEVELS:
            raise ValueError(f"a filter may have at most {MAX_FILTER_LEVELS} levels of objects and lists")
    return filter


def _must_say_something(question: str) -> str:
    if not question.strip():
        raise ValueError("the question is blank")
    return question


Question = Annotated[
    str,
    Field(min_length=1, max_length=100_000, json_schema_extra={"pattern": r"\S"}),
    AfterValidator(_must_say_something),
]
"""A question that is not blank."""


class EpisodeIn(RequestModel):
    """A question, and where and how to search for its evidence."""

    question: Question
    collection: CollectionName = "default"
    document_ids: list[DocumentId] | None = Field(
        default=None, min_length=1, max_length=1000, description="search only these documents of the collection"
    )
    filter: Filter | None = Field(default=None, description="search only documents whose metadata matches")
    location: LocationFilter | None = Field(
        default=None, description="select only chunks that stand there in their files; the whole documents are searched"
    )
    max_steps: PositiveInteger = Field(default=6, le=MAX_STEPS, description="most chunks to select")
    stop: Stop = Field(
        default=Stop(),
        description="when to stop before `max_steps`; by default as the checkpoint was calibrated, and not at all if "
        "it was not",
    )
    beam_width: PositiveInteger = Field(
        default=1, le=MAX_BEAM_WIDTH, description="1 is greedy; more plans ahead by beam search"
    )
    rerank: Annotated[int, Field(ge=2, le=MAX_RERANKED), BeforeValidator(whole_number)] | None = Field(
        default=None,
        description="a second look: of so many chunks with the largest Q-values each step selects the one that a "
        "cross-encoder finds fittest for question and evidence so far. Slower; needs QRAG_RERANKER, and no beam",
    )
    max_context_tokens: PositiveInteger | None = Field(
        default=None, description="stop before `context` gets longer, in tokens of the checkpoint's tokenizer"
    )
    order: Literal["document", "selection"] = Field(
        default="document", description="order of `chunks` and of the texts in `context`"
    )

    _is_shallow = field_validator("filter", mode="before")(must_be_shallow)

    @model_validator(mode="after")
    def _chooses_one_way(self) -> Self:
        if self.rerank is not None and self.beam_width > 1:
            raise ValueError("a second look selects every chunk by itself: give rerank or beam_width, not both")
        return self


class RetrieveIn(EpisodeIn):
    """A question, where and how to search for its evidence, and what to report of each step."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"question": "Where did the office of the person who signed the lease move?", "max_steps": 4},
                {
                    "question": "Who signed the lease?",
                    "collection": "default",
                    "filter": {"and": [{"field": "year", "gte": 2020}, {"not": {"field": "tags", "equals": "draft"}}]},
                    "trace": True,
                },
            ],
            "allOf": NO_BEAM_BESIDE_RERANK,
        }
    )

    trace: bool = Field(default=False, description="report the best candidates of each step, and the one-step answer")
    heatmap: Annotated[int, Field(ge=1, le=MAX_STRETCHES), BeforeValidator(whole_number)] | None = Field(
        default=None,
        description="for each step, report the largest Q-value in each of this many equal stretches of the documents "
        "that hold a selected chunk or one of the best candidates",
    )


class SufficiencyOut(ResponseModel):
    """Calibrated probabilities about the selected chunks; the rest to 1 is that going on completes the evidence."""

    complete: float = Field(ge=0, le=1, description="the selected chunks hold all of the evidence")
    hopeless: float = Field(ge=0, le=1, description="they do not, and going on would not find the rest")


class SelectedChunk(ResponseModel):
    """A selected chunk, and the step that selected it (0 is the first)."""

    document_id: str
    title: str | None
    index: int
    start: int
    end: int
    text: str
    step: int
    q: float
    metadata: dict[str, JsonValue]
    location: Location = Field(default_factory=Location, description="where it begins in the document's file")


class CandidateOut(ResponseModel):
    """A chunk that could have been selected."""

    document_id: str
    index: int
    q: float


class HeatMapOut(ResponseModel):
    """The Q-values of a whole document at one step."""

    document_id: str
    chunks: int = Field(description="of the document")
    borders: list[int] = Field(
        description="its chunks that were selected before this step, in document order: where its intervals begin"
    )
    q: list[float | None] = Field(
        description="the largest Q-value of each stretch, as the search estimates it; chunk `i` is in stretch "
        "`i * len(q) // chunks`. A document with fewer chunks than stretches has one value a chunk. null: nothing "
        "there was scored, or it is selected"
    )


class TermOut(ResponseModel):
    """What a token that the state weighs adds to a Q-value."""

    token: str = Field(description="as the checkpoint's tokenizer spells it; `##` marks the rest of a word")
    q: float


class PartsOut(ResponseModel):
    """The summands of a Q-value: `constant + meaning + order + surroundings` and those of `terms`."""

    constant: float = Field(description="the same for all chunks")
    meaning: float = Field(description="how like question and evidence the chunk is, wherever it stands")
    order: float = Field(description="what its position among the selected chunks adds")
    spread: float = Field(
        description="how much the Q-value of this chunk varies over all positions that it could have; 0 where the "
        "question does not ask about order"
    )
    surroundings: float = Field(
        description="what the average of meaning and order with those of the chunks right before and after it changes; "
        "0 where they do not count"
    )
    terms: list[TermOut] = Field(description="largest first")


class StepOut(ResponseModel):
    """One step of the episode."""

    step: int
    q: float
    document_id: str
    index: int
    sufficiency: SufficiencyOut | None = Field(description="of the chunks selected before this step")
    candidates: list[CandidateOut] | None = Field(
        default=None, description="with `trace`: the best candidates of this step, best first"
    )
    parts: PartsOut | None = Field(default=None, description="with `trace`: what `q` is made of")
    rerank_score: float | None = Field(
        default=None, description="with `rerank`: the score by which the chunk was selected"
    )
    heatmap: list[HeatMapOut] | None = Field(
        default=None,
        description="with `heatmap`: at most eight documents, that of the best candidate first, then "
        "those of chunks selected before",
    )


class StepEvent(StepOut):
    """A step as it is streamed, with the chunk it selected."""

    chunk: SelectedChunk


class Citation(ResponseModel):
    """The passage that a marker in `context` stands for."""

    marker: str = Field(examples=["[1]"])
    document_id: str
    title: str | None
    index: int
    start: int
    end: int
    location: Location = Field(default_factory=Location)


class Usage(ResponseModel):
    """The size of the request's work, in tokens of the checkpoint's tokenizer."""

    question_tokens: int
    context_tokens: int
    candidates: int = Field(description="chunks that were searched at each step")
    exact: bool = Field(
        description="whether the Q-value of every candidate was looked at; a whole collection beyond "
        "QRAG_PRESELECT_ABOVE chunks is searched through an index of nearest neighbours"
    )
    truncated_tokens: int = Field(
        description="tokens of selected chunks that the state tower could not read; `chunks` and `context` "
        "always hold the whole text"
    )


class Timings(ResponseModel):
    """The durations of the request's phases, in milliseconds."""

    queue_ms: float = Field(description="waiting for a place in the engine")
    encode_ms: float = Field(description="state tower; shared with the requests stepped together")
    search_ms: float = Field(description="scoring every candidate and taking the best")
    rerank_ms: float = Field(default=0.0, description="with `rerank`: the second look")
    total_ms: float


class RetrieveOut(ResponseModel):
    """The evidence: chunks, and a context ready to be pasted into a prompt."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RESULT]})

    chunks: list[SelectedChunk]
    context: str
    citations: list[Citation]
    steps: list[StepOut]
    one_step: list[CandidateOut] | None = Field(
        default=None, description="with `trace`: what one-step dense retrieval would have returned, by inner product"
    )
    stopped_by: StoppedBy = Field(
        description="`budget`: `max_steps` are selected. A rule: `threshold`, `action`, `sufficiency`; of the "
        "last `sufficient` or `hopeless` where that is what the evidence most likely is. `context`: the best chunk "
        "does not fit any more. `exhausted`: no chunk is left"
    )
    sufficiency: SufficiencyOut | None = Field(
        description="of all selected chunks; null where the checkpoint was not calibrated"
    )
    usage: Usage
    model: str
    timings: Timings
