"""The served checkpoint, and the change to another one without a pause.

A change begins with loading and warming the new checkpoint beside the old one. If its action tower is the same, it is
served from then on. If not, the indexing thread first embeds all searchable chunks again, in a space of its own
(:class:`index.storage.vectors.Space`), while the old checkpoint answers; when the space is complete, the new one
is served. A request keeps the checkpoint that it began with. The choice is kept in the storage and outlasts a restart;
so does a change that was not finished.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from index.encoders.checkpoint import CONFIG_FILE
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.errors import ChunkTooLong, QRagError
from index.storage.opening import read_properties
from index.storage.protocols import Scopes, Storage
from index.storage.vectors import Space
from service.errors import CheckpointInUse, CheckpointUnusable, UnknownCheckpoint
from service.settings import DEFAULT_CHECKPOINT, Settings

log = logging.getLogger(__name__)

CONFIGURED = "configured"
"""Name of the checkpoint in ``QRAG_CHECKPOINT``; the others have the names of their folders."""

CHOSEN = "checkpoint"
"""Property of the storage: the checkpoint that is served instead of the configured one."""

WANTED = "wanted_checkpoint"
"""Property of the storage: the checkpoint of an unfinished change."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in memory, and the vectors that it searches."""

    name: str
    encoder: Encoder
    space: Space
    scopes: Scopes


@dataclass(frozen=True, slots=True)
class Change:
    """A change that is under way, or has failed for a reason."""

    name: str
    state: Literal["loading", "embedding", "failed"]
    encoder: Encoder | None = None
    space: Space | None = None
    error: str | None = None


