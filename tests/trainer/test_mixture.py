"""Which questions are trained on and which are held out, and in what proportion they come."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from trainer import mixture
from trainer.datasets.babi import BabiQuestion, read_babi
from trainer.datasets.question import Question
from trainer.errors import DataError, RecipeError
from trainer.hyperparameters import Hyperparameters
from trainer.mixture import (
    Mixture,
    Source,
    build_mixture,
    documents,
    middle_sentences,
    shuffled,
    training_sentences,
    with_distractors,
)
from trainer.recipe import Recipe

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


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a book and two files of stories."""
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "book.txt").write_text(BOOK)
    write_stories(tmp_path / "one.txt", 0, [3] * 12)
    write_stories(tmp_path / "two.txt", 1, [4, 1, 2] * 4)
    return tmp_path


BABI = {"kind": "babi", "task": "qa2", "path": "one.txt", "sentences": [12, 20], "validation": 6}


def drawn(mixture: Mixture, count: int = 300) -> list[Question]:
    return mixture.draw(count, np.random.default_rng(3))


def facts_of(question: Question) -> tuple[str, ...]:
    """What is no sentence of the book."""
    return tuple(chunk for chunk in question.chunks if not chunk.startswith("The night"))


# -- held out by story ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(
    lengths=st.tuples(*[st.lists(st.integers(1, 4), min_size=8, max_size=12)] * 2),
    validation=st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8)),
    re_ask=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_no_story_is_both_trained_on_and_held_out(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: tuple[list[int], list[int]],
    validation: tuple[int, int, int],
    re_ask: float,
) -> None:
    directory = tmp_path_factory.mktemp("data")
    (directory / "books").mkdir()
    (directory / "books" / "book.txt").write_text(BOOK)
    tasks: list[dict[str, Any]] = []
    for seed, name in enumerate(("one.txt", "two.txt")):
        write_stories(directory / name, seed, lengths[seed])
        both = ["one.txt", "two.txt"]
        tasks.append(BABI | {"path": name, "validation": validation[seed], "re_ask": re_ask, "stories": both})
    tasks.append(BABI | {"validation": validation[2]})  # another task about the stories of the first
    try:
        mixture = build_mixture(make_recipe(tasks), directory)
    except RecipeError:  # too few to hold out so many
        reject()
    # Two facts name a story: its person with its thing, and the first place.
    held_out = {facts_of(question)[:2] for question in mixture.validation}
    assert len(mixture.validation) == sum(validation)
    trained = {facts_of(question)[:2] for question in drawn(mixture, 200)}
    assert not held_out & trained


def test_what_is_held_out_are_the_last_questions_of_the_file(data: Path) -> None:
    mixture = build_mixture(make_recipe([BABI | {"validation": 7}]), data)
    items = read_babi(data / "one.txt", "qa2")
    assert [question.id for question in mixture.validation] == [item.id for item in items[-7:]]
    # The third story from the end is cut through: its other questions are nobody's.
    assert {question.id for question in drawn(mixture)} == {item.id for item in items[:-9]}


def test_what_is_held_out_depends_on_the_files_alone(data: Path) -> None:
    recipes = [make_recipe([BABI], seed=seed) for seed in (0, 1)]
    first, second = (build_mixture(recipe, data).validation for recipe in recipes)
    assert first == second
    assert len(first) == 6


def test_an_explicit_third_of_the_questions_are_asked_anew(data: Path) -> None:
    mixture = build_mixture(make_recipe([BABI | {"re_ask": 0.3, "stories": ["two.txt"]}]), data)
    names = Counter(question.id.startswith("two.txt") for question in drawn(mixture, 1000))
    assert 240 < names[True] < 360
    assert all("/qa2/" in question.id for question in drawn(mixture) if question.id.startswith("two.txt"))


