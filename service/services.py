"""The parts of a running service, opened and closed in one place."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from anyio import CapacityLimiter

from index.encoders.checkpoint import CheckpointConfig
from index.encoders.cross_encoder import CrossEncoder
from index.encoders.loading import load_encoder
from index.errors import DiskFull
from index.storage.news import News
from index.storage.opening import open_storage
from index.storage.protocols import Storage
from service.engine.checkpoints import Checkpoints, chosen_checkpoint
from service.engine.engine import Engine
from service.engine.workers import IndexingWorker, PreselectionWorker
from service.keys import Keys
from service.language_model import LanguageModel
from service.observing.metrics import Metrics, Watched
from service.observing.questions import QuestionLog
from service.settings import Settings
from service.signing import Signer, shared_signer, signer

log = logging.getLogger(__name__)

READERS = 2
"""Files read at the same time; each may take a core and ``parse_memory_bytes``."""


class Changes:
    """News from the storage, for coroutines that wait for a change."""

    def __init__(self, news: News) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        news.listeners.append(self._notify)

    def next(self) -> asyncio.Event:
        """An event that is set at the next change; take it *before* looking at the storage."""
        return self._event

    def _notify(self) -> None:
        with suppress(RuntimeError):  # the loop has ended before the last job
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running service."""

    settings: Settings
    storage: Storage
    checkpoints: Checkpoints
    engine: Engine
    worker: IndexingWorker
    preselection: PreselectionWorker
    metrics: Metrics
    keys: Keys
    language_model: LanguageModel | None
    """The model that writes answers; none where it is not configured."""
    reranker: CrossEncoder | None
    """The model that takes a second look; none where it is not configured."""
    readers: CapacityLimiter
    """The limit of files that are read at the same time."""
    signer: Signer
    """What signs continuations."""
    questions: QuestionLog | None
    """What keeps questions; none where the operator does not want that."""

    def start(self) -> None:
        """Start the engine and the background threads."""
        self.checkpoints.current.encoder.warm_up()
        self.engine.start()
        self.worker.start()
        self.preselection.start()
        if self.questions is not None:
            self.questions.start()

    def close(self) -> None:
        """Stop the threads, store finished embeddings, close the files."""
        self.worker.ask_to_stop()
        self.engine.stop()
        self.preselection.stop()
        self.worker.join()
        if self.questions is not None:
            self.questions.stop()
        self.storage.close()
        log.info("stopped")

    def require_free_space(self) -> None:
        """Raise :class:`~index.errors.DiskFull` when uploads should be refused.

        The reserve lets deletions and the indexing of what was accepted go on.
        """
        if not _has_room(self.storage, self.settings):
            raise DiskFull(
                "The disk of the service is nearly full. Delete documents or free some space, then try again."
            )


def open_services(settings: Settings) -> Services:
    """Load the checkpoint and open the storage.

    Raises :class:`~index.errors.QRagError` with a message for the operator if either is not usable.
    """
    keys = Keys(settings.keys_path, [key.get_secret_value() for key in settings.api_keys])
    name, checkpoint = chosen_checkpoint(settings)
    encoder = load_encoder(checkpoint, device=settings.device)
    reranker = None if settings.reranker is None else CrossEncoder(settings.reranker, encoder.device)
    storage = open_configured_storage(
        settings, encoder.config, encoder.device, embed_again=settings.other_vectors == "embed"
    )
    # Spooled uploads count against the data disk, which is watched, not against /tmp, which may be memory.
    tempfile.tempdir = str(storage.incoming_directory)
    engine = Engine(
        encoder.device, max_running=settings.max_running_retrievals, max_waiting=settings.max_waiting_retrievals
    )
    checkpoints = Checkpoints(settings, storage, name, encoder)
    worker = IndexingWorker(storage, checkpoints, engine)
    where = settings.data_dir if settings.engines is None else "engines"
    computing = str(encoder.dtype).removeprefix("torch.")
    log.info("opened checkpoint=%s device=%s dtype=%s data=%s", encoder.config.name, encoder.device, computing, where)
    preselection = PreselectionWorker(checkpoints)
    readers = CapacityLimiter(READERS)
    questions = _question_log(settings, storage)
    metrics = Metrics(Watched(storage, engine, worker, preselection, readers, questions))
    model = _language_model(settings)
    return Services(
        settings,
        storage,
        checkpoints,
        engine,
        worker,
        preselection,
        metrics,
        keys,
        model,
        reranker,
        readers,
        _signer(settings, storage),
        questions,
    )


def open_configured_storage(
    settings: Settings,
    config: CheckpointConfig,
    device: torch.device,
    *,
    embed_again: bool = False,
    directory: Path | None = None,
) -> Storage:
    """The storage that the settings name, opened for a checkpoint; with another ``directory`` where one is given.

    Raises like :func:`index.storage.opening.open_storage`.
    """
    return open_storage(
        directory or settings.data_dir,
        dimension=config.dimension,
        fingerprint=config.action_fingerprint,
        device=device,
        embed_again=embed_again,
        engines=settings.engines,
    )


@contextmanager
def storage_for_a_command(settings: Settings, config: CheckpointConfig, device: torch.device) -> Iterator[Storage]:
    """The storage while a command runs: that of engines beside any services, that of a directory alone.

    Raises like :func:`open_configured_storage`.
    """
    with ExitStack() as opened:
        directory = None
        if settings.engines is not None:  # the data directory may be a running service's
            directory = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="qrag-")))
        yield opened.enter_context(closing(open_configured_storage(settings, config, device, directory=directory)))


def _signer(settings: Settings, storage: Storage) -> Signer:
    if settings.continuation_key is None and settings.engines is not None:
        return shared_signer(storage.catalogue.settle_property)
    key = settings.continuation_key
    return signer(None if key is None else key.get_secret_value(), settings.data_dir)


def _has_room(storage: Storage, settings: Settings) -> bool:
    return storage.capacity().free >= settings.min_free_bytes


def _question_log(settings: Settings, storage: Storage) -> QuestionLog | None:
    """The log of questions; where none is wanted, those that were kept before are removed."""
    if settings.keep_questions_days == 0:
        storage.questions.forget()
        return None
    return QuestionLog(storage.questions, settings.keep_questions_days, lambda: _has_room(storage, settings))


def _language_model(settings: Settings) -> LanguageModel | None:
    if settings.llm_base_url is None or settings.llm_model is None:
        return None
    key = settings.llm_api_key.get_secret_value() if settings.llm_api_key else None
    return LanguageModel(str(settings.llm_base_url), settings.llm_model, key, settings.answer_seconds)
