"""An episode: select chunks one after the other, each by the Q-values of the state so far.

The state is the question and the chunks selected so far, in document order. Greedy inference takes
the chunk with the largest Q; planning (Plan Q-RAG) keeps the ``beam_width`` best sets of chunks.
An episode owns no model: its caller embeds the states it asks for and hands the embeddings back, so the
states of many episodes share one forward pass.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np

from index.encoder import Embeddings, TokenIds
from index.scope import Scope
from index.scoring import Candidate, Estimate, QFunction, best, estimate

TOGETHER = 1 << 25
"""Most Q-values held at once: 128 MB."""

StoppedBy = Literal["budget", "threshold", "context", "exhausted"]


@dataclass(frozen=True, slots=True)
class Limits:
    """When an episode ends, and what it records.

    ``threshold`` stops before a chunk whose Q is below it; ``max_context_tokens`` before one that does
    not fit any more; ``candidates`` of each step are kept for the trace.
    """

    max_steps: int
    beam_width: int = 1
    threshold: float | None = None
    max_context_tokens: int | None = None
    candidates: int = 0


class ChunkTokens(NamedTuple):
    """What an episode reads of a chunk: its tokens for the state, and its cost in the context."""

    ids: TokenIds
    cost: int


@dataclass(frozen=True, slots=True)
class Step:
    """One selection: which candidate, its Q-value, and the best candidates of that moment."""

    position: int
    q: float
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class _Path:
    """A sequence of selections; ``selected`` are its positions in increasing order."""

    steps: tuple[Step, ...] = ()
    selected: tuple[int, ...] = ()
    cost: int = 0


class Episode:
    """One question being answered over one scope.

    Repeat until :attr:`stopped_by` is set: embed :meth:`states`, and hand the embeddings to :func:`advance_together`.
    """

    def __init__(self, scope: Scope, limits: Limits, read_chunk: Callable[[int], ChunkTokens]) -> None:
        self.scope = scope
        self._limits = limits
        self._read_chunk = read_chunk
        self._chunks: dict[int, ChunkTokens] = {}
        self._paths = [_Path()]
        self.stopped_by: StoppedBy | None = "exhausted" if scope.size == 0 else None

    @property
    def is_greedy(self) -> bool:
        """Whether a step, once taken, stays; a beam may still change its mind about earlier ones."""
        return self._limits.beam_width == 1

    @property
    def width(self) -> int:
        """How many states the next step embeds."""
        return len(self._paths)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The selections of the best path so far, in the order they were made."""
        return self._paths[0].steps

    def states(self) -> list[list[TokenIds]]:
        """For each path its selected chunks' tokens, in document order."""
        return [[self._chunk(position).ids for position in path.selected] for path in self._paths]

    @property
    def selections(self) -> list[tuple[int, ...]]:
        """For each path the positions of its selected chunks, in increasing order."""
        return [path.selected for path in self._paths]

    def advance(self, embeddings: Embeddings, estimates: Sequence[Estimate], function: QFunction) -> None:
        """Take one step; ``embeddings`` are those of :meth:`states`, shape ``[paths, d]``, each with its estimate."""
        expansions: list[tuple[_Path, Candidate, tuple[Candidate, ...]]] = []
        for path, state, estimated in zip(self._paths, embeddings, estimates, strict=True):
            count = max(self._limits.beam_width, self._limits.candidates)
            found = tuple(best(estimated, count, state, self.scope, path.selected, function))
            shown = found[: self._limits.candidates]
            expansions.extend((path, candidate, shown) for candidate in found[: self._limits.beam_width])
        expansions.sort(key=lambda expansion: -expansion[1].q)  # stable: ties keep path and document order
        self.stopped_by = self._reason_to_stop(expansions)
        if self.stopped_by is None:
            self._paths = self._distinct(expansions)
            if len(self.steps) == self._limits.max_steps:
                self.stopped_by = "budget"

    def _reason_to_stop(self, expansions: Sequence[tuple[_Path, Candidate, tuple[Candidate, ...]]]) -> StoppedBy | None:
        if not expansions:
            return "exhausted"
        path, candidate, _ = expansions[0]
        if self._limits.threshold is not None and candidate.q < self._limits.threshold:
            return "threshold"
        room = self._limits.max_context_tokens
        if room is not None and path.cost + self._chunk(candidate.position).cost > room:
            return "context"
        return None

    def _distinct(self, expansions: Sequence[tuple[_Path, Candidate, tuple[Candidate, ...]]]) -> list[_Path]:
        """The best paths after the step, each set of chunks once however it was reached."""
        paths: dict[tuple[int, ...], _Path] = {}
        room = self._limits.max_context_tokens
        for path, candidate, shown in expansions:
            cost = path.cost + (self._chunk(candidate.position).cost if room is not None else 0)
            selected = list(path.selected)
            insort(selected, candidate.position)
            key = tuple(selected)
            if key in paths or (room is not None and cost > room):
                continue
            step = Step(candidate.position, candidate.q, shown)
            paths[key] = _Path((*path.steps, step), key, cost)
            if len(paths) == self._limits.beam_width:
                break
        return list(paths.values())

    def _chunk(self, position: int) -> ChunkTokens:
        if position not in self._chunks:
            self._chunks[position] = self._read_chunk(position)
        return self._chunks[position]


def advance_together(episodes: Sequence[Episode], embeddings: Embeddings, function: QFunction) -> None:
    """One step of each episode; ``embeddings`` are those of all their states, shape ``[paths in all, d]``."""
    ends = np.cumsum([episode.width for episode in episodes]).tolist()
    own = [embeddings[end - episode.width : end] for episode, end in zip(episodes, ends, strict=True)]
    for group in same_scope(episodes):
        found = estimate_together([episodes[at] for at in group], [own[at] for at in group], function)
        for at, estimates in zip(group, found, strict=True):
            episodes[at].advance(own[at], estimates, function)


def estimate_together(
    episodes: Sequence[Episode], embeddings: Sequence[Embeddings], function: QFunction
) -> Iterator[list[Estimate]]:
    """What the states of each episode say of the candidates, for episodes over one scope: it is read once for all.

    ``embeddings`` are those of each episode's states, shape ``[paths, d]``.
    """
    selections = [selected for episode in episodes for selected in episode.selections]
    estimates = iter(estimate(np.concatenate(embeddings), episodes[0].scope, selections, function))
    return (list(islice(estimates, len(own))) for own in embeddings)


def same_scope(episodes: Sequence[Episode]) -> Iterator[list[int]]:
    """Numbers of episodes with one scope, no more than have room for their Q-values at once."""
    groups: dict[int, list[int]] = {}
    for at, episode in enumerate(episodes):
        groups.setdefault(id(episode.scope), []).append(at)
    for group in groups.values():
        fits: list[int] = []
        values = 0
        for at in group:
            more = episodes[at].width * episodes[at].scope.values_size
            if fits and values + more > TOGETHER:
                yield fits
                fits, values = [], 0
            fits.append(at)
            values += more
        yield fits
