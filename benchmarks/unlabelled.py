"""How much of what labels teach a frozen reader teaches without them.

    python -m benchmarks.unlabelled --data DATA --runs FOLDER [--reader NAME] [--only VARIANT ...] [--sets SET ...]

For each set some 500 questions with answers are drawn. A checkpoint is trained from the untrained base on the support
that people marked, on what the reader says of the same questions (``judge``, form ``joint``), on that and then with the
reader's own reward, and by R3's objective over pools that the reader made. All are tested on the dev part with as many
selections as there is evidence, and so is the base, the nearest chunks in one step. The share of the labels' gain has a
bootstrap interval over the questions, and is stated where the labels gain more than two standard errors. What has a
result already is not run again. Result: ``benchmarks/results/unlabelled.json``. What the reader has said of a set's
questions, an hour and a half of reading for R3's pools, is kept in ``benchmarks/judgements``; without the file it is
asked.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from index.arrays import Float64Array
from index.encoders.loading import load_encoder, resolve_device
from trainer.datasets.question import Question
from trainer.datasets.registry import DATASETS
from trainer.evaluation.baselines import OneStep, untrained_encoder
from trainer.evaluation.counting import found_after
from trainer.evaluation.machine import describe_machine
from trainer.evaluation.paired import RESAMPLES
from trainer.evaluation.playing import Player, Retriever, together
from trainer.judging.candidates import first_candidates, to_judge
from trainer.judging.judge import Form, Judge
from trainer.judging.support import LEAST_GAIN, find_support
from trainer.learning.state import stored_state
from trainer.learning.training import train
from trainer.readers.opening import NAME, open_reader
from trainer.recipe import read_recipe
from trainer.tasks.judgements import Judgement, write_judgements

RESULT = Path(__file__).parent / "results" / "unlabelled.json"
JUDGEMENTS = Path(__file__).parent / "judgements"
RECIPE = Path(__file__).parent.parent / "trainer" / "recipes" / "unlabelled.yaml"

QUESTIONS = 540
"""Questions drawn from each set, those of the validation included."""

TESTED = 300
"""Most questions of a dev part."""


@dataclass(frozen=True, slots=True)
class Set:
    """A data set of the comparison."""

    kind: str
    training: str
    test: str
    candidates: int
    """Chunks of a question that the reader reads."""
    most_chunks: int


SETS = {
    "hotpotqa": Set("hotpotqa", "multihop/hotpotqa_train.jsonl.gz", "multihop/hotpotqa_dev.jsonl.gz", 20, 4),
    "fairytaleqa": Set("evidence", "evidence/fairytaleqa_train.jsonl.gz", "evidence/fairytaleqa_dev.jsonl.gz", 8, 1),
}
"""HotpotQA, and a set of single facts."""

VARIANTS: dict[str, dict[str, object]] = {
    "labels": {},
    "reader": {},
    "reader and its reward": {
        "reader": NAME,
        "reader_form": "joint",
        "hyperparameters.reward": "answer",
        "hyperparameters.warm_start": 0.7,
    },
    "R3": {
        "reader": NAME,
        "reader_form": "answer",
        "hyperparameters.reward": "answer",
        "hyperparameters.objective": "r3",
        "hyperparameters.warm_start": 0.5,
    },
}


def judgements_of(variant: str, questions: Sequence[Question], some: Set, folder: Path, reader: str) -> list[Judgement]:
    """What a variant is told of the questions."""
    if variant == "labels":
        return [_labelled(question) for question in questions]
    device = resolve_device("auto")
    form: Form = "answer" if variant == "R3" else "joint"
    with open_reader(reader, device, folder / "reader.sqlite") as opened:
        return list(
            find_support(
                Judge(opened, form),
                questions,
                first_candidates(questions, some.candidates, device, folder / "cache"),
                least_gain=LEAST_GAIN,
                most_chunks=1 if variant == "R3" else some.most_chunks,
                pools=variant == "R3",
            )
        )


def _labelled(question: Question) -> Judgement:
    support = tuple(sorted(question.support))
    return Judgement(
        id=question.id,
        chunks=len(question.chunks),
        candidates=support,
        values=(0.0,) * len(support),
        support=support,
        gains=(),
    )


def found(retriever: Retriever, questions: Sequence[Question]) -> list[float]:
    """Whether all of each question's evidence is among as many selections as it needs."""
    outcomes: list[float] = []
    for group in together(replace(question, budget=question.needed) for question in questions):
        selections = retriever.select(group)
        outcomes += [
            float(found_after(question, chosen) is not None) for question, chosen in zip(group, selections, strict=True)
        ]
    return outcomes


