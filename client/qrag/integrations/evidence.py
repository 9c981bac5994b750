"""The id and the metadata of a selected chunk, for the documents of the frameworks."""

from __future__ import annotations

from pydantic import JsonValue

from qrag.wire.retrieval import RetrieveOut, SelectedChunk


def chunk_id(chunk: SelectedChunk) -> str:
    """The id of a chunk, the same in every answer; document ids contain no slash, so it is unique."""
    return f"{chunk.document_id}/{chunk.index}"


def description(chunk: SelectedChunk, answer: RetrieveOut) -> dict[str, JsonValue]:
    """The fields ``document_id``, ``title``, ``index``, ``start``, ``end``, ``step``, ``q``, ``location`` and ``parts``
    of the chunk, and ``stopped_by``, ``sufficiency`` and ``continuation`` of the answer.
    """
    episode = answer.model_dump(mode="json", include={"stopped_by", "sufficiency", "continuation"})
    return chunk.model_dump(mode="json", exclude={"text", "metadata"}) | episode


def metadata(chunk: SelectedChunk, answer: RetrieveOut) -> dict[str, JsonValue]:
    """The metadata of the document and the :func:`description`, which wins where both have a name."""
    return chunk.metadata | description(chunk, answer)
