"""The base classes of all models, and errors as they cross HTTP."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue


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
