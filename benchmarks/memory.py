"""Peak memory of the service while it takes in and indexes one long document.

    python -m benchmarks.memory [--megabytes 60]

The bundled book is repeated to the wanted size and uploaded as a stream. Result:
``benchmarks/results/memory.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.serving import ROOT, Service, running_service
from trainer.evaluation.machine import describe_machine

BOOK = ROOT / "examples" / "franklin-autobiography.txt"
RESULT = Path(__file__).parent / "results" / "memory.json"
VECTOR_BYTES = 384 * 4


class PeakSampler:
    """Samples a process's resident memory every 20 ms and keeps the peak of each phase, in bytes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._phase = "idle"
        self._stopped = threading.Event()
        self.peaks = {self._phase: self._process.memory_info().rss}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def enter(self, phase: str) -> None:
        self._phase = phase

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.02):
            resident = self._process.memory_info().rss
            self.peaks[self._phase] = max(self.peaks.get(self._phase, 0), resident)


def book_stream(size: int) -> Iterator[bytes]:
    """About ``size`` bytes of whole repetitions of the bundled book, in network-sized blocks."""
    content = BOOK.read_bytes()
    for _ in range(max(1, round(size / len(content)))):
        for at in range(0, len(content), 65_536):
            yield content[at : at + 65_536]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=60)
    size = parser.parse_args().megabytes * 1_000_000
    with running_service() as service:
        result = measure(service, size)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def measure(service: Service, size: int) -> dict[str, object]:
    """Upload, index and search; returns what was seen."""
    client, sampler = service.client, PeakSampler(service.process)
    client.get("/model").raise_for_status()
    began = time.perf_counter()
    sampler.enter("upload")
    posted = client.post("/documents?id=long", content=book_stream(size), headers={"Content-Type": "text/plain"})
    posted.raise_for_status()
    uploaded = time.perf_counter()
    sampler.enter("index")
    while (document := client.get("/documents/long").json())["status"] != "ready":
        if document["status"] == "failed":
            raise SystemExit(document["error"])
        print(f"\r{document['progress']:.1%}", end="", file=sys.stderr, flush=True)
        time.sleep(1)
    indexed = time.perf_counter()
    sampler.enter("retrieve")
    body = {"question": "Under what name did Franklin publish his Almanack?", "max_steps": 6, "trace": True}
    answer = client.post("/retrieve", json=body).raise_for_status().json()
    sampler.stop()
    text, vectors = posted.json()["characters"], document["chunks"] * VECTOR_BYTES
    peak = max(sampler.peaks.values())
    return {
        "machine": describe_machine(),
        "text_bytes": text,
        "tokens": document["tokens"],
        "chunks": document["chunks"],
        "vector_bytes": vectors,
        "upload_seconds": round(uploaded - began, 2),
        "index_seconds": round(indexed - uploaded, 1),
        "index_tokens_per_second": round(document["tokens"] / (indexed - uploaded)),
        "retrieve_ms": round(answer["timings"]["total_ms"], 1),
        "peak_resident_bytes": sampler.peaks,
        "peak_beyond_text_and_vectors_bytes": peak - text - vectors,
        "peak_beyond_idle_text_and_vectors_bytes": peak - sampler.peaks["idle"] - text - vectors,
    }


if __name__ == "__main__":
    main()
