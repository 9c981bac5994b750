"""What the document of a framework says about a selected chunk, beside its text."""

from __future__ import annotations

from pydantic import JsonValue

from qrag.wire.retrieval import RetrieveOut, SelectedChunk


def chunk_id(chunk: SelectedChunk) -> str:
    """The same for the same chunk in every answer; no document id has a slash."""
    return f"{chunk.document_id}/{chunk.index}"


def description(chunk: SelectedChunk, answer: RetrieveOut) -> dict[str, JsonValue]:
    """``document_id``, ``title``, ``index``, ``start``, ``end``, ``step`` and ``q``; of the answer, ``stopped_by`` and
    ``sufficiency``.
    """
    episode = answer.model_dump(mode="json", include={"stopped_by", "sufficiency"})
    return chunk.model_dump(mode="json", exclude={"text", "metadata"}) | episode


def metadata(chunk: SelectedChunk, answer: RetrieveOut) -> dict[str, JsonValue]:
    """The same over the metadata of the document, which it hides where the names are the same."""
    return chunk.metadata | description(chunk, answer)
