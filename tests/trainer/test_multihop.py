from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.datasets.multihop import musique_hops, read_2wiki, read_hotpotqa, read_musique, read_musique_single_hops
from trainer.datasets.question import Question
from trainer.errors import DataError

SAMPLES = Path(__file__).parents[2] / "examples" / "training"

Reader = Callable[[Path], Iterator[Question]]


def _wiki(**changes: Any) -> dict[str, Any]:
    return {
        "_id": "q1",
        "question": "Who leads the city?",
        "context": [["City", ["The city.", " Its mayor is Ann."]], ["Ann", ["Ann is old."]], ["Other", ["No."]]],
        "supporting_facts": [["City", 1], ["Ann", 0], ["City", 0]],
    } | changes


def _musique(**changes: Any) -> dict[str, Any]:
    titles = ("Other", "City", "Ann")
    return {
        "id": "2hop__1_2",
        "question": "How old is the mayor?",
        "paragraphs": [
            {"idx": index, "title": title, "paragraph_text": f"About {title}.", "is_supporting": index > 0}
            for index, title in enumerate(titles)
        ],
        "question_decomposition": [
            {"id": 1, "question": "Who is the mayor?", "answer": "Ann", "paragraph_support_idx": 1},
            {"id": 2, "question": "How old is #1 ?", "answer": "80", "paragraph_support_idx": 2},
        ],
        "answerable": True,
    } | changes


def _read(read: Reader, tmp_path: Path, *records: Any) -> list[Question]:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return list(read(path))


@pytest.mark.parametrize(
    ("read", "path", "task", "support", "first"),
    [
        (read_hotpotqa, "hotpotqa/hotpotqa.json", "hotpotqa", [2, 2, 2], "Are Pam Veasey and Jon Jost both American?"),
        (read_2wiki, "2wiki/2wiki.json", "2wiki", [2, 4, 2], "Did the movies The Wrath Of Silence and A Touch Of"),
        (read_musique, "musique/musique.jsonl", "musique", [2, 3, 4], "What is the country where Nissedal is located"),
    ],
)
def test_the_samples_read(read: Reader, path: str, task: str, support: list[int], first: str) -> None:
    questions = list(read(SAMPLES / path))
    assert questions[0].text.startswith(first)
    assert [len(question.support) for question in questions] == support
    for question in questions:
        assert question.task == task
        assert question.budget == len(question.support)
        assert question.counts == (1,) * len(question.chunks)
        assert len(question.chunks) == (20 if task == "musique" else 10)
        assert all("\n" in chunk and chunk == chunk.strip() for chunk in question.chunks)


def test_the_support_of_the_samples_is_the_gold_paragraphs() -> None:
    questions = list(read_hotpotqa(SAMPLES / "hotpotqa/hotpotqa.json"))
    assert {questions[0].chunks[place].split("\n")[0] for place in questions[0].support} == {"Pam Veasey", "Jon Jost"}
    for question in read_musique(SAMPLES / "musique/musique.jsonl"):
        assert musique_hops(question.id) == question.budget


def test_single_hops_of_the_samples() -> None:
    questions = list(read_musique_single_hops(SAMPLES / "musique/musique.jsonl"))
    assert [question.text for question in questions[:2]] == ["Nissedal >> country", "The Norway was named for whom?"]
    assert questions[1].id == "2hop__269805_135710#2"
    assert len(questions) == 2 + 3 + 4
    assert not any("#" in question.text for question in questions)
    for question in questions:
        assert (question.task, question.budget, len(question.support)) == ("musique_hops", 1, 1)
    whole = list(read_musique(SAMPLES / "musique/musique.jsonl"))
    assert frozenset().union(*(question.support for question in questions[:2])) == whole[0].support


@pytest.mark.parametrize("read", [read_hotpotqa, read_2wiki])
def test_paragraphs_become_documents_of_one_chunk(read: Reader, tmp_path: Path) -> None:
    (question,) = _read(read, tmp_path, _wiki())
    assert question.chunks == ["City\nThe city. Its mayor is Ann.", "Ann\nAnn is old.", "Other\nNo."]
    assert (question.id, question.counts, question.support) == ("q1", (1, 1, 1), frozenset({0, 1}))
    assert question.budget == 2


