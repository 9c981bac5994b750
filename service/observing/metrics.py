"""Prometheus metrics: what ``deploy/grafana/qrag.json`` draws and ``deploy/prometheus/alerts.yml`` watches.

The observed parts are described by protocols: the engine records spans, so this room must not import it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from anyio import CapacityLimiter
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from index.episodes.drift import FIGURES, Compared, Figure
from index.episodes.episode import Episode
from index.errors import StorageUnavailable
from index.indexing.indexer import Round
from index.storage.protocols import Storage

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Upper bounds of the histograms of requests and of the phases of a retrieval."""

ROUND_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
"""Upper bounds of the histogram of indexing rounds."""

PROBABILITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1)
"""Upper bounds of the histograms of probabilities."""


class BackgroundThread(Protocol):
    """A thread that should run as long as the service does."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""


class KeptStates(Protocol):
    """Embedded states that episodes come to again."""

    hits: int


class SearchEngine(BackgroundThread, Protocol):
    """What runs the episodes, as far as its figures go."""

    device: torch.device
    steps: int
    cancelled: int
    batch_listeners: list[Callable[[int], None]]

    @property
    def kept_states(self) -> KeptStates:
        """The states that were embedded lately."""

    @property
    def load(self) -> tuple[int, int]:
        """Episodes running and waiting."""


class Indexing(BackgroundThread, Protocol):
    """What indexes documents in rounds, and tells of each how long it took in seconds."""

    round_listeners: list[Callable[[Round, float], None]]


class Keeping(BackgroundThread, Protocol):
    """What keeps questions, and how many it could not keep."""

    dropped: int


class TimedEpisode(Protocol):
    """A finished episode and its phases, in seconds."""

    episode: Episode
    queue_seconds: float
    encode_seconds: float
    search_seconds: float


@dataclass(frozen=True, slots=True)
class Watched(Collector):
    """Figures that are read when somebody asks, rather than counted along the way, and where they are."""

    storage: Storage
    engine: SearchEngine
    worker: Indexing
    preselection: BackgroundThread
    readers: CapacityLimiter
    questions: Keeping | None

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now."""
        documents = GaugeMetricFamily("qrag_documents", "Documents by status", labels=["status"])
        try:
            self.storage.check()
            counts = self.storage.catalogue.count_by_status()
        except StorageUnavailable:
            counts = None
        for status, count in (counts or {}).items():
            documents.add_metric([status], count)
        yield documents
        yield GaugeMetricFamily(
            "qrag_storage_available",
            "Whether the storage, engines of others among it, answers",
            value=counts is not None,
        )
        calls = CounterMetricFamily("qrag_storage_calls", "Calls to the engine that searches", labels=["kind"])
        spent = CounterMetricFamily("qrag_storage_call_seconds", "What they took together", labels=["kind"])
        for kind, count, seconds in self.storage.calls():
            calls.add_metric([kind], count)
            spent.add_metric([kind], seconds)
        yield calls
        yield spent
        running, waiting = self.engine.load
        episodes = GaugeMetricFamily("qrag_retrievals", "Retrievals in the engine", labels=["state"])
        episodes.add_metric(["running"], running)
        episodes.add_metric(["waiting"], waiting)
        yield episodes
        files = GaugeMetricFamily("qrag_files", "Uploaded files that are being read", labels=["state"])
        reading = self.readers.statistics()
        files.add_metric(["running"], reading.borrowed_tokens)
        files.add_metric(["waiting"], reading.tasks_waiting)
        yield files
        threads = GaugeMetricFamily("qrag_thread_alive", "Whether a background thread runs", labels=["thread"])
        for name, thread in (
            ("engine", self.engine),
            ("indexing", self.worker),
            ("preselection", self.preselection),
            ("questions", self.questions),
        ):
            if thread is not None:
                threads.add_metric([name], thread.alive)
        yield threads
        stalled = self.storage.catalogue.stalled is not None
        yield GaugeMetricFamily("qrag_indexing_stalled", "Whether indexing waits for disk space", value=stalled)
        disk = self.storage.capacity()
        yield GaugeMetricFamily("qrag_disk_free_bytes", "Free space where the documents are", value=disk.free)
        yield GaugeMetricFamily("qrag_disk_size_bytes", "Size of the disk where the documents are", value=disk.total)
        yield self._gpu_memory()
        dropped = 0 if self.questions is None else self.questions.dropped
        yield CounterMetricFamily("qrag_questions_dropped", "Questions that could not be kept", value=dropped)
        yield CounterMetricFamily("qrag_engine_steps", "Episode steps taken", value=self.engine.steps)
        yield CounterMetricFamily(
            "qrag_states_reused",
            "States that an earlier forward pass had embedded",
            value=self.engine.kept_states.hits,
        )
        yield CounterMetricFamily(
            "qrag_engine_cancelled", "Episodes dropped because the client had gone", value=self.engine.cancelled
        )

    def _gpu_memory(self) -> Metric:
        """The figures of the GPU; no sample where there is none."""
        family = GaugeMetricFamily(
            "qrag_gpu_memory_bytes",
            "GPU memory: in use by tensors, held by the process for tensors, and of the device in all",
            labels=["kind"],
        )
        device = self.engine.device
        if device.type == "cuda":
            family.add_metric(["allocated"], torch.cuda.memory_allocated(device))
            family.add_metric(["reserved"], torch.cuda.memory_reserved(device))
            family.add_metric(["size"], torch.cuda.get_device_properties(device).total_memory)
        return family

    def describe(self) -> Iterator[Metric]:
        """Nothing: their names are known once they are collected."""
        return iter(())


