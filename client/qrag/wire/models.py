"""The base classes of all models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """An immutable value without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestModel(FrozenModel):
    """The body of a request: immutable, without unknown fields, and validated without conversion."""

    model_config = ConfigDict(strict=True)


class ResponseModel(BaseModel):
    """The body of an answer. Unknown fields are ignored, so that an older client can read a newer service."""

    model_config = ConfigDict(frozen=True)
