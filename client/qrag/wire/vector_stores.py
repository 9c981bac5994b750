"""Request and answer of ``POST /v1/vector_stores/{id}/search``: the part of OpenAI's schema that has a meaning here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, StrictBool, field_validator

from qrag.wire import examples
from qrag.wire.filters import Ordered
from qrag.wire.models import RequestModel, ResponseModel
from qrag.wire.retrieval import PositiveInteger, Question, must_be_shallow

MAX_RESULTS = 50
"""Most results of a search."""

MAX_QUERIES = 8
"""Most queries of a search."""

Key = Annotated[str, Field(min_length=1, max_length=200, description="the metadata field", examples=["year"])]
"""The name of a metadata field."""


class EqualityFilter(RequestModel):
    """The field has this value (`eq`), or has not (`ne`); a document without the field has not."""

    type: Literal["eq", "ne"]
    key: Key
    value: Ordered | StrictBool


class OrderFilter(RequestModel):
    """The field is greater or less than the value, number with number and string with string."""

    type: Literal["gt", "gte", "lt", "lte"]
    key: Key
    value: Ordered


class MembershipFilter(RequestModel):
    """The field has one of these values (`in`), or none of them (`nin`)."""

    type: Literal["in", "nin"]
    key: Key
    value: list[Ordered] = Field(max_length=1000)


class CompoundFilter(RequestModel):
    """All of the filters match (`and`), or at least one of them does (`or`)."""

    type: Literal["and", "or"]
    filters: list[AttributeFilter] = Field(min_length=1, max_length=100)


AttributeFilter = Annotated[
    EqualityFilter | OrderFilter | MembershipFilter | CompoundFilter,
    Discriminator("type"),
]
"""A comparison, or a combination of filters, in OpenAI's words."""

CompoundFilter.model_rebuild()


def _must_be_ours(ranker: object) -> object:
    if isinstance(ranker, str) and ranker not in ("auto", "none"):
        raise ValueError("there is no such ranker here: leave it out, or say 'auto' or 'none', which mean the episode")
    return ranker


class RankingOptions(RequestModel):
    """Which results count."""

    ranker: Annotated[Literal["auto", "none"], BeforeValidator(_must_be_ours)] = Field(
        default="auto", description="both mean the episode: what it selects is not ranked again"
    )
    score_threshold: float = Field(default=0, ge=0, le=1, description="results with a smaller score are left out")


def _must_be_off(rewrite: object) -> object:
    if rewrite is True:
        raise ValueError("queries are not rewritten here, the episode searches several times instead: leave it out")
    return rewrite


class SearchIn(RequestModel):
    """A search as OpenAI's clients send it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "Who signed the lease?"},
                {
                    "query": ["Who signed the lease?", "Where did the office move?"],
                    "max_num_results": 4,
                    "filters": {
                        "type": "and",
                        "filters": [
                            {"type": "gte", "key": "year", "value": 2020},
                            {"type": "nin", "key": "kind", "value": ["draft"]},
                        ],
                    },
                    "ranking_options": {"score_threshold": 0.1},
                },
            ]
        }
    )

    query: Question | Annotated[list[Question], Field(min_length=1, max_length=MAX_QUERIES)] = Field(
        description="a question, or several: each is an episode, and the results of all are merged"
    )
    filters: AttributeFilter | None = Field(default=None, description="search only documents whose metadata matches")
    max_num_results: PositiveInteger = Field(
        default=10, le=MAX_RESULTS, description="most results; an episode ends earlier where more would not help"
    )
    ranking_options: RankingOptions = RankingOptions()
    rewrite_query: Annotated[Literal[False], BeforeValidator(_must_be_off)] = False

    _is_shallow = field_validator("filters", mode="before")(must_be_shallow)


class TextContent(ResponseModel):
    """The text of a result."""

    type: Literal["text"] = "text"
    text: str


class SearchResult(ResponseModel):
    """A selected chunk."""

    file_id: str = Field(description="the document's id")
    filename: str = Field(description="its title, or its id where it has none")
    score: float = Field(ge=0, le=1, description="the Q-value of the step that selected the chunk, kept within 0 and 1")
    attributes: dict[str, str | bool | int | float] = Field(
        description="the document's metadata, as far as OpenAI's schema has room for it: texts, numbers, true and false"
    )
    content: list[TextContent] = Field(description="one: the chunk")


class SearchPage(ResponseModel):
    """The results, best score first; there is always one page."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SEARCH_PAGE]})

    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str] = Field(description="the queries as they were asked")
    data: list[SearchResult]
    has_more: Literal[False] = False
    next_page: None = None
