from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.datasets.jsonl import read_jsonl
from trainer.datasets.question import Question
from trainer.errors import DataError

ROOT = Path(__file__).parents[2]


def _read(directory: Path, *records: Any) -> list[Question]:
    path = directory / "own.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return list(read_jsonl(path))


def test_the_example_reads() -> None:
    questions = {question.id: question for question in read_jsonl(ROOT / "examples" / "training" / "own.jsonl")}
    assert len(questions) == 6
    evidence = {name: [item.chunks[place] for place in sorted(item.support)] for name, item in questions.items()}
    assert evidence["pump-7"] == [
        "Tank 4 is fed by pump P-17.",
        "Pump P-17 was repaired in June and again in October.",
        "The report of the October repair of P-17 was signed by Tomas Lindqvist.",
    ]
    assert evidence["ship-1"] == [
        "Two men carried a tall clock on board the Marlene.",
        "The Marlene lay in Tönning from the 5th to the 8th.",
    ]
    assert evidence["lease-2"][1].startswith("Lease of Brandt Bicycles\nThe tenant may end this lease with three")
    assert evidence["novel-4"][0] == "Chapter 1\nJonas hid the letter in the old clock."
    assert [(item.task, item.budget) for item in questions.values()] == [
        ("own", 3),
        ("own", 2),
        ("own", 4),
        ("own", 2),
        ("own", 3),
        ("novels", 3),
    ]
    assert [item.counts for item in questions.values()] == [(7,), (1,) * 4, (3, 3), (7,), (1,) * 5, (3, 3)]


def test_the_examples_of_the_documentation_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.DOTALL)
    records = [json.loads(line) for line in block.splitlines()]
    records[0]["support"] = [0, 1]  # the documentation shows two of seven chunks
    records[1]["support"] = [0, 1]
    assert len(_read(tmp_path, *records)) == 3


def test_chunks_are_one_document(tmp_path: Path) -> None:
    (question,) = _read(tmp_path, {"question": "Who?", "chunks": ["a", "b", "c"], "support": [2, 0, 2]})
    assert question == Question("own.jsonl:1", "own", "Who?", ["a", "b", "c"], (3,), frozenset({0, 2}), 2)


def test_documents_in_every_form(tmp_path: Path) -> None:
    documents = [
        "a",
        {"text": "b"},
        {"title": "T", "text": "c"},
        {"title": "U", "chunks": ["d", "e"]},
        {"chunks": ["f"]},
    ]
    (question,) = _read(tmp_path, {"question": "Who?", "documents": documents, "support": [1, [3, 1], [0, 0], 4]})
    assert question.chunks == ["a", "b", "T\nc", "U\nd", "e", "f"]
    assert question.counts == (1, 1, 1, 2, 1)
    assert question.support == {0, 1, 4, 5}


def test_a_pair_can_name_a_chunk_of_the_one_document(tmp_path: Path) -> None:
    (question,) = _read(tmp_path, {"question": "Who?", "chunks": ["a", "b"], "support": [[0, 1]]})
    assert question.support == {1}


CHUNKS = {"question": "Who?", "chunks": ["a", "b"], "support": [0]}
DOCUMENTS = {"question": "Who?", "documents": ["a", {"chunks": ["b", "c"]}], "support": [0]}


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ([], "Input should be an object"),
        ({}, "question: Field required"),
        (CHUNKS | {"question": ""}, "the question is empty"),
        (CHUNKS | {"suport": [0]}, "suport: Extra inputs are not permitted"),
        (CHUNKS | {"documents": ["a"]}, "give either `chunks` (one document) or `documents`"),
        ({"question": "Who?", "support": [0]}, "give either `chunks` (one document) or `documents`"),
        (CHUNKS | {"chunks": []}, "chunks: List should have at least 1 item"),
        (CHUNKS | {"chunks": "a"}, "chunks: Input should be a valid array"),
        (CHUNKS | {"chunks": ["a", " "]}, "chunk 1 of document 0 is empty: leave it out"),
        (CHUNKS | {"support": []}, "give `support`, or at least an `answer` for a reader to judge chunks by"),
        (CHUNKS | {"support": 0}, "support: Input should be a valid array"),
        (CHUNKS | {"support": [0, "1"]}, "support: entry 1 must be a number, or a [document, chunk] pair of numbers"),
        (CHUNKS | {"support": [True]}, "support: entry 0 must be a number"),
        (CHUNKS | {"support": [0.0]}, "support: entry 0 must be a number"),
        (CHUNKS | {"support": [[0, 1, 2]]}, "support: entry 0 must be a number"),
        (CHUNKS | {"support": [[0]]}, "support: entry 0 must be a number"),
        (CHUNKS | {"support": [2]}, "support names chunk 2 of document 0, which has 2, counted from 0"),
        (CHUNKS | {"support": [-1]}, "support names chunk -1 of document 0"),
        (CHUNKS | {"support": [[1, 0]]}, "support names document 1, but there are 1, counted from 0"),
        (DOCUMENTS | {"support": [1]}, "support names document 1, which has 2 chunks: name [1, chunk]"),
        (DOCUMENTS | {"support": [2]}, "support names document 2, but there are 2, counted from 0"),
        (DOCUMENTS | {"support": [-1]}, "support names document -1"),
        (DOCUMENTS | {"support": [[1, 2]]}, "support names chunk 2 of document 1, which has 2"),
        (DOCUMENTS | {"documents": [5]}, "documents.0: a document is a text, or an object with `text` or `chunks`"),
        (DOCUMENTS | {"documents": [{"title": "T"}]}, "documents.0: a document has either `text` (one chunk) or `chun"),
        (DOCUMENTS | {"documents": [{"text": "a", "chunks": ["b"]}]}, "documents.0: a document has either `text`"),
        (DOCUMENTS | {"documents": [{"body": "a"}]}, "documents.0.body: Extra inputs are not permitted"),
        (DOCUMENTS | {"documents": [{"chunks": []}]}, "documents.0.chunks: List should have at least 1 item"),
        (CHUNKS | {"budget": 0}, "budget: Input should be greater than or equal to 1"),
        (CHUNKS | {"id": 5}, "id: Input should be a valid string"),
    ],
)
def test_malformed_records_name_line_and_field(tmp_path: Path, record: Any, problem: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"own.jsonl:2: {problem}")):
        _read(tmp_path, CHUNKS, record)


_chunks = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1)


@given(documents=st.lists(_chunks, min_size=1, max_size=4), data=st.data())
def test_what_is_written_comes_back(
    documents: list[list[str]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    places = [(number, index) for number, chunks in enumerate(documents) for index in range(len(chunks))]
    support = data.draw(st.lists(st.sampled_from(places), min_size=1, unique=True))
    record = {"question": "Who?", "documents": [{"chunks": chunks} for chunks in documents], "support": support}
    (question,) = _read(tmp_path_factory.mktemp("own"), record)
    assert list(question.chunks) == [chunk for chunks in documents for chunk in chunks]
    assert question.counts == tuple(map(len, documents))
    assert [places[place] for place in sorted(question.support)] == sorted(support)
