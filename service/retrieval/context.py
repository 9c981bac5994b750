"""The selected chunks as one text for a prompt, with markers to cite."""

from __future__ import annotations

from collections.abc import Sequence

from qrag.wire.retrieval import Citation, SelectedChunk


def block(number: int, title: str | None, document_id: str, text: str) -> str:
    """One chunk as it stands in the context."""
    return f"[{number}] {title or document_id}\n{text}\n\n"


def render(chunks: Sequence[SelectedChunk]) -> tuple[str, list[Citation]]:
    """The context, and what each marker in it stands for."""
    blocks = [block(number, chunk.title, chunk.document_id, chunk.text) for number, chunk in enumerate(chunks, 1)]
    citations = [
        Citation(
            marker=f"[{number}]",
            document_id=chunk.document_id,
            title=chunk.title,
            index=chunk.index,
            start=chunk.start,
            end=chunk.end,
        )
        for number, chunk in enumerate(chunks, 1)
    ]
    return "".join(blocks).rstrip(), citations
