"""The questions of an adaptation as a data set, which a recipe names and a later run finds again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from trainer.adapting.collection import Collection
from trainer.datasets.question import Question

SET = "adapt"

TRAINING, HELD_OUT = f"{SET}_train.jsonl", f"{SET}_dev.jsonl"
"""Questions to train on, and those that the report is about."""


def split(questions: Sequence[Question], share: float, seed: int) -> tuple[list[Question], list[Question]]:
    """Questions to train on, and a ``share`` to measure on: what is measured needs no chunk that is trained on."""
    order = [questions[place] for place in np.random.default_rng(seed).permutation(len(questions)).tolist()]
    held_out = order[: round(share * len(order))]
    asked_about = frozenset().union(*(question.support for question in held_out))
    return [question for question in order[len(held_out) :] if asked_about.isdisjoint(question.support)], held_out


def write_set(folder: Path, collection: Collection, training: Iterable[Question], held_out: Iterable[Question]) -> None:
    """Write both parts and the documents, in the form of the kind ``evidence``; the folder is there whole or not."""
    target, folder = folder, folder.with_name(f"{folder.name}.new")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    documents = {"doc_id": SET, "chunks": collection.chunks, "counts": collection.counts}
    (folder / f"{SET}.docs.jsonl").write_text(json.dumps(documents) + "\n", encoding="utf-8")
    borders = np.array([*accumulate(collection.counts, initial=0)])
    for name, questions in ((TRAINING, training), (HELD_OUT, held_out)):
        lines = [json.dumps(_record(question, borders)) + "\n" for question in questions]
        (folder / name).write_text("".join(lines), encoding="utf-8")
    folder.rename(target)


def _record(question: Question, borders: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[str, object]:
    documents = {position: int(np.searchsorted(borders, position, "right")) - 1 for position in question.support}
    support = [[document, position - int(borders[document])] for position, document in sorted(documents.items())]
    return {
        "id": question.id,
        "question": question.text,
        "answer": question.answers[0] if question.answers else None,
        "support": support if len(borders) > 2 else [position for _, position in support],
        "doc_id": SET,
        "task": question.task,
    }
