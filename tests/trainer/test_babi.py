from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.datasets.babi import BabiQuestion, hide, read_babi
from trainer.errors import DataError

SAMPLES = Path(__file__).parents[2] / "examples" / "training" / "babi"


@pytest.mark.parametrize(("task", "count", "support"), [(1, 10, 1), (2, 10, 2), (3, 10, 3), (4, 10, 1), (5, 10, 1)])
def test_the_published_samples_read(task: int, count: int, support: int) -> None:
    items = read_babi(SAMPLES / f"qa{task}.txt", f"qa{task}")
    assert len(items) == count
    for item in items:
        assert item.task == f"qa{task}"
        assert item.question.endswith("?")
        assert all(fact.endswith(".") for fact in item.facts)
        assert len(item.support) == support
        assert len({item.id for item in items}) == count


def test_a_published_question_and_one_of_the_generator(tmp_path: Path) -> None:
    """The published files have a blank before the first tab, the generator's have none."""
    story = "1 Mary went home.\n2 Where is Mary?{blank}\thome\t1\n3 Sam got up.\n4 Where is Mary?{blank}\thome\t3 1\n"
    for blank in (" ", ""):
        path = tmp_path / "story.txt"
        path.write_text(story.format(blank=blank) + "1 Lea slept.\n2 Who slept?\tLea\t1\n")
        assert read_babi(path, "qa9") == [
            BabiQuestion("qa9", "Where is Mary?", "home", ("Mary went home.",), (0,), "story.txt:2"),
            BabiQuestion("qa9", "Where is Mary?", "home", ("Mary went home.", "Sam got up."), (1, 0), "story.txt:4"),
            BabiQuestion("qa9", "Who slept?", "Lea", ("Lea slept.",), (0,), "story.txt:6"),
        ]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["Mary went home."], ":1: a line must be a number"),
        (["1 Mary went home.", "3 Sam got up."], ":2: the story's line 1 is followed by 3, not by 2 or 1"),
        (["2 Mary went home."], ":1: the story's line 0 is followed by 2"),
        (["1 Mary went home.", "2 Where?\thome"], ":2: a question must be followed by"),
        (["1 Mary went home.", "2 Where?\t\t1"], ":2: a question must be followed by"),
        (["1 Mary went home.", "2 Where?\thome\t "], ":2: a question must be followed by"),
        (["1 Mary went home.", "2 Where?\thome\tone"], ":2: supporting lines must be numbers"),
        (["1 Mary went home.", "2 Where?\thome\t-1"], ":2: supporting lines must be numbers"),
        (["1 Mary went home.", "2 Where?\thome\t3"], ":2: supporting line 3 is no fact before"),
        (["1 Mary went home.", "2 Where?\thome\t1", "3 Where?\thome\t2"], ":3: supporting line 2 is no fact"),
        (["1 Mary went home.", "1 Sam slept.", "2 Who?\tSam\t2"], ":3: supporting line 2 is no fact"),
        (["1 Mary went home."], ": the file holds no questions"),
        ([], ": the file holds no questions"),
    ],
)
def test_malformed_stories_name_their_line(tmp_path: Path, lines: list[str], problem: str) -> None:
    path = tmp_path / "story.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=re.escape(f"story.txt{problem}")):
        read_babi(path, "qa1")


@given(
    facts=st.integers(1, 30),
    length=st.integers(0, 80),
    sentences=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_hidden_facts_keep_their_order_and_support(
    facts: int, length: int, sentences: int, seed: int, data: st.DataObject
) -> None:
    support = data.draw(st.lists(st.integers(0, facts - 1), min_size=1, max_size=3, unique=True))
    item = BabiQuestion("qa3", "Where?", "here", tuple(f"fact {n}" for n in range(facts)), tuple(support), "id")
    book = [f"sentence {n}" for n in range(sentences)]
    question = hide(item, book, length, np.random.default_rng(seed), 6)
    assert (question.id, question.task, question.text, question.budget) == ("id", "qa3", "Where?", 6)
    assert len(question.chunks) == max(length, facts)
    assert question.counts == (len(question.chunks),)
    assert [chunk for chunk in question.chunks if chunk.startswith("fact")] == list(item.facts)
    assert {question.chunks[place] for place in question.support} == {item.facts[index] for index in support}
    taken = [int(chunk.split()[1]) for chunk in question.chunks if chunk.startswith("sentence")]
    assert all((first + 1) % sentences == second for first, second in itertools.pairwise(taken))
    if len(taken) <= sentences:
        assert taken == sorted(taken)  # no jump back to the beginning where the book is long enough


def test_hidden_facts_can_stand_anywhere() -> None:
    item = BabiQuestion("qa1", "Where?", "here", ("a", "b"), (0,), "id")
    generator = np.random.default_rng(0)
    seen = {tuple(hide(item, ["x"], 4, generator, 4).chunks) for _ in range(200)}
    assert len(seen) == 6  # two of four places


def test_hiding_among_nothing_is_refused_where_something_is_needed() -> None:
    item = BabiQuestion("qa1", "Where?", "here", ("a", "b"), (1,), "id")
    assert hide(item, [], 2, np.random.default_rng(0), 4).chunks == ["a", "b"]
    with pytest.raises(ValueError, match="no sentences"):
        hide(item, [], 3, np.random.default_rng(0), 4)
