"""Which sentences share telling words with a text."""

from __future__ import annotations

from trainer.datasets.lexical import most_alike, words

SENTENCES = [
    "The garden was wet.",
    "Mary had a milk pail.",
    "Milk.",
    "Nobody came.",
    "The garden was wet.",
    "A long story of how the milk that nobody wanted was sold to a man from the far north in the end.",
]


def test_words_are_in_lower_case_and_no_stop_words() -> None:
    assert words(["Where is the Milk?", "It is the."]) == [["where", "milk"], []]


def test_the_best_of_each_text_come_once_and_in_order() -> None:
    assert most_alike(["Sandra left the milk.", "In the garden."], SENTENCES, 1) == ["The garden was wet.", "Milk."]
    everything = most_alike(["Sandra left the milk.", "In the garden.", "milk"], SENTENCES, 100)
    assert everything == [SENTENCES[0], SENTENCES[1], SENTENCES[2], SENTENCES[5]]


def test_nothing_is_like_a_text_of_stop_words_or_of_words_that_no_sentence_has() -> None:
    assert most_alike(["It is the.", ""], SENTENCES, 3) == []
    assert most_alike(["football"], SENTENCES, 3) == []
    assert most_alike(["milk"], [], 3) == []
