"""Which stories are trained on and which are held out, and in what proportion tasks come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tests.trainer.mixtures import BABI, BOOK, OWN, drawn, make_recipe, write_own, write_stories
from trainer.datasets.babi import BabiQuestion, read_babi
from trainer.datasets.question import Question
from trainer.errors import DataError, RecipeError
from trainer.tasks.mixture import Mixture, build_mixture
from trainer.tasks.source import Source


def facts_of(question: Question) -> tuple[str, ...]:
    """What is no sentence of the book."""
    return tuple(chunk for chunk in question.chunks if not chunk.startswith("The night"))


# -- held out by story -------------------------------------------------------------------------------------------------


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


# -- refused -----------------------------------------------------------------------------------------------------------


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


def test_books_without_a_sentence_are_refused(data: Path) -> None:
    (data / "books" / "book.txt").write_text("\n \n")
    with pytest.raises(DataError, match="books: no book has a sentence to hide facts among"):
        build_mixture(make_recipe([BABI]), data)


# -- the mixture -------------------------------------------------------------------------------------------------------


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
