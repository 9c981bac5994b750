"""The gold answers of each data set, for readers that score or compare them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.datasets.babi import hide, read_babi
from trainer.datasets.evidence import read_evidence, read_evidence_sentences
from trainer.datasets.jsonl import read_jsonl
from trainer.datasets.multihop import read_2wiki, read_hotpotqa, read_musique, read_musique_single_hops
from trainer.datasets.question import Question
from trainer.datasets.squad import read_squad

WIKI = {
    "_id": "1",
    "question": "Where is the mill?",
    "answer": "by the river",
    "context": [["Mill", ["The mill is by the river.", "It is old."]], ["Rain", ["It rained."]]],
    "supporting_facts": [["Mill", 0]],
}
MUSIQUE = {
    "id": "2hop__1_2",
    "question": "Where is the mill of Ana?",
    "answer": "by the river",
    "answer_aliases": ["near the river", "by the river", " "],
    "paragraphs": [{"idx": 0, "title": "Mill", "paragraph_text": "It is by the river.", "is_supporting": True}],
    "question_decomposition": [{"question": "Whose?", "answer": "river", "paragraph_support_idx": 0}],
}
EVIDENCE = {
    "id": "1",
    "question": "Where?",
    "answer": "by the river",
    "answer_aliases": ["near the river"],
    "chunks": ["It is by the river.", "It rained."],
    "support": [0],
}
OWN = {"question": "Where?", "chunks": ["by the river"], "support": [0]}
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "The mill is by the river.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "Where?",
                            "answers": [
                                {"text": "by the river", "answer_start": 12},
                                {"text": "by the river", "answer_start": 12},
                                {"text": "the river", "answer_start": 15},
                            ],
                        }
                    ],
                }
            ]
        }
    ]
}

Read = Callable[[Path], Iterable[Question]]


@pytest.mark.parametrize(
    ("read", "record", "answers"),
    [
        (read_hotpotqa, WIKI, ("by the river",)),
        (lambda path: read_hotpotqa(path, 3), WIKI, ("by the river",)),
        (read_2wiki, {**WIKI, "answer": None}, ()),
        (read_musique, MUSIQUE, ("by the river", "near the river")),
        (lambda path: read_musique(path, 45), MUSIQUE, ("by the river", "near the river")),
        (read_musique_single_hops, MUSIQUE, ("river",)),
        (read_evidence, EVIDENCE, ("by the river", "near the river")),
        (lambda path: read_evidence_sentences(path, 9), EVIDENCE, ("by the river", "near the river")),
        (read_jsonl, OWN, ()),
        (read_jsonl, {**OWN, "answer": "by the river"}, ("by the river",)),
        (read_jsonl, {**OWN, "answer": ["by the river", "near it"]}, ("by the river", "near it")),
        (read_jsonl, {**OWN, "answer": 7}, ("7",)),
        (read_jsonl, {**OWN, "answer": {"any": "thing"}}, ()),
        (read_squad, SQUAD, ("by the river", "the river")),
    ],
)
def test_a_question_has_the_answers_of_its_record(
    read: Read, record: dict[str, Any], answers: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "mills_dev.jsonl"
    path.write_text(json.dumps(record))
    assert [question.answers for question in read(path)] == [answers]


def test_a_hidden_story_keeps_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text("1 Ana went to the mill.\n2 Where is Ana?\tmill\t1\n")
    (item,) = read_babi(path, "qa1")
    assert hide(item, ["It rained."], 3, np.random.default_rng(0), 4).answers == ("mill",)
