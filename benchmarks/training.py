"""Training throughput: this trainer against the public code's way of working, on the same questions.

    python -m benchmarks.training --data DIR

The public way (griver/Q-RAG as published: ``training.yaml`` with ``envs.num_sentences=100``) is written out plainly
below: both networks in float32 with dropout, all chunks embedded by both at the start of every rollout and of every
episode, all of their embeddings rotated again at each step. Both ways run in turn, round by round in one process, and
the ratio is taken within a round. Result: ``benchmarks/results/training.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import AutoTokenizer

from index.encoders.loading import load_model
from trainer.bases.models import base_directory, base_of
from trainer.datasets.question import Question
from trainer.evaluation.machine import describe_machine
from trainer.learning.learner import Learner
from trainer.learning.training import build_learner
from trainer.recipe import Recipe, read_recipe
from trainer.tasks.mixture import Mixture, build_mixture

RESULT = Path(__file__).parent / "results" / "training.json"
RECIPE = Path(__file__).parent.parent / "trainer" / "recipes" / "default.yaml"
CHUNKS = 100
BOOK_SENTENCES = 2000
"""Few, so that the one-off embedding of the books takes seconds; it is reported beside the throughput."""


# -- the public code's way --------------------------------------------------------------------------------------------


BATCH = 32
ACCUMULATE = 2
MAX_STEPS = 6
STATE_TOKENS, CHUNK_TOKENS = 512, 64
TOP = 5
GAMMA, ALPHA, LAMBDA, TAU = 0.99, 0.005, 0.6, 0.02
STEP, EXTENT = 20, 18
"""What its relative positions are made of; they are rounded down to whole numbers."""


class Step(NamedTuple):
    """One transition as it is kept for the update."""

    state: str
    chunk: str
    position: float
    reward: float
    goes_on: bool
    value: float
    """The value of the state, by the target network."""


class PublicWay:
    """One environment, two networks of two towers each."""

    def __init__(self, base: Path, draw: Callable[[], Question]) -> None:
        torch.manual_seed(0)
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.online, self.target = (
            torch.nn.ModuleList(load_model(base, torch.device("cpu"), torch.float32) for _ in range(2)).train()
            for _ in range(2)
        )
        self.optimizer = torch.optim.AdamW(
            self.online.parameters(), lr=5e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01
        )
        self.draw = draw
        self.question, self.selected = draw(), list[int]()
        self.updates = 0
        self.chunk_forwards = 0

    def embed(self, tower: torch.nn.Module, texts: list[str], longest: int) -> torch.Tensor:
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
        hidden = tower(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        mean: torch.Tensor = (hidden * mask).sum(1) / mask.sum(1) / 10
        return mean

    def positions(self) -> torch.Tensor:
        count = len(self.question.chunks)
        rho = torch.zeros(count)
        borders = [0, *sorted(self.selected), count]
        for interval, (start, stop) in enumerate(pairwise(borders)):
            rho[start:stop] = interval * STEP + torch.linspace(0, EXTENT, max(stop - start, 1))[: stop - start]
        return rho.floor()

    @torch.no_grad()
    def chunks(self) -> list[torch.Tensor]:
        """Embeddings by the online and the target network, each ``[chunks, d]``."""
        self.chunk_forwards += 2 * len(self.question.chunks)
        return [
            self.embed(network[1], list(self.question.chunks), CHUNK_TOKENS) for network in (self.online, self.target)
        ]

    def state(self) -> str:
        return " [SEP] ".join([self.question.text, *(self.question.chunks[i] for i in sorted(self.selected))])

    @torch.no_grad()
    def act(self, chunks: list[torch.Tensor]) -> tuple[int, float]:
        """The selection, by the online network, and the state's value, by the target network."""
        rho = self.positions()
        online, target = (rotated(embeddings, rho) for embeddings in chunks)
        free = torch.ones(len(rho), dtype=torch.bool)
        free[self.selected] = False
        q = (online @ self.embed(self.online[0], [self.state()], STATE_TOKENS)[0]).masked_fill(~free, -torch.inf)
        best = torch.topk(q, min(TOP, len(q)))
        action = int(best.indices[torch.multinomial((best.values / ALPHA).softmax(0), 1)])
        state = self.embed(self.target[0], [self.state()], STATE_TOKENS)[0]
        half = len(state) // 2
        value = 0.0
        for part in (slice(None, half), slice(half, None)):
            parts = target[:, part] @ state[part]
            top = torch.topk(parts, min(TOP, len(parts))).indices
            # Bounded below, for all of the best may be selected already.
            mass = (((parts[top] - parts[top[0]]) / ALPHA).exp() * free[top]).sum().clamp(min=1e-10)
            value += float(parts[top[0]] + ALPHA * mass.log())
        return action, value

    def update(self) -> int:
        """One rollout and one backward pass, with an optimiser step in every second; returns the transitions."""
        chunks = self.chunks()
        steps: list[Step] = []
        while len(steps) < BATCH:
            action, value = self.act(chunks)
            state, position = self.state(), float(self.positions()[action])
            self.selected.append(action)
            found = self.question.support.issubset(self.selected)
            reward = 0.5 + 0.5 * len(self.question.support) / len(self.selected) if found else 0.0
            goes_on = not found and len(self.selected) < MAX_STEPS
            steps.append(Step(state, self.question.chunks[action], position, reward, goes_on, value))
            if not goes_on:
                self.question, self.selected = self.draw(), []
                chunks = self.chunks()
        _, last = self.act(chunks)
        self._learn(steps, last)
        return len(steps)

    def _learn(self, steps: list[Step], last: float) -> None:
        returns = [0.0] * len(steps)
        following = last
        for t in range(len(steps) - 1, -1, -1):
            value = last if t == len(steps) - 1 else steps[t + 1].value
            following = steps[t].reward + steps[t].goes_on * GAMMA * ((1 - LAMBDA) * value + LAMBDA * following)
            returns[t] = following
        states = self.embed(self.online[0], [step.state for step in steps], STATE_TOKENS)
        actions = rotated(
            self.embed(self.online[1], [step.chunk for step in steps], CHUNK_TOKENS),
            torch.tensor([step.position for step in steps]),
        )
        half = states.shape[1] // 2
        wanted = torch.tensor(returns)
        losses = [
            (2 * (states[:, part] * actions[:, part]).sum(1) - wanted).square().mean()
            for part in (slice(None, half), slice(half, None))
        ]
        (torch.stack(losses).mean() / ACCUMULATE).backward()  # type: ignore[no-untyped-call]
        self.updates += 1
        if self.updates % ACCUMULATE == 0:
            torch.nn.utils.clip_grad_norm_(self.online.parameters(), 2.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            with torch.no_grad():
                for kept, moved in zip(self.target.parameters(), self.online.parameters(), strict=True):
                    kept.lerp_(moved, TAU)


def rotated(embeddings: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    """A copy with each row of ``[n, d]`` turned by its position."""
    frequency = 10000.0 ** (-torch.arange(0, embeddings.shape[1], 2) / embeddings.shape[1])
    angle = rho[:, None] * frequency
    even, odd = embeddings[:, 0::2], embeddings[:, 1::2]
    turned = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
    return torch.stack(turned, dim=-1).flatten(1)


# -- this trainer's way -----------------------------------------------------------------------------------------------


class OwnWay:
    """The default recipe's learner, put at two points of a training: its warm start, and what follows."""

    def __init__(self, recipe: Recipe, mixture: Mixture) -> None:
        self.learner: Learner = build_learner(recipe, torch.device("cpu"), seed=0)
        self.mixture = mixture
        self.settings = recipe.hyperparameters

    def update(self, progress: float) -> int:
        """One update with the training so far done; returns the transitions."""
        self.learner.seen = before = int(progress * self.settings.transitions)
        self.learner.update(self.mixture.draw(self.settings.environments, self.learner.generator))
        return self.learner.seen - before


# -- the comparison ---------------------------------------------------------------------------------------------------


def seconds_per_transition(update: Callable[[], int], updates: int) -> float:
    began = time.perf_counter()
    transitions = sum(update() for _ in range(updates))
    return (time.perf_counter() - began) / transitions


def compare(data: Path, rounds: int, updates: int) -> dict[str, object]:
    """The result; a round takes ``updates`` optimiser steps of the public way."""
    qa2 = {"kind": "babi", "task": "qa2", "path": "babi/published/qa2_train.txt", "rename": 0.3}
    changed = {"tasks": [{**qa2, "sentences": [CHUNKS, CHUNKS]}], "book_sentences": BOOK_SENTENCES}
    recipe = read_recipe(RECIPE, changed)
    mixture = build_mixture(recipe, data)
    own = OwnWay(recipe, mixture)
    began = time.perf_counter()
    own.learner.table.rows(dict.fromkeys(chunk for question in mixture.validation for chunk in question.chunks))
    books = len(own.learner.table.row) / (time.perf_counter() - began)
    generator = np.random.default_rng(0)
    public = PublicWay(base_directory(base_of(recipe)), lambda: mixture.draw(1, generator)[0])

    share = recipe.hyperparameters.warm_start
    parts = ((share / 2, share), ((1 + share) / 2, 1 - share))  # the middle of the warm start, of what follows
    phases = [(progress, weight) for progress, weight in parts if weight > 0]
    measured: list[dict[str, float]] = []
    for number in range(rounds + 1):  # the first one warms up
        torch.use_deterministic_algorithms(False)  # as published; ours trains with them on a CPU
        theirs = seconds_per_transition(public.update, updates * ACCUMULATE)
        torch.use_deterministic_algorithms(True)
        ours = [seconds_per_transition(lambda at=progress: own.update(at), 2 * updates) for progress, _ in phases]  # type: ignore[misc]
        mean = sum(weight * seconds for (_, weight), seconds in zip(phases, ours, strict=True))
        if number:
            measured.append({"public": 1 / theirs, "ours": 1 / mean, "ratio": theirs / mean})
    return {
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "chunks": CHUNKS,
        "rounds": rounds,
        "public": {"batch": BATCH, "accumulate": ACCUMULATE, "environments": 1, "max_steps": MAX_STEPS},
        "ours": {
            "environments": recipe.hyperparameters.environments,
            "action_mode": recipe.hyperparameters.action_mode,
        },
        "transitions_per_second": {
            name: round(statistics.median(one[name] for one in measured), 2) for name in ("public", "ours")
        },
        "ratio": round(statistics.median(one["ratio"] for one in measured), 1),
        "ratios": [round(one["ratio"], 1) for one in measured],
        "public_chunk_forwards_per_transition": round(public.chunk_forwards / (public.updates * BATCH), 1),
        "ours_chunks_embedded_once_per_second": round(books, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Training throughput against the public code's way of working.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=1, help="optimiser steps of the public way in a round")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    result = compare(arguments.data, arguments.rounds, arguments.updates)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