def test_each_story_is_asked_about_once_and_whole(data: Path) -> None:
    mixture = build_mixture(make_recipe([BABI | {"re_ask": 1.0, "stories": ["two.txt"]}]), data)
    whole: dict[tuple[str, ...], BabiQuestion] = {}
    for item in read_babi(data / "two.txt", "qa2"):
        whole[item.facts[:2]] = item  # the last question of each story has all its facts
    found = {question.id for question in drawn(mixture, 2000)}
    # A question after each fact from the second on: before, the thing is nowhere yet.
    assert len(found) == sum(len(item.facts) - 1 for item in whole.values())


def test_questions_are_hidden_in_the_book(data: Path) -> None:
    mixture = build_mixture(make_recipe([BABI | {"budget": 5}]), data)
    for question in drawn(mixture, 50):
        assert 12 <= len(question.chunks) <= 20
        assert question.counts == (len(question.chunks),)
        assert question.budget == 5
        assert {question.chunks[place] for place in question.support} <= set(facts_of(question))
    assert {len(question.chunks) for question in mixture.validation} == {20}


def test_names_are_changed_in_the_share_of_stories_that_is_asked_for(data: Path) -> None:
    plain = {fact for item in read_babi(data / "one.txt", "qa2") for fact in item.facts}
    for share, low, high in ((0.0, 0, 0), (0.5, 60, 140), (1.0, 190, 200)):
        mixture = build_mixture(make_recipe([BABI | {"rename": share}]), data)
        renamed = sum(not plain.issuperset(facts_of(question)) for question in drawn(mixture, 200))
        assert low <= renamed <= high
        assert all(plain.issuperset(facts_of(question)) for question in mixture.validation)


# -- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        (BABI | {"validation": 36}, r"one\.txt has 36 questions: too few to hold out 36"),
        (BABI | {"validation": 34}, r"one\.txt has 36 questions: too few to hold out 34"),
        (BABI | {"validation": 99}, r"one\.txt has 36 questions: too few to hold out 99"),
        (BABI | {"budget": 1}, r"budget: one\.txt has a question that needs 2 chunks; 1 selections never do"),
        (BABI | {"task": "qa3", "re_ask": 0.5, "stories": ["still.txt"]}, r"qa3: nothing further can be asked"),
        (BABI | {"re_ask": 0.5, "stories": ["odd.txt"]}, r"qa2: 'Mary is bored\.' is no move, taking or leaving"),
        ({"kind": "jsonl", "path": "own.jsonl", "validation": 3}, "3 questions are too few to hold out 3"),
        ({"kind": "jsonl", "path": "own.jsonl", "validation": 1, "budget": 1}, "budget: own has a question that needs"),
    ],
)
def test_what_the_data_cannot_give_is_refused(data: Path, task: dict[str, Any], problem: str) -> None:
    (data / "still.txt").write_text("1 Mary went to the kitchen.\n2 Where is Mary?\tkitchen\t1\n")
    (data / "odd.txt").write_text("1 Mary is bored.\n2 Where is Mary?\tkitchen\t1\n")
    write_own(data / "own.jsonl", 3)
    with pytest.raises(RecipeError, match=problem):
        build_mixture(make_recipe([task]), data)


def test_lengths_are_spread_evenly_or_over_orders_of_magnitude(data: Path) -> None:
    for spread, short in (("uniform", 9 / 25), ("log", np.log(24 / 15) / np.log(40 / 15))):
        task = BABI | {"sentences": [15, 39], "spread": spread}
        lengths = [len(question.chunks) for question in drawn(build_mixture(make_recipe([task]), data), 1000)]
        assert min(lengths) >= 15
        assert max(lengths) <= 39
        assert np.mean([length <= 23 for length in lengths]) == pytest.approx(short, abs=0.05)


