"""Steps that Qdrant searches beside the same steps over mapped matrices: calls, whether they are exact, milliseconds.

    python -m benchmarks.engines [--data FOLDER] [--copies 1 4] [--steps 4]

The bundled book and its questions, embedded by the default checkpoint; with the data of docs/data.md the questions of a
reader beside them. The book is there ``copies`` times, each copy a document whose chunks have directions of their own.
Qdrant's engine runs in this process (``qdrant-edge-py``), so no network is in the figures. The two are run in turn,
and each ratio is taken within a step. Result: ``benchmarks/results/engines.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from index.arrays import Float32Array, TokenIds
from index.chunking import chunk_document
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.episodes.episode import ChunkTokens, Episode, Limits
from index.episodes.stepping import embed_together
from index.search.matrix_scope import MatrixScope
from index.search.scanning.bags import index_bags
from index.search.scanning.codes import encode
from index.search.scanning.matrices import Matrices, Part
from index.search.scope import Candidate, Scope
from index.search.scoring import best
from index.search.states import States
from index.storage.points import Membership, PointDocument
from index.storage.protocols import APPEND_ROWS
from index.storage.qdrant.connection import Connection
from index.storage.qdrant.points import QdrantPoints
from index.storage.vectors import ChunkAddress, Space
from service.settings import DEFAULT_CHECKPOINT
from tests.engines.edge import EdgeClient
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "engines.json"
EXAMPLES = Path(__file__).parent.parent / "examples"
BOOK = EXAMPLES / "franklin-autobiography.txt"
TOKENS = 64
SPREAD = 0.6
"""Length of what is added to a copy of an embedding, which has length 1."""

RANKED = 2
"""Best chunks of each step that have to be certain: what an episode with a learned stop asks for."""


class Moment(NamedTuple):
    """A state on the way through an episode, and what is selected in it."""

    states: States
    selected: list[int]


@dataclass(frozen=True)
class Book:
    """A book in chunks."""

    embeddings: Float32Array
    bags: list[TokenIds]
    state_tokens: list[TokenIds]


def read_book(encoder: Encoder) -> Book:
    text = BOOK.read_text(encoding="utf-8")
    chunks = [
        text[chunk.start : chunk.end] for chunk in chunk_document(text, "sentences", TOKENS, encoder.chunk_tokenizer)
    ]
    embeddings = encoder.embed_actions(encoder.action_inputs(chunks))
    return Book(embeddings, list(encoder.terms(chunks)), list(encoder.state_tokens(chunks)))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def copied(book: Book, copies: int) -> tuple[Float32Array, list[TokenIds]]:
    """The book and copies of it, each a document; the first one is the book."""
    generator = np.random.default_rng(copies)
    rows = np.tile(book.embeddings, (copies, 1))
    noise = generator.standard_normal(rows.shape, dtype=np.float32)
    noise *= SPREAD / np.linalg.norm(noise, axis=1, keepdims=True)
    noise[: len(book.embeddings)] = 0
    rows += noise
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows, book.bags * copies


def moments(encoder: Encoder, scope: Scope, book: Book, questions: Sequence[str], steps: int) -> Iterator[Moment]:
    """The states of greedy episodes."""
    for question in questions:
        episode = Episode(
            scope,
            Limits(steps),
            lambda position: ChunkTokens(book.state_tokens[position % len(book.state_tokens)], 1),
            encoder.stopping,
            question=encoder.question_tokens(question),
        )
        while episode.stopped_by is None:
            (states,) = embed_together(encoder, [episode])
            assert isinstance(states, States)
            selections = episode.selections
            yield Moment(states, list(selections[0]))
            episode.advance(states, scope.estimate(states, selections, encoder.function), encoder.function)


def step(scope: Scope, moment: Moment, encoder: Encoder) -> tuple[list[Candidate], bool, float]:
    """The best candidates, whether that is certain, and the seconds that it took."""
    began = time.perf_counter()
    states, selected = moment
    (estimate,) = scope.estimate(states, [selected], encoder.function, RANKED)
    candidates = best(estimate, RANKED, states[0], scope, selected, encoder.function)
    return candidates, estimate.exact, time.perf_counter() - began


def measured(encoder: Encoder, book: Book, questions: Sequence[str], copies: int, steps: int) -> dict[str, Any]:
    rows, bags = copied(book, copies)
    counts = [len(book.embeddings)] * copies
    cuts = range(0, len(rows), APPEND_ROWS)
    parts = [
        Part(cut, part := rows[cut : cut + APPEND_ROWS], encode(part), postings=index_bags(bags[cut : cut + len(part)]))
        for cut in cuts
    ]
    matrix_scope = MatrixScope(Matrices(np.cumsum([0, *counts]), tuple(parts), 1.0001))
    uids = np.arange(1, copies + 1)
    with tempfile.TemporaryDirectory() as directory:
        client = EdgeClient(Path(directory))
        points = QdrantPoints(Connection(""), client)  # type: ignore[arg-type]
        space = Space(1, "benchmark", rows.shape[1])
        points.open(space)
        for number, uid in enumerate(uids.tolist()):
            inside = slice(number * counts[0], (number + 1) * counts[0])
            addresses = [ChunkAddress(uid, chunk) for chunk in range(counts[0])]
            document = PointDocument(uid, "books", counts[0])
            points.upsert(space, [document], addresses, rows[inside], bags[inside])
        hidden = np.empty(0, dtype=np.int64)
        scope = points.scope(space, Membership("books", uids, np.array(counts), hidden))
        scope.frequencies(np.array([0]))  # what is read once for all steps
        calls: Counter[str] = Counter()
        exact_after: Counter[int] = Counter()
        times: dict[str, list[float]] = {"qdrant": [], "matrices": []}
        differing = 0
        for moment in moments(encoder, matrix_scope, book, questions, steps):
            before = Counter(points.calls.counts)
            found, exact, seconds = step(scope, moment, encoder)
            made = points.calls.counts - before
            expected, _, expected_seconds = step(matrix_scope, moment, encoder)
            times["qdrant"].append(seconds)
            times["matrices"].append(expected_seconds)
            exact_after[made["search"] if exact else 0] += 1
            calls[f"{made['search']} searches, {made['read']} reads"] += 1
            differing += [at for at, _ in found] != [at for at, _ in expected]
        client.close()
    total = len(times["qdrant"])
    return {
        "chunks": len(rows),
        "documents": copies,
        "steps": total,
        "other_chunk_than_matrices": differing,
        "exact_after": {
            f"{number} searches": round(exact_after[number] / total, 3) for number in sorted(exact_after) if number
        },
        "not_exact": round(exact_after[0] / total, 3),
        "round_trips": {name: round(number / total, 3) for name, number in calls.most_common()},
        "median_ms": {name: round(1000 * statistics.median(seconds), 1) for name, seconds in times.items()},
        "times_the_matrices": round(
            statistics.median(a / b for a, b in zip(times["qdrant"], times["matrices"], strict=True)), 1
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps of Qdrant's engine beside steps over mapped matrices.")
    parser.add_argument("--data", type=Path, help="the folder of docs/data.md, for a reader's questions")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    encoder = load_encoder(DEFAULT_CHECKPOINT, device="cpu")
    questions = [asked["question"] for asked in read_lines(EXAMPLES / "questions.jsonl")]
    if arguments.data is not None:
        asked_of_books = read_lines(arguments.data / "reader" / "reader_dev.jsonl")
        questions += [asked["question"] for asked in asked_of_books if asked["book"] == BOOK.name]
    book = read_book(encoder)
    result = {
        "machine": describe_machine(),
        "checkpoint": encoder.config.name,
        "questions": len(questions),
        "levels": encoder.function.positions.levels,
        "sizes": [measured(encoder, book, questions, copies, arguments.steps) for copies in arguments.copies],
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
