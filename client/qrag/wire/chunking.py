"""Chunking, as requests choose it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qrag.wire.models import FrozenModel

Mode = Literal["sentences", "lines", "paragraphs", "whole"]
"""What becomes a chunk: see :class:`Chunking`."""

DEFAULT_SENTENCE_TOKENS = 64
"""Most tokens of a chunk in the mode ``sentences``, unless a request says otherwise."""


class Chunking(FrozenModel):
    """How to cut a document into chunks."""

    mode: Mode = Field(
        default="sentences",
        description="`sentences` packs whole sentences up to `max_tokens`; `lines` makes each non-empty line a "
        "chunk, `paragraphs` each block between blank lines, `whole` the document. "
        "A piece longer than `max_tokens` is split at a word.",
    )
    max_tokens: int | None = Field(
        default=None,
        ge=8,
        le=65536,
        description="Most tokens in a chunk. Default: 64 for `sentences`, otherwise as many as the model reads.",
    )

    def token_limit(self, model_limit: int) -> int:
        """Most tokens of a chunk, for a model that reads at most ``model_limit`` tokens."""
        if self.max_tokens is not None:
            return min(self.max_tokens, model_limit)
        return min(DEFAULT_SENTENCE_TOKENS, model_limit) if self.mode == "sentences" else model_limit
