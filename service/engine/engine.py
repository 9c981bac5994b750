"""The engine: one thread owns the model and runs the episodes of all requests together.

At each tick the states of the running episodes are embedded in one forward pass, and each episode takes one
step; where there are too many for one pass they take turns. Between ticks chunks are embedded for indexing, in pieces
small enough for a retrieval to wait for one: while episodes run for a share of the time that their ticks take, and
whenever none does. So neither can starve the other. An episode whose client has gone is dropped at the next tick.

Where a request wants a second look at the best chunks of each step, another thread takes it, one episode at a time:
the others go on meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor

import torch

from index.arrays import Float32Array, TokenIds
from index.encoders.encoder import Encoder
from index.episodes.stepping import embed_together, step_together
from index.search.scanning.kernels import compile_loops
from index.search.states import States
from service.engine.embedding import EmbeddingJob
from service.engine.kept_states import KeptStates
from service.engine.runs import Run
from service.errors import Overloaded, TooManyQuestions
from service.observing.tracing import record_span

log = logging.getLogger(__name__)

CPU_TICK_STATES = 32
"""Most states embedded in one tick on a CPU, some seconds at worst; further episodes wait for the next tick."""

GPU_TICK_STATES = 1024
"""Most states embedded in one tick on a GPU."""

CPU_PIECE_TOKENS = 256
"""Tokens of chunks embedded between two ticks on a CPU: some tens of milliseconds, at the speed of larger batches."""

GPU_PIECE_TOKENS = 8192
"""Tokens of chunks embedded between two ticks on a GPU."""

INDEXING_SHARE = 0.25
"""Seconds of indexing for each second of retrieval, while there is enough of both."""

QUIET_SECONDS = 1.0
"""Seconds without a retrieval after which chunks are embedded in whole batches."""


class Engine:
    """Runs episodes and embeds chunks, for any checkpoint on its device.

    At most ``max_running`` episodes are stepped together and ``max_waiting`` wait behind them.
    """

    def __init__(self, device: torch.device, *, max_running: int, max_waiting: int) -> None:
        self.device = device
        self.steps = 0
        """Episode steps taken since the start."""
        self.cancelled = 0
        """Episodes dropped because their client had gone."""
        self._max_running = max_running
        self._max_waiting = max_waiting
        self.batch_listeners: list[Callable[[int], None]] = []
        """Called with the number of states of each forward pass."""
        self.kept_states = KeptStates()
        """The states that were embedded lately, for episodes that come to them again."""
        self._tick_states = GPU_TICK_STATES if device.type == "cuda" else CPU_TICK_STATES
        self._running: list[Run] = []
        self._waiting: deque[Run] = deque()
        self._looking: list[Run] = []
        """Episodes with contenders; another thread looks at them."""
        self._looked: deque[tuple[Run, Float32Array | Exception]] = deque()
        self._looks = ThreadPoolExecutor(1, thread_name_prefix="second-look")
        self._jobs: deque[EmbeddingJob] = deque()
        self._piece_tokens = GPU_PIECE_TOKENS if device.type == "cuda" else CPU_PIECE_TOKENS
        self._piece_seconds = 0.0
        """Seconds that the last piece took."""
        self._credit = 0.0
        """Seconds that indexing may take from retrievals."""
        self._last_tick = -QUIET_SECONDS
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Compile the loops and start the thread, so that the first request need not wait for them."""
        compile_loops()
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current tick; runs and jobs that still wait are cancelled."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()
        self._looks.shutdown(cancel_futures=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def load(self) -> tuple[int, int]:
        """Episodes running and waiting."""
        return len(self._running) + len(self._looking), len(self._waiting)

    def submit(self, runs: Sequence[Run]) -> None:
        """Start runs, which tell by themselves how they go, all of them or none.

        Raises :class:`~service.errors.Overloaded` if there is no room for them, and
        :class:`~service.errors.TooManyQuestions` if there never is.
        """
        most = self._max_waiting + self._max_running
        if len(runs) > most:
            raise TooManyQuestions(
                f"The request asks for {len(runs)} episodes at once, and this service holds {most}. Send fewer "
                "questions, or let it hold more with QRAG_MAX_WAITING_RETRIEVALS."
            )
        with self._wake:
            waiting = [run for run in self._waiting if not run.cancelled]
            self.cancelled += len(self._waiting) - len(waiting)
            self._waiting = deque(waiting)
            unfinished = (*self._running, *self._looking)
            running = sum(run.episode.stopped_by is None and not run.cancelled for run in unfinished)
            if self._stopping or running + len(waiting) + len(runs) > most:
                raise Overloaded("Too many retrievals are waiting. Try again in a second.", retry_after=1)
            self._waiting.extend(runs)
            self._wake.notify()

    def embed_actions(self, encoder: Encoder, inputs: Sequence[TokenIds]) -> Float32Array:
        """Embeddings of chunks, shape ``[len(inputs), d]``, computed between ticks. Blocks.

        Raises :class:`concurrent.futures.CancelledError` when the engine stops meanwhile.
        """
        job = EmbeddingJob(encoder, inputs)
        with self._wake:
            if self._stopping:
                raise CancelledError
            self._jobs.append(job)
            self._wake.notify()
        return job.future.result()

    def _loop(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or self._has_work)
                if self._stopping:
                    for run in [*self._running, *self._looking, *self._waiting]:
                        run.notify(Overloaded("The service is shutting down. Try again shortly.", retry_after=5))
                    for job in self._jobs:
                        job.future.set_exception(CancelledError())
                    return
                self._admit()
                looked = [self._looked.popleft() for _ in range(len(self._looked))]
            for run, scores in looked:
                self._choose(run, scores)
            if self._running:
                self._take_turn()
            while self._jobs and self._running and self._credit >= self._piece_seconds:
                self._embed_piece(self._jobs[0])
            if self._jobs and not self._running:
                self._embed_piece(self._jobs[0])
            if not self._jobs:
                self._credit = 0.0

    @property
    def _has_work(self) -> bool:
        """Whether there is anything to do; episodes that are looked at take nobody's place."""
        room = len(self._running) < self._max_running
        return bool(self._looked or self._running or self._jobs or (self._waiting and room))

    def _take_turn(self) -> None:
        """Step the episodes whose turn it is. At its end its locals are released, and with them a former checkpoint."""
        began = time.perf_counter()
        turn = self._next_turn()
        for encoder, runs in _by_encoder(turn):
            self._tick(encoder, runs)
        next_turns = self._running[len(turn) :]
        unfinished = [run for run in turn if run.episode.stopped_by is None and not run.failed]
        self._running = next_turns + [run for run in unfinished if not run.episode.contenders]
        for run in unfinished:
            if run.episode.contenders:
                self._looking.append(run)
                self._looks.submit(self._look, run, run.episode.selected, run.episode.contenders)
        self._last_tick = time.perf_counter()
        self._credit += INDEXING_SHARE * (self._last_tick - began)

    def _next_turn(self) -> list[Run]:
        """The first of the running episodes, as many as one forward pass should hold."""
        states = 0
        for count, run in enumerate(self._running):
            states += run.episode.width
            if count and states > self._tick_states:
                return self._running[:count]
        return self._running[:]

    def _admit(self) -> None:
        running = [run for run in self._running if not run.cancelled]
        self.cancelled += len(self._running) - len(running)
        self._running = running
        while self._waiting and len(self._running) < self._max_running:
            run = self._waiting.popleft()
            if run.cancelled:
                self.cancelled += 1
                continue
            run.queue_seconds = time.perf_counter() - run.submitted
            record_span("queue", run.submitted, run.trace)
            if run.episode.stopped_by is None:
                self._running.append(run)
            else:
                run.notify(None)  # nothing to search

    def _tick(self, encoder: Encoder, runs: Sequence[Run]) -> None:
        """One step of every episode."""
        began = time.perf_counter()
        misses = self.kept_states.misses
        embedded = embed_together(self.kept_states.read_by(encoder), [run.episode for run in runs])
        batch_states = self.kept_states.misses - misses
        encoded = time.perf_counter()
        stepping: list[tuple[Run, States]] = []
        for run, states in zip(runs, embedded, strict=True):
            if isinstance(states, Exception):
                run.give_up(states)
                continue
            record_span(
                "encode", began, run.trace, ended=encoded, step=len(run.episode.steps), batch_states=batch_states
            )
            run.encode_seconds += encoded - began
            if run.question_embedding is None:
                run.question_embedding = states[0].embedding
            stepping.append((run, states))
        if not stepping:
            return
        if batch_states:
            for listener in self.batch_listeners:
                listener(batch_states)
        steps_before = [len(run.episode.steps) for run, _ in stepping]
        outcomes = step_together(
            [run.episode for run, _ in stepping], [states for _, states in stepping], encoder.function
        )
        for (run, _), before, outcome in zip(stepping, steps_before, outcomes, strict=True):
            if isinstance(outcome, Exception):
                run.give_up(outcome)
                continue
            run.search_seconds += outcome.ended_at - encoded
            record_span("search", encoded, run.trace, ended=outcome.ended_at, step=before)
            self._report(run, before)

    def _look(self, run: Run, evidence: Sequence[int], contenders: Sequence[int]) -> None:
        """Score an episode's contenders, in the thread of second looks."""
        began = time.perf_counter()
        scores: Float32Array | Exception
        try:
            assert run.second_look is not None
            scores = CancelledError() if run.cancelled else run.second_look(evidence, contenders)
        except Exception as error:
            scores = error
        run.second_look_seconds += time.perf_counter() - began
        record_span("second look", began, run.trace, step=len(evidence))
        with self._wake:
            self._looked.append((run, scores))
            self._wake.notify()

    def _choose(self, run: Run, scores: Float32Array | Exception) -> None:
        """Let an episode that was looked at select its chunk and run on."""
        self._looking = [other for other in self._looking if other is not run]
        if run.cancelled:
            self.cancelled += 1
        elif isinstance(scores, Exception):
            run.give_up(scores)
        else:
            before = len(run.episode.steps)
            run.episode.choose(scores)
            self._report(run, before)
            if run.episode.stopped_by is None:
                self._running.append(run)

    def _report(self, run: Run, steps_before: int) -> None:
        """Report an episode's new steps, and its end, to the request."""
        episode = run.episode
        self.steps += max(0, len(episode.steps) - steps_before)  # a beam may fall back on a shorter path
        if episode.is_greedy:
            for step in episode.steps[steps_before:]:
                run.notify(step)
        if episode.stopped_by is None:
            return
        try:
            last = run.encoder.compose_state(episode.question, episode.evidence)
        except Exception as error:
            run.give_up(error)
            return
        run.truncated_tokens = last.dropped
        if not episode.is_greedy:
            for step in episode.steps:
                run.notify(step)
        run.notify(None)

    def _embed_piece(self, job: EmbeddingJob) -> None:
        """Embed one piece of a job."""
        began = time.perf_counter()
        quiet = began - self._last_tick > QUIET_SECONDS
        try:
            done = job.work(job.encoder.action_batch_tokens if quiet else self._piece_tokens)
        except Exception as error:
            job.future.set_exception(error)
            done = True
        if not quiet:
            self._piece_seconds = time.perf_counter() - began
            self._credit -= self._piece_seconds if self._running else 0.0
        if done:
            with self._wake:
                self._jobs.remove(job)


def _by_encoder(runs: Sequence[Run]) -> list[tuple[Encoder, list[Run]]]:
    """The runs of each checkpoint; for a moment after a change there are two."""
    groups: dict[int, tuple[Encoder, list[Run]]] = {}
    for run in runs:
        groups.setdefault(id(run.encoder), (run.encoder, []))[1].append(run)
    return list(groups.values())
