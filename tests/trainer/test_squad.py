from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.mixtures import make_recipe
from trainer.datasets.question import Question
from trainer.datasets.squad import read_squad
from trainer.errors import DataError, RecipeError
from trainer.evaluation.suites import SUITES
from trainer.tasks.mixture import build_mixture

SAMPLE = Path(__file__).parents[2] / "examples" / "training" / "squad" / "squad.json"
CITY = "The city lies on a river. Its mayor is Ann, who came from the north. She is eighty years old."
HARBOUR = "The harbour was built in 1712. It has four piers."


def asked(number: int, answer: str, context: str, **fields: Any) -> dict[str, Any]:
    answers = [{"text": answer, "answer_start": context.index(answer)}, {"text": "x", "answer_start": 0}]
    return {"id": f"q{number}", "question": f"What is {answer}?", "answers": answers} | fields


def article(number: int = 0) -> dict[str, Any]:
    """With a number, each of its sentences and questions is its own."""
    paragraphs = []
    for at, (text, answers) in enumerate(((CITY, ("river", "Ann", "eighty")), (HARBOUR, ("1712", "four")))):
        context = text.replace(".", f" in {number}.") if number else text
        questions = [asked(100 * number + 10 * at + n, answer, context) for n, answer in enumerate(answers)]
        paragraphs.append({"context": context, "qas": questions})
    return {"title": "A city", "paragraphs": paragraphs}


def write(path: Path, *articles: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1.1", "data": articles}))
    return path


def test_paragraphs_are_documents_of_packed_sentences_or_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "squad.json", article())
    questions = list(read_squad(path, 15))
    assert [(one.id, one.text, one.task, one.budget) for one in questions][1] == ("q1", "What is Ann?", "squad", 1)
    assert questions[0].counts == (2, 1)
    assert questions[0].chunks == [CITY[: CITY.index(" She")], CITY[CITY.index("She") :], HARBOUR]
    assert [sorted(one.support) for one in questions] == [[0], [0], [1], [2], [2]]
    whole = list(read_squad(path))
    assert whole[0].chunks == [CITY, HARBOUR]
    assert [sorted(one.support) for one in whole] == [[0], [0], [0], [1], [1]]


def test_the_sample_says_what_it_is_asked() -> None:
    questions = list(read_squad(SAMPLE, 45))
    assert len(questions) == 24
    one = next(one for one in questions if one.text == "Who is the English translator of this hymn?")
    (position,) = one.support
    assert "John C. Messenger" in one.chunks[position]


def test_questions_without_an_answer_are_left_out(tmp_path: Path) -> None:
    changed = article()
    changed["paragraphs"][0]["qas"][0] |= {"is_impossible": True, "answers": []}
    changed["paragraphs"][0]["qas"][1]["answers"] = []
    assert [one.id for one in read_squad(write(tmp_path / "squad.json", changed))] == ["q2", "q10", "q11"]


def misplaced(changed: dict[str, Any]) -> None:
    changed["paragraphs"][0]["qas"][1]["answers"][0]["answer_start"] += 1


def before_the_beginning(changed: dict[str, Any]) -> None:
    changed["paragraphs"][0]["qas"][1]["answers"][0]["answer_start"] = -1


def silent(changed: dict[str, Any]) -> None:
    changed["paragraphs"][0]["qas"][1]["question"] = " "


def blank(changed: dict[str, Any]) -> None:
    changed["paragraphs"][1] = {"context": " \n", "qas": []}


def unfinished(changed: dict[str, Any]) -> None:
    del changed["paragraphs"][0]["qas"][1]["answers"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (misplaced, "question q1: the answer does not begin at"),
        (before_the_beginning, "question q1: the answer does not begin at -1"),
        (silent, "question q1: the question is empty"),
        (blank, "A city: a paragraph is blank"),
        (unfinished, r"data\.0\.paragraphs\.0\.qas\.1\.answers: Field required"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, damage: Callable[[dict[str, Any]], None], message: str) -> None:
    changed = article()
    damage(changed)
    with pytest.raises(DataError, match=message):
        list(read_squad(write(tmp_path / "squad.json", changed)))


def test_whole_articles_are_held_out(tmp_path: Path) -> None:
    write(tmp_path / "squad.json", *(article(number) for number in range(1, 9)))
    task = {"kind": "squad", "path": "squad.json", "words": 15, "validation": 7, "distractors": 3}
    mixture = build_mixture(make_recipe([task], books=None), tmp_path)
    questions = mixture.draw(400, np.random.default_rng(0))

    def numbers(questions: list[Question]) -> set[int]:
        return {int(number) for one in questions for chunk in one.chunks for number in re.findall(r" in (\d)\.", chunk)}

    assert len(mixture.validation) == 7
    assert all(len(one.counts) > 2 for one in mixture.validation)
    asked = {int(one.id[1:]) // 100 for one in mixture.validation}
    assert len(asked) == 2  # one of them in part, the rest of which is not trained on either
    assert numbers(questions) == set(range(1, 9)) - asked
    assert numbers(list(mixture.validation)) > asked  # beside paragraphs of others
    assert {one.text for one in questions}.issuperset({"What is Ann?", "What is four?"})
    assert any(len(one.counts) > 2 for one in questions)  # paragraphs of other articles too
    for one in questions:
        assert sum(one.counts) == len(one.chunks)
        (position,) = one.support
        assert one.text.removeprefix("What is ").rstrip("?") in one.chunks[position]


def test_the_suite_asks_about_articles_in_the_middle_of_books(tmp_path: Path) -> None:
    write(tmp_path / "squad" / "xquad_en_dev.json", *(article(number) for number in range(1, 4)))
    for part in ("dev", "train"):
        (tmp_path / "books" / part).mkdir(parents=True)
        text = " ".join(f"This is sentence {number} of the long and winding {part} book." for number in range(9000))
        (tmp_path / "books" / part / "book.txt").write_text(text)
    short, long = SUITES["squad"](tmp_path, ["32K", "128K"], None, 0)
    assert [(one.task, one.length, one.count) for one in (short, long)] == [("squad", "32K", 15), ("squad", "128K", 15)]
    questions = list(short.draw())
    assert [one.id for one in questions] == [one.id for one in long.draw()] == [one.id for one in short.draw()]
    numbers = sorted(int(one.id[1:]) - 100 for one in questions)
    assert numbers == [article + at for article in (0, 100, 200) for at in (0, 1, 2, 10, 11)]
    for one in questions:
        assert one.counts == (650,)
        assert one.budget == 4
        (position,) = one.support
        assert 300 < position < 350
        chunk = one.chunks[position]
        assert one.text.removeprefix("What is ").rstrip("?") in chunk
        assert f" in {int(one.id[1:]) // 100}." in chunk
        assert "dev book" in one.chunks[0]
        assert "dev book" in one.chunks[-1]
    (few,) = SUITES["squad"](tmp_path, ["32K"], 4, 0)
    assert [one.id for one in few.draw()] == [one.id for one in questions[:4]]
    with pytest.raises(RecipeError, match=r"no length 1K .* 32K, 128K, 1M"):
        list(SUITES["squad"](tmp_path, ["1K"], None, 0))
