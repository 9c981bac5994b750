"""One thread for everything that computes: retrievals and indexing get on with it together, and end together."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import service.engine.engine
from index.arrays import Float32Array, TokenIds
from index.encoders.encoder import Encoder, StateInput
from index.encoders.loading import load_encoder
from index.episodes.episode import ChunkTokens, Episode, Limits
from index.search.function import QFunction
from index.search.matrix_scope import MatrixScope
from index.search.scanning.matrices import Matrices, Part
from index.search.scope import Estimate, Scope
from index.search.states import States
from service.engine.engine import INDEXING_SHARE, Engine
from service.engine.runs import RunEvents, SecondLook
from service.errors import Overloaded, TooManyQuestions
from tests.random_checkpoints import write_random_checkpoint

TEXTS = [f"{'Ann took the lamp to the kitchen. ' * (1 + number % 7)}{number}" for number in range(300)]


@pytest.fixture
def encoder(tiny_checkpoint: Path) -> Encoder:
    return load_encoder(tiny_checkpoint, device="cpu")


@pytest.fixture
def engine(encoder: Encoder) -> Iterator[Engine]:
    engine = Engine(encoder.device, max_running=8, max_waiting=8)
    engine.start()
    yield engine
    if engine.alive:
        engine.stop()


async def retrieve(
    engine: Engine, encoder: Encoder, scope: Scope, steps: int = 3, second_look: SecondLook | None = None
) -> list[int]:
    def read_chunk(position: int) -> ChunkTokens:
        return ChunkTokens(encoder.state_tokens([TEXTS[position]])[0], 0)

    question = encoder.question_tokens("Where is the lamp?")
    limits = Limits(steps, second_look=3 if second_look else 0)
    events = RunEvents(encoder, Episode(scope, limits, read_chunk, question=question), second_look)
    engine.submit([events.run])
    return [step.position async for _, step in events if step is not None]


def test_chunks_are_embedded_beside_retrievals(engine: Engine, encoder: Encoder) -> None:
    inputs = encoder.action_inputs(TEXTS)
    expected = encoder.embed_actions(inputs)
    scope = MatrixScope(Matrices(np.array([0, len(TEXTS)]), (Part(0, expected),), norm_bound=2.0))
    alone = asyncio.run(retrieve(engine, encoder, scope))

    async def both() -> tuple[Float32Array, int]:
        with ThreadPoolExecutor(1) as pool:
            embedding = asyncio.wrap_future(pool.submit(engine.embed_actions, encoder, inputs))
            answered = 0
            while not embedding.done():
                for found in await asyncio.gather(*(retrieve(engine, encoder, scope) for _ in range(4))):
                    assert found == alone
                    answered += 1
            return await embedding, answered

    found, answered = asyncio.run(both())
    assert answered > 4  # in between, not before or after
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_episodes_of_two_checkpoints_run_side_by_side(engine: Engine, encoder: Encoder, tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, dimension=16, seed=5)
    other = load_encoder(tmp_path, device="cpu")
    scopes = {}
    for each in (encoder, other):
        vectors = each.embed_actions(each.action_inputs(TEXTS))
        scopes[each] = MatrixScope(Matrices(np.array([0, len(TEXTS)]), (Part(0, vectors),), norm_bound=2.0))
    alone = {each: asyncio.run(retrieve(engine, each, scope)) for each, scope in scopes.items()}

    async def together() -> list[list[int]]:
        return await asyncio.gather(*(retrieve(engine, each, scopes[each]) for each in [encoder, other] * 3))

    assert asyncio.run(together()) == [alone[encoder], alone[other]] * 3


@pytest.fixture
def scope(encoder: Encoder) -> Scope:
    vectors = encoder.embed_actions(encoder.action_inputs(TEXTS))
    return MatrixScope(Matrices(np.array([0, len(TEXTS)]), (Part(0, vectors),), norm_bound=2.0))


def events_of(encoder: Encoder, scope: Scope, count: int, steps: int = 3) -> list[RunEvents]:
    """Episodes that have not started."""

    def read_chunk(position: int) -> ChunkTokens:
        return ChunkTokens(encoder.state_tokens([TEXTS[position]])[0], 0)

    question = encoder.question_tokens("Where is the lamp?")
    return [RunEvents(encoder, Episode(scope, Limits(steps), read_chunk, question=question)) for _ in range(count)]


class CountedScope:
    """A scope that counts its reads."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scope, name)

    def estimate(
        self, states: States, selections: Sequence[Sequence[int]], function: QFunction, count: int = 1
    ) -> list[Estimate]:
        self.reads += 1
        return self.scope.estimate(states, selections, function, count)


