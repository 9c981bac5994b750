"""Data to mix, and recipes over it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.datasets.question import Question
from trainer.recipe import Recipe
from trainer.tasks.mixture import Mixture

EXAMPLES = Path(__file__).parents[2] / "examples" / "training"
PEOPLE = ("Mary", "John", "Daniel", "Sandra")
THINGS = ("apple", "football", "milk")
PLACES = ("kitchen", "garden", "office", "hallway", "bathroom", "bedroom")
BOOK = "\n\n".join(f"The night was dark, and number {number} was the darkest of all." for number in range(30))


def write_stories(path: Path, seed: int, lengths: Sequence[int]) -> None:
    """bAbI stories of QA2: each with so many questions, the first one after two facts. No two stories begin alike."""
    generator = np.random.default_rng(seed)
    lines: list[str] = []
    for story, questions in enumerate(lengths):
        # The first facts say which story it is: the people and places are those of its number, in base 4 and 6.
        person, thing = PEOPLE[story % 4], THINGS[seed % 3]
        facts = [f"{person} took the {thing}.", f"{person} went to the {PLACES[story // 4 % 6]}."]
        line = 0
        for number in range(questions):
            new = facts if number == 0 else [f"{person} moved to the {generator.choice(PLACES)}."]
            for fact in new:
                line += 1
                lines.append(f"{line} {fact}")
            line += 1
            lines.append(f"{line} Where is the {thing}?\tkitchen\t1 {line - 1}")
    path.write_text("\n".join(lines) + "\n")


def make_recipe(tasks: Sequence[dict[str, Any]], **fields: Any) -> Recipe:
    return Recipe.model_validate({"name": "test", "books": "books", "tasks": tasks} | fields)


BABI = {"kind": "babi", "task": "qa2", "path": "one.txt", "sentences": [12, 20], "validation": 6}


def drawn(mixture: Mixture, count: int = 300) -> list[Question]:
    return mixture.draw(count, np.random.default_rng(3))


def write_own(path: Path, count: int, documents: bool = True) -> None:
    """Questions in the plain format, over documents of one chunk each or over one document."""
    records = []
    for number in range(count):
        texts = [f"text {number}.{place}" for place in range(4)]
        record = {"id": f"q{number}", "question": f"Which {number}?", "support": [number % 4, (number + 1) % 4]}
        records.append(record | ({"documents": texts} if documents else {"chunks": texts}))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_multihop(data: Path) -> None:
    """The test files of the multi-hop data sets, from the samples that come along."""
    (data / "multihop").mkdir()
    for name in ("hotpotqa/hotpotqa.json", "2wiki/2wiki.json", "musique/musique.jsonl"):
        file = EXAMPLES / name
        with gzip.open(data / "multihop" / f"{file.stem}_dev.jsonl.gz", "wb") as packed:
            packed.write(file.read_bytes())


OWN = {"kind": "jsonl", "path": "own.jsonl", "validation": 2}


def support_texts(question: Question) -> set[str]:
    return {question.chunks[place] for place in question.support}
