"""Conditions on a document's metadata, and on where its chunks stand.

A condition compares one field; ``and``, ``or`` and ``not`` combine conditions. Values are compared
strictly by type: numbers with numbers, strings with strings, and ``true`` is not ``1``. A document without the field
meets no condition on it but ``exists: false``. Where a document's value is a list, it meets a condition if one of its
members does. A name with dots leads into nested objects where no field has the whole name. Names and strings are
compared in Unicode's normal form NFC: the two spellings of ü are one.
"""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

Scalar = StrictBool | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)] | StrictStr | None
"""A value that a field is compared with for equality."""

Ordered = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)] | StrictStr
"""A value that a field is ordered by: number with number, string with string."""

Metadata = Mapping[str, Any]
"""The metadata of one document."""

MAX_FILTER_LEVELS = 64
"""Most levels of objects and lists in a filter."""

MAX_FILTER_VALUES = 3000
"""Most names and values in a filter."""

_SURROGATE = re.compile("[\ud800-\udfff]")

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
"""The comparisons of order by their names."""


class _Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_ABSENT = object()
"""The value of a field that a document does not have."""

_COMPARES_NOTHING: dict[str, JsonValue] = {
    "not": {"required": ["equals"]},
    "properties": {name: {"type": "null"} for name in ("in", "exists", *_ORDER)},
}
"""JSON Schema of a condition without a comparison, which is refused."""


class Condition(_Node):
    """A comparison of one metadata field; several comparisons must all hold."""

    model_config = ConfigDict(json_schema_extra={"not": _COMPARES_NOTHING})

    field: str = Field(
        min_length=1, max_length=200, examples=["year"], description="its name; dots lead into nested objects"
    )
    exists: StrictBool | None = Field(default=None, description="the field is there, or (false) is not")
    equals: Scalar = Field(default=None, description="the field has this value")
    is_in: list[Scalar] | None = Field(
        default=None, alias="in", max_length=1000, description="it has one of these values"
    )
    gt: Ordered | None = Field(default=None, description="it is greater")
    gte: Ordered | None = Field(default=None, description="it is greater or equal")
    lt: Ordered | None = Field(default=None, description="it is less")
    lte: Ordered | None = Field(default=None, description="it is less or equal")

    @model_validator(mode="after")
    def _compares_something(self) -> Condition:
        bounds = (self.is_in, self.exists, self.gt, self.gte, self.lt, self.lte)
        if "equals" not in self.model_fields_set and all(bound is None for bound in bounds):
            raise ValueError("give at least one of equals, in, exists, gt, gte, lt, lte")
        return self

    def matches(self, metadata: Metadata) -> bool:
        """Whether the metadata meets every comparison."""
        value = _value(metadata, self.field)
        if self.exists is not None and self.exists == (value is _ABSENT):
            return False
        if value is _ABSENT or not self._compares_values:
            return not self._compares_values
        return any(self._holds(member) for member in value) if isinstance(value, list) else self._holds(value)

    @cached_property
    def _compares_values(self) -> bool:
        """Whether it asks for more than whether the field is there."""
        return "equals" in self.model_fields_set or any(
            bound is not None for bound in (self.is_in, self.gt, self.gte, self.lt, self.lte)
        )

    @cached_property
    def _members(self) -> frozenset[tuple[bool, object]]:
        return frozenset(map(_typed, self.is_in or ()))

    def _holds(self, value: object) -> bool:
        if "equals" in self.model_fields_set and not _same(value, self.equals):
            return False
        if self.is_in is not None and (isinstance(value, dict | list) or _typed(value) not in self._members):
            return False
        return all(
            _comparable(value, bound) and compare(_normal(value), _normal(bound))
            for name, compare in _ORDER.items()
            if (bound := getattr(self, name)) is not None
        )


class All(_Node):
    """Every one of the filters matches."""

    filters: list[Filter] = Field(alias="and", min_length=1, max_length=100)

    def matches(self, metadata: Metadata) -> bool:
        """Whether all match."""
        return all(filter.matches(metadata) for filter in self.filters)


class AnyOf(_Node):
    """At least one of the filters matches."""

    filters: list[Filter] = Field(alias="or", min_length=1, max_length=100)

    def matches(self, metadata: Metadata) -> bool:
        """Whether one matches."""
        return any(filter.matches(metadata) for filter in self.filters)


class Not(_Node):
    """The filter does not match."""

    negated: Filter = Field(alias="not")

    def matches(self, metadata: Metadata) -> bool:
        """Whether the filter does not match."""
        return not self.negated.matches(metadata)