def test_episodes_that_start_together_share_every_read(engine: Engine, encoder: Encoder, scope: Scope) -> None:
    counted = CountedScope(scope)

    async def selected(count: int) -> list[list[int]]:
        episodes = events_of(encoder, counted, count)
        engine.submit([events.run for events in episodes])
        return [[step.position async for _, step in events if step is not None] for events in episodes]

    (alone,) = asyncio.run(selected(1))
    reads = counted.reads
    assert asyncio.run(selected(6)) == [alone] * 6
    assert counted.reads == 2 * reads


def test_episodes_start_together_or_not_at_all(encoder: Encoder, scope: Scope) -> None:
    engine = Engine(encoder.device, max_running=1, max_waiting=2)  # its thread does not run: all of them wait

    async def start(count: int) -> None:
        engine.submit([events.run for events in events_of(encoder, scope, count)])

    asyncio.run(start(2))
    with pytest.raises(Overloaded):
        asyncio.run(start(2))
    assert engine.load == (0, 2)
    with pytest.raises(TooManyQuestions, match="4 episodes at once, and this service holds 3"):
        asyncio.run(start(4))
    asyncio.run(start(1))
    assert engine.load == (0, 3)


def test_others_are_answered_while_one_is_looked_at_again(engine: Engine, encoder: Encoder, scope: Scope) -> None:
    looking, answered = threading.Event(), threading.Event()
    asked: list[tuple[int, int]] = []

    def look(evidence: Sequence[int], contenders: Sequence[int]) -> Float32Array:
        asked.append((len(evidence), len(contenders)))
        looking.set()
        assert answered.wait(60)
        return np.arange(len(contenders), dtype=np.float32)  # the last of the best

    async def both() -> tuple[list[int], list[int]]:
        slow = asyncio.create_task(retrieve(engine, encoder, scope, 2, look))
        assert await asyncio.to_thread(looking.wait, 60)
        assert engine.load == (1, 0)
        fast = await retrieve(engine, encoder, scope, 2)
        answered.set()
        return await slow, fast

    looked_at, others = asyncio.run(both())
    assert asked == [(0, 3), (1, 3)]
    assert len(set(looked_at)) == 2
    assert looked_at[0] != others[0]
    assert engine.load == (0, 0)


def test_episodes_that_are_looked_at_take_nobody_s_place(encoder: Encoder, scope: Scope) -> None:
    engine = Engine(encoder.device, max_running=1, max_waiting=8)
    engine.start()
    looking, answered = threading.Event(), threading.Event()

    def look(_evidence: Sequence[int], contenders: Sequence[int]) -> Float32Array:
        looking.set()
        assert answered.wait(20)
        return np.arange(len(contenders), dtype=np.float32)

    async def both() -> list[int]:
        slow = [asyncio.create_task(retrieve(engine, encoder, scope, 2, look)) for _ in range(3)]
        assert await asyncio.to_thread(looking.wait, 20)
        fast = await retrieve(engine, encoder, scope, 2)
        assert not any(task.done() for task in slow)
        answered.set()
        await asyncio.gather(*slow)
        return fast

    try:
        assert len(asyncio.run(both())) == 2
    finally:
        engine.stop()


def test_a_second_look_that_fails_ends_its_episode_alone(engine: Engine, encoder: Encoder, scope: Scope) -> None:
    def fail(_evidence: Sequence[int], _contenders: Sequence[int]) -> Float32Array:
        raise ArithmeticError("no score")

    with pytest.raises(ArithmeticError, match="no score"):
        asyncio.run(retrieve(engine, encoder, scope, 2, fail))
    assert len(asyncio.run(retrieve(engine, encoder, scope, 2))) == 2


