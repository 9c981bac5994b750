"""What the default checkpoint's towers cost beside those of others.

    python -m benchmarks.towers DIR ...

In turn, round by round in one process: the forward pass of one state (a question and three chunks) and of sixteen, and
the embedding of chunks, a sentence of the bundled book each. Every checkpoint reads the same texts with its own
tokenizer. Ratios are taken within a round. Result: ``benchmarks/results/towers.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.indexing import seconds
from benchmarks.stores import numbered_sentences
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from service.settings import DEFAULT_CHECKPOINT
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "towers.json"
ROUNDS = 7
CHUNKS = 400
CROWD = 16
SELECTED = 3
QUESTION = "Where did the printer's apprentice go before he came back to the town, and who lent the governor's letter?"


def ways(encoder: Encoder, texts: list[str]) -> dict[str, Callable[[], object]]:
    """What is timed of a checkpoint."""
    question = encoder.question_tokens(QUESTION)
    read = encoder.state_tokens(texts[: CROWD * SELECTED])
    states = [
        encoder.compose_state(question, read[start : start + SELECTED]) for start in range(0, len(read), SELECTED)
    ]
    inputs = encoder.action_inputs(texts)
    return {
        "one_state": lambda: encoder.embed_states(states[:1]),
        "sixteen_states": lambda: encoder.embed_states(states),
        "chunks": lambda: encoder.embed_actions(inputs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What the default checkpoint's towers cost beside those of others.")
    parser.add_argument("others", type=Path, nargs="+", metavar="DIR", help="folder of a checkpoint")
    arguments = parser.parse_args()
    texts = [line.rstrip("\n") for line in numbered_sentences(CHUNKS)]
    encoders = {"default": load_encoder(DEFAULT_CHECKPOINT)}
    encoders |= {encoder.config.name: encoder for encoder in map(load_encoder, arguments.others)}
    timed = {name: ways(encoder, texts) for name, encoder in encoders.items()}
    times: dict[str, dict[str, list[float]]] = {name: {way: [] for way in of} for name, of in timed.items()}
    for number in range(ROUNDS + 1):
        for way in timed["default"]:
            for name, of in timed.items():
                taken = seconds(of[way])
                if number:  # the first round warms up
                    times[name][way].append(taken)
    own = times["default"]
    result = {
        "machine": describe_machine(),
        "dtype": str(encoders["default"].dtype),
        "threads": torch.get_num_threads(),
        "rounds": ROUNDS,
        "median_ms": {
            name: {way: round(1000 * statistics.median(found), 1) for way, found in of.items()}
            for name, of in times.items()
        },
        "default_times": {
            name: {
                way: round(statistics.median(mine / other for mine, other in zip(own[way], of[way], strict=True)), 3)
                for way in of
            }
            for name, of in times.items()
            if name != "default"
        },
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