class Checkpoints:
    """The served checkpoint, and the change to another. Safe to use from many threads."""

    def __init__(self, settings: Settings, storage: Storage, name: str, encoder: Encoder) -> None:
        self._settings = settings
        self._catalogue = storage.catalogue
        self._vectors = storage.vectors
        self._news = storage.news
        self._changing = threading.Lock()
        self.change: Change | None = None
        self.current = Loaded(name, encoder, storage.vectors.space, self._scopes())

    def names(self) -> list[str]:
        """The checkpoints that can be served. Folders with unprintable names are left out."""
        folder = self._settings.checkpoints_path
        folders = [path.parent.name for path in folder.glob(f"*/{CONFIG_FILE}")]
        return [CONFIGURED, *sorted(name for name in folders if name != CONFIGURED and name.isprintable())]

    def begin(self, name: str) -> None:
        """Load a checkpoint, and serve it as soon as its action tower has embedded all chunks. Blocks while it loads.

        A change that was under way is given up, unless this one cannot begin. Raises
        :class:`~service.errors.UnknownCheckpoint`, :class:`~service.errors.CheckpointUnusable` for one that cannot be
        loaded, or :class:`~index.errors.DiskFull`.
        """
        if name not in self.names():
            known = ", ".join(self.names())
            raise UnknownCheckpoint(f"There is no checkpoint {name!r} in QRAG_CHECKPOINTS_DIR. Known here: {known}.")
        with self._changing:
            former, self.change = self.change, Change(name, "loading")
            try:
                self._begin(name)
            except BaseException as error:
                self.change = former
                if isinstance(error, CheckpointUnusable) and not self._under_way:
                    self._fail(name, error.detail)
                raise
            finally:
                self._news.announce()  # wakes the indexing thread

    def _begin(self, name: str) -> None:
        encoder = self._load(name)
        config, choice = encoder.config, _choice(self._settings, name)
        if config.action_fingerprint == self.current.space.fingerprint:
            self._catalogue.write_properties({CHOSEN: choice, WANTED: None})
            self._serve(name, encoder)
            return
        space = self._vectors.open_space(
            fingerprint=config.action_fingerprint, dimension=config.dimension, properties={WANTED: choice}
        )
        self.change = Change(name, "embedding", encoder, space)

    def resume(self) -> None:
        """Go on with a change that an earlier process left unfinished; one that cannot be loaded any longer fails."""
        name = _chosen(self._settings, self._catalogue.read_property(WANTED))
        if name is None:
            return
        try:
            self.begin(name)
        except (UnknownCheckpoint, CheckpointUnusable) as error:
            if self.change is None:  # otherwise begin() has recorded why it cannot be loaded
                self._fail(name, error.detail)

    def finish(self, change: Change) -> bool:
        """Serve the new checkpoint if its space is complete. Only the indexing thread calls this."""
        with self._changing:
            if self.change is not change or change.encoder is None or change.space is None:
                return False  # given up meanwhile
            properties = {CHOSEN: _choice(self._settings, change.name), WANTED: None}
            if not self._vectors.activate(change.space, properties):
                return False
            self._serve(change.name, change.encoder)
        return True

    def fail(self, change: Change, error: ChunkTooLong) -> None:
        """Give up a change; the error is shown to the operator."""
        with self._changing:
            if self.change is change:
                self._catalogue.write_properties({WANTED: None})
                self._fail(change.name, str(error))

    def forget(self, name: str) -> None:
        """Give up the change to this checkpoint, or drop the vectors that are kept for going back to it.

        Raises :class:`~service.errors.CheckpointInUse` for the one that is served, and
        :class:`~service.errors.UnknownCheckpoint`.
        """
        with self._changing:
            changing_to = None if self.change is None else self.change.name
            if name != changing_to and name not in self.names():
                raise UnknownCheckpoint(f"There is no checkpoint {name!r}. Known here: {', '.join(self.names())}.")
            if name == changing_to:
                self.change = None
                self._catalogue.write_properties({WANTED: None})
            elif name == self.current.name:
                raise CheckpointInUse(f"{name!r} is being served. Change to another checkpoint first.")
            elif self._under_way:
                return  # there are no vectors but those of the served one and of the change
            self._vectors.forget_other_spaces()

    @property
    def _under_way(self) -> bool:
        return self.change is not None and self.change.space is not None

    @property
    def vector_sets(self) -> int:
        """How many action towers' vectors there are."""
        return len(self._vectors.spaces)

    def progress(self) -> float | None:
        """The share of all chunks that are embedded for the change under way."""
        change = self.change
        return None if change is None or change.space is None else self._vectors.share_embedded(change.space)

    def _load(self, name: str) -> Encoder:
        try:
            encoder = load_encoder(_path(self._settings, name), device=self._settings.device)
            encoder.warm_up()
        except (QRagError, OSError) as error:  # OSError where the folder is changed meanwhile
            # The message may name folders: only operators may change checkpoints.
            raise CheckpointUnusable(f"The checkpoint {name!r} cannot be loaded: {error}") from error
        except torch.OutOfMemoryError:
            raise CheckpointUnusable(
                f"There is no memory on the device for {name!r} beside the one that is served."
            ) from None
        return encoder

    def _serve(self, name: str, encoder: Encoder) -> None:
        former = self.current
        self.current = Loaded(name, encoder, self._vectors.space, self._scopes())
        self.change = None
        former.scopes.close()
        self._news.announce()
        log.info("serving checkpoint=%s model=%s space=%d", name, encoder.config.name, self._vectors.space.number)

    def _fail(self, name: str, reason: str) -> None:
        self.change = Change(name, "failed", error=reason)
        log.error("cannot change to checkpoint=%s: %s", name, reason)

    def _scopes(self) -> Scopes:
        return self._vectors.scopes(preselect_above=self._settings.preselect_above)


def chosen_checkpoint(settings: Settings) -> tuple[str, Path]:
    """Name and folder of the checkpoint to start with.

    It is the one that was changed to, unless ``QRAG_CHECKPOINT`` has changed since.
    """
    name = _chosen(settings, read_properties(settings.data_dir).get(CHOSEN)) or CONFIGURED
    return name, _path(settings, name)


def _path(settings: Settings, name: str) -> Path:
    return settings.checkpoint if name == CONFIGURED else settings.checkpoints_path / name


def _choice(settings: Settings, name: str) -> str:
    return json.dumps({"name": name, "instead_of": _configured(settings)})


def _chosen(settings: Settings, choice: str | None) -> str | None:
    if choice is None:
        return None
    properties = json.loads(choice)
    return str(properties["name"]) if properties["instead_of"] == _configured(settings) else None


def _configured(settings: Settings) -> str:
    """The value of ``QRAG_CHECKPOINT``; empty for the default, whose path changes with the installation."""
    return "" if settings.checkpoint == DEFAULT_CHECKPOINT else str(settings.checkpoint)