class Metrics:
    """What the service counts and times."""

    def __init__(self, watched: Watched) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(watched)
        self._batches = Histogram(
            "qrag_batch_states",
            "States per forward pass",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
            registry=self._registry,
        )
        watched.engine.batch_listeners.append(self._batches.observe)
        self._rounds = Histogram(
            "qrag_indexing_round_seconds",
            "Rounds of indexing: up to a segment of chunks cut, embedded and stored",
            buckets=ROUND_SECONDS,
            registry=self._registry,
        )
        self._chunks = Counter("qrag_indexed_chunks", "Chunks embedded and stored", registry=self._registry)
        watched.worker.round_listeners.append(self._indexing_round)
        self._requests = Histogram(
            "qrag_request_seconds", "Requests", ["method", "route", "status"], buckets=SECONDS, registry=self._registry
        )
        self._phases = Histogram(
            "qrag_retrieval_seconds", "Retrievals by phase", ["phase"], buckets=SECONDS, registry=self._registry
        )
        self._stopped = Counter(
            "qrag_episodes", "Finished episodes by what ended them", ["stopped_by"], registry=self._registry
        )
        self._canary = Counter(
            "qrag_canary_requests",
            "Requests that another checkpoint was to answer too",
            ["outcome"],
            registry=self._registry,
        )
        self._overlap = Histogram(
            "qrag_canary_overlap",
            "Share of the chunks that both checkpoints selected, of those that either did",
            buckets=(0, 0.1, 0.25, 0.5, 0.75, 0.9, 1),
            registry=self._registry,
        )
        self._steps = Histogram(
            "qrag_episode_steps",
            "Steps per episode",
            buckets=(0, 1, 2, 3, 4, 6, 8, 12, 16, 32),
            registry=self._registry,
        )
        self._sufficiency = Histogram(
            "qrag_sufficiency",
            "How probably the evidence is complete, or the question hopeless, at the end of an episode",
            ["probability"],
            buckets=PROBABILITIES,
            registry=self._registry,
        )
        self._inexact = Counter(
            "qrag_inexact_episodes",
            "Episodes with a step of which it is not certain that the best chunk was selected",
            registry=self._registry,
        )
        self._nothing = Counter(
            "qrag_found_nothing", "Episodes that ended without a chunk, or as hopeless", registry=self._registry
        )
        self._compared = Counter(
            "qrag_drift_questions", "Questions compared with the calibration's", ["figure"], registry=self._registry
        )
        self._served = Counter(
            "qrag_drift_served", "Sums of a figure over these questions", ["figure"], registry=self._registry
        )
        self._calibrated = Counter(
            "qrag_drift_calibrated", "Sums of what the calibration had on average", ["figure"], registry=self._registry
        )
        # From the start, so that the first question is an increase.
        for probability in ("complete", "hopeless"):
            self._sufficiency.labels(probability)
        for figure in FIGURES:
            for counter in (self._compared, self._served, self._calibrated):
                counter.labels(figure)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note a finished request."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def episode(self, run: TimedEpisode, tokenize_seconds: float) -> None:
        """Note a finished episode."""
        self._phases.labels("tokenize").observe(tokenize_seconds)
        self._phases.labels("queue").observe(run.queue_seconds)
        self._phases.labels("encode").observe(run.encode_seconds)
        self._phases.labels("search").observe(run.search_seconds)
        self._stopped.labels(run.episode.stopped_by or "cancelled").inc()
        self._steps.observe(len(run.episode.steps))
        if not run.episode.exact:
            self._inexact.inc()
        if run.episode.found_nothing:
            self._nothing.inc()
        if (sufficiency := run.episode.sufficiency) is not None:
            self._sufficiency.labels("complete").observe(sufficiency.complete)
            self._sufficiency.labels("hopeless").observe(sufficiency.hopeless)

    def drift(self, figures: Mapping[Figure, Compared]) -> None:
        """Note what a question got, beside what those of the calibration got."""
        for figure, (served, calibrated) in figures.items():
            self._compared.labels(figure).inc()
            self._served.labels(figure).inc(served)
            self._calibrated.labels(figure).inc(calibrated)

    def canary(self, outcome: Literal["compared", "dropped", "failed"], overlap: float | None = None) -> None:
        """Note a request that another checkpoint was to answer too, and the share of chunks that both selected."""
        self._canary.labels(outcome).inc()
        if overlap is not None:
            self._overlap.observe(overlap)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def _indexing_round(self, done: Round, seconds: float) -> None:
        self._rounds.observe(seconds)
        self._chunks.inc(done.chunks)
