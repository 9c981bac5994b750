"""Playing fixed-budget episodes exactly as the service does, and counting what they found.

No oracle stops an episode: it ends when the budget is spent. *All-support recall at k* is the share of questions whose
whole support is among the first ``k`` selections.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from index.arrays import Float32Array, IntArray
from index.encoders.encoder import Encoder
from index.encoders.tower import Tower, project
from index.episodes.episode import ChunkTokens, Episode, Limits
from index.episodes.stepping import Running, step_once
from index.episodes.stopping import Stopping
from index.search.codes import Codes, encode
from index.search.matrices import Matrices, Part
from index.search.matrix_scope import MatrixScope
from trainer.datasets.question import Question

log = logging.getLogger(__name__)

EPISODES = 64
"""Episodes stepped together: their states share a forward pass."""

TOGETHER_CHUNKS = 1_000_000
"""Candidates of the episodes stepped together; bounds memory where documents are long."""

EMBED_CHUNKS = 16_384
"""Chunks sorted by length and embedded together."""

CACHE_FROM = 500
"""Texts from which embeddings are worth a file."""


class Retriever(Protocol):
    """A way of answering questions."""

    def read(self, background: Sequence[str], /) -> None:
        """Expect questions whose documents consist mostly of stretches of ``background``; it may be empty."""

    def select(self, questions: Sequence[Question], /) -> list[list[int]]:
        """The positions selected for each question, in order: as many as its budget allows."""


# -- embeddings -------------------------------------------------------------------------------------------------------


class ChunkVectors:
    """Embeddings by text, in matrices to which more can be added.

    The rows of a matrix follow the order of its texts, and a text may be there more than once: chunks that stand in
    a question as they stand there are then one slice of the matrix, not a copy, however long the document is.
    """

    def __init__(self, texts: Iterable[str] = (), matrix: Float32Array | None = None) -> None:
        """``matrix`` has the embedding of each text, shape ``[texts, d]``."""
        self._row: dict[str, int] = {}
        self._first = np.empty(0, dtype=np.int64)  # of each row, the first row with the same text
        self._matrices: list[Float32Array] = []
        self._codes: list[Codes] = []
        self._starts: list[int] = []
        self._longest = 0.0
        if matrix is not None:
            self.add(texts, matrix)

    def add(self, texts: Iterable[str], matrix: Float32Array) -> None:
        """Add a matrix with its texts, shape ``[texts, d]``."""
        if not len(matrix):
            return
        start = len(self._first)
        first = [self._row.setdefault(text, start + at) for at, text in enumerate(texts)]
        self._first = np.concatenate((self._first, np.array(first, dtype=np.int64)))
        self._matrices.append(matrix)
        self._codes.append(encode(matrix))
        self._starts.append(start)
        self._longest = max(self._longest, math.sqrt(np.einsum("nd,nd->n", matrix, matrix).max()))

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Those of the texts that have no embedding here, each once, in order."""
        return [text for text in dict.fromkeys(texts) if text not in self._row]

    def scope(self, question: Question) -> MatrixScope:
        """The question's candidates, in as few slices as there are. Raises :class:`KeyError` for an unknown text."""
        wanted = np.fromiter((self._row[chunk] for chunk in question.chunks), np.int64, len(question.chunks))
        parts: list[Part] = []
        follow: dict[int, int] = {}
        at = 0
        while at < len(wanted):
            # A repeated text stands in many rows: the one that goes on where an earlier slice ended is meant.
            row = follow.get(int(wanted[at]), int(wanted[at]))
            block = bisect_right(self._starts, row) - 1
            low = row - self._starts[block]
            count = _agreement(wanted[at:], self._first[row : row + len(self._matrices[block]) - low])
            parts.append(Part(at, self._matrices[block][low : low + count], self._codes[block], low))
            at += count
            if row + count < len(self._first):
                follow[int(self._first[row + count])] = row + count
        # The embeddings are float32: a bound on their norm must not be rounded down.
        return MatrixScope(
            Matrices(np.cumsum([0, *question.counts]), tuple(parts), norm_bound=self._longest * (1 + 1e-6))
        )