def run(name: str, variant: str, data: Path, folder: Path, reader: str, seed: int) -> dict[str, Any]:
    """Judge, train and test one variant."""
    some, here = SETS[name], folder / name / f"{variant.replace(' ', '-')}-{seed}"
    questions = to_judge(DATASETS[some.kind], data / some.training, None, QUESTIONS, 0)
    teller = "labels" if variant == "labels" else "R3" if variant == "R3" else "reader"
    told = folder / name / f"{teller}.jsonl"
    kept = JUDGEMENTS / f"{name}-{teller}-{reader}.jsonl"
    if not told.exists() and kept.exists():
        told.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(kept, told)
    if not told.exists():
        write_judgements(told, judgements_of(variant, questions, some, folder, reader))
    task = {
        "kind": some.kind,
        "path": some.training,
        "judgements": str(told),
        "validation": 40,
        "mine": variant != "R3",
    }
    changes = {**VARIANTS[variant], "tasks": [task], "seed": seed}
    recipe = read_recipe(RECIPE, {**changes, **({"reader": reader} if "reader" in changes else {})})
    best = train(
        recipe,
        data,
        here,
        device=resolve_device("auto"),
        resume=stored_state(here) is not None,
        cache=folder / "cache",
    )
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    by_id = {question.id: question for question in questions}
    exact = [set(line["support"]) == set(by_id[line["id"]].support) for line in lines if line["support"]]
    player = Player(load_encoder(best), cache=folder / "cache")
    return {
        "judged": len(exact),
        "support_as_labelled": round(float(np.mean(exact)), 4),
        "seconds": json.loads((here / "validation.jsonl").read_text().splitlines()[-1])["seconds"],
        "found": found(player, tested(data, some)),
    }


def tested(data: Path, some: Set) -> list[Question]:
    """The dev questions."""
    return list(islice((q for q in DATASETS[some.kind].questions(data / some.test) if q.support), TESTED))


def shares(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Recall of each variant, and the share of the labels' gain with its 95% interval where there is one to share."""
    values: dict[str, Float64Array] = {name: np.array(result["found"]) for name, result in results.items()}
    base = values["base"]
    drawn = np.random.default_rng(0).integers(len(base), size=(RESAMPLES, len(base)))
    summary: dict[str, dict[str, Any]] = {}
    labels = values.get("labels", base)
    gain = labels - base
    enough = gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain))
    for name, own in values.items():
        summary[name] = {"recall": round(float(own.mean()), 4)}
        if name not in ("base", "labels") and enough:
            ratios = (own - base)[drawn].mean(axis=1) / gain[drawn].mean(axis=1)
            low, high = np.percentile(ratios, (2.5, 97.5)).tolist()
            share = float((own - base).mean() / gain.mean())
            summary[name]["share_of_the_gain"] = [round(value, 3) for value in (share, low, high)]
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder, see docs/data.md")
    parser.add_argument("--runs", type=Path, required=True, help="where runs are kept: an interrupted one goes on")
    parser.add_argument("--reader", default=NAME, help="see docs/training.md")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT, help="results so far, and where new ones are added")
    arguments = parser.parse_args()
    result: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    asked = {"reader": arguments.reader, "seed": arguments.seed}
    if result and asked != {name: result[name] for name in asked}:
        parser.error(f"{arguments.out} has results of another reader or seed: name another --out and another --runs.")
    folder = arguments.runs.resolve()
    for name in arguments.sets:
        results = result.setdefault("results", {}).setdefault(name, {})
        if "base" not in results:
            nearest = OneStep(untrained_encoder(None, torch.device("cpu")), cache=folder / "cache")
            results["base"] = {"found": found(nearest, tested(arguments.data, SETS[name]))}
        for variant in arguments.only:
            if variant not in results:
                results[variant] = run(name, variant, arguments.data, folder, arguments.reader, arguments.seed)
            result.setdefault("summary", {})[name] = shares(results)
            result |= {"machine": describe_machine(), **asked}
            print(name, variant, result["summary"][name][variant], flush=True)
            arguments.out.write_text(json.dumps(result, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
