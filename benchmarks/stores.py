"""Data directories of any size in a minute: real text, really cut and stored, with random embeddings.

What a search costs does not depend on what the embeddings say, and embedding ten million tokens takes half an hour.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path

import numpy as np
import torch

from index.arrays import Float32Array, TokenIds
from index.encoders.encoder import Encoder
from index.indexing.indexer import Indexer
from index.storage.documents import Description
from index.storage.opening import open_storage
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
    seeds = count()

    def embed(inputs: Sequence[TokenIds]) -> Float32Array:
        rows = np.random.default_rng(next(seeds)).standard_normal((len(inputs), config.dimension), dtype=np.float32)
        unit: Float32Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    with closing(storage):
        upload = storage.catalogue.begin_upload()
        for line in numbered_sentences(chunks):
            upload.write(line)
        storage.catalogue.publish(
            [(upload, Description(name, "default", None, {}, Chunking(mode="lines")))],
            replace=False,
            queue_limit=1,
        )
        indexer = Indexer(storage, encoder, embed, threading.Event())
        while indexer.work():
            pass