def _agreement(wanted: IntArray, found: IntArray) -> int:
    """How many leading entries are equal."""
    limit = min(len(wanted), len(found))
    low, high = 0, min(64, limit)
    while low < high:
        different = np.flatnonzero(wanted[low:high] != found[low:high])
        if len(different):
            return low + int(different[0])
        low, high = high, min(4 * high, limit)
    return limit


def embed_texts(encoder: Encoder, texts: Sequence[str], cache: Path | None = None) -> ChunkVectors:
    """Embeddings of texts in their order, repeated ones once for each time; what the tower cannot read is cut."""
    return ChunkVectors(texts, embed_in_order(encoder, texts, cache))


def embed_in_order(encoder: Encoder, texts: Sequence[str], cache: Path | None = None) -> Float32Array:
    """The embedding of each text, shape ``[texts, d]``; distinct texts are embedded once.

    With a ``cache`` folder the embeddings of many texts are kept there under the checksum of texts and model.
    They are those of the model without an adapter behind it, so that all checkpoints with this model share them.
    """
    row: dict[str, int] = {}
    rows = np.array([row.setdefault(text, len(row)) for text in texts], dtype=np.int64)
    file = cache / f"{_digest(encoder, row)}.npy" if cache is not None and len(row) >= CACHE_FROM else None
    if file is not None and file.exists():
        bare: Float32Array = np.load(file, mmap_mode="r")
    else:
        if file is not None:
            log.info("embedding chunks=%d for %s", len(row), file)
        bare = _embed(encoder, list(row))
        if file is not None:
            _store(file, bare)
    projection = encoder.action_tower.projection
    if projection is None and len(row) == len(rows):
        return bare
    matrix = np.empty((len(rows), encoder.config.dimension), dtype=np.float32)
    for low in range(0, len(rows), EMBED_CHUNKS):
        block = torch.from_numpy(bare[rows[low : low + EMBED_CHUNKS]])
        if projection is not None:
            with torch.inference_mode():
                block = project(projection, block.to(encoder.device)).cpu()
        matrix[low : low + len(block)] = block.numpy()
    return matrix


def _embed(encoder: Encoder, texts: Sequence[str]) -> Float32Array:
    """By the model alone, shape ``[texts, d]``."""
    tower: Tower = copy.copy(encoder.action_tower)
    tower.projection = None
    blocks: list[Float32Array] = []
    with tqdm(total=len(texts), desc="embedding", unit="chunk", leave=False, disable=None) as bar:
        for start in range(0, len(texts), EMBED_CHUNKS):
            inputs = encoder.cut_action_inputs(texts[start : start + EMBED_CHUNKS])
            blocks.append(tower.embed(inputs))
            bar.update(len(inputs))
    return np.concatenate(blocks)


