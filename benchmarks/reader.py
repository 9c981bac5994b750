"""Whether a small frozen reader can tell gold paragraphs from others: what learning from a reader stands on.

    python -m benchmarks.reader --data DIR [--reader NAME] [--questions N] [--cache FILE]

For questions of HotpotQA (dev, distractor setting), with SmolLM2-135M-Instruct unless another reader is named: is the
gold answer more probable with both gold paragraphs than with two distractors, or with nothing? Is it more probable with
a single gold paragraph than with a single distractor, over all such pairs of a question? The distractors of the first
comparison are drawn by the question's number. Shares have bootstrap intervals over the questions. Tokens a second are
those of 64 requests that no cache answers. Result: ``benchmarks/results/answer-probability.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from index.encoders.loading import resolve_device
from trainer.datasets.multihop import read_hotpotqa
from trainer.datasets.question import Question
from trainer.evaluation.machine import describe_machine
from trainer.evaluation.paired import paired_difference
from trainer.readers.opening import NAME, open_reader
from trainer.readers.protocol import Prompt, Request, scored

DRAWN = 2
"""Distractors that stand against both gold paragraphs."""

TIMED = 64
"""Requests that tokens a second are counted over, after as many that warm up."""

RESULT = Path(__file__).parent / "results" / "answer-probability.json"


@dataclass(frozen=True, slots=True)
class Worth:
    """The log-probability of a question's answer, in nats, with each of several texts to read."""

    gold: float
    distractors: float
    nothing: float
    single_gold: Sequence[float]
    single_distractors: Sequence[float]

    @property
    def pairs(self) -> float:
        """The share of pairs of a gold paragraph and a distractor in which the gold one makes it more probable."""
        return float(np.mean(np.subtract.outer(self.single_gold, self.single_distractors) > 0))


def requests(question: Question, number: int) -> list[Request]:
    """Both gold paragraphs, two distractors, nothing; then each gold paragraph, then each distractor by itself."""
    gold = [question.chunks[position] for position in sorted(question.support)]
    others = [chunk for position, chunk in enumerate(question.chunks) if position not in question.support]
    drawn = np.random.default_rng(number).choice(len(others), size=DRAWN, replace=False).tolist()
    readings = [tuple(gold), tuple(others[place] for place in drawn), (), *((chunk,) for chunk in (*gold, *others))]
    return [Request(Prompt(question.text, contexts), question.answers[0]) for contexts in readings]


def share(values: Sequence[float]) -> dict[str, float]:
    """The mean of values between 0 and 1, with its 95% interval over the questions."""
    mean, low, high = paired_difference(values, [0.0] * len(values))
    return {"share": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether a small frozen reader can tell gold paragraphs from others.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the data")
    parser.add_argument("--reader", default=NAME, help=f"see docs/training.md; default: {NAME}")
    parser.add_argument("--questions", type=int, default=100, metavar="N", help="the first so many; default: 100")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="what the reader says is kept here")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    arguments = parser.parse_args()
    path = arguments.data / "multihop" / "hotpotqa_dev.jsonl.gz"
    # There are questions with fewer than ten paragraphs.
    usable = (question for question in read_hotpotqa(path) if len(question.chunks) >= len(question.support) + DRAWN)
    asked = list(islice(usable, arguments.questions))
    batches = [requests(question, number) for number, question in enumerate(asked)]
    every = [request for batch in batches for request in batch]
    device = resolve_device(arguments.device)
    with open_reader(arguments.reader, device, arguments.cache) as reader:
        scores = scored(reader, every)
        name = reader.identity.partition(" ")[0]
    with open_reader(arguments.reader, device) as reader:
        scored(reader, every[-TIMED:])
        began = time.monotonic()
        timed = scored(reader, every[:TIMED])
        seconds = time.monotonic() - began
    worths = []
    values = iter(scores.log_probability.tolist())
    for question, batch in zip(asked, batches, strict=True):
        both, two, none, *single = islice(values, len(batch))
        count = len(question.support)
        worths.append(Worth(both, two, none, single[:count], single[count:]))
    tokens = int(timed.prompt_tokens.sum() + timed.answer_tokens.sum())
    result = {
        "machine": describe_machine(),
        "reader": name,
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "questions": len(asked),
        "requests": len(every),
        "tokens": int(scores.prompt_tokens.sum() + scores.answer_tokens.sum()),
        "tokens_a_second": round(tokens / seconds),
        "gold_above_distractors": share([float(worth.gold > worth.distractors) for worth in worths]),
        "gold_above_nothing": share([float(worth.gold > worth.nothing) for worth in worths]),
        "single_gold_above_single_distractor": share([worth.pairs for worth in worths]),
        "mean_log_probability": {
            kind: round(float(np.mean([getattr(worth, kind) for worth in worths])), 3)
            for kind in ("gold", "distractors", "nothing")
        },
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
