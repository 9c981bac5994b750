"""Preselection in a large collection of short documents: how often it finds the exact best chunk, and how much sooner.

    python -m benchmarks.preselection [--data FOLDER] [--copies 34]

Real chunks and questions (the multi-hop sets of docs/data.md), embedded by the default checkpoint; each chunk is there
``copies`` times, each copy in a direction of its own. Exact and preselected steps are run in turn in one process.
Result: ``benchmarks/results/preselection.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from index.arrays import Float32Array, IntArray
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.search.matrix_scope import MatrixScope, Preselected
from index.search.preselection import CONSIDERED, GRAPH, build_neighbours
from index.search.scanning.codes import encode
from index.search.scanning.matrices import Matrices, Part
from index.search.scoring import best
from index.search.states import State, States
from index.storage.protocols import APPEND_ROWS
from service.settings import DEFAULT_CHECKPOINT
from trainer.datasets.multihop import read_2wiki, read_hotpotqa
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "preselection.json"
WORDS = 40
CHUNKS = 30_000
QUESTIONS = 500
TOGETHER = 16
EXPLORED_CHUNKS = (256, 512, 768)
SPREAD = 0.6
"""Length of what is added to a copy of an embedding, which has length 1."""


def embedded(folder: Path, encoder: Encoder) -> tuple[Float32Array, list[int], Float32Array, Float32Array, list[int]]:
    """Chunk embeddings, chunks of each document, states with none and with one selected, and which one that is."""
    documents: dict[tuple[str, ...], int] = {}
    asked: list[tuple[str, tuple[str, ...], int]] = []
    for part in ("dev", "train"):
        for read, name in ((read_hotpotqa, "hotpotqa"), (read_2wiki, "2wiki")):
            for question in read(folder / f"{name}_{part}.jsonl.gz", WORDS):
                if sum(map(len, documents)) >= CHUNKS:
                    break
                ends = np.cumsum(question.counts).tolist()
                own = [
                    tuple(question.chunks[end - count : end]) for end, count in zip(ends, question.counts, strict=True)
                ]
                for document in own:
                    documents.setdefault(document, len(documents))
                support = min(question.support)
                holder = int(np.searchsorted(ends, support, side="right"))
                asked.append((question.text, own[holder], support - ends[holder] + len(own[holder])))
    asked = asked[:QUESTIONS]
    counts = [len(document) for document in documents]
    starts = np.cumsum([0, *counts])
    inputs = encoder.cut_action_inputs([chunk for document in documents for chunk in document])
    chunks = np.concatenate([encoder.embed_actions(inputs[low : low + 4096]) for low in range(0, len(inputs), 4096)])
    questions = [encoder.question_tokens(text) for text, _, _ in asked]
    first = encoder.embed_states([encoder.compose_state(question, []) for question in questions]).embeddings
    taken = encoder.state_tokens([document[at] for _, document, at in asked])
    second = encoder.embed_states(
        [encoder.compose_state(q, [own]) for q, own in zip(questions, taken, strict=True)]
    ).embeddings
    selected = [int(starts[documents[document]]) + at for _, document, at in asked]
    return chunks, counts, first, second, selected


def copied(chunks: Float32Array, copies: int, generator: np.random.Generator) -> Float32Array:
    """The chunks, then the same over and over, each time moved."""
    found = np.empty((copies * len(chunks), chunks.shape[1]), dtype=np.float32)
    found[: len(chunks)] = chunks
    for low in range(len(chunks), len(found), len(chunks)):
        moved = chunks + SPREAD / chunks.shape[1] ** 0.5 * generator.standard_normal(chunks.shape, dtype=np.float32)
        found[low : low + len(chunks)] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return found


def steps(
    scope: MatrixScope, encoder: Encoder, states: Float32Array, selections: Sequence[Sequence[int]], together: int
) -> tuple[list[int], float]:
    """The chunk that each state selects, and milliseconds for each of them."""
    chosen = []
    began = time.perf_counter()
    for low in range(0, len(states), together):
        group, taken = states[low : low + together], selections[low : low + together]
        for found, state, selected in zip(
            scope.estimate(States(group), taken, encoder.function), group, taken, strict=True
        ):
            chosen.append(best(found, 1, State(state), scope, selected, encoder.function)[0].position)
    return chosen, 1000 * (time.perf_counter() - began) / len(states)


def main() -> None:
    parser = argparse.ArgumentParser(description="Recall and speed of the preselection.")
    parser.add_argument("--data", type=Path, default=Path("data/training/multihop"))
    parser.add_argument("--copies", type=int, default=34)
    arguments = parser.parse_args()
    encoder = load_encoder(DEFAULT_CHECKPOINT)
    chunks, counts, first, second, selected = embedded(arguments.data, encoder)
    matrix = copied(chunks, arguments.copies, np.random.default_rng(0))
    offsets: IntArray = np.cumsum([0, *counts * arguments.copies])
    cuts = range(0, len(matrix), APPEND_ROWS)
    parts = tuple(Part(low, rows := matrix[low : low + APPEND_ROWS], encode(rows)) for low in cuts)
    exact = MatrixScope(Matrices(offsets, parts, 1.001))
    began = time.perf_counter()
    sizes, uids = np.array(counts * arguments.copies), np.arange(len(offsets) - 1)

    def read(documents: IntArray) -> Float32Array:
        return np.concatenate([matrix[offsets[document] : offsets[document + 1]] for document in documents])

    with ThreadPoolExecutor(1) as other:  # as in the service; it keeps to one core
        neighbours = other.submit(build_neighbours, sizes, uids, read, encoder.function.turning, lambda: False).result()
    built = time.perf_counter() - began
    nothing, none = MatrixScope(Matrices(np.array([0]), ())), np.empty(0, dtype=np.int64)
    measured = []
    for states, selections in ((first, [[] for _ in selected]), (second, [[position] for position in selected])):
        for together in (1, TOGETHER):
            wanted, exact_ms = steps(exact, encoder, states, selections, together)
            for explored in EXPLORED_CHUNKS:
                nearest = neighbours.within(exact, uids, explored=explored)
                quick = dataclasses.replace(exact, preselected=Preselected(nearest, nothing, none))
                found, quick_ms = steps(quick, encoder, states, selections, together)
                recall = statistics.mean(a == b for a, b in zip(wanted, found, strict=True))
                measured.append((len(selections[0]), together, explored, recall, exact_ms, quick_ms))
    result = {
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "chunks": len(matrix),
        "documents": len(offsets) - 1,
        "questions": len(selected),
        "index": {"kind": GRAPH, "considered": CONSIDERED, "seconds_to_build_on_one_core": round(built)},
        "steps": [
            {
                "selected": taken,
                "states_together": together,
                "explored": explored,
                "recall_at_1": round(recall, 4),
                "exact_ms": round(exact_ms, 2),
                "preselected_ms": round(quick_ms, 2),
                "times_as_fast": round(exact_ms / quick_ms, 1),
            }
            for taken, together, explored, recall, exact_ms, quick_ms in measured
        ],
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
