"""What planning costs and what it finds: greedy episodes and beams, in turn.

    python -m benchmarks.beam --data DATA [--cache FOLDER] [--checkpoint FOLDER]

The cost is that of whole episodes, asked one at a time, in BabiLong documents of a million tokens: each question with
every width before the next, once until the default rule of the checkpoint stops it, as served, and once to the end of
the task's budget, with selections among chunks none of which is wanted. What is found is the all-support recall on the
multi-hop sets, with as many selections as there are gold chunks. Result: ``benchmarks/results/beam.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from index.arrays import Float64Array
from index.encoders.loading import load_encoder
from index.episodes.episode import Limits
from index.episodes.rules import StopBelow
from service.settings import DEFAULT_CHECKPOINT
from trainer.datasets.question import Question
from trainer.evaluation.counting import found_after
from trainer.evaluation.machine import describe_machine
from trainer.evaluation.playing import Player, run_together, start
from trainer.evaluation.suites import babilong, multihop
from trainer.stopping.stops import bootstrap

WIDTHS = (1, 4)
LENGTH = "1M"
QUESTIONS = 12
"""Questions of each task, for the cost."""
RESULT = Path(__file__).parent / "results" / "beam.json"


def play(player: Player, question: Question, width: int, stop: StopBelow | None = None) -> tuple[list[int], float]:
    """The positions selected, and the seconds that it took."""
    encoder, limits = player.encoder, Limits(question.budget, width, stop)
    episode = start(encoder, question, player.vectors([question]), limits, encoder.stopping)
    began = time.perf_counter()
    run_together(encoder, [question], [episode])
    return [step.position for step in episode.steps], time.perf_counter() - began


def cost(player: Player, data: Path, stop: StopBelow | None) -> dict[str, object]:
    """Milliseconds of an episode at each width, and how many times those of the greedy one."""
    seconds: dict[int, list[float]] = {width: [] for width in WIDTHS}
    for one in babilong(data, [LENGTH], QUESTIONS, 0):
        player.read(one.background)
        for question in one.draw():
            for width in WIDTHS:
                seconds[width].append(play(player, question, width, stop)[1])
    means = {width: float(np.mean(found)) for width, found in seconds.items()}
    return {
        "length": LENGTH,
        "questions": len(seconds[1]),
        "milliseconds": {width: round(1000 * mean, 1) for width, mean in means.items()},
        "times_greedy": {width: round(mean / means[1], 3) for width, mean in means.items()},
    }


def recall(player: Player, data: Path) -> dict[str, object]:
    """All-support recall at each width, and how far that is above the greedy one."""
    result: dict[str, object] = {}
    for one in multihop(data, None, None, 0):
        if one.part:
            continue
        player.read(one.background)
        questions = list(one.draw())
        found = {width: solved(player, questions, width) for width in WIDTHS}
        result[one.task] = {
            "questions": len(questions),
            "recall": {width: round(float(values.mean()), 4) for width, values in found.items()},
            "above_greedy": {
                width: [round(value, 4) for value in above(found[width], found[1])] for width in WIDTHS if width > 1
            },
        }
        print(one.task, result[one.task], flush=True)
    return result


def above(values: Float64Array, greedy: Float64Array) -> Sequence[float]:
    """Mean difference and its 95% interval, from a paired bootstrap."""
    difference = values - greedy
    each = [np.array([at]) for at in range(len(difference))]
    return bootstrap([each], lambda picked: float(difference[picked].mean()))


def solved(player: Player, questions: Sequence[Question], width: int) -> Float64Array:
    """1 for each question whose support was all selected, else 0."""
    found = [found_after(question, play(player, question, width)[0]) is not None for question in questions]
    return np.array(found, dtype=np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    arguments = parser.parse_args()
    player = Player(load_encoder(arguments.checkpoint), cache=arguments.cache)
    source = player.encoder.config.stopping
    if source is None or source.calibration is None:
        parser.error("the checkpoint is not calibrated: it has no default rule")
    result = {
        "machine": describe_machine(),
        "recall": recall(player, arguments.data),
        "cost_by_default_rule": cost(player, arguments.data, source.calibration.rule_for()),
        "cost_by_budget": cost(player, arguments.data, None),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["cost_by_default_rule"]), json.dumps(result["cost_by_budget"]))


if __name__ == "__main__":
    main()
