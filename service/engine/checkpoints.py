"""The served checkpoint, and the change to another one without a pause.

A change begins with loading and warming the new checkpoint beside the old one. If its action tower is the same, it is
served from then on. If not, the indexing thread first embeds all searchable chunks again, in a space of its own
(:class:`index.storage.vectors.Space`), while the old checkpoint answers; when the space is complete, the new one
is served. Before, it may have to pass a gate (:mod:`service.engine.gates`), and to answer a share of requests unseen
until an operator says that it is good (:class:`service.engine.changes.Canary`). A request keeps the checkpoint that it
began with. The choice is kept in the storage and outlasts a restart; so does a change that was not finished, with its
gate and its share, and the outcome of the last gate.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from index.encoders.checkpoint import CONFIG_FILE
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.errors import ChunkTooLong, QRagError
from index.storage.opening import read_properties
from index.storage.protocols import Scopes, Storage
from qrag.wire.checks.gates import GateIn, GateOut
from service.engine.changes import Canary, Change
from service.engine.gates import Trial, refusal
from service.engine.loaded import Loaded
from service.errors import CheckpointInUse, CheckpointUnusable, QuestionTooLong, UnknownCheckpoint
from service.settings import DEFAULT_CHECKPOINT, Settings

log = logging.getLogger(__name__)

CONFIGURED = "configured"
"""Name of the checkpoint in ``QRAG_CHECKPOINT``; the others have the names of their folders."""

CHOSEN = "checkpoint"
"""Property of the storage: the checkpoint that is served instead of the configured one."""

WANTED = "wanted_checkpoint"
"""Property of the storage: the checkpoint of an unfinished change, with its gate and the share of requests."""


GATE = "checkpoint_gate"
"""Property of the storage: the outcome of the last gate."""


class Checkpoints:
    """The served checkpoint, and the change to another. Safe to use from many threads."""

    def __init__(self, settings: Settings, storage: Storage, name: str, encoder: Encoder) -> None:
        self._settings = settings
        self._catalogue = storage.catalogue
        self._vectors = storage.vectors
        self._news = storage.news
        self._changing = threading.Lock()
        outcome = storage.catalogue.read_property(GATE)
        self.last_gate = None if outcome is None else GateOut.model_validate_json(outcome)
        """The outcome of the last gate."""
        self.change: Change | None = None
        self.behind: str | None = None
        """Why this process cannot serve what another one on the storage has changed to; none while it does."""
        self.current = Loaded(name, encoder, storage.vectors.space, self._scopes())

    def names(self) -> list[str]:
        """The checkpoints that can be served. Folders with unprintable names are left out."""
        folder = self._settings.checkpoints_path
        folders = [path.parent.name for path in folder.glob(f"*/{CONFIG_FILE}")]
        return [CONFIGURED, *sorted(name for name in folders if name != CONFIGURED and name.isprintable())]

    def begin(self, name: str, gate: GateIn | None = None, canary: float | None = None) -> None:
        """Load a checkpoint, and serve it as soon as its action tower has embedded all chunks. Blocks while it loads.

        With a ``gate`` only if it does not lose there, and with a ``canary``, the share of requests that it answers
        unseen, only once it is asked for without either. A change that was under way is given up, unless this one
        cannot begin. Raises :class:`~service.errors.UnknownCheckpoint`, :class:`~service.errors.CheckpointUnusable` for
        one that cannot be loaded, what :class:`~service.engine.gates.Trial` raises for a gate that cannot be played, or
        :class:`~index.errors.DiskFull`.
        """
        self._require_known(name)
        trial = None if gate is None else Trial(gate, self._catalogue)
        if trial is not None:
            trial.check()
        with self._changing:
            if gate is None and canary is None and self._end_canary(name):
                return
            self._load_and_begin(name, trial, None if canary is None else Canary(canary))

    def _require_known(self, name: str) -> None:
        if name not in self.names():
            known = ", ".join(self.names())
            raise UnknownCheckpoint(f"There is no checkpoint {name!r} in QRAG_CHECKPOINTS_DIR. Known here: {known}.")

    def _end_canary(self, name: str) -> bool:
        """Let the indexing thread serve the checkpoint that answers a share of requests so far, if it is this one."""
        change = self.change
        if change is None or (change.name, change.state) != (name, "canary"):
            return False
        self._catalogue.write_properties({WANTED: self._wanted(name, change.trial, None)})
        self.change = replace(change, canary=None)
        self._news.announce()  # wakes the indexing thread
        return True

    def _load_and_begin(self, name: str, trial: Trial | None, canary: Canary | None) -> None:
        former, self.change = self.change, Change(name, "loading")
        try:
            self._begin(name, trial, canary)
        except BaseException as error:
            self.change = former
            if isinstance(error, CheckpointUnusable) and not self._under_way:
                self._fail(name, error.detail)
            raise
        else:
            _release(former)
        finally:
            self._news.announce()  # wakes the indexing thread

    def _begin(self, name: str, trial: Trial | None, canary: Canary | None) -> None:
        encoder = self._load(name)
        if trial is not None:
            trial.check_lengths({self.current.name: self.current.encoder, name: encoder})
        config = encoder.config
        same_space = config.action_fingerprint == self.current.space.fingerprint
        if same_space and trial is None and canary is None:
            self._catalogue.write_properties({CHOSEN: _choice(self._settings, name), WANTED: None})
            self._serve(name, encoder)
            return
        wanted = {WANTED: self._wanted(name, trial, canary)}
        if same_space:
            self._catalogue.write_properties(wanted)
            space = self.current.space
        else:
            space = self._vectors.open_space(
                fingerprint=config.action_fingerprint, dimension=config.dimension, properties=wanted
            )
        self.change = Change(name, "embedding", encoder, space, trial, canary)

    def resume(self) -> None:
        """Go on with a change that an earlier process left unfinished; one that cannot be loaded any longer fails.

        Its gate is played from the beginning.
        """
        wanted = self._catalogue.read_property(WANTED)
        name = _chosen(self._settings, wanted)
        if name is None or wanted is None:
            return
        further = json.loads(wanted)
        gate, canary = further.get("gate"), further.get("canary")
        trial = None if gate is None else Trial(GateIn.model_validate_json(json.dumps(gate)), self._catalogue)
        try:
            self._require_known(name)
            with self._changing:
                self._load_and_begin(name, trial, None if canary is None else Canary(canary))
        except (UnknownCheckpoint, CheckpointUnusable, QuestionTooLong) as error:
            if self.change is None:  # otherwise why it cannot be loaded is recorded
                self._fail(name, error.detail)

    def follow(self) -> bool:
        """Serve what another process on the storage has changed to; returns whether there was anything to do.

        Until it can, it answers with what it has, and :attr:`behind` says why. For the indexing thread alone.
        """
        with self._changing:
            self._end_dropped_change()
            name = _chosen(self._settings, self._catalogue.read_property(CHOSEN)) or CONFIGURED
            if name == self.current.name and self._vectors.follow(self.current.space.fingerprint):
                self.behind = None
                return False
            try:
                change = self.change
                begun = None if change is None or change.name != name else change.encoder
                encoder = begun or self._load(name)
            except CheckpointUnusable as error:
                return self._stay_behind(error.detail)
            if not self._vectors.follow(encoder.config.action_fingerprint):
                return self._stay_behind(
                    f"The vectors in the storage are those of another checkpoint than {name!r} is here. Start this "
                    "process with the settings and the checkpoints of the others."
                )
            _release(self.change)
            self._serve(name, encoder)
            self.behind = None
            return True

    def _stay_behind(self, reason: str) -> bool:
        if self.behind != reason:
            log.error("cannot follow another process: %s", reason)
        self.behind = reason
        return False

    def _end_dropped_change(self) -> None:
        """Give up a change whose vectors another process has dropped."""
        change = self.change
        if change is not None and change.space is not None and change.space not in self._vectors.spaces:
            _release(change)
            self._fail(change.name, "Another process has begun another change, or given this one up.")

    def complete(self, change: Change) -> Change | None:
        """The change with its candidate, whose vectors are complete; none where it was given up meanwhile.

        This, :meth:`incomplete` and :meth:`finish` are for the indexing thread alone.
        """
        with self._changing:
            if self.change is not change or change.encoder is None or change.space is None:
                return None
            if change.candidate is None:
                scopes = self._vectors.scopes(change.space)
                candidate = Loaded(change.name, change.encoder, change.space, scopes)
                state = change.state if change.passed else "gate"
                self.change = replace(change, candidate=candidate, state=state)
            return self.change

    def incomplete(self, change: Change) -> None:
        """Note that documents have come of which the new checkpoint has no vectors: its scopes would lack them."""
        with self._changing:
            if self.change is change and change.candidate is not None:
                _release(change)
                self.change = replace(change, candidate=None, state="embedding")

    def finish(self, change: Change) -> bool:
        """Serve the new checkpoint, or refuse it, or let it answer a share of requests; false if nothing was to do."""
        with self._changing:
            if self.change is not change or change.encoder is None or change.space is None:
                return False  # given up meanwhile
            outcome = None if change.trial is None else change.trial.outcome
            if change.trial is not None and outcome is None:
                return False  # it has not been played
            judged = {} if outcome is None else {GATE: outcome.model_dump_json()}
            if outcome is not None:
                self.last_gate = outcome
            if outcome is not None and not outcome.passed:
                self._catalogue.write_properties({WANTED: None, **judged})
                self._refuse(change, outcome)
                return True
            if change.canary is not None:
                if change.state != "canary":
                    self._catalogue.write_properties(judged)
                    self.change = replace(change, state="canary")
                    log.info("asking checkpoint=%s too, share=%g", change.name, change.canary.share)
                return False
            properties = {CHOSEN: _choice(self._settings, change.name), WANTED: None, **judged}
            if change.space == self.current.space:
                self._catalogue.write_properties(properties)
            elif not self._vectors.activate(change.space, properties):
                return False
            self._serve(change.name, change.encoder)
            _release(change)
        return True

    def fail(self, change: Change, error: ChunkTooLong) -> None:
        """Give up a change; the error is shown to the operator."""
        with self._changing:
            if self.change is change:
                self._catalogue.write_properties({WANTED: None})
                _release(change)
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
                _release(self.change)
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
        """How far the change under way is: the share of all chunks that are embedded, or of the gate's questions."""
        change = self.change
        if change is None or change.space is None:
            return None
        return self._vectors.share_embedded(change.space) if change.state == "embedding" else change.progress()

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

    def _refuse(self, change: Change, outcome: GateOut) -> None:
        _release(change)
        reason = refusal(outcome)
        self.change = Change(change.name, "refused", error=reason)
        log.warning("refused checkpoint=%s: %s", change.name, reason)

    def _wanted(self, name: str, trial: Trial | None, canary: Canary | None) -> str:
        further: dict[str, Any] = {}
        if trial is not None:
            further["gate"] = trial.gate.model_dump(mode="json", exclude_unset=True)
        if canary is not None:
            further["canary"] = canary.share
        return _choice(self._settings, name, further)

    def _scopes(self) -> Scopes:
        return self._vectors.scopes(preselect_above=self._settings.preselect_above)


