"""A gate before another checkpoint: questions that both are asked over the same documents.

They are played in rounds, in turn with those of indexing, by the one thread that makes documents searchable: within a
round both checkpoints search the same documents, and in between new ones are indexed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import NamedTuple

from index.encoders.encoder import Encoder
from index.errors import UnknownCollection, UnknownDocument
from index.storage.protocols import Catalogue
from index.storage.vectors import ChunkAddress
from qrag.evaluation.figures import bootstrap
from qrag.evaluation.library import ChunkKey
from qrag.wire.checks.gates import MAX_NAMED, GateDifference, GateIn, GateOut, GateSide
from service.engine.engine import Engine
from service.engine.expectations import Asked, resolve
from service.engine.loaded import Loaded
from service.engine.playing import play
from service.errors import ExpectationUnresolved, Overloaded, QuestionTooLong

log = logging.getLogger(__name__)

ROUND = 8
"""Questions of a round; each is played with both checkpoints, all at once."""

ATTEMPTS = 3
"""Most attempts at a round in which documents are deleted."""

ROUNDING = 1e-9
"""Difference of two means that is none: sums of the same shares in another order."""


class Tally(NamedTuple):
    """What a checkpoint found for one question."""

    share: float
    chunks: int


class Trial:
    """The questions of a gate, on their way through both checkpoints.

    Its rounds belong to the thread that indexes; anyone may read how far it is.
    """

    def __init__(self, gate: GateIn, catalogue: Catalogue) -> None:
        self.gate = gate
        self._catalogue = catalogue
        self._asked: list[Asked] | None = None
        self._tallies: list[tuple[Tally, Tally]] = []
        """What the served checkpoint and the new one found, question by question."""
        self.outcome: GateOut | None = None
        """None until all questions are played."""

    @property
    def progress(self) -> float:
        """The share of the questions that are played."""
        return len(self._tallies) / len(self.gate.questions)

    def check(self) -> None:
        """Raise :class:`~service.errors.ExpectationUnresolved` for pieces that stand nowhere."""
        for number, asked in enumerate(resolve(self.gate, self._catalogue)):
            for place, targets in enumerate(asked.pieces):
                if not targets:
                    words = " or ".join(expected.words() for expected in self.gate.questions[number].expected[place])
                    raise ExpectationUnresolved(
                        f"gate.questions.{number}.expected.{place}: in collection {asked.collection!r} no chunk that "
                        f"can be searched is {words}. Correct it, or leave it out."
                    )

    def check_lengths(self, encoders: Mapping[str, Encoder]) -> None:
        """Raise :class:`~service.errors.QuestionTooLong` for a question that one of the checkpoints cannot read."""
        for number, question in enumerate(self.gate.questions):
            for name, encoder in encoders.items():
                tokens = len(encoder.question_tokens(question.question))
                if tokens > encoder.question_limit:
                    raise QuestionTooLong(
                        f"gate.questions.{number} has {tokens} tokens, and the checkpoint {name!r} reads "
                        f"{encoder.question_limit}. Shorten it, or leave it out."
                    )

    def work(self, engine: Engine, served: Loaded, candidate: Loaded, stopping: threading.Event) -> None:
        """Play one round; after the last there is an :attr:`outcome`. What a stopping service has begun is dropped."""
        if self._asked is None:
            self._asked = resolve(self.gate, self._catalogue)
        first = len(self._tallies)
        for attempt in range(ATTEMPTS):
            try:
                tallies = self._round(engine, served, candidate, self._asked[first : first + ROUND], stopping)
                break
            except UnknownDocument:
                if attempt == ATTEMPTS - 1:
                    raise
        if stopping.is_set():
            return
        self._tallies += tallies
        if len(self._tallies) == len(self._asked):
            self.outcome = self._judged(self._asked, served.name, candidate.name)

    def _round(
        self, engine: Engine, served: Loaded, candidate: Loaded, asked: Sequence[Asked], stopping: threading.Event
    ) -> list[tuple[Tally, Tally]]:
        started = [tuple(self._start(engine, loaded, one, stopping) for loaded in (served, candidate)) for one in asked]
        return [
            (self._tally(one, former), self._tally(one, new)) for one, (former, new) in zip(asked, started, strict=True)
        ]

    def _start(
        self, engine: Engine, loaded: Loaded, asked: Asked, stopping: threading.Event
    ) -> Future[list[ChunkAddress]]:
        """The episode of a question. Where the engine has no room for it, requests go first."""
        while not stopping.is_set():
            try:
                return play(engine, loaded, self._catalogue, asked.question, asked.collection, self.gate.max_steps)
            except UnknownCollection:  # deleted meanwhile: there is nothing to find
                break
            except Overloaded as error:
                stopping.wait(error.retry_after)
        nothing = Future[list[ChunkAddress]]()
        nothing.set_result([])
        return nothing

    def _tally(self, asked: Asked, future: Future[list[ChunkAddress]]) -> Tally:
        """What an episode found. One that failed has found nothing, but for one whose documents were deleted."""
        try:
            addresses = future.result()
        except UnknownDocument:
            raise
        except Overloaded:  # the service is shutting down, and drops the round
            return Tally(0.0, 0)
        except Exception:
            log.exception("a question of the gate has no answer: question=%s", asked.id)
            return Tally(0.0, 0)
        return Tally(asked.share(self._keys(addresses)), len(addresses))

    def _keys(self, addresses: Sequence[ChunkAddress]) -> list[ChunkKey]:
        documents = self._catalogue.documents_at({address.uid for address in addresses})
        return [(documents[address.uid].id, address.number) for address in addresses]

    def _judged(self, asked: Sequence[Asked], served: str, candidate: str) -> GateOut:
        differences = [new.share - former.share for former, new in self._tallies]
        (difference,) = bootstrap([differences])
        sides = [_side(tallies) for tallies in zip(*self._tallies, strict=True)]
        won = [one.id for one, change in zip(asked, differences, strict=True) if change > 0]
        lost = [one.id for one, change in zip(asked, differences, strict=True) if change < 0]
        return GateOut(
            checkpoint=candidate,
            against=served,
            passed=difference.mean >= -self.gate.max_loss - ROUNDING,
            finished_at=datetime.now(UTC),
            questions=len(asked),
            unresolved=sum(not targets for one in asked for targets in one.pieces),
            max_steps=self.gate.max_steps,
            max_loss=self.gate.max_loss,
            served=sides[0],
            candidate=sides[1],
            difference=GateDifference(mean=difference.mean, low=difference.low, high=difference.high),
            wins=len(won),
            losses=len(lost),
            won=won[:MAX_NAMED],
            lost=lost[:MAX_NAMED],
        )


def refusal(outcome: GateOut) -> str:
    """Why a checkpoint was refused, in words for the operator."""
    interval = f"{outcome.difference.low:+.3f} to {outcome.difference.high:+.3f}"
    return (
        f"It finds {outcome.candidate.share:.3f} of the expected evidence, {outcome.against!r} "
        f"{outcome.served.share:.3f}: {outcome.difference.mean:+.3f} ({interval}) on {outcome.questions} "
        f"questions, where at most {outcome.max_loss:g} may be lost. It is worse on {outcome.losses} and better on "
        f"{outcome.wins}."
    )


def _side(tallies: Sequence[Tally]) -> GateSide:
    count = len(tallies)
    return GateSide(
        share=sum(tally.share for tally in tallies) / count,
        recall=sum(tally.share == 1 for tally in tallies) / count,
        chunks=sum(tally.chunks for tally in tallies) / count,
    )