def test_who_leaves_during_a_second_look_is_dropped(engine: Engine, encoder: Encoder, scope: Scope) -> None:
    looking, left = threading.Event(), threading.Event()

    def look(_evidence: Sequence[int], contenders: Sequence[int]) -> Float32Array:
        looking.set()
        assert left.wait(60)
        return np.zeros(len(contenders), dtype=np.float32)

    async def leave() -> None:
        question = encoder.question_tokens("Where is the lamp?")
        episode = Episode(scope, Limits(5, second_look=3), lambda _: ChunkTokens([1], 0), question=question)
        events = RunEvents(encoder, episode, look)
        engine.submit([events.run])
        assert await asyncio.to_thread(looking.wait, 60)
        await events.aclose()
        left.set()

    asyncio.run(leave())
    assert len(asyncio.run(retrieve(engine, encoder, scope, 2, look))) == 2  # looked at after the one that was dropped
    assert engine.cancelled == 1
    assert engine.load == (0, 0)


def test_an_idle_engine_does_not_keep_a_former_checkpoint_in_memory(engine: Engine, tiny_checkpoint: Path) -> None:
    former = load_encoder(tiny_checkpoint, device="cpu")
    vectors = former.embed_actions(former.action_inputs(TEXTS[:20]))
    scope = MatrixScope(Matrices(np.array([0, 20]), (Part(0, vectors),), norm_bound=2.0))
    assert asyncio.run(retrieve(engine, former, scope))
    engine.embed_actions(former, former.action_inputs(TEXTS[:20]))  # the retrieval's turn is over by now
    gone = weakref.ref(former)
    del former
    gc.collect()
    assert gone() is None


class Clock:
    """Time passes where something is computed, and nowhere else."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize("tick_seconds", [0.02, 0.5])
def test_indexing_has_its_share_while_an_episode_runs(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, tick_seconds: float
) -> None:
    clock, steps, piece_seconds = Clock(), 200, 0.05
    monkeypatch.setattr(service.engine.engine, "time", clock)
    vectors = encoder.embed_actions(encoder.action_inputs(TEXTS))
    scope = MatrixScope(Matrices(np.array([0, len(TEXTS)]), (Part(0, vectors),), norm_bound=2.0))
    began: list[float] = []

    def tick(states: Sequence[StateInput]) -> States:
        began.append(clock.now)
        clock.now += tick_seconds
        return States(vectors[: len(states)])

    def piece(inputs: Sequence[TokenIds]) -> Float32Array:
        clock.now += piece_seconds
        return np.zeros((len(inputs), encoder.config.dimension), dtype=np.float32)

    monkeypatch.setattr(encoder, "embed_states", tick)
    monkeypatch.setattr(encoder, "embed_actions", piece)
    engine = Engine(encoder.device, max_running=8, max_waiting=8)
    engine.start()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(engine.embed_actions, encoder, [[1] * 250] * 100_000)
        try:
            asyncio.run(retrieve(engine, encoder, scope, steps))
            assert not job.done()
        finally:
            engine.stop()
    of_the_episode = np.diff(began[-steps:])
    share = (of_the_episode.sum() - tick_seconds * len(of_the_episode)) / (tick_seconds * len(of_the_episode))
    assert share == pytest.approx(INDEXING_SHARE, rel=0.1)
    assert of_the_episode.max() <= tick_seconds + max(piece_seconds, INDEXING_SHARE * tick_seconds + piece_seconds)


def test_what_waits_to_be_embedded_is_cancelled_at_the_end(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(encoder.device, max_running=1, max_waiting=1)
    begun, stopping = threading.Event(), threading.Event()
    embed = encoder.embed_actions

    def slow(inputs: Sequence[TokenIds]) -> Float32Array:
        begun.set()
        assert stopping.wait(60)
        return embed(inputs)

    monkeypatch.setattr(encoder, "embed_actions", slow)
    engine.start()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(engine.embed_actions, encoder, encoder.action_inputs(TEXTS * 5))
        assert begun.wait(60)
        stopper = threading.Thread(target=engine.stop)
        stopper.start()
        stopping.set()
        stopper.join(60)
        with pytest.raises(CancelledError):
            job.result(60)
    with pytest.raises(CancelledError):
        engine.embed_actions(encoder, encoder.action_inputs(TEXTS[:1]))
