"""How chunks stand in Qdrant: ids, payloads, sparse vectors, and a summary of what each document adds to statistics.

A point is a chunk. Its payload says where it stands, so that conditions can choose it:

===========  =========================================================================================================
uid          the document
number       the chunk's number in the document
along        that number divided by the document's chunks
collection   the document's collection
length       tokens of its bag
===========  =========================================================================================================

While nothing of a document is selected, its chunks of level ``l`` are those with ``l / levels <= along < (l + 1) /
levels``. That is exact for every number of levels: equal fractions are rounded to equal doubles, and distinct ones of
documents that fit into memory are much farther apart than two doubles.

A bag is the sparse vector: for each token the weight of its occurrences (:class:`~index.search.signals.lexical
.Saturation`) with the constants :data:`STORED`. A checkpoint has others, and mixes them with the mean length of the
chunks that are searched; :func:`bands` bounds what they change. The number of occurrences follows from the
weight and the length, so bags need not be stored a second time.

A summary is a point without vectors: in how many chunks of a document each token stands, and how long they are. It has
none of the fields above, so no search sees it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qdrant_client.http import models

from index.arrays import Float32Array, IntArray, TokenIds
from index.search.scanning.bags import MOST_COUNTED
from index.search.signals.lexical import Saturation

EMBEDDING = "a"
"""The name of the dense vector."""

BAG = "t"
"""The name of the sparse vector."""

NUMBER_BITS = 24
"""Bits of a point's id that hold the chunk's number."""

SUMMARY = 1 << 62
"""The bit of an id that tells a summary from a chunk."""

STORED = Saturation()
"""The constants with which the weights of tokens are stored."""

SPREAD = 1.1
"""How much the ratio of a token's weight to the stored one may vary among chunks that are ranked together."""

INDEXES: Mapping[str, models.PayloadSchemaType] = {
    "uid": models.PayloadSchemaType.INTEGER,
    "number": models.PayloadSchemaType.INTEGER,
    "along": models.PayloadSchemaType.FLOAT,
    "collection": models.PayloadSchemaType.KEYWORD,
    "length": models.PayloadSchemaType.INTEGER,
    "document": models.PayloadSchemaType.INTEGER,
}
"""The fields of payloads that conditions name; ``document`` is a summary's."""


class Bag(NamedTuple):
    """The tokens of a chunk."""

    tokens: IntArray
    """Each once, increasing."""
    counts: IntArray
    length: int


class Band(NamedTuple):
    """Chunks of ``shortest`` to ``longest`` tokens."""

    shortest: int
    longest: int
    ratio: float
    """How many times its stored weight a token can weigh in them."""


class Chunk(NamedTuple):
    """What is stored of a chunk."""

    embedding: Float32Array
    bag: Bag


class Summary(NamedTuple):
    """What some chunks of a document, one after the other, add to the statistics of what is searched."""

    first: int
    chunks: int
    tokens: NDArray[np.int32]
    """Each once, increasing."""
    frequencies: NDArray[np.int32]
    """In how many of the chunks each token stands."""
    length: int
    """Tokens of all of them."""
    longest: int
    """Tokens of the longest of them."""
    norm: float
    """The largest Euclidean norm of their embeddings."""


def point_id(uid: int, number: int) -> int:
    """The id of a chunk's point."""
    return uid << NUMBER_BITS | number


def point_ids(uids: IntArray, numbers: IntArray) -> IntArray:
    """The ids of several chunks, same shape."""
    return uids << NUMBER_BITS | numbers


# -- bags -------------------------------------------------------------------------------------------------------------


def bag_of(tokens: TokenIds) -> Bag:
    """A bag, counted."""
    distinct, counts = np.unique(np.asarray(tokens, dtype=np.int64), return_counts=True)
    return Bag(distinct, np.minimum(counts, MOST_COUNTED).astype(np.int64), len(tokens))


def sparse_vector(bag: Bag) -> models.SparseVector:
    """A bag as it is stored."""
    weights = STORED.weight(bag.counts, np.full(len(bag.counts), bag.length))
    return models.SparseVector(indices=bag.tokens.tolist(), values=weights.astype(np.float32).tolist())


