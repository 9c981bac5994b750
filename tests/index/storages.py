"""Small data directories with a cheap stand-in for the model."""

from __future__ import annotations

import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from index.arrays import Float32Array
from index.indexing.indexer import Indexer
from index.search.matrix_scope import MatrixScope
from index.storage.documents import Description, Published
from index.storage.local.opening import LocalStorage, open_storage
from index.storage.protocols import Storage
from index.storage.vectors import SearchScope
from qrag.wire.chunking import Chunking

DIMENSION = 8


class WordEncoder:
    """A word is a token; a chunk's input is its words' lengths."""

    chunk_limit = input_limit = 100

    @property
    def chunk_tokenizer(self) -> WordEncoder:
        return self

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def token_ends(self, text: str) -> list[int]:
        return [match.end() for match in re.finditer(r"\S+", text)]

    def chunk_text(self, heading: str, text: str) -> str:
        return f"{heading} {text}" if heading else text

    def terms(self, texts: Sequence[str]) -> list[list[int]]:
        return self.action_inputs(texts)

    def action_inputs(self, texts: Sequence[str]) -> list[list[int]]:
        return [[len(word) for word in text.split()] for text in texts]


def embed(inputs: Sequence[Sequence[int]]) -> Float32Array:
    """An embedding that depends on the input alone."""
    return np.stack([np.random.default_rng(list(ids)).standard_normal(DIMENSION, dtype=np.float32) for ids in inputs])


def open_local(
    directory: Path, *, dimension: int = DIMENSION, fingerprint: str = "words", embed_again: bool = False
) -> LocalStorage:
    """A data directory for vectors of this tower."""
    return open_storage(
        directory, dimension=dimension, fingerprint=fingerprint, device=torch.device("cpu"), embed_again=embed_again
    )


def post(storage: Storage, id: str, text: str, collection: str = "default", queue_limit: int = 1000) -> None:
    upload = storage.catalogue.begin_upload()
    upload.write(text)
    about = Description(id, collection, None, {}, Chunking(mode="lines"))
    storage.catalogue.publish([(upload, about)], replace=False, queue_limit=queue_limit)


def publish(
    storage: Storage, id: str | None, text: str, *, replace: bool = False, title: str | None = None, year: int = 2024
) -> Published:
    """A document, by several writes of one upload."""
    upload = storage.catalogue.begin_upload()
    for line in text.splitlines(keepends=True):
        upload.write(line)
    assert (upload.characters, upload.bytes) == (len(text), len(text.encode()))
    about = Description(id, "default", title, {"year": year}, Chunking(mode="lines"))
    (published,) = storage.catalogue.publish([(upload, about)], replace=replace, queue_limit=10)
    return published


def index_all(storage: Storage, embedding: Callable[..., Float32Array] = embed, **sizes: int) -> None:
    indexer = Indexer(storage, WordEncoder(), embedding, threading.Event(), **sizes)
    while indexer.work():
        pass


def lines(name: str, count: int) -> str:
    return "\n".join(f"{name} {'x' * (1 + number % 50)} {'y' * (1 + number // 50)}" for number in range(count))


def searchable(storage: Storage, collection: str = "default") -> dict[str, Float32Array]:
    """The vectors that a search of the collection sees, by document."""
    found = storage.vectors.scopes().scope(collection)
    documents = storage.catalogue.documents_at(found.uids.tolist())
    rows = np.empty((0, DIMENSION), dtype=np.float32)
    if found.scope.size:
        rows = found.scope.rows(np.arange(found.scope.size))
    borders = found.scope.offsets
    return {documents[uid].id: rows[borders[n] : borders[n + 1]] for n, uid in enumerate(found.uids.tolist())}


def matrix_scope(found: SearchScope) -> MatrixScope:
    """The scope over matrices that a data directory gives."""
    assert isinstance(found.scope, MatrixScope)
    return found.scope


def expected(text: str) -> Float32Array:
    return embed(WordEncoder().action_inputs(text.splitlines()))


def laid_out(directory: Path, version: int) -> Path:
    """A data directory as a service that wrote this format has left it."""
    source = Path(__file__).parent / f"data-format-{version}"
    shutil.copytree(source / "segments", directory / "segments")
    with closing(sqlite3.connect(directory / "qrag.sqlite3")) as database:
        database.executescript((source / "qrag.sql").read_text())
    return directory
