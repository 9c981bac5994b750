"""A reader whose probabilities are foreseen: an answer costs two nats for each of its words not in the contexts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from trainer.errors import ReaderError
from trainer.readers.protocol import Generation, Prompt, Reply, Request, Score

WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    return WORD.findall(text.casefold())


class OverlapReader:
    """Writes the first word of its contexts; fails for good after ``lives`` requests."""

    identity = "overlap"

    def __init__(self, lives: int | None = None) -> None:
        self.asked: list[Request] = []
        self._lives = lives

    def log_probability(self, requests: Sequence[Request]) -> Iterator[tuple[int, Score]]:
        for place, request in enumerate(requests):
            if self._lives is not None and len(self.asked) >= self._lives:
                raise ReaderError("the reader died")
            self.asked.append(request)
            yield place, Score(nats(request), len(words_of(request.answer)), 1, len(request.prompt.contexts))

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> Iterator[tuple[int, Generation]]:
        for place, prompt in enumerate(prompts):
            read = words_of(" ".join(prompt.contexts))
            yield place, Generation(" ".join(read[:most_tokens][:1]), 1 + len(read), len(prompt.contexts))

    def reply(self, requests: Sequence[Request], most_tokens: int) -> Iterator[tuple[int, Reply]]:
        written = dict(self.generate([request.prompt for request in requests], most_tokens))
        for place, score in self.log_probability(requests):
            yield place, Reply(score, written[place])


def nats(request: Request) -> float:
    """What the reader says of a request."""
    known = {"question", "answer", *words_of(" ".join(request.prompt.contexts))}
    return -0.1 - 2.0 * sum(word not in known for word in words_of(request.answer))
