"""A checkpoint: a directory that says everything about a trained pair of encoders, never a pickle.

::

    qrag.json               what this module reads: towers, positions, limits, w and b, stopping, provenance
    state/                  the state tower, as transformers and sentence-transformers load it
    action/                 the action tower, likewise
    signals.safetensors     what is read of a state beside its embedding, where positions have a space of their own
                            or tokens are weighed
    stopping.safetensors    the STOP action and the sufficiency head, where they were learned
    README.md               the model card

A tower that is a published base model, or differs from one in some of its weights, does not copy it:
``qrag.json`` names the installed Python package that carries it, with the checksum of its weights, and the folder
of the tower holds only what differs (:class:`PatchedTower`). ``python -m trainer export`` writes whole towers.

An action tower may end in a *projection*, an adapter trained behind a frozen model: a linear map of its embedding.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from safetensors.torch import load_file

from index.encoders.heads import Heads, heads_from, q_function
from index.encoders.int8 import from_int8
from index.episodes.calibration import Calibration
from index.episodes.head import FORMER_SUMMARY, SUMMARY, Head
from index.episodes.rules import STOP_RULES, has_learned
from index.episodes.stopping import UNTAUGHT, Stopping
from index.errors import CheckpointError
from index.search.function import QFunction
from index.search.positions import Positions
from index.search.signals.lexical import Saturation
from qrag.wire.models import FrozenModel

FORMAT_VERSION: Literal[1] = 1
"""Format of ``qrag.json`` that is read and written."""

CONFIG_FILE = "qrag.json"
"""Name of the file that describes a checkpoint."""

DENSE = "model.safetensors"
"""Where sentence-transformers keeps the weights of a linear map, inside its folder."""

PACKED_FILE = "weights.int8.safetensors"
"""Name of the file with a packed tower's weights, inside its folder."""

SHARED_FILE = "shared.int8.safetensors"
"""Name of the file with the weights that two packed towers share."""

STOPPING_FILE = "stopping.safetensors"
"""Name of the file with the STOP action and the sufficiency head."""

SIGNALS_FILE = "signals.safetensors"
"""Name of the file with the heads on the state tower (:mod:`index.encoders.heads`)."""

HEAD = tuple(field.name for field in fields(Head))
"""Names of the head's tensors."""

Pooling = Literal["mean", "cls", "last"]
"""How the hidden states of an input become one vector."""


class DirectoryTower(FrozenModel):
    """A tower stored inside the checkpoint."""

    kind: Literal["directory"] = "directory"
    path: str = Field(description="folder inside the checkpoint", pattern=r"^[A-Za-z0-9_-]+$")
    sha256: str = Field(description="checksum of its weights: see weights_sha256", pattern=r"^[0-9a-f]{64}$")


class PackageTower(FrozenModel):
    """A tower that is a base model carried by an installed Python package."""

    kind: Literal["package"] = "package"
    package: str = Field(description="importable name of the package", pattern=r"^[A-Za-z0-9_]+$")
    path: str = Field(description="folder inside the package", pattern=r"^[A-Za-z0-9_-]+$")
    distribution: str = Field(description="name to install it by")
    sha256: str = Field(description="checksum of its weights: see weights_sha256", pattern=r"^[0-9a-f]{64}$")


class PatchedTower(FrozenModel):
    """A tower that differs from a base model in some weights, which are stored inside the checkpoint."""

    kind: Literal["patched"] = "patched"
    base: PackageTower
    path: str = Field(description="folder inside the checkpoint", pattern=r"^[A-Za-z0-9_-]+$")
    sha256: str = Field(description="checksum of what differs: see weights_sha256", pattern=r"^[0-9a-f]{64}$")


class PackedTower(FrozenModel):
    """A tower stored inside the checkpoint in one byte a number (:mod:`index.encoders.int8`)."""

    kind: Literal["int8"] = "int8"
    path: str = Field(description="folder inside the checkpoint", pattern=r"^[A-Za-z0-9_-]+$")
    sha256: str = Field(description="checksum of its weights, then of the shared ones", pattern=r"^[0-9a-f]{64}$")
    shared: bool = Field(False, description="whether weights that both towers have are in a file of their own")


TowerSource = Annotated[DirectoryTower | PackageTower | PatchedTower | PackedTower, Field(discriminator="kind")]
"""Where a tower's weights are."""

PROJECTION = "projection"
"""In a patch, the tensors ``projection.weight`` and ``projection.bias`` are those of a linear map behind the model."""


class StoppingSource(FrozenModel):
    """What the checkpoint has learned about stopping, beside the tensors of ``stopping.safetensors``."""

    sha256: str = Field(description="checksum of the file", pattern=r"^[0-9a-f]{64}$")
    fitted_action: bool = Field(False, description="whether STOP was fitted to towers that were trained without it")
    calibration: Calibration | None = Field(None, description="none before `python -m trainer calibrate`")


