"""The selected chunks as one text for a prompt, with markers to cite."""

from __future__ import annotations

from collections.abc import Sequence

from qrag.wire.documents import Location
from qrag.wire.retrieval import Citation, SelectedChunk


def block(number: int, title: str, location: Location, text: str) -> str:
    """One chunk as it stands in the context, below its document and its place there."""
    place = location.words()
    return f"[{number}] {title} ({place})\n{text}\n\n" if place else f"[{number}] {title}\n{text}\n\n"


def render(chunks: Sequence[SelectedChunk]) -> tuple[str, list[Citation]]:
    """The context, and what each marker in it stands for."""
    blocks = [
        block(number, chunk.title or chunk.document_id, chunk.location, chunk.text)
        for number, chunk in enumerate(chunks, 1)
    ]
    citations = [
        Citation(
            marker=f"[{number}]",
            document_id=chunk.document_id,
            title=chunk.title,
            index=chunk.index,
            start=chunk.start,
            end=chunk.end,
            location=chunk.location,
        )
        for number, chunk in enumerate(chunks, 1)
    ]
    return "".join(blocks).rstrip(), citations
