"""A client of the service, blocking or awaiting: ``from service.client import Client, AsyncClient``.

Light to import: no torch, no web framework. Questions and answers are the very models that the service has.
"""

from index.chunking import Chunking
from service.client.awaiting import AsyncClient
from service.client.blocking import Client
from service.client.errors import (
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
from service.client.flows import Retries
from service.client.options import DocumentOptions, RetrieveOptions
from service.retrieval_schemas import RetrieveOut, SelectedChunk, StepEvent, Stop
from service.schemas import ChunkOut, CollectionOut, DocumentIn, DocumentOut, ModelOut

__all__ = [
    "ApiError",
    "AsyncClient",
    "ChunkOut",
    "Chunking",
    "Client",
    "CollectionOut",
    "Conflict",
    "DocumentIn",
    "DocumentOptions",
    "DocumentOut",
    "FileChanged",
    "Forbidden",
    "IndexingFailed",
    "InvalidRequest",
    "ModelOut",
    "NotFound",
    "Overloaded",
    "QRagClientError",
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
