"""How much a chunk's Q-value depends on where the chunk stands.

    python -m benchmarks.spread --data DATA [--questions N] [--cache FOLDER] [--checkpoint FOLDER]

Of each question the first two steps of a greedy episode are looked at. *Spread* is how much the Q-value of the best
chunk varies over all positions that it could have, *margin* how far it is above the tenth: positions matter where the
spread is not small beside the margin. *Same* is the share of steps whose chunk would be the same if the state asked
nothing of order. Result: ``benchmarks/results/spread.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from index.encoders.loading import load_encoder
from index.episodes.episode import Limits
from index.episodes.stepping import embed_together, step_together
from index.search.explanation import explain
from index.search.matrix_scope import MatrixScope
from index.search.scoring import best
from index.search.states import States
from service.settings import DEFAULT_CHECKPOINT
from trainer.datasets.question import Question
from trainer.evaluation.machine import describe_machine
from trainer.evaluation.playing import Player, start
from trainer.evaluation.suites import SUITES

STEPS = 2
COMPARED = 10
"""The margin is that to the candidate of this rank."""
CHOICES: dict[str, Sequence[str] | None] = {
    "babilong": ["32K"],
    "multihop": None,
    "reader": None,
    "evidence": ["clapnq", "qasper_small", "strategyqa", "conditionalqa"],
}
"""The suites, and which of their lengths or sets."""
RESULT = Path(__file__).parent / "results" / "spread.json"


class Look(NamedTuple):
    """One step."""

    spread: float
    margin: float
    same: bool


def looks(player: Player, question: Question) -> Iterator[Look]:
    """The first steps of an episode."""
    encoder = player.encoder
    scope = player.vectors([question]).scope(question)
    episode = start(encoder, question, player.vectors([question]), Limits(STEPS), encoder.stopping)
    while episode.stopped_by is None:
        (states,) = embed_together(encoder, [episode])
        if isinstance(states, Exception):
            raise states
        yield look(player, scope, states, list(episode.selected))
        (outcome,) = step_together([episode], [states], encoder.function)
        if isinstance(outcome, Exception):
            raise outcome


def look(player: Player, scope: MatrixScope, states: States, selected: list[int]) -> Look:
    """How much the best chunk owes to its position in one state."""
    function = player.encoder.function
    (estimate,) = scope.estimate(states, [selected], function)
    candidates = best(estimate, COMPARED, states[0], scope, selected, function)
    indifferent = states if states.order is None else replace(states, order=np.zeros_like(states.order))
    (without,) = scope.estimate(indifferent, [selected], function)
    (unturned,) = best(without, 1, indifferent[0], scope, selected, function)
    first, last = candidates[0], candidates[-1]
    parts = explain(states[0], scope, selected, function, first.position)
    return Look(parts.spread, first.q - last.q, first.position == unturned.position)


def summary(of: Sequence[Look]) -> dict[str, float]:
    """The figures of a row."""
    spread, margin = np.array([one.spread for one in of]), np.array([one.margin for one in of])
    return {
        "steps": len(of),
        "median_spread": round(float(np.median(spread)), 4),
        "percentile_90_of_spread": round(float(np.quantile(spread, 0.9)), 4),
        "median_margin": round(float(np.median(margin)), 4),
        "same": round(float(np.mean([one.same for one in of])), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=40, help="of each row")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    arguments = parser.parse_args()
    player = Player(load_encoder(arguments.checkpoint), cache=arguments.cache)
    rows: dict[str, Any] = {}
    for suite, lengths in CHOICES.items():
        for one in SUITES[suite](arguments.data, lengths, arguments.questions, 0):
            if one.part:
                continue
            player.read(one.background)
            questions = islice(one.draw(), arguments.questions)
            found = [step for question in tqdm(questions, one.task, one.count) for step in looks(player, question)]
            rows[f"{suite} {one.task} {one.length}".strip()] = summary(found)
            print(one.task, rows[f"{suite} {one.task} {one.length}".strip()], flush=True)
    result = {"machine": describe_machine(), "checkpoint": player.encoder.config.fingerprint, "rows": rows}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
