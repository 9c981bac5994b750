"""The base classes of all models, what their fields and schemas share, and errors as they cross HTTP."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue


def whole_number(value: object) -> object:
    """Convert ``4.0`` to the integer that JSON Schema takes it for, and return any other value unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


PositiveInteger = Annotated[int, Field(ge=1), BeforeValidator(whole_number)]
"""A positive integer as JSON Schema defines integers: `4.0` is one, `"4"` is not."""


NUMBER: dict[str, JsonValue] = {"type": "number"}
"""JSON Schema of a number."""


def never(**fields: JsonValue) -> JsonValue:
    """JSON Schema of an object that does not have all of these fields with these values."""
    return {"not": {"properties": {**fields}, "required": [*fields]}}


class FrozenModel(BaseModel):
    """An immutable value without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestModel(FrozenModel):
    """The body of a request: immutable, without unknown fields, and validated without conversion."""

    model_config = ConfigDict(strict=True)


class ResponseModel(BaseModel):
    """The body of an answer. Unknown fields are ignored, so that an older client can read a newer service."""

    model_config = ConfigDict(frozen=True)


class Problem(ResponseModel):
    """An error in the format of RFC 9457; `code` is stable, `detail` says what to do."""

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    code: str = Field(examples=["unknown_document"])
    detail: str
    errors: list[dict[str, JsonValue]] | None = Field(default=None, description="for invalid requests: where and why")
