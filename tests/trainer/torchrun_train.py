"""What torchrun starts in a test: one of several processes that train together. Reports what it ended with as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from trainer.datasets.question import Question
from trainer.learning import training
from trainer.learning.distributed import own_share
from trainer.learning.learner import Learner
from trainer.recipe import read_recipe


class Watched(Learner):
    """A learner that counts what this process has played."""

    played = 0
    drawn: list[str]

    def update(self, questions: Sequence[Question]) -> dict[str, float]:
        self.drawn = [question.id for question in questions]
        figures = super().update(questions)
        self.played += round(figures["steps"] * len(questions))
        return figures


def main(folder: Path, rank: str) -> None:
    """Train by ``folder/recipe.yaml`` and go on with what that left."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO)
    learners: list[Watched] = []

    def make(*arguments: Any, **options: Any) -> Learner:
        learners.append(Watched(*arguments, **options))
        return learners[-1]

    training.Learner = make  # type: ignore[assignment, attr-defined]
    recipe = read_recipe(folder / "recipe.yaml")
    run, cache = folder / "run", folder / "cache"
    for resume in (False, True):
        training.train(recipe, folder, run, device=torch.device("cpu"), resume=resume, cache=cache, cache_from=1)
    trained, resumed = learners
    digest = sha256()
    for name, value in sorted(trained.masters.values.items()):
        digest.update(name.encode() + value.detach().numpy().tobytes() + trained.average[name].numpy().tobytes())
    report = {
        "weights": digest.hexdigest(),
        "seen": trained.seen,
        "updates": trained.updates,
        "played": trained.played,
        "drawn": trained.drawn,
        "seen_again": resumed.seen,
        "share": list(own_share(range(5))),
        "next_random": int(resumed.generator.integers(2**62)),
    }
    (folder / f"{rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), os.environ["RANK"])