def _digest(encoder: Encoder, texts: Iterable[str]) -> str:
    config = encoder.config
    settings = [config.pooling, config.normalize, config.action_prefix, config.action_tokens, encoder.device.type]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name, parameter in encoder.action_tower.model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\0".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    for text in texts:
        digest.update(text.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()


def _store(file: Path, embeddings: Float32Array) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    with partial.open("wb") as output:
        np.save(output, embeddings)
    partial.replace(file)


# -- episodes ---------------------------------------------------------------------------------------------------------


class Player:
    """A checkpoint as a :class:`Retriever`: greedy episodes, or a beam. Embeds what it has not met yet."""

    def __init__(self, encoder: Encoder, *, cache: Path | None = None, beam_width: int = 1) -> None:
        self.encoder = encoder
        self._cache = cache
        self._beam_width = beam_width
        self._background: Sequence[str] = ()
        self._vectors = ChunkVectors()

    def read(self, background: Sequence[str]) -> None:
        """Embed the background, unless it is the one read last."""
        if background is not self._background:
            self._vectors = ChunkVectors()  # first, so that both are never in memory together
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
        return play(self.encoder, questions, self.vectors(questions), beam_width=self._beam_width)


def play(
    encoder: Encoder,
    questions: Iterable[Question],
    vectors: ChunkVectors,
    budget: int | None = None,
    *,
    beam_width: int = 1,
) -> list[list[int]]:
    """The positions selected for each question, in order, by greedy episodes (or a beam).

    ``budget`` selections, or as many as each question allows; fewer where there are fewer chunks.
    """
    return [
        selected
        for group in together(questions)
        for selected in _play_together(encoder, group, vectors, budget, beam_width)
    ]


def together(questions: Iterable[Question]) -> Iterator[list[Question]]:
    """Questions in groups that are answered together; a group is made when it is asked for."""
    group: list[Question] = []
    chunks = 0
    for question in questions:
        if group and (len(group) == EPISODES or chunks + len(question.chunks) > TOGETHER_CHUNKS):
            yield group
            group, chunks = [], 0
        group.append(question)
        chunks += len(question.chunks)
    if group:
        yield group


def _play_together(
    encoder: Encoder, questions: Sequence[Question], vectors: ChunkVectors, budget: int | None, beam_width: int
) -> list[list[int]]:
    episodes = [
        start(encoder, question, vectors, Limits(budget or question.budget, beam_width), encoder.stopping)
        for question in questions
    ]
    run_together(encoder, questions, episodes)
    return [[step.position for step in episode.steps] for episode in episodes]


def start(encoder: Encoder, question: Question, vectors: ChunkVectors, limits: Limits, stopping: Stopping) -> Episode:
    """An episode over the question, as the service would start it."""

    def read_chunk(position: int) -> ChunkTokens:
        (ids,) = encoder.state_tokens([question.chunks[position]])
        return ChunkTokens(ids, 0)

    return Episode(vectors.scope(question), limits, read_chunk, stopping)


def run_together(
    encoder: Encoder,
    questions: Sequence[Question],
    episodes: Sequence[Episode],
    wanted: Callable[[int], bool] = lambda _: True,
) -> None:
    """Step episodes to their ends, or as long as they are ``wanted``; each is over the question at its place."""
    tokens = [encoder.question_tokens(question.text)[: encoder.question_limit] for question in questions]
    while running := [at for at, episode in enumerate(episodes) if episode.stopped_by is None and wanted(at)]:
        step_once(encoder, [Running(tokens[at], episodes[at]) for at in running], encoder.function)


# -- counting ---------------------------------------------------------------------------------------------------------


def found_after(question: Question, selected: Sequence[int]) -> int | None:
    """After how many selections all support was found; none if it was not, or is not there."""
    if question.removed:
        return None
    missing = set(question.support)
    for step, position in enumerate(selected, start=1):
        missing.discard(position)
        if not missing:
            return step
    return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one episode brought."""

    found_after: int | None
    """See :func:`found_after`."""
    selected: int
    f1: float
    """Of the selected chunks against the support."""


def outcome(question: Question, selected: Sequence[int]) -> Outcome:
    """What these selections bring."""
    both = len(question.support.intersection(selected))
    return Outcome(found_after(question, selected), len(selected), 2 * both / (len(question.support) + len(selected)))


@dataclass(frozen=True, slots=True)
class Recall:
    """All-support recall of one task's questions."""

    questions: int
    at_budget: float
    by_step: tuple[float, ...]
    """``by_step[k - 1]`` is the recall at ``k``."""
    support_f1: float
    """Mean F1 of the selected chunks against the support, at the budget."""

    @property
    def standard_error(self) -> float:
        """Of the recall at the budget, from the number of questions (Agresti and Coull: not 0 at a recall of 1)."""
        count = self.questions + 4
        share = (self.at_budget * self.questions + 2) / count
        return math.sqrt(share * (1 - share) / count)


def recall(questions: Sequence[Question], selections: Sequence[Sequence[int]]) -> Recall:
    """Count; ``selections`` are those of :func:`play`."""
    return summary([outcome(question, selected) for question, selected in zip(questions, selections, strict=True)])


def summary(outcomes: Sequence[Outcome]) -> Recall:
    """Count; raises :class:`ValueError` where there is nothing to count."""
    if not outcomes:
        raise ValueError("no questions to count")
    after = [one.found_after for one in outcomes]
    by_step = tuple(
        sum(step is not None and step <= k for step in after) / len(outcomes)
        for k in range(1, max(one.selected for one in outcomes) + 1)
    )
    return Recall(
        questions=len(outcomes),
        at_budget=sum(step is not None for step in after) / len(outcomes),
        by_step=by_step,
        support_f1=float(np.mean([one.f1 for one in outcomes])),
    )


def by_task(questions: Iterable[Question]) -> dict[str, list[Question]]:
    """The questions of each task, in order of first appearance."""
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        groups[question.task].append(question)
    return dict(groups)
