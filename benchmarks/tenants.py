"""A step in one of many collections beside the same step where that collection is alone.

    python -m benchmarks.tenants [--collections 1000] [--chunks 1000]

The same lines under both storages: a data directory, and PostgreSQL with Qdrant's own engine in this process. In each
round one collection is asked in both, in turn, for the four steps of an episode; the ratio is taken within a round.
What is found has to be the same. Embeddings are random: what a search costs hardly depends on what they say. Needs
Debian's ``postgresql``. Result: ``benchmarks/results/tenants.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.conversations import ratio
from benchmarks.crowd import question
from benchmarks.engines import RANKED
from benchmarks.stores import fill, numbered_sentences
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.search.scope import Candidate
from index.search.scoring import best
from index.search.states import States
from index.storage.distributed import opening as distributed
from index.storage.opening import open_storage
from index.storage.protocols import Scopes, Storage
from index.storage.qdrant.connection import Connection
from index.storage.qdrant.points import QdrantPoints
from service.settings import DEFAULT_CHECKPOINT
from tests.engines.edge import EdgeClient
from tests.engines.postgres import postgres_server
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "tenants.json"
ENGINES = ("directory", "distributed")
ALONE = 8
"""Collections that have a storage of their own too."""
STEPS = 4
Q_DIFFERENCE = 1e-5


@contextmanager
def storages(engine: str, encoder: Encoder) -> Iterator[tuple[dict[str, Path], Iterator[Storage]]]:
    """Empty storages, one after the other, open until the end, and the folders that hold them."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        postgres = opened.enter_context(postgres_server(durable=False)) if engine == "distributed" else None

        def each() -> Iterator[Storage]:
            tower = {"dimension": encoder.config.dimension, "fingerprint": encoder.config.action_fingerprint}
            while True:
                directory = Path(tempfile.mkdtemp(dir=folder))
                if postgres is None:
                    storage = open_storage(directory, device=torch.device("cpu"), **tower)  # type: ignore[arg-type]
                else:
                    (vectors := directory / "points").mkdir()
                    points = QdrantPoints(Connection(""), EdgeClient(vectors))  # type: ignore[arg-type]
                    storage = distributed.open_storage(postgres.new_url(), points, directory, **tower)  # type: ignore[arg-type]
                opened.enter_context(closing(storage))
                yield storage

        folders = {"files": folder}
        if postgres is not None:
            folders["database"] = postgres.folder / "data" / "base"
        yield folders, each()


def size_of(folder: Path) -> int:
    """Bytes of a disk that the files below a folder take."""
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*") if path.is_file())


def episode(
    scopes: Scopes, collection: str, states: Sequence[States], encoder: Encoder
) -> tuple[list[Candidate], float]:
    """The best chunks of each of some states, of which those before it are selected, and the seconds of all."""
    began = time.perf_counter()
    scope = scopes.scope(collection).scope
    found: list[Candidate] = []
    for state in states:
        selected = sorted(candidate.position for candidate in found)
        (estimate,) = scope.estimate(state, [selected], encoder.function, RANKED)
        found.append(best(estimate, RANKED, state[0], scope, selected, encoder.function)[0])
    return found, time.perf_counter() - began


def measured(engine: str, encoder: Encoder, collections: int, chunks: int, rounds: int) -> dict[str, Any]:
    names = [f"c{number}" for number in range(collections)]
    collection_of = dict(zip(names, names, strict=True))
    drawn = np.random.default_rng(0).permutation(collections)
    asked = [encoder.compose_state(encoder.question_tokens(question(number)), []) for number in range(STEPS * rounds)]
    embedded = [encoder.embed_states([state]) for state in tqdm(asked, "states")]
    with storages(engine, encoder) as (folders, opened):
        together = next(opened)
        began = time.perf_counter()
        fill(together, encoder, collection_of, numbered_sentences(collections * chunks), chunks)
        seconds = time.perf_counter() - began
        sizes = {name: size_of(folder) for name, folder in folders.items()}
        scopes = together.vectors.scopes()
        apart = {}
        for number, storage in zip(drawn[:ALONE].tolist(), opened, strict=False):
            lines = islice(numbered_sentences(collections * chunks), number * chunks, None)
            fill(storage, encoder, {names[number]: names[number]}, lines, chunks)
            apart[number] = storage.vectors.scopes()
        times: dict[str, list[float]] = {"together": [], "alone": []}
        worst = 0.0
        for turn in tqdm(range(rounds), f"{engine}: rounds"):
            number = int(drawn[turn % ALONE])
            # Somebody else's collection in between: what was read for this one is not what was read last.
            other = int(drawn[ALONE + turn % (collections - ALONE)])
            states = embedded[STEPS * turn : STEPS * (turn + 1)]
            episode(scopes, names[other], states, encoder)
            sides = [("together", scopes), ("alone", apart[number])]
            found = {}
            for side, of_side in sides[:: 1 if turn % 2 else -1]:
                found[side], spent = episode(of_side, names[number], states, encoder)
                times[side].append(spent)
            for left, right in zip(found["together"], found["alone"], strict=True):
                assert left.position == right.position, (names[number], left, right)
                worst = max(worst, abs(left.q - right.q))
        assert worst <= Q_DIFFERENCE, worst
    return {
        "seconds_to_index": round(seconds),
        "bytes_of_a_chunk": {name: round(size / collections / chunks) for name, size in sizes.items()},
        "milliseconds": {side: round(1000 * statistics.median(values), 2) for side, values in times.items()},
        "together_to_alone": ratio(np.array(times["together"]), np.array(times["alone"])),
        "largest_difference_of_q": worst,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--collections", type=int, default=1000)
    parser.add_argument("--chunks", type=int, default=1000, help="of each collection")
    parser.add_argument("--rounds", type=int, default=96)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    encoder = load_encoder(DEFAULT_CHECKPOINT, device="cpu")
    result = {
        "machine": describe_machine(),
        "checkpoint": encoder.config.name,
        "collections": arguments.collections,
        "chunks_of_each": arguments.chunks,
        "rounds": arguments.rounds,
        "steps": STEPS,
        "engines": {
            engine: measured(engine, encoder, arguments.collections, arguments.chunks, arguments.rounds)
            for engine in ENGINES
        },
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
