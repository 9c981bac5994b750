"""Data directories of any size in a minute: real text, really cut and stored, with random embeddings.

What a search costs does not depend on what the embeddings say, and embedding ten million tokens takes half an hour.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from index.arrays import Float32Array, TokenIds
from index.encoders.encoder import Encoder
from index.indexing.indexer import Indexer
from index.storage.documents import Description
from index.storage.opening import open_storage
from index.storage.protocols import Storage
from qrag.wire.chunking import Chunking
from trainer.datasets.books import book_sentences

BOOK = Path(__file__).parent.parent / "examples" / "franklin-autobiography.txt"


def numbered_sentences(chunks: int) -> Iterator[str]:
    """Sentences of the bundled book, over and over, no two of them the same."""
    sentences = book_sentences(BOOK.read_text(encoding="utf-8"))
    for number in range(chunks):
        yield f"{number} {sentences[number % len(sentences)]}\n"


def write_store(directory: Path, encoder: Encoder, chunks: int, name: str = "long") -> None:
    """One ready document of so many chunks, each a line."""
    directory.mkdir(parents=True, exist_ok=True)
    config = encoder.config
    storage = open_storage(
        directory, dimension=config.dimension, fingerprint=config.action_fingerprint, device=torch.device("cpu")
    )
    with closing(storage):
        fill(storage, encoder, {name: "default"}, numbered_sentences(chunks), chunks)


def fill(storage: Storage, encoder: Encoder, collection_of: Mapping[str, str], lines: Iterator[str], each: int) -> None:
    """Ready documents, each of the next so many ``lines``, in the collections that are named for their ids.

    The same line has the same embedding everywhere.
    """
    dimension = encoder.config.dimension

    def embed(inputs: Sequence[TokenIds]) -> Float32Array:
        rows = [np.random.default_rng(list(tokens)).standard_normal(dimension, dtype=np.float32) for tokens in inputs]
        unit: Float32Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    indexer = Indexer(storage, encoder, embed, threading.Event())
    for id, collection in collection_of.items():
        upload = storage.catalogue.begin_upload()
        for line in islice(lines, each):
            upload.write(line)
        storage.catalogue.publish(
            [(upload, Description(id, collection, None, {}, Chunking(mode="lines")))],
            replace=False,
            queue_limit=len(collection_of),
        )
    while indexer.work():
        pass
