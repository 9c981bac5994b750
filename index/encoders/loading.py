"""From a checkpoint directory to a loaded :class:`~index.encoders.encoder.Encoder`, on a device, in a precision."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from index.encoders.checkpoint import (
    PROJECTION,
    CheckpointConfig,
    PackedTower,
    TowerSource,
    packed_weights,
    patch_of,
    read_config,
    read_heads,
    read_stopping,
    tower_directory,
)
from index.encoders.encoder import Encoder
from index.encoders.tokenizer import TextTokenizer
from index.encoders.tower import Tower
from index.errors import CheckpointError

transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a progress bar for six layers clutters the log
transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what is missing is checked below, and said


def resolve_device(name: str) -> torch.device:
    """The torch device of this name; ``auto`` is the GPU where there is one.

    Raises :class:`~index.errors.CheckpointError` where there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CheckpointError(f"QRAG_DEVICE={name} is no device of torch. Set auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("QRAG_DEVICE asks for a GPU and torch sees none. Set QRAG_DEVICE=auto.")
    return device


def compute_dtype(device: torch.device) -> torch.dtype:
    """What models compute in on a device: bfloat16 where that is faster, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native and _bfloat16_is_faster() else torch.float32


@cache
def _bfloat16_is_faster() -> bool:
    """Whether this processor multiplies matrices faster in bfloat16 than in float32: measured, in a tenth of a second.

    Its instructions do not tell: those of AVX512-BF16 are twice as fast as float32's on some processors and half as
    fast on others, whose makers meant AMX to be used. Every process of a machine must find the same, or they give the
    same question other Q-values: one thread's own processor time is the same however busy the others are.
    """
    seconds = {torch.bfloat16: math.inf, torch.float32: math.inf}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            layers = {dtype: torch.nn.Linear(384, 1536, dtype=dtype) for dtype in seconds}
            rows = {dtype: torch.ones(1024, 384, dtype=dtype) for dtype in seconds}
            for _ in range(4):
                for dtype, layer in layers.items():
                    start = time.thread_time()
                    layer(rows[dtype])
                    seconds[dtype] = min(seconds[dtype], time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return seconds[torch.bfloat16] < seconds[torch.float32]


def load_encoder(checkpoint: Path, *, device: str = "auto", dtype: torch.dtype | None = None) -> Encoder:
    """Load a checkpoint directory; weights are verified and only safetensors are read.

    Raises :class:`~index.errors.CheckpointError` if it cannot be loaded or contradicts itself.
    """
    config = read_config(checkpoint)
    torch_device = resolve_device(device)
    directories = {source: tower_directory(checkpoint, source) for source in (config.state, config.action)}
    tokenizer_files = [directory / "tokenizer.json" for directory in directories.values()]
    if config.question_share and len({file.read_bytes() for file in tokenizer_files}) > 1:
        raise CheckpointError(
            f"{config.name} has a question_share, so both towers read the question, but their tokenizers differ. "
            "Export the checkpoint again with towers of one base model."
        )
    models: dict[TowerSource, PreTrainedModel] = {}
    towers: dict[TowerSource, Tower] = {}
    for source, directory in directories.items():
        precision = dtype or compute_dtype(torch_device)
        if isinstance(source, PackedTower):
            models[source] = build_model(directory, torch_device, precision)
            patch = packed_weights(checkpoint, source)
        else:
            models[source] = load_model(directory, torch_device, precision)
            patch = patch_of(checkpoint, source)
        towers[source] = Tower(
            models[source],
            _load_tokenizer(directory),
            pooling=config.pooling,
            normalize=config.normalize,
            projection=_apply_patch(models[source], patch, config, whole=isinstance(source, PackedTower)),
        )
    for source, model in models.items():
        size: int = model.config.hidden_size
        if size != config.dimension:
            raise CheckpointError(
                f"{config.name} claims dimension {config.dimension}, but {directories[source].name} has {size}. "
                "Export the checkpoint again."
            )
    return Encoder(
        config,
        towers[config.state],
        towers[config.action],
        read_stopping(checkpoint, config),
        read_heads(checkpoint, config).to(torch_device),
    )


def _apply_patch(
    model: PreTrainedModel, tensors: Mapping[str, torch.Tensor], config: CheckpointConfig, *, whole: bool
) -> torch.nn.Linear | None:
    """Replace the weights of a model that a checkpoint stores; returns the projection behind it, if there is one.

    ``whole`` says that all of the model's weights are stored.
    """
    prefix = f"{PROJECTION}."
    projection_weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    replaced_weights = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    remedy = "Export the checkpoint again."
    try:
        missing, unknown = model.load_state_dict(replaced_weights, strict=False)
        if unknown:
            raise CheckpointError(f"{config.name} replaces {unknown[0]}, which its base model does not have. {remedy}")
        if whole and (lacking := [name for name in missing if not name.startswith("pooler.")]):
            raise CheckpointError(f"The weights of {config.name} lack {lacking[0]}. {remedy}")
        if not projection_weights:
            return None
        projection = torch.nn.Linear(model.config.hidden_size, config.dimension)
        projection.load_state_dict(projection_weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights that {config.name} stores do not fit its base model: {error} {remedy}"
        ) from error
    return projection.requires_grad_(False).to(model.device)


def _load_tokenizer(directory: Path) -> TextTokenizer:
    # Without this file transformers makes up a vocabulary in which every word is unknown.
    if not (directory / "tokenizer.json").is_file():
        raise CheckpointError(f"{directory} has no tokenizer.json. Export the checkpoint again.")
    try:
        return TextTokenizer(directory)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"transformers cannot load the tokenizer in {directory}: {error} Export the checkpoint again."
        ) from error


def build_model(directory: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A model in evaluation mode as its ``config.json`` describes it, whose weights mean nothing yet.

    Raises :class:`CheckpointError` if transformers does not know it.
    """
    try:
        model: PreTrainedModel = AutoModel.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.from_pretrained(directory, local_files_only=True), trust_remote_code=False, dtype=dtype
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"transformers cannot build {directory}: {error} Copy the checkpoint again.") from error
    model.config.use_cache = False
    torch.nn.Module.eval(model)
    torch.nn.Module.to(model, device)
    return model


def load_model(directory: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """A tower's model in evaluation mode.

    Raises :class:`~index.errors.CheckpointError` if it cannot be loaded whole.
    """
    try:
        model: PreTrainedModel
        model, loading = AutoModel.from_pretrained(
            directory,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"transformers cannot load {directory}: {error} Export the checkpoint again.") from error
    # transformers fills missing parameters with random numbers; only the pooler is not used here.
    if missing := sorted(key for key in loading["missing_keys"] if not key.startswith("pooler.")):
        raise CheckpointError(
            f"The weights in {directory} lack {len(missing)} parameters of its config.json, {missing[0]} for one. "
            "Export the checkpoint again."
        )
    model.config.use_cache = False
    torch.nn.Module.eval(model)
    torch.nn.Module.to(model, device)
    return model
