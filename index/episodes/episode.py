"""An episode: select chunks one after the other, each by the Q-values of the state so far.

The state is the question and the chunks selected so far, in document order. Greedy inference takes
the chunk with the largest Q; planning keeps the ``beam_width`` best sets of chunks (see :class:`Episode`).
An episode owns no model: :mod:`index.episodes.stepping` embeds the states of many episodes in one forward pass and lets
each take its step.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from index.arrays import Float32Array, TokenIds
from index.episodes.head import NOTHING_THERE, Moment, Sufficiency
from index.episodes.heat import HeatMap, heat_maps
from index.episodes.rules import StopBelow
from index.episodes.stopping import UNTAUGHT, Stopping
from index.search.explanation import Parts, explain
from index.search.function import QFunction
from index.search.scope import Candidate, Estimate, Scope
from index.search.scoring import best
from index.search.states import States
from qrag.wire.rules import StoppedBy

CONSIDERED = 16
"""Best candidates over which a beam distributes the probability of a selection; the others get none."""

PRUNED = math.log(20)
"""Difference of log-probability to the best path beyond which a beam drops a path."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When an episode ends, and what it records.

    ``stop`` ends it before a chunk that is not worth selecting any more, ``max_context_tokens`` before one that does
    not fit. For the trace each step keeps its best ``candidates``, and heat maps of ``stretches`` stretches.
    """

    max_steps: int
    beam_width: int = 1
    stop: StopBelow | None = None
    max_context_tokens: int | None = None
    candidates: int = 0
    stretches: int = 0
    second_look: int = 0
    """With more than 1, somebody else chooses each chunk from so many of the best (:attr:`Episode.contenders`), in a
    greedy episode."""


class ChunkTokens(NamedTuple):
    """The tokens of a chunk in the state, and their number in the context."""

    ids: TokenIds
    cost: int


class Held(NamedTuple):
    """A chunk that is in the state when an episode begins: an earlier one has selected it, or the caller has it."""

    position: int
    q: float = 1.0
    """Its Q-value when it was selected. What nothing selected counts like the question alone, which has none either."""


@dataclass(frozen=True, slots=True)
class Step:
    """One selection: the candidate's position and Q-value, and what was known before it."""

    position: int
    q: float
    candidates: tuple[Candidate, ...]
    """The best ones, as many as the limits ask for."""
    sufficiency: Sufficiency | None
    """The sufficiency of the state before the selection; none where the checkpoint has no head."""
    heat: tuple[HeatMap, ...] = ()
    """Heat maps of whole documents, where the limits ask for them."""
    parts: Parts | None = None
    """What the Q-value is made of, where the limits ask for candidates."""
    second_score: float | None = None
    """By what it was chosen in a second look, larger is better; none where its Q-value decided."""


@dataclass(frozen=True, slots=True)
class _Path:
    """A sequence of selections; ``selected`` are its positions and those of held chunks, in increasing order."""

    steps: tuple[Step, ...] = ()
    selected: tuple[int, ...] = ()
    cost: int = 0
    likelihood: float = 0.0
    """Log-probability of the set, in all orders in which the beam reached it."""
    ended_by: StoppedBy | None = None
    sufficiency: Sufficiency | None = None
    """The sufficiency of its last state, once it has ended."""


class _SecondLook(NamedTuple):
    """A selection that somebody else makes."""

    path: _Path
    contenders: tuple[Candidate, ...]
    chosen: Callable[[Candidate], Step]
    """The step of selecting one of the contenders."""


