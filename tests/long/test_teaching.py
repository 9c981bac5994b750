"""Small trainings, whole: what they were to teach is known afterwards, and was not before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from index.encoders.loading import load_encoder
from tests.trainer.learners import CPU, R3, make_recipe, r3_recipe, recall_of
from tests.trainer.overlap_reader import OverlapReader
from trainer.bases.models import MINILM, base_directory, initial_config
from trainer.datasets.jsonl import read_jsonl
from trainer.datasets.question import Question
from trainer.hyperparameters import Hyperparameters
from trainer.judging.judge import Judge
from trainer.learning.networks import QNetwork
from trainer.learning.training import Validation, build_learner, train
from trainer.tasks.mixture import Mixture
from trainer.tasks.source import Source

NAMES = "Ann Bob Carl Dora Emil Fred Gina Hugo Ida Jack Kate Leo Mona Nick Olga Paul".split()
THINGS = "ball box key lamp coin ring book rope cup hat".split()
PLACES = "garden kitchen tower bridge cellar attic harbor market".split()
PEOPLE = [f"{first} {last}" for first in NAMES for last in ("Bosman", "Carter", "Dietrich", "Evans", "Frost", "Green")]
"""So many that no two questions of a batch are about the same one, as a rule: each is the others' negative."""
MORE_THINGS = ("ball", "box", "key", "lamp", "letter", "clock", "ship", "candle", "mirror", "stone", "hat", "drum")


def two_hops(generator: np.random.Generator) -> dict[str, Any]:
    """Who has a thing, and where that thing is from: of all the things he wants, lost and broke, the one he has."""
    people = generator.choice(NAMES, size=6, replace=False)
    things = generator.choice(THINGS, size=6, replace=False)
    facts = [f"{person} has the {thing}." for person, thing in zip(people, things, strict=True)]
    facts += [f"The {thing} is from the {generator.choice(PLACES)}." for thing in things]
    facts += [
        f"{people[0]} {verb} the {thing}." for verb, thing in zip(("wants", "lost", "broke"), things[1:4], strict=True)
    ]
    order = generator.permutation(len(facts)).tolist()
    return {
        "question": f"Whence comes what {people[0]} has?",
        "chunks": [facts[at] for at in order],
        "support": [order.index(0), order.index(6)],
    }


def test_training_teaches_two_hops(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    records = [two_hops(generator) for _ in range(400)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = make_recipe(
        Path(MINILM),
        tasks=({"kind": "jsonl", "path": "own.jsonl", "validation": 60},),
        validate_every=1000,
        hyperparameters=Hyperparameters(
            transitions=448, environments=32, minibatch=32, learning_rate=3e-4, warm_start=0.7, alpha_end=0.05
        ),
    )
    held_out = list(read_jsonl(tmp_path / "own.jsonl"))[-60:]
    base = base_directory(MINILM)
    config = initial_config(recipe, base)
    untrained = QNetwork(config, base, action_mode="frozen", device=CPU, dtype=torch.float32).encoder
    best = train(recipe, tmp_path, tmp_path / "run", device=CPU)
    assert recall_of(untrained, held_out) < 0.3
    assert recall_of(load_encoder(best, device="cpu"), held_out) > 0.8


def belongings(
    generator: np.random.Generator, people: Sequence[str], things: Sequence[str]
) -> tuple[str, str, list[str]]:
    """Somebody, what he has, and what he and another one have, want, lost and broke; the first says what he has."""
    owners = generator.choice(people, size=2, replace=False).tolist()
    owned = generator.choice(things, size=8, replace=False).tolist()
    said = [(who, verb) for who in owners for verb in ("has", "wants", "lost", "broke")]
    return owners[0], owned[0], [f"{who} {verb} the {what}." for (who, verb), what in zip(said, owned, strict=True)]


def test_rewards_alone_teach_too() -> None:
    def question(generator: np.random.Generator) -> Question:
        person, _, facts = belongings(generator, NAMES, THINGS)
        order = generator.permutation(8).tolist()
        chunks = [facts[at] for at in order]
        return Question("1", "own", f"What does {person} have?", chunks, (8,), frozenset({order.index(0)}), 1)

    settings = Hyperparameters(
        transitions=600,
        environments=32,
        minibatch=32,
        learning_rate=3e-4,
        head_learning_rate=1.5e-3,
        warm_start=0.0,
        alpha_start=0.2,
        alpha_end=0.05,
    )
    learner = build_learner(make_recipe(Path(MINILM), hyperparameters=settings), CPU, seed=0)
    generator = np.random.default_rng(0)
    held_out = [question(generator) for _ in range(60)]
    validation = Validation(Mixture((Source(1.0, question, tuple(held_out), ()),)))
    before = validation.measure(learner)["own"]
    while learner.seen < settings.transitions:
        learner.update([question(generator) for _ in range(32)])
    assert before < 0.65
    assert validation.measure(learner)["own"] > 0.85


def judged(generator: np.random.Generator) -> Question:
    """What somebody has, as a reader has judged it."""
    person, thing, facts = belongings(generator, PEOPLE, MORE_THINGS)
    order = generator.permutation(8).tolist()
    right = order.index(0)
    return Question(
        id=str(generator.integers(2**31)),
        task="own",
        text=f"What does {person} have?",
        chunks=[facts[place] for place in order],
        counts=(8,),
        support=frozenset({right}),
        budget=1,
        facts=(frozenset({right}),),
        answers=(thing,),
        wrong=tuple(place for place in range(8) if place != right),
        judged=True,
    )


def test_training_lifts_what_the_reader_answers_from() -> None:
    settings = replace(R3, action_mode="adapter", transitions=448, environments=32, learning_rate=3e-4)
    reader = OverlapReader()
    taught = build_learner(r3_recipe(Path(MINILM), settings), CPU, seed=0, judge=Judge(reader, "answer"))
    generator = np.random.default_rng(0)
    held_out = [judged(generator) for _ in range(60)]

    def first() -> float:
        return float(np.mean([played.final is None for played in taught.rollout(held_out)]))

    before, offline = first(), 0
    while taught.progress < 1:
        taught.update([judged(generator) for _ in range(32)])
        offline = len(reader.asked) if taught.warm else offline
    assert offline == 0  # pools are drawn from, the reader is asked on the policy's list alone
    assert len(reader.asked) > 0
    assert first() > max(0.8, before + 0.2)
