"""Vector store search and the list of models: the parts of OpenAI's schema that have a meaning here."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, StrictBool, field_validator

from qrag.wire import examples
from qrag.wire.filters import Ordered, must_be_shallow
from qrag.wire.models import PositiveInteger, RequestModel, ResponseModel
from qrag.wire.retrieval import Question

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


Ranker = Literal["auto", "none", "default-2024-11-15"]
"""The rankers that OpenAI's client knows."""


def _must_be_ours(ranker: object) -> object:
    if isinstance(ranker, str) and ranker not in get_args(Ranker):
        raise ValueError(f"there is no such ranker here: leave it out, or say one of {', '.join(get_args(Ranker))}")
    return ranker


class RankingOptions(RequestModel):
    """Which results count."""

    ranker: Annotated[Ranker | None, BeforeValidator(_must_be_ours)] = Field(
        default="auto", description="each means the episode: what it selects is not ranked again"
    )
    score_threshold: float | None = Field(
        default=0, ge=0, le=1, description="results with a smaller score are left out; null: none"
    )


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
        description="the document's metadata, as far as OpenAI's schema has room for it: texts, numbers, true and "
        "false; beside it where the chunk begins in the document's file: page, label, headings, sheet, row"
    )
    content: list[TextContent] = Field(description="one: the chunk")


class ServedModel(ResponseModel):
    """A model in the form that OpenAI's clients ask for when they start: the served checkpoint."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SERVED_MODEL]})

    id: str = Field(description="the checkpoint's own name, as `model` in answers of `/retrieve`")
    object: Literal["model"] = "model"
    created: Literal[0] = Field(default=0, description="0: a checkpoint does not say when it was made")
    owned_by: Literal["qrag"] = "qrag"


class ServedModels(ResponseModel):
    """All models: the one that is served."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"object": "list", "data": [examples.SERVED_MODEL]}]})

    object: Literal["list"] = "list"
    data: list[ServedModel]


class SearchPage(ResponseModel):
    """The results, best score first; there is always one page."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SEARCH_PAGE]})

    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str] = Field(description="the queries as they were asked")
    data: list[SearchResult]
    has_more: Literal[False] = False
    next_page: None = None