@pytest.mark.parametrize(("read", "task"), [(read_hotpotqa, "hotpotqa"), (read_2wiki, "2wiki")])
def test_paragraphs_are_cut_into_chunks_of_whole_sentences(
    read: Callable[[Path, int], Iterator[Question]], task: str, tmp_path: Path
) -> None:
    record = _wiki(
        context=[
            ["City", ["One two three. ", " Four five.", "Six seven eight nine ten eleven.", "Twelve."]],
            ["Ann", ["Ann is old."]],
            ["Empty", []],
        ],
        supporting_facts=[["City", 1], ["City", 9], ["Ann", 0]],
    )
    (question,) = _read(lambda path: read(path, 5), tmp_path, record)
    assert question.task == f"{task}_sentences"
    assert question.chunks == [
        "City\nOne two three. Four five.",
        "Six seven eight nine ten eleven.",
        "Twelve.",
        "Ann\nAnn is old.",
        "Empty",
    ]
    assert question.counts == (3, 1, 1)
    assert question.support == {0, 2, 3}  # a sentence past the end is the last
    assert question.budget == 3


@given(words=st.integers(1, 60))
def test_cutting_into_sentences_loses_nothing(words: int) -> None:
    path = SAMPLES / "hotpotqa" / "hotpotqa.json"
    for whole, cut in zip(read_hotpotqa(path), read_hotpotqa(path, words), strict=True):
        firsts = [0, *itertools.accumulate(cut.counts)]
        assert len(cut.counts) == len(whole.chunks)
        for paragraph, (first, end) in zip(whole.chunks, itertools.pairwise(firsts), strict=True):
            assert " ".join(cut.chunks[first:end]) == paragraph
        found = {next(at for at in range(len(cut.counts)) if firsts[at] <= one < firsts[at + 1]) for one in cut.support}
        assert found == whole.support


def _cut_musique(**hops: str) -> dict[str, Any]:
    texts = ("The city. Its mayor is ann. She is well known.", "", "Ann is old. In May she was 80.")
    record = _musique(
        paragraphs=[
            {"idx": 9 - index, "title": f"Title {index}", "paragraph_text": text, "is_supporting": index != 1}
            for index, text in enumerate(texts)
        ]
    )
    for hop, place, name in zip(record["question_decomposition"], (9, 7), ("first", "second"), strict=True):
        hop |= {"paragraph_support_idx": place, "answer": hops.get(name, hop["answer"])}
    return record


def test_what_holds_the_answers_is_the_support_of_cut_paragraphs(tmp_path: Path) -> None:
    (question,) = _read(lambda path: read_musique(path, 4), tmp_path, _cut_musique())
    assert question.chunks == [
        "Title 0\nThe city.",
        "Its mayor is ann.",
        "She is well known.",
        "Title 1",
        "Title 2\nAnn is old.",
        "In May she was",
        "80.",
    ]
    assert (question.counts, question.task, question.budget) == ((3, 1, 3), "musique_sentences", 2)
    assert question.support == {1, 6}
    hops = _read(lambda path: read_musique_single_hops(path, 4), tmp_path, _cut_musique())
    assert [(one.text, sorted(one.support), one.task) for one in hops] == [
        ("Who is the mayor?", [1], "musique_hops_sentences"),
        ("How old is Ann ?", [6], "musique_hops_sentences"),
    ]


def test_an_answer_that_stands_nowhere_leaves_its_question_out(tmp_path: Path) -> None:
    record = _cut_musique(second="eighty")
    assert _read(lambda path: read_musique(path, 4), tmp_path, record, _cut_musique())[0].id == "2hop__1_2"
    assert len(_read(lambda path: read_musique(path, 4), tmp_path, record, _cut_musique())) == 1
    assert [one.id for one in _read(lambda path: read_musique_single_hops(path, 4), tmp_path, record)] == [
        "2hop__1_2#1"
    ]
    without = _musique(question_decomposition=[])
    assert len(_read(lambda path: read_musique(path, 4), tmp_path, without, _cut_musique())) == 1
    assert len(_read(read_musique, tmp_path, without)) == 1


