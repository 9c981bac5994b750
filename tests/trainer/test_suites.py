from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import pytest

from tests.trainer.mixtures import write_multihop
from trainer.errors import DataError, RecipeError
from trainer.evaluation.suites import SUITES, TestSet
from trainer.tasks.background import evaluation_sentences

STORY = """1 Mary took the {thing}.
2 Mary went to the {place}.
3 Where is the {thing}? \t{place}\t1 2
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in small: stories, and books of which the first sixty of the training part are not to be read."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "babi" / "published").mkdir(parents=True)
    for task in ("qa1", "qa2", "qa3", "qa4", "qa5"):
        stories = [STORY.format(thing=f"{task}thing{number}", place=f"place{number}") for number in range(6)]
        (folder / "babi" / "published" / f"{task}_dev.txt").write_text("".join(stories))
    for part, count in (("dev", 3), ("train", 64)):
        (folder / "books" / part).mkdir(parents=True)
        for book in range(count):
            text = " ".join(f"In {part} book {book:02} this is sentence {number}." for number in range(40))
            (folder / "books" / part / f"{book:02}.txt").write_text(text)
    return folder


def babilong(data: Path, lengths: list[str], questions: int | None = None, seed: int = 0) -> list[TestSet]:
    return list(SUITES["babilong"](data, lengths, questions, seed))


def contents(test_set: TestSet, count: int | None = None) -> list[tuple[str, list[str], list[int]]]:
    return [(q.text, list(q.chunks), sorted(q.support)) for q in islice(test_set.draw(), count)]


def test_babilong_hides_every_question_of_every_task_with_its_budget(data: Path) -> None:
    sets = babilong(data, ["1K", "4K"])
    assert [(one.task, one.length, one.count) for one in sets] == [
        (task, length, 6) for length in ("1K", "4K") for task in ("qa1", "qa2", "qa3", "qa4", "qa5")
    ]
    for one in sets:
        questions = list(one.draw())
        assert len(questions) == one.count
        for question in questions:
            assert len(question.chunks) == (50 if one.length == "1K" else 160)
            assert question.budget == (6 if one.task == "qa3" else 4)
            took, went = (question.chunks[position] for position in sorted(question.support))
            assert question.text.removeprefix("Where is the ").rstrip("?") in took
            assert went.startswith("Mary went")


def test_a_set_is_the_same_each_time_and_another_with_another_seed(data: Path) -> None:
    (first, *_), (again, *_), (other, *_) = (babilong(data, ["1K"], seed=seed) for seed in (0, 0, 1))
    assert contents(first) == contents(first) == contents(again)
    assert contents(first) != contents(other)


def test_fewer_questions_are_the_first_of_more(data: Path) -> None:
    (few, *_), (all_of_them, *_) = babilong(data, ["1K"], 3), babilong(data, ["1K"])
    assert few.count == 3
    assert contents(few) == contents(all_of_them, 3)


def test_questions_stay_the_same_whichever_lengths_are_asked_for(data: Path) -> None:
    alone, beside = babilong(data, ["4K"])[0], babilong(data, ["1K", "4K"])[5]
    assert contents(alone) == contents(beside)


def test_short_documents_share_one_background(data: Path) -> None:
    sets = babilong(data, ["1K", "4K", "32K"])
    assert len({id(one.background) for one in sets}) == 1
    assert all("dev book" in sentence for sentence in sets[0].background)


def test_long_documents_go_on_with_books_that_no_training_reads(data: Path) -> None:
    books = [sentence.split(" this is ")[0] for sentence in evaluation_sentences(data / "books", 200, short=10)]
    assert list(dict.fromkeys(books)) == [
        *(f"In dev book {book:02}" for book in range(3)),
        *(f"In train book {book:02}" for book in range(60, 63)),
    ]
    assert len(books) == 210


def test_an_unknown_length_is_named(data: Path) -> None:
    with pytest.raises(RecipeError, match=r"no length 3K .* 1K, 4K, 32K, 128K, 1M, 10M"):
        babilong(data, ["3K"])


def test_ruler_asks_all_variants_about_needles_that_are_there(data: Path) -> None:
    pytest.importorskip("wonderwords")
    sets = list(SUITES["ruler"](data, ["4K"], 12, 0))
    assert len(sets) == 8
    for one in sets:
        questions = list(one.draw())
        assert len(questions) == one.count == 12
        assert contents(one) == contents(one)
        for question in questions:
            assert question.task == one.task
            for position in question.support:
                key = question.chunks[position].partition(" for ")[2].partition(" is: ")[0]
                assert key in question.text
    needles = next(one for one in sets if one.task == "niah_multikey_2")
    contexts = [tuple(question.chunks) for question in needles.draw()]
    assert len(set(contexts)) == 2  # ten questions about one context, two about another
    assert len({question.text for question in needles.draw()}) == 12
    assert len({question.id for question in needles.draw()}) == 12


def own(*records: Mapping[str, object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        file = folder / "own.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        return file

    return write


def test_ones_own_file_makes_a_row_of_each_task(tmp_path: Path) -> None:
    record = {"question": "Why?", "chunks": ["a", "b"], "support": [1]}
    file = own(record, {**record, "task": "other"}, record)(tmp_path)
    sets = list(SUITES["jsonl"](file, None, None, 0))
    assert [(one.task, one.count) for one in sets] == [("own", 2), ("other", 1)]
    assert [one.count for one in SUITES["jsonl"](file, None, 1, 0)] == [1, 1]


def test_questions_of_ones_own_without_support_are_not_measured(tmp_path: Path) -> None:
    """With nothing to find, whatever is selected would be complete."""
    record = {"question": "Why?", "chunks": ["a", "b"], "support": [1]}
    file = own(record, {"id": "bare", "question": "Why?", "chunks": ["a", "b"], "answer": "a"})(tmp_path)
    with pytest.raises(RecipeError, match="question bare has no support"):
        list(SUITES["jsonl"](file, None, None, 0))


def test_an_id_that_names_no_number_of_hops_is_refused_with_its_file(tmp_path: Path) -> None:
    write_multihop(tmp_path)
    file = tmp_path / "multihop" / "musique_dev.jsonl.gz"
    records = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    lines = "".join(json.dumps(record | {"id": "mine"}) + "\n" for record in records)
    file.write_bytes(gzip.compress(lines.encode()))
    with pytest.raises(DataError, match=r"musique_dev\.jsonl\.gz: 'mine' is no id of MuSiQue"):
        list(SUITES["multihop"](tmp_path, None, None, 0))


def test_a_ruler_file_must_say_its_length(tmp_path: Path) -> None:
    (tmp_path / "ruler").mkdir()
    (tmp_path / "ruler" / "niah_single_1.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="does not end in the length"):
        list(SUITES["ruler-files"](tmp_path, None, None, 0))


def test_multi_hop_questions_come_with_paragraphs_apart_and_as_one_document(tmp_path: Path) -> None:
    write_multihop(tmp_path)
    sets, others = (list(SUITES[name](tmp_path, None, 2, 0)) for name in ("multihop", "multihop-joined"))
    names = ["hotpotqa", "hotpotqa_sentences", "2wiki", "2wiki_sentences", "musique"]
    assert [one.task for one in sets if not one.part] == names
    assert [(one.task, one.count, one.part) for one in others] == [(one.task, one.count, one.part) for one in sets]
    for apart, joined in zip(sets, others, strict=True):
        assert contents(joined) == contents(joined) == contents(apart)
        assert all(len(question.counts) > 1 for question in apart.draw())
        assert all(question.counts == (len(question.chunks),) for question in joined.draw())
        assert [question.budget for question in joined.draw()] == [len(question.support) for question in apart.draw()]
