"""A hundred thousand mixed requests from 32 clients who are not all well-behaved, and a service that is killed.

    python -m benchmarks.soak [--requests 100000] [--clients 32] [--kills 12]

The first third is for faults: ``kill -9`` again and again, and a disk that gets low. The rest is one long run of one
process, whose memory is watched. All the time some clients upload slowly, read slowly, or hang up; some send nonsense.
After each kill and at the end every document is compared with what was acknowledged. Results: ``results/soak.json`` and
``soak.png``. Exits with 1 if something acknowledged was lost, if an answer was a 5xx other than 503 and 507, or
if memory was not flat: the means of ten parts of the long run's last half within 5% of the mean of all. What a single
moment holds depends on the requests in flight, too; how far single samples lie off is in the results.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from trainer.evaluation.machine import describe_machine

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
COLLECTIONS = 4
IDS = 12
"""Documents of each client."""

WORDS = "the keeper of a lamp walked to town and sold nine apples near an old stone bridge by the sea".split()
ALLOWED_5XX = {503, 507}
SAMPLES = 400
BALLAST_BYTES = 64 << 20
FLAT = 0.05
PARTS = 10

Content = str | None
"""SHA-256 of what an id stands for, or nothing."""


@dataclass
class Truth:
    """What each id may stand for: one content once that was acknowledged, several while an answer is missing."""

    contents: dict[str, set[Content]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def may_become(self, id: str, content: Content) -> None:
        self.contents.setdefault(id, {None}).add(content)

    def is_acknowledged(self, id: str, content: Content) -> None:
        self.contents[id] = {content}

    def compare(self, found: dict[str, str]) -> int:
        """Compare with what is there; returns how many ids were looked at."""
        for id, contents in self.contents.items():
            if found.get(id) not in contents:
                self.lost.append(f"{id}: acknowledged {contents}, found {found.get(id)}")
            self.contents[id] = {found.get(id)}
        return len(self.contents)


@dataclass
class Tally:
    """What was answered."""

    done: int = 0
    by_kind: dict[str, Counter[str]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)

    def note(self, kind: str, status: int | str) -> None:
        self.done += 1
        self.by_kind.setdefault(kind, Counter())[str(status)] += 1
        if isinstance(status, int) and status >= 500 and status not in ALLOWED_5XX:
            self.unexpected.append(f"{kind}: {status}")


class Service:
    """``python -m service`` on a data directory, started again after each kill."""

    def __init__(self, data: Path, log: Path) -> None:
        self._data, self._log = data, log
        self.address = ""
        self.up = asyncio.Event()
        self.disk_may_be_low = False

    async def start(self, *, low_disk: bool) -> None:
        """Start it and wait until it listens; clients wait for :attr:`up`."""
        self.disk_may_be_low = low_disk  # by the ballast, or by what other programs write
        environment = os.environ | {"QRAG_DATA_DIR": str(self._data), "QRAG_PORT": "0"}
        if low_disk:  # uploads are refused as soon as the ballast lies on the disk
            reserve = shutil.disk_usage(self._data.parent).free - BALLAST_BYTES // 2
            environment["QRAG_MIN_FREE_BYTES"] = str(max(reserve, 0))
        at = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=environment, stderr=log)
        while True:
            found = re.search(rb"Uvicorn running on (http://\S+)", self._log.read_bytes()[at:])
            if found:
                break
            if self.process.poll() is not None:
                raise SystemExit(f"the service ended: {self._log.read_text()[-2000:]}")
            await asyncio.sleep(0.1)
        self.address = found[1].decode()

    def kill(self) -> None:
        self.up.clear()
        self.process.kill()
        self.process.wait()

    def memory(self) -> int:
        """Bytes that the process and its children hold (proportional set size)."""
        total = 0
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in [str(self.process.pid), *children]:
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                found = re.search(r"^Pss_Anon:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
                total += 1024 * int(found[1]) if found else 0
        return total


class Client:
    """One of the clients; its documents are its own, so it knows what they must be."""

    def __init__(self, number: int, service: Service, truth: Truth, tally: Tally, seed: int) -> None:
        self._name = f"c{number}"
        self._service, self._truth, self._tally = service, truth, tally
        self._random = random.Random(seed * 1000 + number)
        self._collection = f"soak-{number % COLLECTIONS}"
        self._http = httpx.AsyncClient(timeout=120)
        self._kinds: list[tuple[str, int, Callable[[], Awaitable[int | str]]]] = [
            ("retrieve", 30, self._retrieve),
            ("upload", 14, self._upload),
            ("delete", 8, self._delete),
            ("look", 25, self._look),
            ("operate", 8, self._operate),
            ("nonsense", 6, self._nonsense),
            ("slow upload", 3, self._slow_upload),
            ("slow reader", 3, self._slow_reader),
            ("hang up", 3, self._hang_up),
        ]

    async def run(self, more: Callable[[], bool]) -> None:
        """Send one request after the other."""
        weights = [weight for _, weight, _ in self._kinds]
        while more():
            await self._service.up.wait()
            ((kind, _, send),) = self._random.choices(self._kinds, weights)
            process = self._service.process
            try:
                status = await send()
            except (httpx.TransportError, OSError, asyncio.IncompleteReadError) as error:
                # Only a kill may take an answer away.
                taken = process.poll() is not None or process is not self._service.process
                # Who still sends when a 507 has come and the connection is closed may not get to read it.
                refused = kind == "slow upload" and self._service.disk_may_be_low
                status = "killed" if taken else "refused early" if refused else "broken"
                if status == "broken":
                    self._tally.unexpected.append(f"{kind}: {error!r}")
            self._tally.note(kind, status)
        await self._http.aclose()

    def _id(self) -> str:
        return f"{self._name}-{self._random.randrange(IDS)}"

    def _text(self) -> str:
        sentences = self._random.choice([1, 1, 1, 2, 3, 8])
        return " ".join(
            f"{self._random.random():.6f} " + " ".join(self._random.choices(WORDS, k=8)) + "." for _ in range(sentences)
        )

    async def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        return await self._http.request(method, self._service.address + path, **request)

    async def _retrieve(self) -> int:
        question = " ".join(self._random.choices(WORDS, k=6)) + "?"
        body: dict[str, Any] = {"question": question, "collection": self._collection}
        # Questions without an answer go on to the last step: most of them may take one or two.
        ways = [{}, {"max_steps": 2, "beam_width": 2}, {"max_steps": 2, "trace": True}, *[{"max_steps": 1}] * 5]
        body |= self._random.choice(ways)
        return (await self._send("POST", "/retrieve", json=body)).status_code

    async def _upload(self) -> int:
        id, text = self._id(), self._text()
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        self._truth.may_become(id, sha256)
        answer = await self._send(
            "POST",
            "/documents",
            params={"replace": True, "wait": self._random.random() < 0.1},
            json={"id": id, "text": text, "collection": self._collection},
        )
        if answer.status_code in (200, 201, 202):
            self._truth.is_acknowledged(id, sha256)
        return answer.status_code

    async def _delete(self) -> int:
        id = self._id()
        self._truth.may_become(id, None)
        answer = await self._send("DELETE", f"/documents/{id}")
        if answer.status_code in (204, 404):
            self._truth.is_acknowledged(id, None)
        return answer.status_code

    async def _look(self) -> int:
        path = self._random.choice([f"/documents/{self._id()}", f"/documents/{self._id()}/chunks", "/collections"])
        return (await self._send("GET", path)).status_code

    async def _operate(self) -> int:
        return (await self._send("GET", self._random.choice(["/healthz", "/readyz", "/metrics", "/model"]))).status_code

    async def _nonsense(self) -> int:
        body = self._random.choice(
            [b"{", b"\xff\xfe", b"[]", b'{"question": 7}', b'{"question": "' + b"x" * 9999 + b'"}']
        )
        path = self._random.choice(["/retrieve", "/documents", "/documents?wait=maybe"])
        headers = {"Content-Type": self._random.choice([*["application/json"] * 4, "text/csv", "application/pdf"])}
        return (await self._send("POST", path, content=body, headers=headers)).status_code

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self._service.address.removeprefix("http://").partition(":")
        return await asyncio.open_connection(host, int(port))

    async def _slow_upload(self) -> int:
        """A document in small pieces with pauses between them."""
        id, text = self._id(), self._text().encode()
        sha256 = hashlib.sha256(text).hexdigest()
        self._truth.may_become(id, sha256)
        reader, writer = await self._connect()
        try:
            head = f"POST /documents?id={id}&replace=true&collection={self._collection} HTTP/1.1\r\nHost: localhost\r\n"
            head += f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())
            step = max(1, len(text) // 5)
            with suppress(ConnectionError):  # it may be refused before it is all sent
                for at in range(0, len(text), step):
                    writer.write(text[at : at + step])
                    await writer.drain()
                    await asyncio.sleep(0.05)
            status = int((await reader.readuntil(b"\r\n")).split()[1])
            await reader.read()
        finally:
            writer.close()
        if status in (200, 201, 202):
            self._truth.is_acknowledged(id, sha256)
        return status

    async def _slow_reader(self) -> int:
        """A long answer, a little of it at a time."""
        reader, writer = await self._connect()
        try:
            writer.write(b"GET /documents?limit=200 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            status = int((await reader.readuntil(b"\r\n")).split()[1])
            for _ in range(10):
                if not await reader.read(512):
                    break
                await asyncio.sleep(0.02)
            await reader.read()
        finally:
            writer.close()
        return status

    async def _hang_up(self) -> str:
        """Half of a request, or no interest in its answer."""
        _, writer = await self._connect()
        body = json.dumps({"question": "who sold apples?", "collection": self._collection}).encode()
        length = len(body) + self._random.choice([0, 100])
        writer.write(
            b"POST /retrieve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (length, body)
        )
        await writer.drain()
        writer.close()
        return "hung up"


async def documents(address: str) -> dict[str, str]:
    """SHA-256 of every document."""
    found: dict[str, str] = {}
    cursor: str | None = None
    async with httpx.AsyncClient(base_url=address, timeout=120) as client:
        while True:
            page = (
                await client.get("/documents", params={"limit": 1000, **({"cursor": cursor} if cursor else {})})
            ).json()
            found |= {each["id"]: each["sha256"] for each in page["documents"]}
            cursor = page.get("next_cursor")
            if not cursor:
                return found


async def drained(address: str) -> None:
    """Wait until nothing is being indexed."""
    async with httpx.AsyncClient(base_url=address, timeout=120) as client:
        while re.search(r'qrag_documents\{status="(queued|indexing)"\} [1-9]', (await client.get("/metrics")).text):
            await asyncio.sleep(0.2)


async def faults(service: Service, tally: Tally, truth: Truth, until: int, kills: int, ballast: Path) -> int:
    """Kill and fill the disk, evenly over the requests; returns how often ids were compared."""
    compared = 0
    for number in range(1, kills + 1):
        while tally.done < until * number // (kills + 1):
            # The disk is low in the middle of each stretch.
            share = tally.done * (kills + 1) / until - number + 1
            if 0.4 < share < 0.6 and not ballast.exists():
                with ballast.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
            elif share >= 0.6:
                ballast.unlink(missing_ok=True)
            await asyncio.sleep(0.05)
        service.kill()
        await service.start(low_disk=True)
        compared += truth.compare(await documents(service.address))
        service.up.set()
    return compared


async def soak(requests: int, clients: int, kills: int, seed: int, home: Path) -> dict[str, Any]:
    service, truth, tally = Service(home / "data", home / "log"), Truth(), Tally()
    (home / "data").mkdir()
    bar = tqdm(total=requests, unit="request", smoothing=0.02)
    began = time.perf_counter()

    async def run(until: int) -> None:
        users = [Client(n, service, truth, tally, seed + until) for n in range(clients)]

        def more() -> bool:
            bar.update(tally.done - bar.n)
            return tally.done < until

        await asyncio.gather(*(user.run(more) for user in users))

    faulty = requests // 3
    await service.start(low_disk=True)
    service.up.set()
    load = asyncio.create_task(run(faulty))
    compared = await faults(service, tally, truth, faulty, kills, home / "ballast")
    await load
    (home / "ballast").unlink(missing_ok=True)
    service.kill()
    await service.start(low_disk=False)
    compared += truth.compare(await documents(service.address))
    service.up.set()
    memory: list[tuple[int, int]] = []
    load = asyncio.create_task(run(requests))
    while not load.done():
        if tally.done >= faulty + len(memory) * (requests - faulty) // SAMPLES:
            memory.append((tally.done, service.memory()))
        await asyncio.sleep(0.05)
    await load
    seconds = time.perf_counter() - began
    bar.close()
    await drained(service.address)
    compared += truth.compare(await documents(service.address))
    service.process.terminate()
    ended = service.process.wait(60)
    log = (home / "log").read_text(errors="replace")
    late = np.array([bytes_ for _, bytes_ in memory[len(memory) // 2 :]])
    mean = float(late.mean())
    parts = np.array([part.mean() for part in np.array_split(late, min(PARTS, len(late)))])
    return {
        "machine": describe_machine(),
        "requests": tally.done,
        "clients": clients,
        "kills": kills + 1,
        "seconds": round(seconds),
        "requests_per_second": round(tally.done / seconds, 1),
        "answers": {kind: dict(sorted(found.items())) for kind, found in sorted(tally.by_kind.items())},
        "acknowledged_contents_compared": compared,
        "lost": truth.lost,
        "unexpected": tally.unexpected,
        "exit_status": ended,
        "errors_in_the_log": re.findall(r"^.* (?:ERROR|CRITICAL) .*$", log, re.MULTILINE)[:20],
        "memory": {
            "mean_of_last_half_mb": round(mean / 1e6, 1),
            "largest_deviation_of_parts": round(float(np.abs(parts - mean).max()) / mean, 4),
            "largest_deviation_of_samples": round(float(np.abs(late - mean).max()) / mean, 4),
            "samples_mb": [[done, round(bytes_ / 1e6, 1)] for done, bytes_ in memory],
        },
    }


def plot(result: dict[str, Any]) -> Figure:
    """Memory over the requests of the long run."""
    figure = Figure(figsize=(7, 3.2), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*result["memory"]["samples_mb"], strict=True))
    mean = result["memory"]["mean_of_last_half_mb"]
    axes.axhspan(mean * (1 - FLAT), mean * (1 + FLAT), alpha=0.15, label="±5% of the mean of the last half")
    axes.set(xlabel="requests", ylabel="MB", ylim=(0, None), title="Memory of the service (private) under mixed load")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description="A long mixed load with faults.")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        result = asyncio.run(soak(arguments.requests, arguments.clients, arguments.kills, arguments.seed, Path(home)))
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    plot(result).savefig(arguments.out.with_suffix(".png"))
    print(json.dumps({**result, "memory": {**result["memory"], "samples_mb": "..."}}, indent=1))
    flat = result["memory"]["largest_deviation_of_parts"] <= FLAT
    sys.exit(bool(result["lost"] or result["unexpected"] or result["exit_status"] or not flat))


if __name__ == "__main__":
    main()