class Episode:
    """One question being answered over one scope.

    Until :attr:`stopped_by` is set, its states are embedded and it takes a step (:mod:`index.episodes.stepping`). With
    a second look it takes none as long as it has :attr:`contenders`, of which :meth:`choose` selects one.

    Q-values compare the chunks of one state, hardly those of different states. So a beam compares paths by the
    probability that the policy ``softmax(Q / temperature)`` selects their set, summed over all orders. A path that has
    ended stays in the beam, and the episode ends when it is the best.

    ``held`` chunks are part of every state and of the positions, and are not selected again. ``question`` are the
    tokens of what is asked, as the state tower reads them.
    """

    def __init__(
        self,
        scope: Scope,
        limits: Limits,
        read_chunk: Callable[[int], ChunkTokens],
        stopping: Stopping = UNTAUGHT,
        held: Sequence[Held] = (),
        question: TokenIds = (),
    ) -> None:
        self.question = question
        self.scope = scope
        self._limits = limits
        self._read_chunk = read_chunk
        self._stopping = stopping
        self._chunks: dict[int, ChunkTokens] = {}
        self._held_q = tuple(chunk.q for chunk in held)
        self._paths = [_Path(selected=tuple(sorted(chunk.position for chunk in held)))]
        self._second_look: _SecondLook | None = None
        self.stopped_by: StoppedBy | None = None
        self.exact = True
        """Whether every step has scored every candidate."""
        if scope.size == 0:
            self.stopped_by = "exhausted"
            self._paths = [_Path(sufficiency=NOTHING_THERE if stopping.assesses else None)]

    @property
    def is_greedy(self) -> bool:
        """Whether steps are final; a beam may still replace earlier ones."""
        return self._limits.beam_width == 1

    @property
    def width(self) -> int:
        """How many states the next step embeds."""
        return len(self._open)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The selections of the best path so far, in the order they were made."""
        return self._paths[0].steps

    @property
    def evidence(self) -> list[TokenIds]:
        """The held chunks and those of the best path as the state tower reads them, in document order."""
        return self._chunks_of(self._paths[0])

    @property
    def sufficiency(self) -> Sufficiency | None:
        """The sufficiency of the best path's last state, at the end; none where the checkpoint has no head."""
        return self._paths[0].sufficiency

    @property
    def selected(self) -> tuple[int, ...]:
        """The positions of the held chunks and of the best path's, in increasing order."""
        return self._paths[0].selected

    @property
    def found_nothing(self) -> bool:
        """Whether it has ended without any chunk in its state, or where none that would help can be expected."""
        return self.stopped_by == "hopeless" or (self.stopped_by is not None and not self.selected)

    @property
    def contenders(self) -> tuple[int, ...]:
        """The positions of the chunks that wait for a second look, those with the largest Q-values first."""
        return () if self._second_look is None else tuple(one.position for one in self._second_look.contenders)

    def choose(self, scores: Float32Array) -> None:
        """Select the one of the :attr:`contenders` with the largest score, shape ``[contenders]``."""
        assert self._second_look is not None
        path, contenders, chosen = self._second_look
        self._second_look = None
        best_score = int(np.argmax(scores))
        step = replace(chosen(contenders[best_score]), second_score=float(scores[best_score]))
        self._take([self._extended(path, step, path.likelihood)])

    @property
    def ranked(self) -> int:
        """How many of a state's best candidates a step orders."""
        return max(
            self._considered,
            self._limits.candidates,
            self._limits.second_look,
            2 if self._stopping.assesses else 1,  # the head reads the two largest Q-values
        )

    @property
    def _considered(self) -> int:
        return 1 if self.is_greedy else max(self._limits.beam_width, CONSIDERED)

    @property
    def _open(self) -> list[_Path]:
        return [path for path in self._paths if path.ended_by is None]

    def states(self) -> list[list[TokenIds]]:
        """The tokens of the held chunks and each open path's, in document order."""
        return [self._chunks_of(path) for path in self._open]

    @property
    def selections(self) -> list[tuple[int, ...]]:
        """The positions of the held chunks and each open path's, in increasing order."""
        return [path.selected for path in self._open]

    def advance(self, states: States, estimates: Sequence[Estimate], function: QFunction) -> None:
        """Take one step; ``states`` are :meth:`states` embedded, each with the scope's estimate of it."""
        expansions = [path for path in self._paths if path.ended_by is not None]
        for path, state, estimate in zip(self._open, states, estimates, strict=True):
            candidates = best(estimate, self.ranked, state, self.scope, path.selected, function)
            selected_q = (*self._held_q, *(step.q for step in path.steps))
            moment = Moment(
                state,
                tuple(candidate.q for candidate in candidates[:2]),
                selected_q,
                self._covered(path, function),
                self.scope.size,
            )
            heat = heat_maps(estimate, self.scope, candidates, path.selected, self._limits.stretches)
            expansions += self._expand(path, candidates, moment, function, heat)
        self.exact = self.exact and all(estimate.exact for estimate in estimates)
        if self._second_look is None:
            self._take(expansions)

    def _take(self, expansions: Sequence[_Path]) -> None:
        """Go on with the likeliest of the paths."""
        self._paths = self._best_sets(expansions)
        if len(self.steps) == self._limits.max_steps and not self._stopping.assesses:
            self.stopped_by = "budget"  # without a head the last states need not be embedded
        else:
            self.stopped_by = self._paths[0].ended_by

    def _expand(
        self,
        path: _Path,
        candidates: Sequence[Candidate],
        moment: Moment,
        function: QFunction,
        heat: tuple[HeatMap, ...],
    ) -> Iterator[_Path]:
        """The path extended by each of the best candidates, or the path itself where it ends."""
        sufficiency = self._stopping.sufficiency(moment, function)
        if (reason := self._reason_to_stop(path, moment, candidates, sufficiency, function)) is not None:
            yield replace(path, ended_by=reason, sufficiency=sufficiency)
            return
        logits = np.array([candidate.q for candidate in candidates[: self._considered]]) / function.temperature
        likelihoods = path.likelihood + logits - np.logaddexp.reduce(logits)
        shown = tuple(candidates[: self._limits.candidates])

        def step_to(candidate: Candidate) -> Step:
            parts = None
            if self._limits.candidates:
                parts = explain(moment.state, self.scope, path.selected, function, candidate.position)
            return Step(candidate.position, candidate.q, shown, sufficiency, heat, parts)

        if self._limits.second_look > 1:
            contenders = [one for one in candidates[: self._limits.second_look] if self._fits(path, one)]
            self._second_look = _SecondLook(path, tuple(contenders), step_to)
            return
        for candidate, likelihood in zip(candidates[: self._limits.beam_width], likelihoods.tolist(), strict=False):
            if self._fits(path, candidate):
                yield self._extended(path, step_to(candidate), likelihood)

    def _extended(self, path: _Path, step: Step, likelihood: float) -> _Path:
        selected = list(path.selected)
        insort(selected, step.position)
        cost = path.cost + (self._chunk(step.position).cost if self._limits.max_context_tokens else 0)
        return _Path((*path.steps, step), tuple(selected), cost, likelihood)

    def _reason_to_stop(
        self,
        path: _Path,
        moment: Moment,
        candidates: Sequence[Candidate],
        sufficiency: Sufficiency | None,
        function: QFunction,
    ) -> StoppedBy | None:
        if len(path.steps) == self._limits.max_steps:
            return "budget"
        if not candidates:
            return "exhausted"
        stop = self._limits.stop
        if stop is not None and stop.rule.score(moment, sufficiency, self._stopping, function) < stop.threshold:
            return stop.rule.ending(sufficiency)
        return None if self._fits(path, candidates[0]) else "context"

    def _covered(self, path: _Path, function: QFunction) -> float:
        if not self._stopping.assesses or function.lexical is None:
            return 0.0
        return function.lexical.covered(self.question, self._chunks_of(path))

    def _fits(self, path: _Path, candidate: Candidate) -> bool:
        room = self._limits.max_context_tokens
        return room is None or path.cost + self._chunk(candidate.position).cost <= room

    def _best_sets(self, expansions: Sequence[_Path]) -> list[_Path]:
        """The likeliest paths after the step: each set of chunks once, in its likeliest order."""
        sets: dict[tuple[int, ...], _Path] = {}
        for path in sorted(expansions, key=_unlikeliness):  # stable: ties keep path and document order
            likelier = sets.get(path.selected)
            likelihood = path.likelihood if likelier is None else np.logaddexp(likelier.likelihood, path.likelihood)
            sets[path.selected] = replace(likelier or path, likelihood=float(likelihood))
        paths = sorted(sets.values(), key=_unlikeliness)[: self._limits.beam_width]
        return [path for path in paths if path.likelihood >= paths[0].likelihood - PRUNED]

    def _chunks_of(self, path: _Path) -> list[TokenIds]:
        return [self._chunk(position).ids for position in path.selected]

    def _chunk(self, position: int) -> ChunkTokens:
        if position not in self._chunks:
            self._chunks[position] = self._read_chunk(position)
        return self._chunks[position]


def _unlikeliness(path: _Path) -> float:
    return -path.likelihood