@given(words=st.integers(1, 60))
def test_cutting_musique_loses_nothing(words: int) -> None:
    path = SAMPLES / "musique" / "musique.jsonl"
    for whole, cut in zip(read_musique(path), read_musique(path, words), strict=True):
        assert len(cut.counts) == len(whole.chunks)
        assert "".join("".join(cut.chunks).split()) == "".join("".join(whole.chunks).split())
        paragraph = [at for at, count in enumerate(cut.counts) for _ in range(count)]
        assert {paragraph[one] for one in cut.support} == whole.support


def test_an_array_reads_like_lines(tmp_path: Path) -> None:
    records = [_wiki(), _wiki(_id="q2")]
    path = tmp_path / "array.json"
    path.write_text(json.dumps(records))
    assert list(read_hotpotqa(path)) == _read(read_hotpotqa, tmp_path, *records)


def test_records_without_an_id_are_numbered(tmp_path: Path) -> None:
    wiki, musique = _wiki(), _musique()
    del wiki["_id"], musique["id"]
    assert [question.id for question in _read(read_2wiki, tmp_path, wiki, wiki)] == [
        "records.jsonl:1",
        "records.jsonl:2",
    ]
    assert [question.id for question in _read(read_musique_single_hops, tmp_path, musique)] == [
        "records.jsonl:1#1",
        "records.jsonl:1#2",
    ]


def test_a_repeated_title_means_the_paragraph_with_the_sentence(tmp_path: Path) -> None:
    context = [["City", ["One."]], ["City", ["One.", "Two."]], ["City", ["One.", "Two.", "Three."]]]
    for sentence, place in ((0, 0), (1, 1), (2, 2), (9, 0), (-1, 0)):
        record = _wiki(context=context, supporting_facts=[["City", sentence]])
        assert _read(read_hotpotqa, tmp_path, record)[0].support == {place}


def test_unanswerable_questions_are_left_out(tmp_path: Path) -> None:
    records = [_musique(answerable=False), _musique()]
    assert len(_read(read_musique, tmp_path, *records)) == 1
    assert len(_read(read_musique_single_hops, tmp_path, *records)) == 2


def test_earlier_answers_stand_in_for_their_numbers(tmp_path: Path) -> None:
    first, second = _read(read_musique_single_hops, tmp_path, _musique())
    assert (first.text, second.text) == ("Who is the mayor?", "How old is Ann ?")
    assert (first.support, second.support) == (frozenset({1}), frozenset({2}))
    assert first.chunks == second.chunks == ["Other\nAbout Other.", "City\nAbout City.", "Ann\nAbout Ann."]


def test_a_paragraph_is_found_by_its_idx_wherever_it_stands(tmp_path: Path) -> None:
    record = _musique()
    record["paragraphs"].reverse()
    first, second = _read(read_musique_single_hops, tmp_path, record)
    assert (first.chunks[min(first.support)], second.chunks[min(second.support)]) == (
        "City\nAbout City.",
        "Ann\nAbout Ann.",
    )


def test_a_sub_question_without_its_paragraph_is_left_out(tmp_path: Path) -> None:
    record = _musique()
    record["question_decomposition"][0]["paragraph_support_idx"] = None
    assert [question.id for question in _read(read_musique_single_hops, tmp_path, record)] == ["2hop__1_2#2"]


def _paragraph(**changes: Any) -> dict[str, Any]:
    return {"idx": 0, "title": "City", "paragraph_text": "Text.", "is_supporting": False} | changes


def _hop(**changes: Any) -> dict[str, Any]:
    return {"question": "Who?", "answer": "Ann", "paragraph_support_idx": 0} | changes


