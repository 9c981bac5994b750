"""Errors as they cross HTTP."""

from __future__ import annotations

from pydantic import Field, JsonValue

from qrag.wire.models import ResponseModel


class Problem(ResponseModel):
    """An error in the format of RFC 9457; `code` is stable, `detail` says what to do."""

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    code: str = Field(examples=["unknown_document"])
    detail: str
    errors: list[dict[str, JsonValue]] | None = Field(default=None, description="for invalid requests: where and why")
