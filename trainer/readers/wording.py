"""The words of a prompt: contexts, then the question, in the form that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from trainer.errors import ReaderError
from trainer.readers.asking import LEAD, asking
from trainer.readers.protocol import Prompt

INSTRUCTION = "Answer the question in a few words."

ASK = "Write a question that this text answers, and its answer."
"""The instruction of a prompt without a question, by which a question with its answer is scored."""

PARTS = 8
"""A context that is too long by itself is cut at eighths of its words."""

_PLACE = "PLACE-OF-THE-INSTRUCTION"
_PLAIN_ANSWER = "Answer:"


@dataclass(frozen=True, slots=True)
class Wording:
    """What stands around an instruction, and before an answer."""

    before: str
    after: str
    lead: str = ""
    """What the answer begins with, beside itself."""

    def prompt(self, prompt: Prompt) -> str:
        """All that the model reads before the answer, or before the question that it is to ask."""
        if prompt.answer is None:
            return f"{self.before}{instruction(prompt)}{self.after}"
        return f"{self.before}{instruction(prompt)}{self.after.removesuffix(_PLAIN_ANSWER)}{LEAD}"

    def answer(self, answer: str) -> str:
        """The answer as the model would write it; raises :class:`~trainer.errors.ReaderError` for an empty one."""
        if not answer.strip():
            raise ReaderError("A question has an empty answer, which no reader can score: leave the question out.")
        return f"{self.lead}{answer.strip()}"


PLAIN = Wording("", f"\n{_PLAIN_ANSWER}", " ")
"""For models without a chat template."""


def instruction(prompt: Prompt) -> str:
    """The contexts, the question after them: what several prompts share of the contexts stands at the beginning."""
    if prompt.answer is not None:
        return asking(prompt.contexts, prompt.answer)
    task = ASK if prompt.question is None else f"{INSTRUCTION}\nQuestion: {prompt.question}"
    return "\n\n".join([*prompt.contexts, task])


def asked_and_answered(question: str, answer: str) -> str:
    """A question and its answer as what :data:`ASK` asks for."""
    return f"Question: {question.strip()}\nAnswer: {answer.strip()}"


def wording_of(tokenizer: PreTrainedTokenizerBase) -> Wording:
    """The tokenizer's chat template with the instruction as the user's message; :data:`PLAIN` where it has none."""
    if not tokenizer.chat_template:
        return PLAIN
    message = {"role": "user", "content": _PLACE}
    text = str(tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True))
    before, found, after = text.partition(_PLACE)
    if not found:
        raise ReaderError("The tokenizer's chat template leaves out what the user says. Take another model.")
    return Wording(before, after)


class Shortened(NamedTuple):
    """A prompt, and how many of its contexts are whole."""

    prompt: Prompt
    contexts: int


def shortened(prompt: Prompt) -> Iterator[Shortened]:
    """The prompt, then ever shorter ones: without the last contexts, then with a part of the first, then with none."""
    for count in range(len(prompt.contexts), 0, -1):
        yield Shortened(replace(prompt, contexts=prompt.contexts[:count]), count)
    if prompt.contexts:
        words = prompt.contexts[0].split(" ")
        for part in range(PARTS - 1, 0, -1):
            first = " ".join(words[: math.ceil(len(words) * part / PARTS)])
            yield Shortened(replace(prompt, contexts=(first,)), 0)
    yield Shortened(replace(prompt, contexts=()), 0)
