"""Questions that join two unrelated ones: how much of the evidence for both is found among the same number of chunks.

    python -m benchmarks.joined --data DIR [--pairs N] [--out FILE]

Pairs of SQuAD's questions (dev) about different articles, joined as "Q1 and Q2", over one collection of all articles,
cut into packed sentences. The ways: an episode of the packaged checkpoint over the joined question, and BM25
and one-step dense search beside it; the two original questions as a batch, interleaved by rank, which no splitting can
beat; and the parts into which SmolLM2-135M-Instruct splits the joined question, by the service's own prompt, read by
the service's own parser. Result: ``benchmarks/results/joined.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from index.encoders.loading import load_encoder
from service.retrieval.splitting import Split, parts_in, prompt
from service.settings import DEFAULT_CHECKPOINT
from trainer.bases.language_models import SMOLLM2, take_out
from trainer.bases.models import models_folder
from trainer.datasets.question import Question
from trainer.datasets.squad import SENTENCE_WORDS, read_squad
from trainer.evaluation.baselines import BM25, OneStep, untrained_encoder
from trainer.evaluation.machine import describe_machine
from trainer.evaluation.paired import paired_difference
from trainer.evaluation.playing import Player

RESULT = Path(__file__).parent / "results" / "joined.json"
SEED = 1
MOST = 6
"""Chunks of an answer."""
SHOWN = (2, 4, 6)
WRITTEN_TOKENS = 96


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions about one collection."""

    first: Question
    second: Question

    @property
    def joined(self) -> Question:
        """Both as one question."""
        head, tail = (question.text.strip().rstrip("?").rstrip() for question in (self.first, self.second))
        return replace(self.first, text=f"{head} and {tail[0].lower()}{tail[1:]}?")

    def share(self, selected: Sequence[int]) -> float:
        """The mean share of the evidence of both."""
        found = set(selected)
        return float(np.mean([len(each.support & found) / len(each.support) for each in (self.first, self.second)]))

    def complete(self, selected: Sequence[int]) -> bool:
        """Whether all of it is there."""
        return self.first.support | self.second.support <= set(selected)


def pairs_of(path: Path, count: int) -> list[Pair]:
    """Pairs about different articles; each question is in one pair at most."""
    articles = [list(group) for _, group in groupby(read_squad(path, SENTENCE_WORDS), key=lambda each: each.chunks)]
    chunks = [chunk for article in articles for chunk in article[0].chunks]
    counts = tuple(count for article in articles for count in article[0].counts)
    asked: list[tuple[int, Question]] = []
    first = 0
    for number, article in enumerate(articles):
        for question in article:
            support = frozenset(first + position for position in question.support)
            asked.append((number, replace(question, chunks=chunks, counts=counts, support=support, budget=MOST)))
        first += len(article[0].chunks)
    drawn = np.random.default_rng(SEED).permutation(len(asked)).tolist()
    pairs: list[Pair] = []
    while len(pairs) < count and drawn:
        number, question = asked[drawn.pop()]
        place = next((at for at, other in enumerate(reversed(drawn)) if asked[other][0] != number), None)
        if place is None:
            break
        pairs.append(Pair(question, asked[drawn.pop(len(drawn) - 1 - place)][1]))
    return pairs


def split_all(questions: Sequence[str]) -> list[Split]:
    """What SmolLM2 makes of each question, the most probable token each time."""
    path = take_out(SMOLLM2, models_folder())
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model: Any = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    splits = []
    for question in questions:
        text = tokenizer.apply_chat_template(prompt(question), tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        with torch.inference_mode():
            written = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=WRITTEN_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id or 0,
            )
        splits.append(parts_in(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True), question))
    return splits


def interleaved(selections: Sequence[Sequence[int]]) -> list[int]:
    """The first chunk of each part, then the second of each, none twice."""
    by_rank = [position for rank in zip_longest(*selections) for position in rank if position is not None]
    return list(dict.fromkeys(by_rank))


def over_parts(player: Player, questions: Sequence[Question], parts: Sequence[Sequence[str]]) -> list[list[int]]:
    """The chunks that are found for the parts of each question, interleaved."""
    asked = [replace(question, text=part) for question, of_one in zip(questions, parts, strict=True) for part in of_one]
    selected = iter(player.select(asked))
    return [interleaved(list(islice(selected, len(of_one)))) for of_one in parts]


def figures(
    pairs: Sequence[Pair], selections: Sequence[Sequence[int]], joined: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Shares among the first so many chunks, and the gain over the joined episode with its 95% interval."""
    rows: dict[str, Any] = {}
    for count in SHOWN:
        shares = [pair.share(selected[:count]) for pair, selected in zip(pairs, selections, strict=True)]
        before = [pair.share(selected[:count]) for pair, selected in zip(pairs, joined, strict=True)]
        both = [pair.complete(selected[:count]) for pair, selected in zip(pairs, selections, strict=True)]
        gain, low, high = paired_difference(shares, before)
        rows[str(count)] = {
            "share": round(float(np.mean(shares)), 3),
            "both": round(float(np.mean(both)), 3),
            "gain": [round(value, 3) for value in (gain, low, high)],
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Evidence for questions that join two unrelated ones.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the data")
    parser.add_argument("--pairs", type=int, default=40, metavar="N", help="default: 40")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    pairs = pairs_of(arguments.data / "squad" / "xquad_en_dev.json", arguments.pairs)
    questions = [pair.joined for pair in pairs]
    splits = split_all([question.text for question in questions])
    player = Player(load_encoder(DEFAULT_CHECKPOINT))
    originals = [(pair.first.text, pair.second.text) for pair in pairs]
    joined = player.select(questions)
    ways = {
        "joined_episode": joined,
        "joined_bm25": BM25().select(questions),
        "joined_dense": OneStep(untrained_encoder(None, player.encoder.device)).select(questions),
        "original_questions": over_parts(player, questions, originals),
        "smollm2_parts": over_parts(player, questions, [split.parts for split in splits]),
    }
    result = {
        "machine": describe_machine(),
        "checkpoint": player.encoder.config.name,
        "seed": SEED,
        "pairs": len(pairs),
        "chunks": len(questions[0].chunks),
        "smollm2": {
            "split_in_two": sum(len(split.parts) == 2 for split in splits),
            "split_in_more": sum(len(split.parts) > 2 for split in splits),
            "whole": sum(len(split.parts) == 1 for split in splits),
            "warnings": sum(bool(split.warnings) for split in splits),
            "first": [list(split.parts) for split in splits[:8]],
        },
        "ways": {name: figures(pairs, selections, joined) for name, selections in ways.items()},
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