def _kind(value: object) -> str:
    """The tag of a filter, as JSON has it or as one that was validated before."""
    if isinstance(value, _Node):
        return _TAGS[type(value)]
    if isinstance(value, Mapping):
        for name in ("and", "or", "not"):
            if name in value:
                return name
    return "condition"


Filter = Annotated[
    Annotated[Condition, Tag("condition")]
    | Annotated[All, Tag("and")]
    | Annotated[AnyOf, Tag("or")]
    | Annotated[Not, Tag("not")],
    Discriminator(_kind),
]
"""A condition, or a combination of filters."""


_TAGS: Mapping[type[_Node], str] = {Condition: "condition", All: "and", AnyOf: "or", Not: "not"}


def _typed(value: object) -> tuple[bool, object]:
    """The value with its kind, which tells true from 1: for Python they are equal."""
    return isinstance(value, bool), _normal(value)


def _normal(value: Any) -> Any:
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def _value(metadata: Metadata, name: str) -> object:
    """The value of a field, or :data:`_ABSENT`."""
    if name in metadata:
        return metadata[name]
    wanted = _normal(name)
    for other, value in metadata.items():
        if _normal(other) == wanted:
            return value
    first, dot, rest = name.partition(".")
    while dot:
        inner = metadata.get(first)
        if isinstance(inner, Mapping) and (found := _value(inner, rest)) is not _ABSENT:
            return found
        more, dot, rest = rest.partition(".")
        first = f"{first}.{more}"
    return _ABSENT


def _same(value: object, other: object) -> bool:
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    return bool(_normal(value) == _normal(other))


def _comparable(value: object, bound: object) -> bool:
    if isinstance(bound, str):
        return isinstance(value, str)
    return isinstance(value, int | float) and not isinstance(value, bool)


for _model in (All, AnyOf, Not):
    _model.model_rebuild()


def must_be_shallow(filter: object) -> object:
    """Refuse a filter that is nested too deep or too long, which would keep the service busy, or that is no text."""
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
        if any(isinstance(node, str) and _SURROGATE.search(node) for node in level):
            raise ValueError("a filter holds half a character: send whole ones, not lone surrogates")
    return filter


# -- where chunks stand -----------------------------------------------------------------------------------------------

Number = Annotated[int, Field(ge=1, le=2**31)]


class Range(_Node):
    """Numbers from one to another, both included."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"first": 3, "last": 7}]})

    first: Number = 1
    last: Number = 2**31

    @model_validator(mode="after")
    def _holds_something(self) -> Range:
        if self.first > self.last:
            raise ValueError(f"no number is from {self.first} to {self.last}: first must not be greater than last")
        return self

    def holds(self, number: object) -> bool:
        """Whether a number lies in it."""
        return isinstance(number, int) and self.first <= number <= self.last


class LocationFilter(_Node):
    """Conditions on where a chunk begins in its file; all that are given must hold.

    The other chunks cannot be selected, and the positions of chunks still count the whole document.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"headings": ["Costs"], "page": {"first": 3, "last": 7}}]}
    )

    page: Number | Range | None = Field(None, description="number of the page or slide, or a range of them")
    label: str | None = Field(None, max_length=200, description="what the file calls the page")
    headings: list[Annotated[str, StringConstraints(max_length=1000)]] | None = Field(
        None, min_length=1, max_length=20, description="headings that stand above it, in any case and order"
    )
    sheet: str | None = Field(None, max_length=1000, description="name of the sheet")
    row: Number | Range | None = Field(None, description="number of the row, record or line, or a range of them")

    @field_validator("headings", mode="before")
    @classmethod
    def _one_or_several(cls, headings: object) -> object:
        return [headings] if isinstance(headings, str) else headings

    def matches(self, location: Mapping[str, Any]) -> bool:
        """Whether a place meets every condition; one that is not known meets none."""
        return (
            _number_matches(self.page, location.get("page"))
            and _number_matches(self.row, location.get("row"))
            and (self.label is None or _normal(self.label) == _normal(location.get("label")))
            and (self.sheet is None or _normal(self.sheet) == _normal(location.get("sheet")))
            and {_folded(heading) for heading in self.headings or ()}
            <= {_folded(heading) for heading in location.get("headings", ())}
        )


def _number_matches(wanted: int | Range | None, number: object) -> bool:
    if isinstance(wanted, Range):
        return wanted.holds(number)
    return wanted is None or wanted == number


def _folded(heading: str) -> str:
    return unicodedata.normalize("NFC", " ".join(heading.split()).casefold())
