"""Many clients at once on one long document: latency, throughput, and where the time goes.

    python -m benchmarks.crowd [--chunks 40000 400000] [--clients 1 4 16 64]

A real server on loopback answers requests of four steps. Beside it, in turn: the same requests one after the other, and
the bare forward pass of the same states in this process while the server is idle. Result:
``benchmarks/results/crowd.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np

from benchmarks.serving import running_service
from benchmarks.stores import numbered_sentences, write_store
from index.encoders.encoder import Encoder, StateInput
from index.encoders.loading import load_encoder
from service.settings import DEFAULT_CHECKPOINT
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "crowd.json"
STEPS = 4
LEAST_REQUESTS = 32
REQUESTS_A_CLIENT = 6
ROUNDS = 5
QUESTIONS = (
    "Where did the printer's apprentice go before he came back to the town?",
    "Who lent the governor's letter to the captain of the ship?",
    "What was carried from the shop to the house at the bridge?",
    "Which of the brothers had owned the press before it was sold?",
)


NUMBERS = itertools.count()
"""Each question is asked once: the states of one that is asked again are embedded already."""


def question(number: int) -> str:
    return f"{QUESTIONS[number % len(QUESTIONS)]} (case {number})"


class Client:
    """One connection that sends a question and waits for the answer: as little work as can be beside the server's."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.removeprefix("http://").partition(":")
        self._port = int(port)

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self, number: int) -> tuple[float, bytes]:
        """Seconds until the answer, and its body."""
        body = json.dumps({"question": question(number), "max_steps": STEPS, "stop": {"rule": "budget"}}).encode()
        began = time.perf_counter()
        self._writer.write(
            b"POST /retrieve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None, head
        answer = await self._reader.readexactly(int(length[1]))
        return time.perf_counter() - began, answer


class Crowd(NamedTuple):
    """What the clients of a crowd saw."""

    seconds: float
    """The seconds of all of them together."""
    latencies: list[float]
    """The seconds of each request."""
    answers: list[dict[str, Any]]
    questions: list[str]


async def crowd(address: str, clients: int, requests: int) -> Crowd:
    """Fresh questions; each client asks again as soon as it has its answer."""
    asked = [next(NUMBERS) for _ in range(requests)]
    numbers = iter(asked)
    found: dict[int, tuple[float, bytes]] = {}

    async def one(client: Client) -> None:
        for number in numbers:
            found[number] = await client.ask(number)

    async with AsyncExitStack() as stack:
        connected = [await stack.enter_async_context(Client(address)) for _ in range(clients)]
        began = time.perf_counter()
        await asyncio.gather(*map(one, connected))
        seconds = time.perf_counter() - began
    latencies, answers = zip(*(found[number] for number in asked), strict=True)
    return Crowd(seconds, [*latencies], [*map(json.loads, answers)], [*map(question, asked)])


def states_of(encoder: Encoder, answers: Sequence[dict[str, Any]], questions: Sequence[str]) -> list[StateInput]:
    """The states that were embedded to find these answers."""
    states = []
    for asked, answer in zip(questions, answers, strict=True):
        chunks = sorted(answer["chunks"], key=lambda chunk: chunk["step"])
        # Of a calibrated checkpoint the last state is embedded too: how sufficient is it?
        for step in range(len(chunks) + (answer["sufficiency"] is not None)):
            before = sorted(chunks[:step], key=lambda chunk: chunk["index"])
            tokens = encoder.state_tokens([chunk["text"] for chunk in before]) if before else []
            states.append(encoder.compose_state(encoder.question_tokens(asked), tokens))
    return states


def bare_speed(encoder: Encoder, states: Sequence[StateInput]) -> float:
    """States a second of nothing but forward passes."""
    began = time.perf_counter()
    encoder.embed_states(states)
    return len(states) / (time.perf_counter() - began)


def measure(address: str, encoder: Encoder, clients: Sequence[int]) -> dict[str, Any]:
    asyncio.run(crowd(address, 1, 2))  # builds the scope
    rows: dict[str, Any] = {}
    for count in clients:
        requests = max(LEAST_REQUESTS, REQUESTS_A_CLIENT * count)
        seconds, latencies, answers, _ = asyncio.run(crowd(address, count, requests))
        p50, p95, p99 = (round(1000 * float(np.percentile(latencies, share)), 1) for share in (50, 95, 99))
        rows[str(count)] = {
            "requests": requests,
            "requests_per_second": round(requests / seconds, 2),
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
        }
        if count == 1:
            rows["1"]["milliseconds"] = where_time_goes(latencies, answers)
    together = sixteen_at_once(address, encoder)
    rows["1_while_indexing"] = while_indexing(address)  # the server is busy for a while after it
    return {"clients": rows, "sixteen_clients": together}


def sixteen_at_once(address: str, encoder: Encoder) -> dict[str, Any]:
    """Sixteen clients, the same requests one by one and the bare forward pass of their states, in turn."""
    rounds = []
    states: list[StateInput] = []
    for _ in range(ROUNDS):
        seconds, _, answers, questions = asyncio.run(crowd(address, 1, 16))
        alone = 16 / seconds
        states = states_of(encoder, answers, questions)
        before = bare_speed(encoder, states)
        seconds = asyncio.run(crowd(address, 16, 16 * REQUESTS_A_CLIENT)).seconds
        bare = (before + bare_speed(encoder, states)) / 2 / (len(states) / len(answers))
        rounds.append((16 * REQUESTS_A_CLIENT / seconds, alone, bare))
    median = statistics.median
    return {
        "rounds": ROUNDS,
        "state_tokens": sum(len(state.ids) for state in states),
        "requests_per_second": round(median(together for together, _, _ in rounds), 2),
        "one_by_one_requests_per_second": round(median(alone for _, alone, _ in rounds), 2),
        "bare_forward_requests_per_second": round(median(bare for _, _, bare in rounds), 2),
        "share_of_bare_forward": round(median(together / bare for together, _, bare in rounds), 3),
        "times_one_by_one": round(median(together / alone for together, alone, _ in rounds), 2),
    }


def while_indexing(address: str) -> dict[str, float]:
    """One client before and while another document of ten million tokens is being indexed."""
    idle = asyncio.run(crowd(address, 1, LEAST_REQUESTS)).latencies
    with httpx.Client(base_url=address, timeout=600) as client:
        text = "".join(numbered_sentences(400_000))
        headers = {"Content-Type": "text/plain"}
        client.post("/documents?id=busy&collection=busy", content=text, headers=headers).raise_for_status()
        while (document := client.get("/documents/busy").json())["progress"] == 0:  # it is being cut
            assert document["status"] in ("queued", "indexing"), document
            time.sleep(0.5)
        latencies = asyncio.run(crowd(address, 1, LEAST_REQUESTS)).latencies
        after = client.get("/documents/busy").json()
        assert after["status"] == "indexing", after
        client.delete("/documents/busy").raise_for_status()
    p50, p95 = (1000 * float(np.percentile(latencies, share)) for share in (50, 95))
    times_idle = p95 / (1000 * float(np.percentile(idle, 95)))
    return {"p50_ms": round(p50, 1), "p95_ms": round(p95, 1), "p95_times_idle": round(times_idle, 2)}


def where_time_goes(latencies: Sequence[float], answers: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over the requests, in milliseconds."""
    encode, search = (
        float(np.mean([answer["timings"][name] for answer in answers])) for name in ("encode_ms", "search_ms")
    )
    whole = 1000 * float(np.mean(latencies))
    return {
        "state_tower": round(encode, 2),
        "search": round(search, 2),
        "rest": round(whole - encode - search, 2),
        "whole": round(whole, 2),
    }


def peak_resident_mb(process: int) -> int:
    """The most memory that a process has had, mapped files that it has read included."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None, status
    return int(found[1]) // 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Many clients at once on one long document.")
    parser.add_argument("--chunks", type=int, nargs="+", default=[40_000, 400_000])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if not {1, 16} <= set(arguments.clients):
        parser.error("--clients must hold 1 and 16: they are compared")
    encoder = load_encoder(DEFAULT_CHECKPOINT)
    sizes: dict[str, Any] = {}
    with running_service() as service:
        empty = {
            "seconds_to_start": round(service.seconds_to_start, 2),
            "peak_resident_mb": peak_resident_mb(service.process),
        }
    for chunks in arguments.chunks:
        with tempfile.TemporaryDirectory() as folder:
            write_store(Path(folder), encoder, chunks)
            with running_service(folder) as service:
                found = measure(service.address, encoder, arguments.clients)
                found["peak_resident_mb"] = peak_resident_mb(service.process)
            sizes[str(chunks)] = {"seconds_to_start": round(service.seconds_to_start, 2), **found}
    result = {"machine": describe_machine(), "steps": STEPS, "empty": empty, "chunks": sizes}
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
