"""Questions that come with their documents: which are held out, and what is put beside them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.trainer.mixtures import BOOK, OWN, drawn, make_recipe, support_texts, write_own
from trainer.datasets.question import Question
from trainer.datasets.squad import SENTENCE_WORDS
from trainer.errors import RecipeError
from trainer.tasks.background import training_passages
from trainer.tasks.documents import documents, shuffled, with_distractors
from trainer.tasks.mixture import build_mixture


def test_questions_from_all_over_a_file_are_held_out(data: Path) -> None:
    write_own(data / "own.jsonl", 40)
    recipes = [make_recipe([OWN | {"budget": 3, "validation": 10}], seed=seed) for seed in (0, 1)]
    mixture, again = (build_mixture(recipe, data) for recipe in recipes)
    assert mixture.validation == again.validation  # whatever the seed
    held_out = {question.id for question in mixture.validation}
    assert len(held_out) == 10
    assert {int(name[1:]) // 20 for name in held_out} == {0, 1}  # files are often sorted
    questions = drawn(mixture, 1000)
    assert {question.id for question in questions} == {f"q{number}" for number in range(40)} - held_out
    assert {question.budget for question in questions} == {3}
    assert {question.budget for question in mixture.validation} == {2}  # the file's own


def test_what_one_task_holds_out_no_other_trains_on(data: Path) -> None:
    write_own(data / "own.jsonl", 40)
    more, fewer = (OWN | {"validation": count} for count in (10, 4))
    mixture = build_mixture(make_recipe([more, fewer]), data)
    first, second = mixture.sources
    assert (len(first.validation), len(second.validation)) == (10, 4)
    held_out = {question.id for question in mixture.validation}
    generator = np.random.default_rng(0)
    asked = {source.draw(generator).id for source in (first, second) for _ in range(300)}
    assert len(held_out) == 10
    assert asked == {f"q{number}" for number in range(40)} - held_out


def test_what_one_task_holds_out_no_other_trains_on_where_it_leaves_questions_out(data: Path) -> None:
    """Packed sentences need an answer that stands in the evidence, and few tasks take what has no evidence."""
    records: list[dict[str, Any]] = []
    for number in range(90):
        record = {"id": f"e{number}", "question": f"Which {number}?", "answer": f"word{number}", "support": [0]}
        record["chunks"] = [f"Here is word{number if number % 3 else 'less'}.", f"Nothing of {number}."]
        records.append(record | ({"support": [], "answerable": False} if number % 5 == 0 else {}))
    (data / "set_train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    plain: dict[str, Any] = {"kind": "evidence", "path": "set_train.jsonl", "validation": 12}
    tasks = [plain, plain | {"words": 20}, plain | {"unanswerable": 0.1, "questions": 20, "evidence_only": 30}]
    mixture = build_mixture(make_recipe(tasks, hyperparameters={"stop": True}), data)
    assert [len(source.validation) for source in mixture.sources] == [12] * 3
    held_out = {question.id for question in mixture.validation}
    assert len(held_out) > 12
    for source in mixture.sources:
        generator = np.random.default_rng(0)
        asked = {source.draw(generator).id for _ in range(400)}
        assert len(asked) > 15
        assert held_out.isdisjoint(asked)


def test_a_file_without_a_question_to_ask_is_refused(data: Path) -> None:
    record = {"id": "e", "question": "Which?", "chunks": ["one"], "support": [], "answerable": False}
    (data / "set_train.jsonl").write_text(json.dumps(record) + "\n")
    task = {"kind": "evidence", "path": "set_train.jsonl", "validation": 1, "budget": 3}
    with pytest.raises(RecipeError, match="too few"):
        build_mixture(make_recipe([task]), data)


def test_distractors_are_of_other_training_questions_and_change_no_support(data: Path) -> None:
    write_own(data / "own.jsonl", 8)
    mixture = build_mixture(make_recipe([OWN | {"distractors": 5}]), data)
    held_out = {chunk for question in mixture.validation for chunk in question.chunks}
    lengths = set()
    for question in drawn(mixture, 100):
        number = int(question.id[1:])
        own = {f"text {number}.{place}" for place in range(4)}
        assert support_texts(question) == {f"text {number}.{place % 4}" for place in (number, number + 1)}
        assert own <= set(question.chunks)
        assert len(set(question.chunks)) == len(question.chunks) == len(question.counts)
        assert held_out.isdisjoint(question.chunks)
        lengths.add(len(question.chunks))
    assert max(lengths) == 9
    assert min(lengths) >= 4
    assert {len(question.chunks) for question in mixture.validation} == {4}


def test_documents_of_one_chunk_come_in_any_order_and_longer_ones_as_they_are(data: Path) -> None:
    for apart, expected in ((True, 24), (False, 1)):
        write_own(data / "own.jsonl", 3, apart)
        mixture = build_mixture(make_recipe([OWN]), data)
        orders = {tuple(question.chunks) for question in drawn(mixture, 500)}
        assert len(orders) == expected


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 12))
def test_more_documents_and_another_order_keep_the_question(seed: int, chunks: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    texts = [f"own {number}" for number in range(chunks)]
    question = Question("1", "test", "Which?", texts, (1,) * chunks, frozenset({0, chunks - 1}), 2)
    others = [Question(str(n), "test", "?", [f"other {n % 4}", "own 0"], (1, 1), frozenset({0}), 1) for n in range(6)]
    for changed in (with_distractors(question, others, count, generator), shuffled(question, generator)):
        assert support_texts(changed) == support_texts(question)
        assert set(texts) <= set(changed.chunks)
        assert len(set(changed.chunks)) == len(changed.chunks) <= chunks + count
        assert (changed.id, changed.text, changed.budget) == (question.id, question.text, question.budget)


@given(
    st.integers(0, 2**32 - 1), st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 6), st.integers(1, 3)
)
def test_documents_of_several_chunks_stay_whole(seed: int, counts: list[int], count: int, other: int) -> None:
    generator = np.random.default_rng(seed)
    texts = [f"own {number}" for number in range(sum(counts))]
    question = Question("1", "test", "Which?", texts, tuple(counts), frozenset({0, len(texts) - 1}), 2)
    own = [f"other {number}" for number in range(other)]
    more = with_distractors(
        question, [replace(question, chunks=own, counts=(other,), support=frozenset({0}))], count, generator
    )
    assert more.chunks == [*texts, *(own if count else [])]
    changed = shuffled(more, generator)
    expected = Counter(tuple(document) for document in documents(more))
    assert Counter(tuple(document) for document in documents(changed)) == expected
    assert support_texts(changed) == support_texts(question)


def test_a_share_of_the_questions_has_its_documents_laid_end_to_end(data: Path) -> None:
    write_own(data / "own.jsonl", 80)
    task = OWN | {"distractors": 5, "validation": 40}
    mixture = build_mixture(make_recipe([task | {"joined": 0.25}]), data)
    for questions, fewest, most in ((drawn(mixture, 400), 70, 130), (mixture.validation, 3, 20)):
        assert fewest < sum(question.counts == (len(question.chunks),) for question in questions) < most
        assert {question.counts for question in questions} <= {
            counts for size in range(4, 10) for counts in ((size,), (1,) * size)
        }
        for question in questions:
            number = int(question.id[1:])
            assert support_texts(question) == {f"text {number}.{place % 4}" for place in (number, number + 1)}
    assert mixture.validation == build_mixture(make_recipe([task | {"joined": 0.25}], seed=7), data).validation
    always, never = (build_mixture(make_recipe([task | {"joined": share}]), data) for share in (1, 0))
    assert {len(question.counts) for question in [*drawn(always), *always.validation]} == {1}
    assert min(len(question.counts) for question in [*drawn(never), *never.validation]) == 4


def test_a_share_of_the_questions_is_asked_somewhere_in_a_book(data: Path) -> None:
    write_own(data / "own.jsonl", 80)
    task = OWN | {"validation": 40, "mine": True}
    mixture = build_mixture(make_recipe([task | {"in_books": 0.5}]), data)
    passages = training_passages(data / "books", SENTENCE_WORDS, 8000)
    assert all(passage in BOOK for passage in passages)
    for questions, fewest, most in ((drawn(mixture, 400), 150, 250), (mixture.validation, 10, 30)):
        inside = [question for question in questions if len(question.chunks) > 4]
        assert fewest < len(inside) < most
        begins = set()
        for question in inside:
            number = int(question.id[1:])
            first = question.chunks.index(next(text for text in question.chunks if text.startswith(f"text {number}.")))
            assert sorted(question.chunks[first : first + 4]) == [f"text {number}.{place}" for place in range(4)]
            around = [*question.chunks[:first], *question.chunks[first + 4 :]]
            assert " ".join(around) in " ".join(passages)
            assert question.counts == (len(question.chunks),)
            assert support_texts(question) == {f"text {number}.{place % 4}" for place in (number, number + 1)}
            begins.add(first)
        assert len(begins) > 1
    short = build_mixture(make_recipe([task | {"in_books": 1, "stretch": [2, 5]}]), data)
    assert {len(question.chunks) - 4 for question in [*drawn(short, 200), *short.validation]} == {2, 3, 4, 5}
    # Books are among what is searched for hard negatives, where there are any.
    assert set(passages) <= set(drawn(mixture, 1)[0].pool)
    assert mixture.validation == build_mixture(make_recipe([task | {"in_books": 0.5}], seed=7), data).validation
    with pytest.raises(ValidationError, match="set `books`"):
        make_recipe([OWN | {"in_books": 0.5}], books=None)


def test_single_hops_of_held_out_questions_are_not_trained_on(data: Path) -> None:
    records = []
    for number in range(6):
        hops = [
            {"question": f"hop {number}.{hop}?", "answer": "text", "paragraph_support_idx": hop, "id": hop}
            for hop in range(2)
        ]
        paragraphs = [
            {"idx": place, "title": f"T{number}", "paragraph_text": f"text {place}", "is_supporting": place < 2}
            for place in range(3)
        ]
        records.append(
            {"id": f"2hop__{number}", "question": f"Which {number}?", "paragraphs": paragraphs, "answerable": True}
            | {"question_decomposition": hops}
        )
    (data / "musique.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    task = {"kind": "musique", "path": "musique.jsonl", "validation": 2, "single_hops": 0.5}
    mixture = build_mixture(make_recipe([task]), data)
    held_out = {question.id for question in mixture.validation}
    assert len(held_out) == 2
    kinds = Counter(question.task for question in drawn(mixture, 400))
    assert 150 < kinds["musique_hops"] < 250
    assert kinds["musique_hops"] + kinds["musique"] == 400
    assert {question.id for question in drawn(mixture)} == {
        f"{name}{hop}" for name in {f"2hop__{n}" for n in range(6)} - held_out for hop in ("", "#1", "#2")
    }
    # Episodes that go on past their ends need room for it, and paragraphs are cut for both kinds.
    assert {question.budget for question in drawn(mixture)} == {1, 2}
    longer = build_mixture(make_recipe([task | {"budget": 4, "words": 1}]), data)
    assert {(question.task, question.budget) for question in drawn(longer)} == {
        ("musique_sentences", 4),
        ("musique_hops_sentences", 4),
    }


def test_ruler_makes_each_variant_a_task_and_holds_questions_out(data: Path) -> None:
    task = {"kind": "ruler", "variants": ["single_1", "multikey_2"], "tokens": 300, "questions": 4, "validation": 2}
    mixture, again = (build_mixture(make_recipe([task]), data) for _ in range(2))
    assert mixture.validation == again.validation
    assert Counter(question.task for question in mixture.validation) == {"niah_single_1": 2, "niah_multikey_2": 2}
    questions = drawn(mixture)
    assert len({question.text for question in questions}) == 8
    assert not {question.text for question in questions} & {question.text for question in mixture.validation}
