"""Playing fixed-budget episodes exactly as the service does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from index.encoders.cross_encoder import CrossEncoder
from index.encoders.encoder import Encoder
from index.episodes.episode import ChunkTokens, Episode, Limits
from index.episodes.rules import StopBelow
from index.episodes.stepping import step_once
from index.episodes.stopping import Stopping
from trainer.datasets.question import Question
from trainer.evaluation.vectors import ChunkVectors, embed_in_order, embed_texts, tokenizer_of

EPISODES = 64
"""Episodes stepped together: their states share a forward pass."""

TOGETHER_CHUNKS = 1_000_000
"""Candidates of the episodes stepped together; bounds memory where documents are long."""


class Retriever(Protocol):
    """A way of answering questions."""

    def read(self, background: Sequence[str], /) -> None:
        """Expect questions whose documents consist mostly of stretches of ``background``; it may be empty."""

    def select(self, questions: Sequence[Question], /) -> list[list[int]]:
        """The positions selected for each question, in order: as many as its budget allows."""


class SecondLook(NamedTuple):
    """A cross-encoder that reads the best candidates of each step and chooses one of them."""

    encoder: CrossEncoder
    candidates: int


class Player:
    """A checkpoint as a :class:`Retriever`: greedy episodes, or a beam. Embeds what it has not met yet."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        cache: Path | None = None,
        beam_width: int = 1,
        second_look: SecondLook | None = None,
        stop: StopBelow | None = None,
        budget: int | None = None,
    ) -> None:
        """``budget``: selections of an episode, by default as its question has it; ``stop`` may end it before."""
        self.encoder = encoder
        self._cache = cache
        self._beam_width = beam_width
        self._second_look = second_look
        self._stop, self._budget = stop, budget
        self._background: Sequence[str] = ()
        self._vectors = ChunkVectors(tokenize=tokenizer_of(encoder))

    def read(self, background: Sequence[str]) -> None:
        """Embed the background, unless it is the one read last."""
        if background is not self._background:
            self._vectors = ChunkVectors(
                tokenize=tokenizer_of(self.encoder)
            )  # first, so that both are never in memory together
            self._background = background
            if background:
                self._vectors = embed_texts(self.encoder, background, self._cache)

    def know(self, texts: Sequence[str]) -> None:
        """Embed texts that will be met, as a list that other runs may have in the cache too."""
        self._vectors.add(texts, embed_in_order(self.encoder, texts, self._cache))

    def vectors(self, questions: Iterable[Question]) -> ChunkVectors:
        """Embeddings of all chunks of the questions, among others."""
        missing = self._vectors.missing(chunk for question in questions for chunk in question.chunks)
        if missing:
            self._vectors.add(missing, embed_in_order(self.encoder, missing, self._cache))
        return self._vectors

    def select(self, questions: Sequence[Question]) -> list[list[int]]:
        """The positions selected for each question, in order."""
        return play(
            self.encoder,
            questions,
            self.vectors(questions),
            self._budget,
            beam_width=self._beam_width,
            second_look=self._second_look,
            stop=self._stop,
        )


def play(
    encoder: Encoder,
    questions: Iterable[Question],
    vectors: ChunkVectors,
    budget: int | None = None,
    *,
    beam_width: int = 1,
    second_look: SecondLook | None = None,
    stop: StopBelow | None = None,
) -> list[list[int]]:
    """The positions selected for each question, in order, by greedy episodes (or a beam, or with a second look).

    ``budget`` selections, or as many as each question allows; fewer where there are fewer chunks or ``stop`` says so.
    """
    return [
        selected
        for group in together(questions)
        for selected in _play_together(encoder, group, vectors, budget, beam_width, second_look, stop)
    ]


def together(
    questions: Iterable[Question], *, episodes: int = EPISODES, most_chunks: int = TOGETHER_CHUNKS
) -> Iterator[list[Question]]:
    """Questions in groups that are answered together; a group is made when it is asked for."""
    group: list[Question] = []
    chunks = 0
    for question in questions:
        if group and (len(group) == episodes or chunks + len(question.chunks) > most_chunks):
            yield group
            group, chunks = [], 0
        group.append(question)
        chunks += len(question.chunks)
    if group:
        yield group


def _play_together(
    encoder: Encoder,
    questions: Sequence[Question],
    vectors: ChunkVectors,
    budget: int | None,
    beam_width: int,
    second_look: SecondLook | None,
    stop: StopBelow | None,
) -> list[list[int]]:
    looked_at = 0 if second_look is None else second_look.candidates
    limits = [Limits(budget or question.budget, beam_width, stop=stop, second_look=looked_at) for question in questions]
    episodes = [
        start(encoder, question, vectors, limit, encoder.stopping)
        for question, limit in zip(questions, limits, strict=True)
    ]
    run_together(encoder, questions, episodes, second_look=second_look)
    return [[step.position for step in episode.steps] for episode in episodes]


def start(encoder: Encoder, question: Question, vectors: ChunkVectors, limits: Limits, stopping: Stopping) -> Episode:
    """An episode over the question, as the service would start it."""

    def read_chunk(position: int) -> ChunkTokens:
        (ids,) = encoder.state_tokens([question.chunks[position]])
        return ChunkTokens(ids, 0)

    tokens = encoder.question_tokens(question.text)[: encoder.question_limit]
    return Episode(vectors.scope(question), limits, read_chunk, stopping, question=tokens)


def run_together(
    encoder: Encoder,
    questions: Sequence[Question],
    episodes: Sequence[Episode],
    goes_on: Callable[[int], bool] = lambda _: True,
    second_look: SecondLook | None = None,
) -> None:
    """Step episodes to their ends, or as long as each ``goes_on``; each is over the question at its place.

    ``second_look`` is needed where their limits ask for one.
    """
    while running := [i for i, episode in enumerate(episodes) if episode.stopped_by is None and goes_on(i)]:
        step_once(encoder, [episodes[i] for i in running], encoder.function)
        if second_look is not None:
            for i in running:
                _look_again(second_look.encoder, questions[i], episodes[i])


def _look_again(encoder: CrossEncoder, question: Question, episode: Episode) -> None:
    """Let an episode that waits for a second look select its chunk, as the service does."""
    if contenders := episode.contenders:
        evidence = [question.chunks[position] for position in episode.selected]
        episode.choose(encoder.score(question.text, [question.chunks[position] for position in contenders], evidence))
