"""The bases of all models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class FrozenModel(BaseModel):
    """A value: nothing unknown in it, and nothing about it changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestModel(FrozenModel):
    """A request's body: in addition, nothing is converted."""

    model_config = ConfigDict(strict=True)


class ResponseModel(BaseModel):
    """An answer's body. Unknown fields are ignored, so that an older client reads a newer service."""

    model_config = ConfigDict(frozen=True)
