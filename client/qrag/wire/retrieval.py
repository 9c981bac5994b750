"""Request and answer of ``POST /retrieve``: the question with its limits, and the evidence."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, field_validator, model_validator

from qrag.wire import examples
from qrag.wire.documents import ChunkReference, Location
from qrag.wire.filters import Filter, LocationFilter, must_be_shallow
from qrag.wire.models import NUMBER, PositiveInteger, RequestModel, ResponseModel, never, whole_number
from qrag.wire.names import CollectionName, DocumentId
from qrag.wire.rules import Stop, StoppedBy

MAX_STEPS = 32
"""Most chunks of one retrieval."""

MAX_GIVEN = 32
"""Most chunks that a request gives beside those of its continuation."""

MAX_EXCLUDED = 1000
"""Most chunks that a request excludes beside those of its continuation."""

MAX_TOTAL_CHUNKS = 128
"""Most chunks of a chain of calls, each of which goes on from the one before."""

MAX_CONTINUATION = 8192
"""Most characters of a continuation."""

MAX_BEAM_WIDTH = 16
"""Most paths of a beam."""

TRACE_CANDIDATES = 10
"""Candidates of each step that a trace shows."""

MAX_RERANKED = 100
"""Most chunks of a step that are looked at a second time."""

MAX_STRETCHES = 512
"""Most stretches of a document in a heat map."""


_BEAM: JsonValue = {"type": "number", "minimum": 2}
"""JSON Schema of a `beam_width` that plans ahead."""

QUESTION_AND_ONE_WAY: list[JsonValue] = [
    never(rerank=NUMBER, beam_width=_BEAM),
    never(continuation={"type": "string"}, beam_width=_BEAM),
    never(given={"minItems": 1}, beam_width=_BEAM),
    never(continuation={"type": "string"}, decompose={"const": True}),
    never(focus={"type": "string"}, decompose={"const": True}),
    {
        "anyOf": [
            {"properties": {name: {"type": "string"}}, "required": [name]} for name in ("question", "continuation")
        ]
    },
]
"""The checks of `EpisodeIn` and `RetrieveIn` across their fields as JSON Schema."""


def _must_say_something(question: str) -> str:
    if not question.strip():
        raise ValueError("this question is blank")
    return question


Question = Annotated[
    str,
    Field(min_length=1, max_length=100_000, json_schema_extra={"pattern": r"\S"}),
    AfterValidator(_must_say_something),
]
"""A question that is not blank."""


_HELD: JsonValue = [{"document_id": "franklin", "index": 44}]
"""An example of chunks that a caller holds."""


class EpisodeIn(RequestModel):
    """A question, or an episode to go on from, and where and how to search for the evidence."""

    question: Question | None = Field(default=None, description="may be left out with a `continuation`")
    focus: Question | None = Field(
        default=None,
        examples=["Who signed the lease?"],
        description="a sub-question on the way to the question: this call selects for it, as if it were asked by "
        "itself, of the chunks that are not held yet. A `continuation` goes on with the question, and every call may "
        "have another focus",
    )
    collection: CollectionName = "default"
    document_ids: list[DocumentId] | None = Field(
        default=None, min_length=1, max_length=1000, description="search only these documents of the collection"
    )
    filter: Filter | None = Field(default=None, description="search only documents whose metadata matches")
    location: LocationFilter | None = Field(
        default=None, description="select only chunks that stand there in their files; the whole documents are searched"
    )
    given: list[ChunkReference] = Field(
        default=[],
        max_length=MAX_GIVEN,
        examples=[_HELD],
        description="chunks that you hold already: the next are selected in their light, and they are not returned",
    )
    exclude: list[ChunkReference] = Field(
        default=[],
        max_length=MAX_EXCLUDED,
        examples=[_HELD],
        description="chunks that are never selected, and change nothing else",
    )
    continuation: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=MAX_CONTINUATION)] | None = Field(
        default=None,
        description="that of an answer, to go on from where it ended. What searched and how stays as it was: "
        "`question`, `collection`, `document_ids`, `filter` and `location` have to be the same or left out; `stop`, "
        "`rerank`, `max_context_tokens`, `max_total_chunks` and `order` may change",
    )
    max_total_chunks: PositiveInteger = Field(
        default=MAX_TOTAL_CHUNKS,
        le=MAX_TOTAL_CHUNKS,
        description="most chunks of a chain of calls: the given ones, those selected so far, and the new ones",
    )
    max_steps: PositiveInteger = Field(default=6, le=MAX_STEPS, description="most chunks to select in this call")
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
    def _asks_something(self) -> Self:
        if self.question is None and self.continuation is None:
            raise ValueError("give a question, or the continuation of an answer")
        return self

    @model_validator(mode="after")
    def _chooses_one_way(self) -> Self:
        if self.beam_width > 1:
            if self.rerank is not None:
                raise ValueError("a second look selects every chunk by itself: give rerank or beam_width, not both")
            if self.given or self.continuation is not None:
                raise ValueError("a beam begins with the question alone: leave out beam_width, given or continuation")
        return self


class RetrieveIn(EpisodeIn):
    """A question or an episode to go on from, where and how to search, and what to report of each step."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"question": "Where did the office of the person who signed the lease move?", "max_steps": 4},
                {
                    "question": "Where did the office of the person who signed the lease move?",
                    "focus": "Who signed the lease?",
                    "max_steps": 1,
                },
                {
                    "question": "Who signed the lease?",
                    "collection": "default",
                    "filter": {"and": [{"field": "year", "gte": 2020}, {"not": {"field": "tags", "equals": "draft"}}]},
                    "trace": True,
                },
            ],
            "allOf": QUESTION_AND_ONE_WAY,
        }
    )

    trace: bool = Field(default=False, description="report the best candidates of each step, and the one-step answer")
    heatmap: Annotated[int, Field(ge=1, le=MAX_STRETCHES), BeforeValidator(whole_number)] | None = Field(
        default=None,
        description="for each step, report the largest Q-value in each of this many equal stretches of the documents "
        "that hold a selected chunk or one of the best candidates",
    )
    decompose: bool = Field(
        default=False,
        description="let the language model split a question that joins several; the parts are answered from one read "
        "and their chunks are interleaved by rank. Needs LLM_BASE_URL and LLM_MODEL",
    )

    @model_validator(mode="after")
    def _splits_a_question(self) -> Self:
        if self.decompose and self.continuation is not None:
            raise ValueError("a continuation goes on with what was asked: leave out decompose")
        if self.decompose and self.focus is not None:
            raise ValueError("a focus is one part already: leave out decompose")
        return self


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
    parts: list[int] = Field(
        default=[], description="with `decompose`: which of the answer's `parts` it was found for, 0 is the first"
    )


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

    question_tokens: int = Field(description="of the question, or of the focus of this call")
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
    decompose_ms: float = Field(default=0.0, description="with `decompose`: the language model")
    rerank_ms: float = Field(default=0.0, description="with `rerank`: the second look")
    total_ms: float


