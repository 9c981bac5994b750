"""Where hard negatives are looked for."""

from __future__ import annotations

import itertools
from pathlib import Path

from tests.trainer.mixtures import BABI, BOOK, OWN, drawn, make_recipe, support_texts, write_own
from trainer.hyperparameters import Hyperparameters
from trainer.tasks.background import middle_sentences, training_sentences
from trainer.tasks.mixture import LONG_VALIDATION, build_mixture


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


def test_tasks_that_mine_validate_on_long_documents(data: Path) -> None:
    def lengths(mine: bool, longest: int = LONG_VALIDATION) -> set[int]:
        recipe = make_recipe([BABI | {"mine": mine}], book_sentences=23)
        built = build_mixture(recipe, data, longest_validation=longest)
        return {len(question.chunks) for question in built.validation}

    assert lengths(False) == {20}
    assert lengths(True) == {23}
    assert lengths(True, 21) == {21}
    assert lengths(True, 10) == {20}


def test_renamed_stories_have_book_negatives_with_the_names_that_they_may_get(data: Path) -> None:
    (data / "books" / "book.txt").write_text(f"{BOOK}\n\nA hammer hung on the wall.\n\nThe night came.\n\n{BOOK}")
    for share in (0.0, 0.5):
        recipe = make_recipe([BABI | {"mine": True, "rename": share}], book_sentences=1, book_negatives=100)
        pool = drawn(build_mixture(recipe, data))[0].pool
        assert ("A hammer hung on the wall." in pool) == (share > 0)


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
