"""Questions without an answer: what stop rules are judged on beside those that have one."""

from __future__ import annotations

from dataclasses import replace

from trainer.datasets.question import Question
from trainer.evaluation.suites.test_sets import listed
from trainer.stopping.judging import asked_of_others, unanswered


def about(document: str, number: int) -> Question:
    chunks = [f"{document} {place}" for place in range(3)]
    return Question(f"{document}{number}", "set", f"Which of {document}?", chunks, (3,), frozenset({number}), 2)


def test_every_question_is_asked_of_another_document() -> None:
    every = [about(document, number) for document in ("a", "b", "c") for number in range(2)]
    elsewhere = asked_of_others(listed(every), 0)
    assert (elsewhere.task, elsewhere.part) == ("set_elsewhere", True)
    asked = list(elsewhere.draw())
    assert [question.id for question in asked] == [question.id for question in every]
    for question, own in zip(asked, every, strict=True):
        assert question.text == own.text
        assert set(own.chunks).isdisjoint(question.chunks)
        assert question.missing(range(3)) >= 1
        assert question.task == "set_elsewhere"
    assert len({question.chunks[0] for question in asked}) > 1
    assert list(elsewhere.draw()) == asked


def test_of_one_document_nothing_can_be_asked_elsewhere() -> None:
    assert list(asked_of_others(listed([about("a", 0), about("a", 1)]), 0).draw()) == []


def test_questions_that_their_authors_left_without_an_answer_keep_their_documents() -> None:
    without = replace(about("a", 0), support=frozenset(), removed=1)
    test_set = unanswered(replace(listed([about("b", 0)]), unanswered=[without]))
    assert (test_set.task, test_set.count, test_set.part) == ("set_unanswered", 1, True)
    (asked,) = test_set.draw()
    assert asked == replace(without, task="set_unanswered")
