"""What each part of the training is worth: one thing changed at a time, on QA3 and on the multi-hop sets.

    python -m benchmarks.ablations --data DATA [--runs FOLDER] [--cache FOLDER] [--only NAME ...]

Every variant trains from the same recipe with the same seed and the same number of transitions, and is tested as it is
at the end: the best of several validations would be one from before the λ-returns as often as not. Supervised imitation
and the public code's settings are so compared as baselines too. A variant that has a result already is not run again.
Result: ``benchmarks/results/ablations.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from index.encoders.loading import load_encoder, resolve_device
from trainer.evaluation.machine import describe_machine
from trainer.evaluation.playing import Player
from trainer.evaluation.reports import measure
from trainer.evaluation.suites import babilong, multihop
from trainer.learning.training import train
from trainer.recipe import read_recipe

RESULT = Path(__file__).parent / "results" / "ablations.json"
RECIPES = Path(__file__).parent.parent / "trainer" / "recipes"

QUESTIONS = 200
"""Questions of QA3 for each length to test on; of the multi-hop sets, all."""

SETS = {"qa3": ("qa3",), "multihop": ("hotpotqa", "2wiki", "musique")}
"""What each recipe is tested on."""

VARIANTS: dict[str, dict[str, object]] = {
    "base": {},
    "action tower frozen": {"hyperparameters.action_mode": "frozen"},
    "action tower refreshed": {"hyperparameters.action_mode": "refreshed", "hyperparameters.live_chunks": 4},
    "no warm start": {"hyperparameters.warm_start": 0.0},
    "λ-returns for the last 30%": {"hyperparameters.warm_start": 0.7},
    "the same, λ = 0": {"hyperparameters.warm_start": 0.7, "hyperparameters.lambda_": 0.0},
    "the same, λ = 1": {"hyperparameters.warm_start": 0.7, "hyperparameters.lambda_": 1.0},
    "the same, no target network": {"hyperparameters.warm_start": 0.7, "hyperparameters.target_decay": 0.0},
    "no hard negatives": {"hyperparameters.hard_negatives": 0},
    "no contrast": {"hyperparameters.contrast": 0.0},
    "no squared errors": {"hyperparameters.squared": 0.0},
    "dagger": {"hyperparameters.behaviour": "dagger"},
    "supervised imitation": {"hyperparameters.behaviour": "support", "hyperparameters.squared": 0.0},
    # griver/Q-RAG, README of the public code: its settings of PQN, without its bugs, in this trainer. (It trains the
    # action tower too, which "action tower refreshed" shows by itself.)
    "public code's settings": {
        "positions": {"mode": "relative", "delta": 20.0, "ell": 18.0, "levels": 18},
        "hyperparameters.warm_start": 0.0,
        "hyperparameters.gamma": 0.99,
        "hyperparameters.lambda_": 0.5,
        "hyperparameters.alpha_start": 0.05,
        "hyperparameters.alpha_end": 0.005,
        "hyperparameters.learning_rate": 1.5e-5,
        "hyperparameters.weight_decay": 5e-4,
        "hyperparameters.reward": "shaped",
    },
    "positions none": {"positions.mode": "none"},
    "positions absolute": {"positions.mode": "absolute"},
    "levels 18": {"positions.levels": 18},
    "levels 1024": {"positions.levels": 1024},
}

POSITIONAL = ("positions none", "positions absolute", "levels 18", "levels 1024")
"""Change nothing on the multi-hop sets, where each document is a single chunk."""


def run(task: str, variant: str, data: Path, runs: Path, cache: Path | None, seed: int, share: float) -> dict[str, Any]:
    """Train one variant and test it; all-support recall at the budget by test set."""
    folder = runs / task / f"{variant.replace(' ', '-')}-{seed}"
    changes = VARIANTS[variant]
    whole = read_recipe(RECIPES / f"ablation-{task}.yaml")
    refreshed = changes.get("hyperparameters.action_mode") == "refreshed"
    # Without a warm start hard negatives teach nothing; a tower that changes would have to read them all again.
    if refreshed or changes.get("hyperparameters.warm_start") == 0.0:
        changes = changes | {"tasks": [{**json.loads(one.model_dump_json()), "mine": False} for one in whole.tasks]}
    transitions = round(share * whole.hyperparameters.transitions)
    whole_run = {"seed": seed, "hyperparameters.transitions": transitions, "validate_every": transitions}
    recipe = read_recipe(RECIPES / f"ablation-{task}.yaml", {**changes, **whole_run})
    resume = (folder / "state").exists()
    best = train(recipe, data, folder, device=resolve_device("auto"), resume=resume, cache=cache)
    last = json.loads((folder / "validation.jsonl").read_text().splitlines()[-1])
    player = Player(load_encoder(best), cache=cache)
    sets = babilong(data, ["4K", "128K"], QUESTIONS, 0) if task == "qa3" else multihop(data, None, None, 0)
    rows = [measure(player, test_set) for test_set in sets if test_set.task in SETS[task]]
    return {
        "seed": seed,
        "seconds": last["seconds"],
        "transitions": last["transitions"],
        "recall": {row.length or row.task: row.at_budget for row in rows},
        "recall_by_step": {row.length or row.task: row.recall_by_step for row in rows},
        "questions": {row.length or row.task: row.questions for row in rows},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder, see docs/data.md")
    parser.add_argument("--runs", type=Path, help="where runs are kept, so that an interrupted one can go on")
    parser.add_argument("--cache", type=Path, help="keep embeddings of chunks here: all variants share them")
    parser.add_argument("--share", type=float, default=1.0, help="of the recipes' transitions to train")
    parser.add_argument("--tasks", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT, help="results so far, and where new ones are added")
    arguments = parser.parse_args()
    result: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        for task in arguments.tasks:
            for variant in arguments.only:
                if task == "multihop" and variant in POSITIONAL:
                    continue
                found = result.setdefault("results", {}).setdefault(task, {}).setdefault(variant, [])
                if any(one["seed"] == arguments.seed for one in found):
                    continue
                runs = arguments.runs or Path(temporary)
                found.append(run(task, variant, arguments.data, runs, arguments.cache, arguments.seed, arguments.share))
                print(task, variant, found[-1]["recall"], flush=True)
                result["machine"] = describe_machine()
                arguments.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
