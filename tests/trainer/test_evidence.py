"""Questions with marked evidence: every way to name texts and support, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from index.chunking import Chunk
from trainer.datasets.evidence import read_evidence, read_evidence_sentences
from trainer.datasets.question import Question
from trainer.datasets.reader import read_reader
from trainer.errors import DataError, RecipeError
from trainer.evaluation.counting import evidence_shares, found_after
from trainer.evaluation.suites.evidence import evidence, reader


def written(path: Path, *records: dict[str, Any]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return path


def read(tmp_path: Path, record: dict[str, Any]) -> Question:
    path = written(tmp_path / "set_dev.jsonl.gz", {"id": "a", "question": "Who?", "answerable": True} | record)
    (question,) = read_evidence(path)
    return question


def test_chunks_of_one_document(tmp_path: Path) -> None:
    question = read(tmp_path, {"chunks": ["one", "two", "three"], "support": [0, 2]})
    assert (question.task, question.counts, question.support) == ("set", (3,), frozenset({0, 2}))


def test_documents_with_a_text_or_with_chunks_under_their_titles(tmp_path: Path) -> None:
    documents = [{"title": "A", "text": "one"}, {"title": "B", "chunks": ["two", "three"]}, {"text": "four"}]
    question = read(tmp_path, {"documents": documents, "support": [0, [1, 1]]})
    assert list(question.chunks) == ["A\none", "B\ntwo", "B\nthree", "four"]
    assert question.counts == (1, 2, 1)
    assert question.support == {0, 2}


def test_long_documents_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    written(tmp_path / "set.docs.jsonl.gz", {"doc_id": "d", "chunks": ["one", "two"]})
    records = [{"id": str(n), "question": "Who?", "doc_id": "d", "support": [n]} for n in range(2)]
    first, second = read_evidence(written(tmp_path / "set_train.jsonl.gz", *records))
    assert first.chunks is second.chunks
    assert second.support == {1}


def test_a_scenario_stands_before_the_question(tmp_path: Path) -> None:
    assert read(tmp_path, {"scenario": "I am here.", "chunks": ["one"], "support": [0]}).text == "I am here. Who?"


def test_an_unanswerable_question_is_never_complete(tmp_path: Path) -> None:
    question = read(tmp_path, {"chunks": ["one", "two"], "support": [], "answerable": False})
    assert question.support == frozenset()
    assert question.missing([0, 1]) == 1
    assert found_after(question, [0, 1]) is None


def test_of_much_evidence_five_chunks_are_enough(tmp_path: Path) -> None:
    question = read(tmp_path, {"chunks": [str(n) for n in range(30)], "support": list(range(20))})
    assert question.missing([]) == 5
    assert question.missing(range(5)) == 0
    assert question.open_support([3]) == frozenset(range(20)) - {3}
    assert question.open_support(range(5)) == frozenset()
    assert list(evidence_shares(question, [0, 25, 1, 2, 3])) == pytest.approx([1.0, 0.5, 2 / 3, 0.75, 0.8])
    assert question.without([7]).missing(range(5)) == 0  # nineteen are left
    lacking = question.without(range(16))
    assert (lacking.missing([]), lacking.missing(range(14))) == (5, 1)


STORY = "The king had a hat. It was made of red felt! He lost it in the river. Nobody found the red hat."


def cut(tmp_path: Path, record: dict[str, Any], words: int = 6) -> list[Question]:
    path = written(tmp_path / "set_train.jsonl.gz", {"id": "a", "question": "Which?", "answerable": True} | record)
    return list(read_evidence_sentences(path, words))


def test_packed_sentences_that_have_an_answer_are_each_its_evidence(tmp_path: Path) -> None:
    record = {"chunks": ["A red hat is here, too.", STORY], "support": [1], "answer": "The RED hat"}
    (question,) = cut(tmp_path, record | {"answer": "Red.", "answer_aliases": ["in the river"]})
    assert question.chunks[0] == "A red hat is here, too."  # outside the evidence, so none
    assert "".join(piece + " " for piece in question.chunks[1:]).strip() == STORY
    held = {question.chunks[place] for place in question.support}
    assert held == {"It was made of red felt!", "He lost it in the river.", "Nobody found the red hat."}
    assert question.missing([0]) == 1
    assert all(question.missing([place]) == 0 for place in question.support)
    (question,) = cut(tmp_path, record)
    assert {question.chunks[place] for place in question.support} == {"Nobody found the red hat."}


def test_packed_sentences_keep_titles_and_documents(tmp_path: Path) -> None:
    documents = [{"title": "Hats", "text": STORY}, {"title": "Rivers", "text": "It is long.\nIt is deep."}]
    (question,) = cut(tmp_path, {"documents": documents, "support": [1], "answer": "deep"}, 3)
    assert all(piece.startswith("Hats\n") for piece in question.chunks[: question.counts[0]])
    assert list(question.chunks[question.counts[0] :]) == ["Rivers\nIt is long.", "Rivers\nIt is deep."]
    assert {question.chunks[place] for place in question.support} == {"Rivers\nIt is deep."}


def test_what_cannot_be_told_is_left_out_where_sentences_are_packed(tmp_path: Path) -> None:
    for record in (
        {"chunks": [STORY], "support": [0], "answer": "green"},
        {"chunks": [STORY], "support": [0]},
        {"chunks": [STORY], "support": [0], "answer": "the"},
        {"chunks": [STORY, STORY + " Indeed."], "support": [0, 1], "answer": "felt"},
        {"chunks": [STORY], "support": [], "answer": None, "answerable": False},
    ):
        assert cut(tmp_path, record) == []


def test_questions_about_one_text_share_its_packed_sentences(tmp_path: Path) -> None:
    written(tmp_path / "set.docs.jsonl.gz", {"doc_id": "d", "chunks": [STORY]})
    records = [
        {"id": str(n), "question": "Which?", "doc_id": "d", "support": [0], "answer": answer}
        for n, answer in enumerate(("king", "felt"))
    ]
    first, second = read_evidence_sentences(written(tmp_path / "set_train.jsonl.gz", *records), 6)
    assert first.chunks is second.chunks
    assert first.support != second.support


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"support": [0]}, "give one of"),
        ({"chunks": ["a"], "doc_id": "d", "support": [0]}, "give one of"),
        ({"chunks": ["a"], "support": [1]}, "not there"),
        ({"chunks": ["a"], "support": [[0, 0, 0]]}, "no pair"),
        ({"chunks": ["a"], "support": []}, "no chunk is marked"),
        ({"doc_id": "d", "support": [0]}, "no document d"),
        ({"documents": [{"title": "A"}], "support": [0]}, "either `text` or `chunks`"),
        ({"documents": [{"text": "a"}, {"chunks": ["b", "c"]}], "support": [1]}, r"of 2 chunks: name \[1, chunk\]"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_line(tmp_path: Path, record: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read(tmp_path, record)


BOOK = "The lamp was lit. It rained all day. The keeper slept. Nobody came."


def sentences(text: str) -> list[Chunk]:
    ends = [at + 1 for at, sign in enumerate(text) if sign == "."]
    return [Chunk(start, end, 4) for start, end in zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True)]


def asked(tmp_path: Path, kind: str, facts: list[list[tuple[int, int]]]) -> Question:
    record = {"id": "x", "book": "b.txt", "question": "Who?", "kind": kind, "facts": facts}
    (question,) = read_reader(written(tmp_path / "reader.jsonl.gz", record), {"b.txt": BOOK}.__getitem__, sentences)
    return question


def test_a_fact_is_held_by_every_chunk_that_overlaps_one_of_its_spans(tmp_path: Path) -> None:
    rained, keeper = BOOK.index("rained"), BOOK.index("keeper")
    question = asked(tmp_path, "two", [[(rained, rained + 30)], [(0, 8), (keeper, keeper + 6)]])
    assert question.facts == (frozenset({1, 2}), frozenset({0, 2}))
    assert question.missing([1]) == 1
    assert question.open_support([1]) == {0, 2}
    assert found_after(question, [3, 2]) == 2  # one chunk holds both
    assert evidence_shares(question, [3, 1, 0]) == (0.0, 0.5, 1.0)


def test_a_question_that_the_book_does_not_answer(tmp_path: Path) -> None:
    question = asked(tmp_path, "none", [])
    assert (question.task, question.missing([0, 1, 2, 3])) == ("reader_none", 1)


def test_taking_away_the_last_chunk_of_a_fact_removes_the_fact(tmp_path: Path) -> None:
    question = asked(tmp_path, "two", [[(0, 8)], [(20, 25), (40, 45)]])
    assert question.without([0]).missing(range(3)) == 1
    assert question.without([1]).missing(range(3)) == 0
    assert question.without([1, 2]).missing(range(2)) == 1


def test_the_suites_ask_every_set_and_both_kinds_of_a_readers_questions(tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "reader" / "books").mkdir(parents=True)
    (tmp_path / "reader" / "books" / "b.txt").write_text(BOOK)
    unanswerable = {"id": "n", "question": "Why?", "chunks": ["one"], "support": [], "answerable": False}
    for name in ("first", "second"):
        record = {"id": name, "question": "Who?", "chunks": ["one", "two"], "support": [1]}
        written(tmp_path / "evidence" / f"{name}_dev.jsonl.gz", record, unanswerable)
        written(tmp_path / "evidence" / f"{name}_train.jsonl.gz", record)
    kinds = {"single": [[(0, 8)]], "two": [[(0, 8)], [(21, 30)]], "none": []}
    records = [
        {"id": kind, "book": "b.txt", "question": "Who?", "kind": kind, "facts": facts} for kind, facts in kinds.items()
    ]
    path = tmp_path / "reader" / "reader_dev.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    sets = [*evidence(tmp_path, None, None, 0), *reader(tmp_path, None, None, 0)]
    assert [(each.task, each.count) for each in sets] == [
        ("first", 1),
        ("second", 1),
        ("reader_single", 1),
        ("reader_two", 1),
    ]
    assert [[question.id for question in each.unanswered] for each in sets] == [["n"], ["n"], ["none"], ["none"]]
    assert [each.task for each in evidence(tmp_path, ["second"], None, 0)] == ["second"]
    with pytest.raises(RecipeError, match="no set third"):
        list(evidence(tmp_path, ["third"], None, 0))
    (tmp_path / "reader" / "books" / "b.txt").unlink()
    (tmp_path / "books" / "dev").mkdir(parents=True)
    (tmp_path / "books" / "dev" / "another.txt").write_text(BOOK)
    with pytest.raises(DataError, match="no book of the dev part has this name"):
        list(reader(tmp_path, None, None, 0))