class PartOut(ResponseModel):
    """A part of a question, and how its episode ended."""

    question: str
    stopped_by: StoppedBy = Field(description="by itself, before the chunks of all parts were cut to `max_steps`")
    sufficiency: SufficiencyOut | None = Field(
        description="of its first chunks, as far as they are returned, for this part alone"
    )


class RetrieveOut(ResponseModel):
    """The evidence: chunks, and a context ready to be pasted into a prompt."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RESULT]})

    focus: str | None = Field(
        default=None,
        examples=["Who signed the lease?"],
        description="the sub-question of this call, if it had one: what all Q-values here are about",
    )
    chunks: list[SelectedChunk]
    context: str
    citations: list[Citation]
    steps: list[StepOut]
    one_step: list[CandidateOut] | None = Field(
        default=None,
        description="with `trace`: what one-step dense retrieval would have returned, by inner product with the state "
        "that this call began with; the best 30, or `max_steps` where that is more",
    )
    stopped_by: StoppedBy = Field(
        description="`budget`: `max_steps` are selected. A rule: `threshold`, `action`, `sufficiency`; of the "
        "last `sufficient` or `hopeless` where that is what the evidence most likely is. `context`: the best chunk "
        "does not fit any more. `exhausted`: no chunk is left"
    )
    sufficiency: SufficiencyOut | None = Field(
        description="of all chunks that are held: given, selected before and selected now; with a `focus`, of those "
        "selected now, for the focus; null where the checkpoint was not calibrated"
    )
    continuation: str | None = Field(
        default=None,
        description="a token to go on from here; null where it would have more than 8,192 characters, for a long "
        "question, filter or list: give the chunks as `given` and `exclude` then",
    )
    parts: list[PartOut] | None = Field(
        default=None, description="with `decompose`: the questions that were searched for; one, if it was not split"
    )
    warnings: list[str] = Field(
        default=[], description="with `decompose`: why the question was not split although that was asked for"
    )
    usage: Usage
    model: str
    timings: Timings
