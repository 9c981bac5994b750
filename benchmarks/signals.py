"""What the signals beside the inner product cost a search: one step over 400,000 chunks of a book.

    python -m benchmarks.signals [--chunks 400000]

Sentences of the bundled book, over and over, each with a number, with random embeddings: what a search costs does not
depend on what they say. Run in turn, round by round in one process: the paper's function (everything turns), positions
in a space of their own, the paper's with the lexical signal, both, and both with what stands beside a chunk. Result:
``benchmarks/results/signals.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from benchmarks.scan import DIMENSION, near, random_rows
from benchmarks.stores import numbered_sentences
from index.arrays import Float32Array
from index.encoders.loading import load_encoder
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.positions import Positions
from index.search.scanning.bags import index_bags
from index.search.scanning.codes import encode
from index.search.scanning.matrices import Matrices, Part
from index.search.scoring import best
from index.search.signals.lexical import KEPT_TERMS, Lexical, Saturation
from index.search.states import State, States, TermWeights
from index.storage.protocols import APPEND_ROWS
from service.settings import DEFAULT_CHECKPOINT
from trainer.evaluation.machine import describe_machine
from trainer.learning.heads.rarity import rarity_of

RESULT = Path(__file__).parent / "results" / "signals.json"
ROUNDS = 15
SELECTED = 3
LEVELS = 32
ORDER = 64
"""Dimensions of the space of positions."""
QUESTION = "Where did the printer's apprentice go before he came back to the town, and who lent the governor's letter?"


def main() -> None:
    parser = argparse.ArgumentParser(description="What the signals beside the inner product cost a search.")
    parser.add_argument("--chunks", type=int, default=400_000)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    encoder = load_encoder(DEFAULT_CHECKPOINT, device="cpu")
    sentences = [line.rstrip("\n") for line in numbered_sentences(arguments.chunks)]
    rarity, mean_length = rarity_of(encoder.chunk_tokenizer, sentences)
    matrix = random_rows(arguments.chunks, generator)
    parts = []
    for start in range(0, arguments.chunks, APPEND_ROWS):
        rows = matrix[start : start + APPEND_ROWS]
        bags = index_bags(encoder.terms(sentences[start : start + APPEND_ROWS]))
        parts.append(Part(start, rows, encode(rows), postings=bags))
    scope = MatrixScope(Matrices(np.array([0, arguments.chunks]), tuple(parts), 1.0001))
    selected = sorted(generator.choice(arguments.chunks, SELECTED, replace=False).tolist())
    read = [encoder.question_tokens(QUESTION), *encoder.terms([sentences[number] for number in selected])]
    state = state_of(list(chain.from_iterable(read)), matrix[selected[0]], rarity, generator)
    lexical = Lexical(0.1, rarity, Saturation(mean_length=mean_length))
    order_map = np.linalg.qr(generator.standard_normal((DIMENSION, ORDER)))[0].T
    functions = {
        "paper": QFunction(1.0, 0.0, Positions(levels=LEVELS)),
        "order": QFunction(1.0, 0.0, Positions(levels=LEVELS, dimension=ORDER), order_map=order_map),
        "paper_and_tokens": QFunction(1.0, 0.0, Positions(levels=LEVELS), further=(lexical,)),
        "order_and_tokens": QFunction(
            1.0, 0.0, Positions(levels=LEVELS, dimension=ORDER), further=(lexical,), order_map=order_map
        ),
    }
    assert state.terms is not None
    assert state.order is not None
    alone = States(state.embedding[None], (state.terms,), state.order[None])
    states = dict.fromkeys(functions, alone)
    functions["all"] = functions["order_and_tokens"]
    states["all"] = replace(alone, surroundings=np.array([0.2], dtype=np.float32))
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(ROUNDS + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            (estimate,) = scope.estimate(states[name], [selected], function)
            best(estimate, 1, states[name][0], scope, selected, function)
            if number:  # the first round compiles
                times[name].append(time.perf_counter() - began)
    shares = {name: [own / paper for own, paper in zip(times[name], times["paper"], strict=True)] for name in times}
    result = {
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "chunks": arguments.chunks,
        "levels": LEVELS,
        "rounds": ROUNDS,
        "tokens_of_the_state": len(state.terms.tokens),
        "entries_read": entries(scope, state.terms),
        "median_ms": {name: round(1000 * statistics.median(seconds), 2) for name, seconds in times.items()},
        "times_the_paper": {name: round(statistics.median(share), 3) for name, share in shares.items()},
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def state_of(tokens: Sequence[int], row: Float32Array, rarity: Float32Array, generator: np.random.Generator) -> State:
    """A state near a chunk that has read these tokens, of which it searches the rarest."""
    distinct = np.unique(tokens)
    kept = np.sort(distinct[np.argsort(-rarity[distinct])[:KEPT_TERMS]])
    weights = generator.random(len(kept)).astype(np.float32)
    order = generator.standard_normal(ORDER).astype(np.float32) * np.float32(0.1)
    return State(near(row[None], generator)[0], TermWeights(kept, weights), order)


def entries(scope: MatrixScope, terms: TermWeights) -> int:
    """Entries in the posting lists of a state's tokens."""
    return sum(
        int((postings.borders[1:] - postings.borders[:-1])[np.isin(postings.tokens, terms.tokens)].sum())
        for _, postings, _, _ in scope.matrices.bags
    )


if __name__ == "__main__":
    main()