def read_bag(vector: models.SparseVector, length: int) -> Bag:
    """The bag of a stored vector."""
    tokens, weights = np.array(vector.indices, dtype=np.int64), np.array(vector.values, dtype=np.float64)
    counts = weights * (STORED.flat + STORED.slope * length) / (STORED.k1 + 1 - weights)
    order = np.argsort(tokens)
    return Bag(tokens[order], np.rint(counts[order]).astype(np.int64), length)


def largest_ratio(saturation: Saturation, shortest: int, longest: int) -> float:
    """A bound of how many times its stored weight a token weighs in chunks of ``shortest`` to ``longest`` tokens.

    The ratio is a quotient of two linear functions of count and length, so it is largest in a corner.
    """
    counts = np.array([1, 1, MOST_COUNTED, MOST_COUNTED])
    lengths = np.array([shortest, longest] * 2)
    return float((saturation.weight(counts, lengths) / STORED.weight(counts, lengths)).max())


def bands(saturation: Saturation, longest: int) -> list[Band]:
    """Bands that chunks of at most ``longest`` tokens fall into, in each of which the ratio hardly varies.

    One where the mean length is about the stored one, as with chunks of the usual length.
    """
    found: list[Band] = []
    shortest = 1
    while shortest <= longest:
        end = longest
        ratio = largest_ratio(saturation, shortest, end)
        while ratio > SPREAD * min(largest_ratio(saturation, length, length) for length in (shortest, end)):
            end = (shortest + end) // 2
            ratio = largest_ratio(saturation, shortest, end)
        found.append(Band(shortest, end, ratio))
        shortest = end + 1
    return found


# -- points -----------------------------------------------------------------------------------------------------------


def chunk_point(
    uid: int, number: int, *, chunks: int, collection: str, embedding: Float32Array, bag: Bag
) -> models.PointStruct:
    """The point of chunk ``number`` of the ``chunks`` of a document."""
    return models.PointStruct(
        id=point_id(uid, number),
        vector={EMBEDDING: embedding.tolist(), BAG: sparse_vector(bag)},
        payload={
            "uid": uid,
            "number": number,
            "along": number / chunks,
            "collection": collection,
            "length": bag.length,
        },
    )


def read_chunk(record: models.Record) -> Chunk:
    """What a point holds."""
    vectors: Any = record.vector
    payload = record.payload or {}
    bag = vectors.get(BAG) or models.SparseVector(indices=[], values=[])
    return Chunk(np.array(vectors[EMBEDDING], dtype=np.float32), read_bag(bag, payload["length"]))


def summarise(first: int, embeddings: Float32Array, bags: Sequence[Bag]) -> Summary:
    """The summary of chunks, of which ``first`` is the first one's number."""
    tokens, frequencies = np.unique(np.concatenate([bag.tokens for bag in bags]), return_counts=True)
    lengths = [bag.length for bag in bags]
    norm = float(np.linalg.norm(embeddings.astype(np.float64), axis=1).max())
    return Summary(
        first, len(bags), tokens.astype(np.int32), frequencies.astype(np.int32), sum(lengths), max(lengths), norm
    )


def summary_point(uid: int, summary: Summary) -> models.PointStruct:
    """The point of a summary."""
    payload = summary._asdict() | {
        "document": uid,
        "tokens": _packed(summary.tokens),
        "frequencies": _packed(summary.frequencies),
    }
    return models.PointStruct(id=SUMMARY | point_id(uid, summary.first), vector={}, payload=payload)


def read_summary(payload: Mapping[str, Any]) -> Summary:
    """The summary that a point holds."""
    fields = {name: payload[name] for name in Summary._fields}
    return Summary(**fields | {"tokens": _unpacked(fields["tokens"]), "frequencies": _unpacked(fields["frequencies"])})


def _packed(numbers: NDArray[np.int32]) -> str:
    return base64.b64encode(numbers.astype("<i4").tobytes()).decode()


def _unpacked(text: str) -> NDArray[np.int32]:
    return np.frombuffer(base64.b64decode(text), dtype="<i4")