@pytest.mark.parametrize(
    ("read", "record", "problem"),
    [
        (read_hotpotqa, [], "records.jsonl:2: Input should be an object"),
        (read_hotpotqa, _wiki(question=None), "records.jsonl:2: question: Input should be a valid string"),
        (read_hotpotqa, _wiki(question=" "), "records.jsonl:2: the question is empty"),
        (read_hotpotqa, _wiki(_id=7), "records.jsonl:2: _id: Input should be a valid string"),
        (read_hotpotqa, _wiki(context=[]), "records.jsonl:2: context: List should have at least 1 item"),
        (read_hotpotqa, _wiki(context=[["City"]]), "records.jsonl:2: context.0.1: Field required"),
        (read_hotpotqa, _wiki(context=[["City", "Text."]]), "records.jsonl:2: context.0.1: Input should be a valid"),
        (read_hotpotqa, _wiki(supporting_facts=[]), "records.jsonl:2: supporting_facts: List should have at least 1"),
        (read_hotpotqa, _wiki(supporting_facts=[["City", "1"]]), "records.jsonl:2: supporting_facts.0.1: Input should"),
        (read_2wiki, _wiki(supporting_facts=[["Town", 0]]), "records.jsonl:2: supporting_facts names 'Town', but no"),
        (read_musique, _musique(paragraphs=[]), "records.jsonl:2: paragraphs: List should have at least 1 item"),
        (read_musique, _musique(paragraphs=[{"title": "City"}]), "records.jsonl:2: paragraphs.0.paragraph_text: Field"),
        (read_musique, _musique(paragraphs=[_paragraph()]), "records.jsonl:2: no chunk is marked as support"),
        (read_musique, _musique(paragraphs=[_paragraph(is_supporting="yes")]), "records.jsonl:2: paragraphs.0.is_supp"),
        (
            read_musique_single_hops,
            _musique(question_decomposition=[_hop(paragraph_support_idx=3)]),
            "records.jsonl:2: question_decomposition.0: no paragraph has idx 3",
        ),
        (
            read_musique_single_hops,
            _musique(question_decomposition=[_hop(question="Who led #1?")]),
            "records.jsonl:2: the sub-question 'Who led #1?' refers to #1, which is not answered before it",
        ),
        (
            read_musique_single_hops,
            _musique(question_decomposition=[_hop(question="Who led #0?")]),
            "records.jsonl:2: the sub-question 'Who led #0?' refers to #0",
        ),
    ],
)
def test_malformed_records_name_their_line(read: Reader, record: Any, problem: str, tmp_path: Path) -> None:
    good = _wiki() if read in (read_hotpotqa, read_2wiki) else _musique()
    with pytest.raises(DataError, match=re.escape(problem)):
        _read(read, tmp_path, good, record)


def test_the_number_of_hops_is_in_the_id() -> None:
    assert [musique_hops(name) for name in ("2hop__1_2", "3hop1__1_2_3", "4hop3__1_2_3_4")] == [2, 3, 4]
    with pytest.raises(ValueError, match="'5a8b57f2' is no id of MuSiQue"):
        musique_hops("5a8b57f2")


_text = st.text(st.characters(exclude_categories=("Cs", "Zs", "Zl", "Zp", "Cc")), min_size=1, max_size=8)


@given(
    titles=st.lists(_text, min_size=1, max_size=6, unique=True),
    question=_text,
    data=st.data(),
)
def test_what_is_written_comes_back(
    titles: list[str], question: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    context = [[title, data.draw(st.lists(_text, min_size=1, max_size=3))] for title in titles]
    gold = data.draw(st.lists(st.sampled_from(titles), min_size=1, unique=True))
    record = {"question": question, "context": context, "supporting_facts": [[title, 0] for title in gold]}
    (read,) = _read(read_hotpotqa, tmp_path_factory.mktemp("records"), record)
    assert [chunk.split("\n") for chunk in read.chunks] == [[title, " ".join(parts)] for title, parts in context]
    assert {read.chunks[place].split("\n")[0] for place in read.support} == set(gold)
