from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.datasets.augment import PEOPLE, PLACES, THINGS, more_questions, rename
from trainer.datasets.babi import BabiQuestion, read_babi

SAMPLES = Path(__file__).parents[2] / "examples" / "training" / "babi"
NAMES = {*PEOPLE, *THINGS, *PLACES}


def _samples(task: str) -> list[BabiQuestion]:
    return read_babi(SAMPLES / f"{task}.txt", task)


def _words(item: BabiQuestion) -> list[str]:
    return re.findall(r"\w+|\S", "\n".join((*item.facts, item.question, item.answer)))


def _story(facts: str, task: str = "qa3") -> list[tuple[str, str, tuple[int, ...]]]:
    item = BabiQuestion(task, "?", "?", tuple(f"{fact}." for fact in facts.split(". ")), (0,), "story")
    return [
        (item.question, item.answer, item.support)
        for item in more_questions([item], task)
        if item.facts[-1] == f"{facts.split('. ')[-1]}."
    ]


def test_the_pools_hold_different_single_words() -> None:
    assert len(PEOPLE) == len(THINGS) == len(PLACES) == 40
    assert len(NAMES) == 120
    assert all(name.isalpha() and name.istitle() for name in PEOPLE)
    assert all(name.isalpha() and name.islower() for name in [*THINGS, *PLACES])


@pytest.mark.parametrize("task", ["qa1", "qa2", "qa3", "qa4", "qa5"])
@given(seed=st.integers(0, 2**32 - 1))
def test_renaming_is_consistent_and_can_be_undone(task: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for item in _samples(task):
        renamed = rename(item, generator)
        assert (renamed.task, renamed.support, renamed.id) == (item.task, item.support, item.id)
        there: dict[str, str] = {}
        back: dict[str, str] = {}
        for old, new in zip(_words(item), _words(renamed), strict=True):
            assert there.setdefault(old, new) == new
            assert back.setdefault(new, old) == old
            assert [old in pool for pool in (PEOPLE, THINGS, PLACES)] == [
                new in pool for pool in (PEOPLE, THINGS, PLACES)
            ]
            assert old == new or old in NAMES


@pytest.mark.parametrize("task", ["qa1", "qa2", "qa3", "qa4", "qa5"])
def test_every_name_of_the_published_stories_is_renamed(task: str) -> None:
    """What stays in a hundred renamings is grammar, not a name that a pool lacks."""
    generator = np.random.default_rng(0)
    kept = set(_words(_samples(task)[0]))
    for _ in range(100):
        kept &= set(_words(rename(_samples(task)[0], generator)))
    assert not kept & NAMES
    assert not any(word[0].isupper() for word in kept - {"Where", "What", "Who", "The"})


def test_renaming_is_drawn_anew() -> None:
    generator = np.random.default_rng(0)
    item = _samples("qa3")[0]
    assert len({rename(item, generator).facts for _ in range(20)}) == 20


@pytest.mark.parametrize("task", ["qa1", "qa2", "qa3"])
def test_the_published_answers_and_support_are_derived_exactly(task: str) -> None:
    for item in _samples(task):
        derived = [
            (other.answer, other.support)
            for other in more_questions([item], task)
            if other.facts == item.facts and other.question == item.question
        ]
        assert derived == [(item.answer, item.support)]


def test_questions_are_asked_at_every_point() -> None:
    item = _samples("qa3")[-1]
    for task, length in (("qa1", 1), ("qa2", 2), ("qa3", 3)):
        found = more_questions([item], task)
        assert len({other.id for other in found}) == len(found) > 0
        for other in found:
            assert other.task == task
            assert item.facts[: len(other.facts)] == other.facts
            assert len(other.support) == length
            assert all(0 <= index < len(other.facts) for index in other.support)


def test_where_a_thing_is_follows_its_holder_until_it_is_left() -> None:
    told = "Mary went to the garden. Mary got the milk there. Mary moved to the office"
    assert _story(told, "qa2") == [("Where is the milk?", "office", (1, 2))]
    told += ". Mary left the milk. Mary went back to the garden"
    assert _story(told, "qa2") == [("Where is the milk?", "office", (3, 2))]


def test_where_a_thing_was_needs_two_moves_since_it_was_taken() -> None:
    told = "Mary went to the garden. Mary got the milk there. Mary moved to the office"
    assert _story(told) == []
    told += ". Mary journeyed to the kitchen"
    assert _story(told) == [("Where was the milk before the kitchen?", "office", (1, 3, 2))]
    told += ". Mary dropped the milk. Mary went to the garden"
    assert _story(told) == [("Where was the milk before the kitchen?", "office", (4, 3, 2))]
    assert _story(told + ". John took the milk") == []


def test_the_last_visit_of_a_place_is_meant() -> None:
    visited = ("office", "garden", "hall", "garden")
    told = ". ".join(["Mary got the milk", *(f"Mary went to the {place}" for place in visited)])
    assert {question: (answer, support) for question, answer, support in _story(told)} == {
        "Where was the milk before the garden?": ("hall", (0, 4, 3)),
        "Where was the milk before the hall?": ("garden", (0, 3, 2)),
    }


def test_what_the_facts_do_not_settle_is_not_asked() -> None:
    assert _story("Mary got the milk", "qa2") == []  # nobody said where Mary is
    assert _story("Mary went to the garden. Mary dropped the milk", "qa2") == []  # she did not have it
    assert _story("Mary got the milk. Mary went to the garden. John dropped the milk", "qa2") == []
    assert _story("Mary got the milk. Mary went to the garden. Mary moved to the garden") == []


def test_other_tasks_and_other_facts_are_refused() -> None:
    with pytest.raises(ValueError, match="qa4 cannot be asked"):
        more_questions([], "qa4")
    with pytest.raises(ValueError, match=r"'Bill gave the football to Fred.' is no move"):
        more_questions(_samples("qa5"), "qa1")