def chosen_checkpoint(settings: Settings) -> tuple[str, Path]:
    """Name and folder of the checkpoint to start with.

    It is the one that was changed to, unless ``QRAG_CHECKPOINT`` has changed since.
    """
    name = _chosen(settings, read_properties(settings.data_dir, settings.engines).get(CHOSEN)) or CONFIGURED
    return name, _path(settings, name)


def _path(settings: Settings, name: str) -> Path:
    return settings.checkpoint if name == CONFIGURED else settings.checkpoints_path / name


def _release(change: Change | None) -> None:
    """Let the scopes of a change's candidate go; those that are being searched stay readable."""
    if change is not None and change.candidate is not None:
        change.candidate.scopes.close()


def _choice(settings: Settings, name: str, further: Mapping[str, Any] = {}) -> str:
    return json.dumps({"name": name, "instead_of": _configured(settings), **further})


def _chosen(settings: Settings, choice: str | None) -> str | None:
    if choice is None:
        return None
    properties = json.loads(choice)
    return str(properties["name"]) if properties["instead_of"] == _configured(settings) else None


def _configured(settings: Settings) -> str:
    """The value of ``QRAG_CHECKPOINT``; empty for the default, whose path changes with the installation."""
    return "" if settings.checkpoint == DEFAULT_CHECKPOINT else str(settings.checkpoint)
