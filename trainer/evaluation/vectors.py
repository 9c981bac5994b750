"""Embeddings of the chunks of questions, laid out so that a question's chunks are few slices."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from index.arrays import Float32Array, IntArray, TokenIds
from index.encoders.encoder import Encoder
from index.encoders.tower import Tower, project
from index.search.matrix_scope import MatrixScope
from index.search.scanning.bags import Postings, index_bags
from index.search.scanning.codes import Codes, encode
from index.search.scanning.matrices import Matrices, Part
from trainer.datasets.question import Question

log = logging.getLogger(__name__)

EMBED_CHUNKS = 16_384
"""Chunks sorted by length and embedded together."""

CACHE_FROM = 500
"""Texts from which embeddings are worth a file."""


class ChunkVectors:
    """Embeddings by text, in matrices to which more can be added.

    The rows of a matrix follow the order of its texts, and a text may be there more than once: chunks that stand in
    a question as they stand there are then one slice of the matrix, not a copy, however long the document is.
    """

    def __init__(
        self,
        texts: Iterable[str] = (),
        matrix: Float32Array | None = None,
        tokenize: Callable[[Sequence[str]], Sequence[TokenIds]] | None = None,
    ) -> None:
        """``matrix`` has the embedding of each text, shape ``[texts, d]``.

        With ``tokenize`` the texts have bags too, for the lexical signal.
        """
        self._tokenize = tokenize
        self._postings: list[Postings | None] = []
        self._row: dict[str, int] = {}
        self._first = np.empty(0, dtype=np.int64)  # for each row the first row with the same text
        self._matrices: list[Float32Array] = []
        self._codes: list[Codes] = []
        self._starts: list[int] = []
        self._longest = 0.0
        if matrix is not None:
            self.add(texts, matrix)

    def add(self, texts: Iterable[str], matrix: Float32Array) -> None:
        """Add a matrix with its texts, shape ``[texts, d]``."""
        if not len(matrix):
            return
        texts = list(texts)
        self._postings.append(None if self._tokenize is None else index_bags(self._tokenize(texts)))
        start = len(self._first)
        first = [self._row.setdefault(text, row) for row, text in enumerate(texts, start)]
        self._first = np.concatenate((self._first, np.array(first, dtype=np.int64)))
        self._matrices.append(matrix)
        self._codes.append(encode(matrix))
        self._starts.append(start)
        self._longest = max(self._longest, math.sqrt(np.einsum("nd,nd->n", matrix, matrix).max()))

    def missing(self, texts: Iterable[str]) -> list[str]:
        """The texts that have no embedding here, each once, in order."""
        return [text for text in dict.fromkeys(texts) if text not in self._row]

    def scope(self, question: Question) -> MatrixScope:
        """The question's candidates, in as few slices as there are. Raises :class:`KeyError` for an unknown text."""
        rows = np.fromiter((self._row[chunk] for chunk in question.chunks), np.int64, len(question.chunks))
        parts: list[Part] = []
        follow: dict[int, int] = {}
        position = 0
        while position < len(rows):
            # A repeated text stands in many rows: the one that goes on where an earlier slice ended is meant.
            row = follow.get(int(rows[position]), int(rows[position]))
            block = bisect_right(self._starts, row) - 1
            low = row - self._starts[block]
            count = _agreement(rows[position:], self._first[row : row + len(self._matrices[block]) - low])
            inside = self._matrices[block][low : low + count]
            parts.append(Part(position, inside, self._codes[block], low, postings=self._postings[block]))
            position += count
            if row + count < len(self._first):
                follow[int(self._first[row + count])] = row + count
        # The embeddings are float32: a bound on their norm must not be rounded down.
        return MatrixScope(
            Matrices(np.cumsum([0, *question.counts]), tuple(parts), norm_bound=self._longest * (1 + 1e-6))
        )


def _agreement(left: IntArray, right: IntArray) -> int:
    """How many leading entries are equal."""
    limit = min(len(left), len(right))
    low, high = 0, min(64, limit)
    while low < high:
        different = np.flatnonzero(left[low:high] != right[low:high])
        if len(different):
            return low + int(different[0])
        low, high = high, min(4 * high, limit)
    return limit


def embed_texts(encoder: Encoder, texts: Sequence[str], cache: Path | None = None) -> ChunkVectors:
    """Embeddings of texts in their order, repeated ones once for each time; what the tower cannot read is cut."""
    return ChunkVectors(texts, embed_in_order(encoder, texts, cache), tokenizer_of(encoder))


def tokenizer_of(encoder: Encoder) -> Callable[[Sequence[str]], Sequence[TokenIds]] | None:
    """What gives the texts of :class:`ChunkVectors` their bags; none where no signal reads them."""
    return encoder.terms if encoder.function.lexical is not None else None


def embed_in_order(
    encoder: Encoder, texts: Sequence[str], cache: Path | None = None, *, cache_from: int = CACHE_FROM
) -> Float32Array:
    """The embedding of each text, shape ``[texts, d]``; distinct texts are embedded once.

    With a ``cache`` folder the embeddings of ``cache_from`` and more texts are kept there under the checksum of texts
    and model.
    They are those of the model without an adapter behind it, so that all checkpoints with this model share them.
    """
    row: dict[str, int] = {}
    rows = np.array([row.setdefault(text, len(row)) for text in texts], dtype=np.int64)
    file = cache / f"{_digest(encoder, row)}.npy" if cache is not None and len(row) >= cache_from else None
    if file is not None and file.exists():
        bare: Float32Array = np.load(file, mmap_mode="r")
    else:
        if file is not None:
            log.info("embedding chunks=%d for %s", len(row), file)
        bare = _embed(encoder, list(row))
        if file is not None:
            _store(file, bare)
    projection = encoder.action_tower.projection
    if projection is None and len(row) == len(rows):
        return bare
    matrix = np.empty((len(rows), encoder.config.dimension), dtype=np.float32)
    for part in _parts(len(rows)):
        block = torch.from_numpy(bare[rows[part]])
        if projection is not None:
            with torch.inference_mode():
                block = project(projection, block.to(encoder.device)).cpu()
        matrix[part] = block.numpy()
    return matrix


def _parts(count: int) -> Iterator[slice]:
    """So many chunks in parts of at most :data:`EMBED_CHUNKS`."""
    return (slice(start, min(start + EMBED_CHUNKS, count)) for start in range(0, count, EMBED_CHUNKS))


def _embed(encoder: Encoder, texts: Sequence[str]) -> Float32Array:
    """Embeddings by the model alone, shape ``[texts, d]``."""
    tower: Tower = copy.copy(encoder.action_tower)
    tower.projection = None
    blocks: list[Float32Array] = []
    with tqdm(total=len(texts), desc="embedding", unit="chunk", leave=False, disable=None) as bar:
        for part in _parts(len(texts)):
            inputs = encoder.cut_action_inputs(texts[part])
            blocks.append(tower.embed(inputs))
            bar.update(len(inputs))
    return np.concatenate(blocks)


def _digest(encoder: Encoder, texts: Iterable[str]) -> str:
    config = encoder.config
    settings = [config.pooling, config.normalize, config.action_prefix, config.action_tokens, encoder.device.type]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name, parameter in encoder.action_tower.model.named_parameters():
        if name.startswith("pooler."):  # not used, and random where the files have none
            continue
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\0".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    for text in texts:
        digest.update(text.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()


def _store(file: Path, embeddings: Float32Array) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    with partial.open("wb") as output:
        np.save(output, embeddings)
    partial.replace(file)
