"""The words that ask for a question: a few texts with an answer and the question that it answers, then those at hand.

A small model that is only told to ask writes about the task instead; one that sees how it is done, and what the answer
is to be, asks about the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

LEAD = "Question:"
"""What the reader goes on from."""


class Example(NamedTuple):
    """Texts, an answer that the last of them gives, and the question."""

    texts: tuple[str, ...]
    answer: str
    question: str


ONE_TEXT = (
    Example(
        ("Mr. Harrow sold the mill at Denby to his cousin in the spring of 1821 and sailed for Halifax.",),
        "his cousin",
        "Who bought the mill at Denby from Mr. Harrow?",
    ),
    Example(
        ('"You shall not have it," said Margaret, and she locked the letter in the tin box under the stairs.',),
        "the tin box",
        "Where did Margaret lock the letter?",
    ),
    Example(
        ("The lamps of the lighthouse burned whale oil until the keeper, Josiah Penn, was sent paraffin.",),
        "Josiah Penn",
        "Who was the keeper of the lighthouse when paraffin came?",
    ),
    Example(
        ("He walked nine miles to Norwich every Sunday, in all weathers, to hear the new preacher.",),
        "nine miles",
        "How far did he walk to Norwich to hear the preacher?",
    ),
)

SEVERAL_TEXTS = (
    Example(
        (
            "The mill at Denby was sold in 1821 to Thomas Crale, a cousin of Mr. Harrow.",
            "Thomas Crale was born at Leeds, where he learned the trade of a dyer.",
        ),
        "Leeds",
        "Where was the man born who bought the mill at Denby?",
    ),
    Example(
        (
            "The schooner Petrel was built at Bath by Amos Reed, who had never been to sea.",
            "Off Cape Sable the Petrel was lost with all hands but the cook.",
        ),
        "the cook",
        "Who was saved when the ship was lost that Amos Reed had built?",
    ),
    Example(
        (
            "The Countess had the garden at Wexcombe laid out by an Italian, Paolo Renzi.",
            "Renzi charged four hundred crowns, of which he was never paid the half.",
        ),
        "four hundred crowns",
        "How much did the man charge who laid out the garden at Wexcombe?",
    ),
)


def asking(texts: Sequence[str], answer: str) -> str:
    """What asks for the question that the texts answer so; :data:`LEAD` follows it."""
    examples = ONE_TEXT if len(texts) < 2 else SEVERAL_TEXTS
    shown = [f"{_shown(example.texts, example.answer)}\n{LEAD} {example.question}" for example in examples]
    return "\n\n".join([*shown, _shown(texts, answer)])


def _shown(texts: Sequence[str], answer: str) -> str:
    return "\n".join([*(f"Text: {' '.join(text.split())}" for text in texts), f"Answer: {answer}"])