class SignalsSource(FrozenModel):
    """What the checkpoint reads of a state beside its embedding: the tensors of ``signals.safetensors``."""

    sha256: str = Field(description="checksum of the file", pattern=r"^[0-9a-f]{64}$")
    saturation: Saturation = Field(Saturation(), description="how much repeated tokens and long chunks count")


class CheckpointConfig(FrozenModel):
    """The content of ``qrag.json``."""

    format_version: Literal[1] = FORMAT_VERSION
    name: str
    base_model: str = Field(description="name of the encoder that training started from")
    dimension: int = Field(gt=0, multiple_of=2, description="size d of state and chunk embeddings")
    state: TowerSource
    action: TowerSource
    pooling: Pooling = "mean"
    normalize: bool = True
    separator: str = Field(description="between the question and the chunks of a state")
    state_prefix: str = ""
    action_prefix: str = ""
    state_tokens: int = Field(gt=8, description="most tokens the state tower reads, special tokens included")
    action_tokens: int = Field(gt=8, description="most tokens the action tower reads, special tokens included")
    headings: bool = Field(False, description="whether the towers read a chunk below its document's title")
    positions: Positions = Positions()
    question_share: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="weight of E_a(question) in a state embedding: see Encoder.embed_states",
    )
    first_share: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="weight of the question's own state in every later one: see Encoder.embed_states",
    )
    signals: SignalsSource | None = Field(
        None, description="none where the embedding alone is read of a state, as in the paper"
    )
    w: float = Field(1.0, allow_inf_nan=False)
    b: float = Field(0.0, allow_inf_nan=False)
    temperature: float = Field(
        0.05,
        gt=0,
        allow_inf_nan=False,
        description="of the policy softmax(Q / temperature), by which a beam compares paths",
    )
    stopping: StoppingSource | None = Field(None, description="none where stopping was not learned")
    training: dict[str, Any] | None = Field(
        None, description="provenance: data, seed, commit, metrics; none for an untrained pair"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_former_fields(cls, data: Any) -> Any:
        # Earlier versions always wrote ``stop_threshold``, without a value.
        if isinstance(data, dict) and data.get("stop_threshold", 0) is None:
            data = {key: value for key, value in data.items() if key != "stop_threshold"}
        return data

    def function(self, heads: Heads) -> QFunction:
        """The Q-function around the two towers and the heads."""
        return q_function(self.w, self.b, self.positions, self.temperature, heads)

    @property
    def fingerprint(self) -> str:
        """A SHA-256 (hexadecimal) of everything that decides what greedy episodes with a fixed budget select."""
        content = self.model_dump_json(exclude={"name", "base_model", "temperature", "stopping", "training"})
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def action_fingerprint(self) -> str:
        """A SHA-256 (hexadecimal) that changes exactly when the same chunk would get another embedding."""
        parts = {
            "weights": _weights_identity(self.action),
            "dimension": self.dimension,
            "pooling": self.pooling,
            "normalize": self.normalize,
            "prefix": self.action_prefix,
            "tokens": self.action_tokens,
            **({"headings": True} if self.headings else {}),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _weights_identity(source: TowerSource) -> str:
    return f"{source.base.sha256}+{source.sha256}" if isinstance(source, PatchedTower) else source.sha256


def read_config(directory: Path) -> CheckpointConfig:
    """Read and check ``qrag.json``.

    Raises :class:`CheckpointError` if it is missing, of another format version, or malformed.
    """
    path = directory / CONFIG_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{directory} is not a checkpoint: it has no {CONFIG_FILE}. Give the directory of one."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version!r}; this software reads {FORMAT_VERSION}. "
            "Export the checkpoint again, or install the version that wrote it."
        )
    try:
        return CheckpointConfig.model_validate(data)
    except ValidationError as error:
        raise CheckpointError(f"{path} is malformed: {error}") from error


def weights_sha256(tower: Path) -> str:
    """SHA-256 over a tower's safetensors files in the order of their names, a projection's last; hexadecimal."""
    digest = hashlib.sha256()
    for path in [*sorted(tower.glob("*.safetensors")), *sorted(tower.glob(f"*_Dense/{DENSE}"))]:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def packed_sha256(checkpoint: Path, name: str, *, shared: bool) -> str:
    """SHA-256 (hexadecimal) over the file of a packed tower and, where there is one, that of the shared weights."""
    files = [checkpoint / name / PACKED_FILE, *([checkpoint / SHARED_FILE] if shared else [])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def packed_weights(checkpoint: Path, source: PackedTower) -> dict[str, torch.Tensor]:
    """All tensors of a packed tower in single precision, those of a projection as ``projection.weight`` and so on.

    Raises :class:`CheckpointError` if they are missing or differ from the recorded checksum.
    """
    remedy = "Copy the whole checkpoint again."
    try:
        actual = packed_sha256(checkpoint, source.path, shared=source.shared)
    except OSError as error:
        raise CheckpointError(f"The weights of {checkpoint / source.path} cannot be read: {error}. {remedy}") from error
    if actual != source.sha256:
        raise CheckpointError(f"The weights of {checkpoint / source.path} do not have the recorded checksum. {remedy}")
    stored = load_file(checkpoint / source.path / PACKED_FILE)
    if source.shared:
        stored |= load_file(checkpoint / SHARED_FILE)
    return from_int8(stored)


def patch_of(checkpoint: Path, source: TowerSource) -> dict[str, torch.Tensor]:
    """The tensors that a checkpoint stores beside a tower's model: replaced weights, and those of a projection.

    The projection's are named ``projection.weight`` and ``projection.bias``. Raises :class:`CheckpointError` if a
    patch is missing or differs from the recorded checksum.
    """
    if isinstance(source, PatchedTower):
        directory = _verified(checkpoint / source.path, source.sha256, "Copy the whole checkpoint again.")
        return load_file(directory / "patch.safetensors")
    if isinstance(source, DirectoryTower):
        for path in sorted((checkpoint / source.path).glob(f"*_Dense/{DENSE}")):
            return {key.replace("linear", PROJECTION, 1): value for key, value in load_file(path).items()}
    return {}


def read_heads(checkpoint: Path, config: CheckpointConfig) -> Heads:
    """Read what :func:`index.encoders.writing.write_signals` wrote.

    Raises :class:`CheckpointError` if it is missing, differs from the recorded checksum, or does not fit the towers.
    """
    remedy = "Copy the whole checkpoint again."
    heads = Heads()
    if config.signals is not None:
        file = checkpoint / SIGNALS_FILE
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != config.signals.sha256:
            raise CheckpointError(f"{file} is missing or does not have the recorded checksum. {remedy}")
        try:
            heads = heads_from(load_file(file), config.signals.saturation)
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{file} is malformed: {error} {remedy}") from error
    sizes: set[tuple[int | None, int]] = set()
    if heads.terms is not None:
        sizes.add((config.dimension, heads.terms.weight.shape[1]))
    if heads.order is not None:
        sizes |= {(config.dimension, heads.order.map.shape[1]), (config.positions.dimension, heads.order.map.shape[0])}
    if heads.surroundings is not None:
        sizes.add((config.dimension, len(heads.surroundings.gate)))
    if any(claimed != actual for claimed, actual in sizes) or (
        config.positions.dimension is not None and heads.order is None
    ):
        raise CheckpointError(f"{config.name} has heads that do not fit its dimension or its positions. {remedy}")
    return heads


def read_stopping(checkpoint: Path, config: CheckpointConfig) -> Stopping:
    """Read what :func:`index.encoders.writing.write_stopping` wrote.

    Raises :class:`CheckpointError` if it is missing, differs from the recorded checksum, or does not fit the towers.
    """
    if config.stopping is None:
        return UNTAUGHT
    file = checkpoint / STOPPING_FILE
    remedy = "Copy the whole checkpoint again."
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != config.stopping.sha256:
        raise CheckpointError(f"{file} is missing or does not have the recorded checksum. {remedy}")
    tensors = {name: value.double().numpy() for name, value in load_file(file).items()}
    action = tensors.pop("action", None)
    head = Head(**tensors) if set(tensors) == set(HEAD) else None
    widths = {(config.dimension + summary,) for summary in (FORMER_SUMMARY, SUMMARY)}
    if (
        (tensors and head is None)
        or (action is not None and action.shape != (config.dimension,))
        or (head is not None and (head.hidden_weight.shape[1:] not in widths or len(head.output_bias) != 3))
    ):
        raise CheckpointError(f"{file} does not fit the checkpoint's dimension {config.dimension}. {remedy}")
    stopping = Stopping(action, head)
    learned = {name for name, rule in STOP_RULES.items() if has_learned(stopping, rule)}
    if config.stopping.calibration is not None and not learned.issuperset(config.stopping.calibration.curves):
        raise CheckpointError(f"{file} lacks what a calibrated rule needs. {remedy}")
    return stopping


def tower_directory(checkpoint: Path, source: TowerSource) -> Path:
    """The folder of a tower's model, its weights verified; for a patched tower, the folder of its base model.

    Raises :class:`CheckpointError` if they are missing or differ from the recorded checksum.
    """
    if isinstance(source, DirectoryTower):
        return _verified(checkpoint / source.path, source.sha256, "Copy the whole checkpoint again.")
    if isinstance(source, PackedTower):
        return checkpoint / source.path
    if isinstance(source, PatchedTower):
        source = source.base
    remedy = f"Install the pinned version of {source.distribution}."
    spec = importlib.util.find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"The base model's package {source.package} is not installed. {remedy}")
    return _verified(Path(spec.submodule_search_locations[0]) / source.path, source.sha256, remedy)


def _verified(directory: Path, sha256: str, remedy: str) -> Path:
    if not any(directory.glob("*.safetensors")):
        raise CheckpointError(f"{directory} has no safetensors file. {remedy}")
    if weights_sha256(directory) != sha256:
        raise CheckpointError(f"The weights in {directory} do not have the recorded checksum. {remedy}")
    return directory
