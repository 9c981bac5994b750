"""Writing checkpoints: whole towers, as transformers loads them, or what differs from a base model; stopping."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from index.encoders.checkpoint import (
    CONFIG_FILE,
    DENSE,
    HEAD,
    PACKED_FILE,
    PROJECTION,
    SHARED_FILE,
    SIGNALS_FILE,
    STOPPING_FILE,
    CheckpointConfig,
    DirectoryTower,
    PackageTower,
    PackedTower,
    PatchedTower,
    Pooling,
    SignalsSource,
    StoppingSource,
    packed_sha256,
    weights_sha256,
)
from index.encoders.heads import Heads
from index.encoders.int8 import to_int8
from index.episodes.calibration import Calibration
from index.episodes.stopping import Stopping
from index.search.signals.lexical import Saturation


def write_config(directory: Path, config: CheckpointConfig) -> None:
    """Write ``qrag.json`` into the checkpoint directory."""
    text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def write_tower(
    checkpoint: Path,
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    pooling: Pooling,
    normalize: bool,
    max_tokens: int,
    projection: torch.nn.Linear | None = None,
) -> DirectoryTower:
    """Write ``checkpoint/name`` so that transformers and sentence-transformers load it; safetensors only."""
    directory = checkpoint / name
    model.save_pretrained(directory)
    for weights in directory.glob("*.safetensors"):
        shutil.copymode(directory / "config.json", weights)  # see _write_tensors
    tokenizer.save_pretrained(directory)
    modules = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    if projection is not None:
        modules += ["Dense", "Normalize"]
    listing = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}" if number else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(modules)
    ]
    pooling_config = {
        "word_embedding_dimension": model.config.hidden_size,
        "pooling_mode_mean_tokens": pooling == "mean",
        "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_lasttoken": pooling == "last",
    }
    for folder in listing[1:]:
        (directory / str(folder["path"])).mkdir(exist_ok=True)
    if projection is not None:
        _write_dense(directory / str(listing[modules.index("Dense")]["path"]), projection)
    for path, content in (
        ("modules.json", listing),
        ("sentence_bert_config.json", {"max_seq_length": max_tokens}),
        ("1_Pooling/config.json", pooling_config),
    ):
        (directory / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return DirectoryTower(path=name, sha256=weights_sha256(directory))


def _write_dense(directory: Path, projection: torch.nn.Linear) -> None:
    """A linear map as sentence-transformers stores it."""
    config = {
        "in_features": projection.in_features,
        "out_features": projection.out_features,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_tensors(
        {f"linear.{key}": value for key, value in _projection_tensors(projection).items()}, directory / DENSE
    )


def _write_tensors(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Write a safetensors file with the permissions that new files have here.

    ``save_file`` of safetensors makes one that only its owner may read, and a service in a container is another user.
    """
    file.write_bytes(save(dict(tensors)))


def write_packed(
    checkpoint: Path,
    towers: Mapping[str, tuple[PreTrainedModel, torch.nn.Linear | None]],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, PackedTower]:
    """Write towers of one base model in one byte a number; weights that all of them have are written once.

    Each tower is a model and the projection behind it, if there is one.
    """
    weights = {name: dict(model.state_dict()) for name, (model, _) in towers.items()}
    first, *others = weights.values()
    shared = {
        name: value
        for name, value in first.items()
        if others and all(name in other and torch.equal(other[name], value) for other in others)
    }
    if shared:
        _write_tensors(to_int8(shared), checkpoint / SHARED_FILE)
    packed: dict[str, PackedTower] = {}
    for name, (model, projection) in towers.items():
        directory = checkpoint / name
        directory.mkdir(parents=True, exist_ok=True)
        model.config.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        own = {key: value for key, value in weights[name].items() if key not in shared}
        stored = to_int8(own)
        if projection is not None:
            stored |= {f"{PROJECTION}.{key}": value for key, value in _projection_tensors(projection).items()}
        _write_tensors(stored, directory / PACKED_FILE)
        sha256 = packed_sha256(checkpoint, name, shared=bool(shared))
        packed[name] = PackedTower(path=name, sha256=sha256, shared=bool(shared))
    return packed


def write_patch(
    checkpoint: Path,
    name: str,
    weights: Mapping[str, torch.Tensor],
    base: PackageTower,
    projection: torch.nn.Linear | None = None,
) -> PatchedTower:
    """Write ``checkpoint/name`` with the ``weights`` that differ from ``base``, in the precision they have."""
    directory = checkpoint / name
    directory.mkdir(exist_ok=True)
    tensors = {key: value.detach().contiguous().cpu() for key, value in weights.items()}
    if projection is not None:
        tensors |= {f"{PROJECTION}.{key}": value for key, value in _projection_tensors(projection).items()}
    _write_tensors(tensors, directory / "patch.safetensors")
    return PatchedTower(base=base, path=name, sha256=weights_sha256(directory))


def _projection_tensors(projection: torch.nn.Linear) -> dict[str, torch.Tensor]:
    return {key: value.detach().float().contiguous().cpu() for key, value in projection.state_dict().items()}


def write_signals(checkpoint: Path, heads: Heads) -> SignalsSource | None:
    """Write ``signals.safetensors``; none where there is no head."""
    tensors = {name: value.detach().float().contiguous().cpu() for name, value in heads.state_dict().items()}
    if not tensors:
        return None
    file = checkpoint / SIGNALS_FILE
    _write_tensors(tensors, file)
    saturation = Saturation() if heads.terms is None else heads.terms.saturation
    return SignalsSource(sha256=hashlib.sha256(file.read_bytes()).hexdigest(), saturation=saturation)


def write_stopping(
    checkpoint: Path, stopping: Stopping, calibration: Calibration | None = None, *, fitted_action: bool = False
) -> StoppingSource:
    """Write ``stopping.safetensors``."""
    tensors = {} if stopping.action is None else {"action": stopping.action}
    if stopping.head is not None:
        tensors |= {name: getattr(stopping.head, name) for name in HEAD}
    file = checkpoint / STOPPING_FILE
    _write_tensors({name: torch.from_numpy(np.array(value)).float() for name, value in tensors.items()}, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return StoppingSource(sha256=sha256, fitted_action=fitted_action, calibration=calibration)
