"""The client of a Q-RAG service: ``from qrag import Client, AsyncClient``.

::

    wire           every model that crosses HTTP, and the words that both sides use
    client         calls as values, the flows around them, and the two clients that carry these out
    evaluation     figures on one's own questions, and their report
    cli            the command ``qrag``
    integrations   retrievers for LangChain, LlamaIndex and Haystack

Data flows one way: arguments -> call (a value) -> HTTP -> answer (a model of :mod:`qrag.wire`). The service imports
:mod:`qrag.wire` too, so a name is imported when it is first used: importing :mod:`qrag` imports no HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qrag.client.awaiting import AsyncClient
    from qrag.client.blocking import Client
    from qrag.client.errors import (
        ApiError,
        Conflict,
        FileChanged,
        Forbidden,
        IndexingFailed,
        InvalidRequest,
        NotFound,
        Overloaded,
        QRagClientError,
        ServerError,
        StorageFull,
        Unauthorized,
        UnexpectedAnswer,
        UnknownFileType,
        Unreachable,
    )
    from qrag.client.flows import Retries
    from qrag.client.options import AnswerOptions, BatchOptions, DocumentOptions, RetrieveOptions
    from qrag.wire.asking.answers import AnswerOut
    from qrag.wire.asking.batches import BatchItem, BatchQuestion
    from qrag.wire.chunking import Chunking
    from qrag.wire.documents import ChunkOut, ChunkReference, CollectionOut, DocumentIn, DocumentOut
    from qrag.wire.feedback import FeedbackOut, Judgement, QuestionOut
    from qrag.wire.operations import ModelOut
    from qrag.wire.retrieval import RetrieveOut, SelectedChunk, StepEvent
    from qrag.wire.rules import Stop

_ERRORS = (
    *("ApiError", "Conflict", "FileChanged", "Forbidden", "IndexingFailed", "InvalidRequest", "NotFound"),
    *("Overloaded", "QRagClientError", "ServerError", "StorageFull", "Unauthorized", "UnexpectedAnswer"),
    *("UnknownFileType", "Unreachable"),
)
_MODULES = {
    "AsyncClient": "qrag.client.awaiting",
    "Client": "qrag.client.blocking",
    **dict.fromkeys(_ERRORS, "qrag.client.errors"),
    "Retries": "qrag.client.flows",
    **dict.fromkeys(("AnswerOptions", "BatchOptions", "DocumentOptions", "RetrieveOptions"), "qrag.client.options"),
    "AnswerOut": "qrag.wire.asking.answers",
    **dict.fromkeys(("BatchItem", "BatchQuestion"), "qrag.wire.asking.batches"),
    "Chunking": "qrag.wire.chunking",
    **dict.fromkeys(
        ("ChunkOut", "ChunkReference", "CollectionOut", "DocumentIn", "DocumentOut"), "qrag.wire.documents"
    ),
    **dict.fromkeys(("FeedbackOut", "Judgement", "QuestionOut"), "qrag.wire.feedback"),
    "ModelOut": "qrag.wire.operations",
    **dict.fromkeys(("RetrieveOut", "SelectedChunk", "StepEvent"), "qrag.wire.retrieval"),
    "Stop": "qrag.wire.rules",
}
"""The module of each public name."""

__all__ = [
    "AnswerOptions",
    "AnswerOut",
    "ApiError",
    "AsyncClient",
    "BatchItem",
    "BatchOptions",
    "BatchQuestion",
    "ChunkOut",
    "ChunkReference",
    "Chunking",
    "Client",
    "CollectionOut",
    "Conflict",
    "DocumentIn",
    "DocumentOptions",
    "DocumentOut",
    "FeedbackOut",
    "FileChanged",
    "Forbidden",
    "IndexingFailed",
    "InvalidRequest",
    "Judgement",
    "ModelOut",
    "NotFound",
    "Overloaded",
    "QRagClientError",
    "QuestionOut",
    "Retries",
    "RetrieveOptions",
    "RetrieveOut",
    "SelectedChunk",
    "ServerError",
    "StepEvent",
    "Stop",
    "StorageFull",
    "Unauthorized",
    "UnexpectedAnswer",
    "UnknownFileType",
    "Unreachable",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