def test_a_missing_file_is_named(data: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.txt"):
        build_mixture(make_recipe([BABI | {"path": "nothing.txt"}]), data)
    with pytest.raises(DataError, match="nowhere"):
        build_mixture(make_recipe([BABI], books="nowhere"), data)


# -- other tasks ------------------------------------------------------------------------------------------------------


def write_own(path: Path, count: int, documents: bool = True) -> None:
    """Questions in the plain format, over documents of one chunk each or over one document."""
    records = []
    for number in range(count):
        texts = [f"text {number}.{place}" for place in range(4)]
        record = {"id": f"q{number}", "question": f"Which {number}?", "support": [number % 4, (number + 1) % 4]}
        records.append(record | ({"documents": texts} if documents else {"chunks": texts}))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


OWN = {"kind": "jsonl", "path": "own.jsonl", "validation": 2}


def support_texts(question: Question) -> set[str]:
    return {question.chunks[place] for place in question.support}


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


def test_books_without_a_sentence_are_refused(data: Path) -> None:
    (data / "books" / "book.txt").write_text("\n \n")
    with pytest.raises(DataError, match="books: no book has a sentence to hide facts among"):
        build_mixture(make_recipe([BABI]), data)


def test_only_tasks_that_mine_have_pools(data: Path) -> None:
    write_own(data / "own.jsonl", 8)
    ruler = {"kind": "ruler", "variants": ["single_2"], "tokens": 300, "questions": 4, "validation": 2}
    for mine in (False, True):
        tasks = [task | {"mine": mine} for task in (BABI, OWN, ruler)]
        mixture = build_mixture(make_recipe(tasks), data)
        pools = {question.task: question.pool for question in drawn(mixture)}
        sentences = training_sentences(data / "books", 20_000)
        held_out = {chunk for question in mixture.validation for chunk in question.chunks}
        own = {f"text {number}.{place}" for number in range(8) for place in range(4)} - held_out
        assert {task: list(pool) for task, pool in pools.items() if task != "own"} == {
            "qa2": sentences if mine else [],
            "niah_single_2": sentences if mine else [],
        }
        assert sorted(pools["own"]) == (sorted(own) if mine else [])
        assert {id(question.pool) for question in drawn(mixture) if question.task == "qa2"} == {id(pools["qa2"])}


def test_book_negatives_share_words_with_the_facts_and_come_from_no_book_of_the_evaluation(data: Path) -> None:
    (data / "books" / "train").mkdir()
    (data / "books" / "dev").mkdir()
    for number in range(62):
        text = f"It rained in chapter {number}.\n\nHe spilled the apple juice of chapter {number}.\n\nThey slept."
        (data / "books" / "train" / f"{number:03}.txt").write_text(text)
    recipe = make_recipe([BABI | {"mine": True}], book_sentences=3, book_negatives=100)
    pool = drawn(build_mixture(recipe, data))[0].pool
    of_first = ["It rained in chapter 0.", "He spilled the apple juice of chapter 0.", "They slept."]
    assert list(pool) == of_first + [f"He spilled the apple juice of chapter {number}." for number in range(1, 60)]
    assert list(drawn(build_mixture(recipe.model_copy(update={"book_negatives": 0}), data))[0].pool) == of_first


def test_tasks_that_mine_validate_on_long_documents(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lengths(mine: bool) -> set[int]:
        built = build_mixture(make_recipe([BABI | {"mine": mine}], book_sentences=23), data)
        return {len(question.chunks) for question in built.validation}

    assert lengths(False) == {20}
    assert lengths(True) == {23}
    monkeypatch.setattr(mixture, "LONG_VALIDATION", 21)
    assert lengths(True) == {21}
    monkeypatch.setattr(mixture, "LONG_VALIDATION", 10)
    assert lengths(True) == {20}


def test_renamed_stories_have_book_negatives_with_the_names_that_they_may_get(data: Path) -> None:
    (data / "books" / "book.txt").write_text(f"{BOOK}\n\nA hammer hung on the wall.\n\nThe night came.\n\n{BOOK}")
    for share in (0.0, 0.5):
        recipe = make_recipe([BABI | {"mine": True, "rename": share}], book_sentences=1, book_negatives=100)
        pool = drawn(build_mixture(recipe, data))[0].pool
        assert ("A hammer hung on the wall." in pool) == (share > 0)


def test_single_hops_of_held_out_questions_are_not_trained_on(data: Path) -> None:
    records = []
    for number in range(6):
        hops = [
            {"question": f"hop {number}.{hop}?", "answer": "a", "paragraph_support_idx": hop, "id": hop}
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


def test_from_some_questions_evidence_is_taken_out_and_not_found_in_their_pool(data: Path) -> None:
    write_own(data / "own.jsonl", 8)
    settings = Hyperparameters(stop=True)
    task = OWN | {"unanswerable": 0.5, "mine": True}
    questions = drawn(build_mixture(make_recipe([task], hyperparameters=settings), data), 400)
    whole = {question.id: support_texts(question) for question in questions if not question.removed}
    poorer = [question for question in questions if question.removed]
    assert 150 < len(poorer) < 250
    taken = set()
    for question in poorer:
        (gone,) = whole[question.id] - support_texts(question)
        assert (question.removed, question.pool, gone in question.chunks) == (1, (), False)
        taken.add(gone)
    assert taken == set().union(*whole.values())


def test_ruler_makes_each_variant_a_task_and_holds_questions_out(data: Path) -> None:
    task = {"kind": "ruler", "variants": ["single_1", "multikey_2"], "tokens": 300, "questions": 4, "validation": 2}
    mixture, again = (build_mixture(make_recipe([task]), data) for _ in range(2))
    assert mixture.validation == again.validation
    assert Counter(question.task for question in mixture.validation) == {"niah_single_1": 2, "niah_multikey_2": 2}
    questions = drawn(mixture)
    assert len({question.text for question in questions}) == 8
    assert not {question.text for question in questions} & {question.text for question in mixture.validation}


# -- the mixture ------------------------------------------------------------------------------------------------------


def test_tasks_come_in_proportion_to_their_weights() -> None:
    def source(name: str) -> Callable[[np.random.Generator], Question]:
        return lambda _: Question(name, name, "?", ["chunk"], (1,), frozenset({0}), 1)

    mixture = Mixture(tuple(Source(weight, source(str(weight)), (), ()) for weight in (1.0, 3.0, 6.0)))
    counts = Counter(question.task for question in drawn(mixture, 2000))
    assert counts["1.0"] == pytest.approx(200, abs=70)
    assert counts["3.0"] == pytest.approx(600, abs=100)
    assert counts["6.0"] == pytest.approx(1200, abs=110)


def test_the_same_random_numbers_draw_the_same_questions(data: Path) -> None:
    write_own(data / "own.jsonl", 8)
    recipe = make_recipe([BABI | {"rename": 0.5, "re_ask": 0.5, "stories": ["two.txt"]}, OWN | {"distractors": 2}])
    first, second = (drawn(build_mixture(recipe, data), 50) for _ in range(2))
    assert first == second
    assert {question.task for question in first} == {"qa2", "own"}


# -- background -------------------------------------------------------------------------------------------------------


def test_background_is_taken_from_the_middle_of_many_books(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        text = "\n\n".join(f"Sentence {number} of the book {name} is this one here." for number in range(1000))
        (tmp_path / f"{name}.txt").write_text(text)
    found = training_sentences(tmp_path, 1200)
    books = [list(group) for _, group in itertools.groupby(found, key=lambda sentence: sentence.split(" of the ")[1])]
    assert [len(book) for book in books] == [500, 500, 200]
    assert training_sentences(tmp_path, 30) == found[:30]
    assert middle_sentences("One is here. Two is here. Three is here. Four is here.", 2) == [
        "Two is here.",
        "Three is here.",
    ]
    numbers = {int(sentence.split()[1]) for sentence in training_sentences(tmp_path, 100_000)}
    assert 790 < max(numbers) < 810  # the last fifth of each book is for validation
