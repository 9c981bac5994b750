"""Conditions on a document's metadata.

A condition compares one field; ``and``, ``or`` and ``not`` combine conditions. Values are compared
strictly by type: numbers with numbers, strings with strings, and ``true`` is not ``1``. A
document without the field meets no condition on it. Where a document's value is a list, it meets a condition
if one of its members does.
"""

from __future__ import annotations

import operator
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
    Tag,
    model_validator,
)

Scalar = StrictBool | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)] | StrictStr | None
"""A value that a field is compared with for equality."""

Ordered = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)] | StrictStr
"""A value that a field is ordered by: number with number, string with string."""

Metadata = Mapping[str, Any]
"""The metadata of one document."""

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
"""The comparisons of order by their names."""


class _Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_COMPARES_NOTHING: dict[str, JsonValue] = {
    "not": {"required": ["equals"]},
    "properties": {name: {"type": "null"} for name in ("in", *_ORDER)},
}
"""JSON Schema of a condition without a comparison, which is refused."""


class Condition(_Node):
    """A comparison of one metadata field; several comparisons must all hold."""

    model_config = ConfigDict(json_schema_extra={"not": _COMPARES_NOTHING})

    field: str = Field(min_length=1, max_length=200, examples=["year"])
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
        bounds = (self.is_in, self.gt, self.gte, self.lt, self.lte)
        if "equals" not in self.model_fields_set and all(bound is None for bound in bounds):
            raise ValueError("give at least one of equals, in, gt, gte, lt, lte")
        return self

    def matches(self, metadata: Metadata) -> bool:
        """Whether the metadata meets every comparison."""
        if self.field not in metadata:
            return False
        value = metadata[self.field]
        return any(self._holds(member) for member in value) if isinstance(value, list) else self._holds(value)

    @cached_property
    def _members(self) -> frozenset[tuple[bool, object]]:
        return frozenset(map(_typed, self.is_in or ()))

    def _holds(self, value: object) -> bool:
        if "equals" in self.model_fields_set and not _same(value, self.equals):
            return False
        if self.is_in is not None and (isinstance(value, dict | list) or _typed(value) not in self._members):
            return False
        return all(
            _comparable(value, bound) and compare(value, bound)
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


def _typed(value: object) -> tuple[bool, object]:
    """The value with its kind, which tells true from 1: for Python they are equal."""
    return isinstance(value, bool), value


def _same(value: object, other: object) -> bool:
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    return value == other


def _comparable(value: object, bound: object) -> bool:
    if isinstance(bound, str):
        return isinstance(value, str)
    return isinstance(value, int | float) and not isinstance(value, bool)


for _model in (All, AnyOf, Not):
    _model.model_rebuild()
