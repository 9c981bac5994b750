"""Indexing a real document: the service's way from text to searchable vectors against nothing but forward passes.

    python -m benchmarks.indexing [--chunks 1500]

In turn, round by round in one process: the whole of indexing (cutting, tokenising, embedding between ticks of the
engine, storing), the bare forward pass over the same chunks' tokens, and sentence-transformers' plain ``encode`` of the
same texts with the weights that the action tower was trained from. Each ratio is taken within a round. Result:
``benchmarks/results/indexing.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from benchmarks.stores import numbered_sentences
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.indexing.indexer import Indexer
from index.storage.documents import Description
from index.storage.opening import open_storage
from qrag.wire.chunking import Chunking
from service.engine.engine import Engine
from service.settings import DEFAULT_CHECKPOINT
from trainer.bases.unpacking import unpack_base
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "indexing.json"
ROUNDS = 5


def index(encoder: Encoder, engine: Engine, lines: Sequence[str], chunking: Chunking) -> list[str]:
    """Index the lines as one document; returns its chunks."""
    with tempfile.TemporaryDirectory() as folder:
        config = encoder.config
        storage = open_storage(
            Path(folder), dimension=config.dimension, fingerprint=config.action_fingerprint, device=encoder.device
        )
        with closing(storage):
            catalogue = storage.catalogue
            upload = catalogue.begin_upload()
            for line in lines:
                upload.write(line)
            about = Description("book", "default", None, {}, chunking)
            catalogue.publish([(upload, about)], replace=False, queue_limit=1)
            indexer = Indexer(storage, encoder, partial(engine.embed_actions, encoder), threading.Event())
            while indexer.work():
                pass
            document = catalogue.document("book")
            assert document.status == "ready", document
            return [chunk.text for chunk in catalogue.chunks(document.uid, limit=document.chunks or 0)]


def seconds(way: Callable[[], object]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Indexing against nothing but forward passes.")
    parser.add_argument("--chunks", type=int, default=1500)
    arguments = parser.parse_args()
    encoder = load_encoder(DEFAULT_CHECKPOINT)
    engine = Engine(encoder.device, max_running=1, max_waiting=1)
    encoder.warm_up()
    engine.start()
    lines = list(numbered_sentences(arguments.chunks))
    chunking = Chunking(mode="lines")
    texts = index(encoder, engine, lines, chunking)
    inputs = encoder.action_inputs(texts)
    tokens = sum(map(len, inputs))
    # What people would call; the dtype is the library's own.
    with tempfile.TemporaryDirectory() as folder:
        plain = SentenceTransformer(str(unpack_base(DEFAULT_CHECKPOINT, Path(folder))), device=str(encoder.device))
    ways: dict[str, Callable[[], object]] = {
        "service": lambda: index(encoder, engine, lines, chunking),
        "forward_passes_alone": lambda: encoder.embed_actions(inputs),
        "sentence_transformers_encode": lambda: plain.encode(texts, show_progress_bar=False),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            times[name].append(seconds(way))
    engine.stop()
    own = times["service"]
    result = {
        "machine": describe_machine(),
        "dtype": str(encoder.dtype),
        "threads": torch.get_num_threads(),
        "chunks": len(texts),
        "tokens": tokens,
        "rounds": ROUNDS,
        "tokens_per_second": {name: round(tokens / statistics.median(found)) for name, found in times.items()},
        "service_speed_over": {
            name: round(statistics.median(other / mine for other, mine in zip(times[name], own, strict=True)), 3)
            for name in ways
            if name != "service"
        },
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
