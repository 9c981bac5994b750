"""What indexing and re-embedding need of an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from index.arrays import Float32Array, TokenIds
from index.chunking import Tokenizer
from index.indexing.batches import ChunkText

Embed = Callable[[Sequence[TokenIds]], Float32Array]
"""Maps complete inputs of the action tower to embeddings, shape ``[inputs, d]``."""


class ActionEncoder(Protocol):
    """What indexing needs of :class:`index.encoders.encoder.Encoder`."""

    @property
    def chunk_tokenizer(self) -> Tokenizer:
        """Counts tokens the way the action tower does."""

    @property
    def chunk_limit(self) -> int:
        """Most tokens of a chunk that the action tower reads whole."""

    @property
    def input_limit(self) -> int:
        """Most tokens of a complete input."""

    def action_inputs(self, texts: Sequence[str]) -> list[list[int]]:
        """Complete inputs of the action tower."""

    def chunk_text(self, heading: str, text: str) -> str:
        """What is read of a chunk: its text, and its heading where the towers read it."""

    def terms(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of chunks for the lexical signal."""


def read_texts(encoder: ActionEncoder, chunks: Iterable[ChunkText]) -> list[str]:
    """What an encoder reads of chunks."""
    return [encoder.chunk_text(chunk.heading, chunk.text) for chunk in chunks]
