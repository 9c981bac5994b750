"""Checkpoints: going on from one, writing what was trained, averaging two, and exporting one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from index.encoders.checkpoint import (
    CheckpointConfig,
    PackageTower,
    PackedTower,
    TowerSource,
    read_config,
    tower_directory,
)
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.encoders.writing import (
    write_config,
    write_packed,
    write_patch,
    write_signals,
    write_stopping,
    write_tower,
)
from index.episodes.stopping import Stopping
from trainer.bases.models import MINILM, base_directory, base_of, base_source, start_directory
from trainer.errors import RecipeError
from trainer.learning.learner import Learner
from trainer.learning.networks import QNetwork
from trainer.recipe import Recipe

SHARED_FIELDS = (
    "dimension",
    "pooling",
    "normalize",
    "separator",
    "state_prefix",
    "action_prefix",
    "headings",
    "positions",
)
"""What a run keeps of the checkpoint that it starts from."""


def start_from(network: QNetwork, checkpoint: Path) -> None:
    """Put a network that was built from the base model where another run left a checkpoint.

    Raises :class:`~index.errors.CheckpointError` if it cannot be read, :class:`~trainer.errors.RecipeError` where the
    recipe would train something else than it is.
    """
    config, expected = read_config(checkpoint), network.encoder.config
    for name in SHARED_FIELDS:
        if (theirs := getattr(config, name)) != (ours := getattr(expected, name)):
            raise RecipeError(f"start: {checkpoint} has {name} {theirs}, the recipe {ours}. Use the same.")
    encoder = load_encoder(checkpoint, device=str(network.w.device), dtype=network.state.dtype)
    towers = [
        (network.state, encoder.state_tower, config.state),
        (network.action, encoder.action_tower, config.action),
    ]
    with torch.no_grad():
        for model, tower, source in towers:
            trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
            theirs = dict(tower.model.named_parameters())
            for name, parameter in model.named_parameters():
                # What is not trained must be the base model's, but for the rounding of a packed checkpoint.
                if (
                    theirs.get(name) is None
                    or theirs[name].shape != parameter.shape
                    or not (name in trained or isinstance(source, PackedTower) or torch.equal(theirs[name], parameter))
                ):
                    raise RecipeError(
                        f"start: {checkpoint} differs from the recipe's base model in {name}, which the recipe does "
                        "not train. Set base and action_mode as it was trained with."
                    )
                parameter.copy_(theirs[name])
        if encoder.action_tower.projection is not None:
            if network.projection is None:
                raise RecipeError(f"start: {checkpoint} has an adapter. Set action_mode to adapter.")
            network.projection.load_state_dict(encoder.action_tower.projection.state_dict())
        if network.stop is not None and encoder.stopping.action is not None:
            network.stop.copy_(torch.from_numpy(encoder.stopping.action))
        network.w.fill_(config.w)
        network.b.fill_(config.b)


def write_checkpoint(directory: Path, recipe: Recipe, learner: Learner, validation: Mapping[str, Any]) -> None:
    """The networks as they are.

    Towers of the packaged base model are stored as what differs from it, in bfloat16: half the size, whatever they were
    trained in. Those of another base are stored whole, in the precision in which they were trained, and so are those
    that go on from a packed checkpoint: all of their weights may differ.
    """
    directory.mkdir(parents=True, exist_ok=True)
    name_of_base = base_of(recipe)
    base = base_directory(name_of_base)
    network = learner.network
    patched = name_of_base == MINILM and not _starts_packed(recipe)
    towers: dict[str, TowerSource] = {}
    for name, model, projection in (
        ("state", network.state, None),
        ("action", network.action, network.projection),
    ):
        if patched:
            changed = {key: value.bfloat16() for key, value in model.named_parameters() if value.requires_grad}
            source = base_source(name_of_base, base)
            assert isinstance(source, PackageTower)
            differs = changed or projection is not None
            towers[name] = write_patch(directory, name, changed, source, projection) if differs else source
        else:
            towers[name] = write_tower(
                directory,
                name,
                model,
                AutoTokenizer.from_pretrained(base),
                pooling=recipe.pooling,
                normalize=recipe.normalize,
                max_tokens=recipe.state_tokens if name == "state" else recipe.action_tokens,
                projection=projection,
            )
    stopping = None
    if network.stop is not None:
        stopping = write_stopping(directory, Stopping(network.stop.detach().double().cpu().numpy(), head=None))
    config = network.encoder.config.model_copy(
        update={
            **towers,
            "signals": write_signals(directory, network.heads),
            "stopping": stopping,
            "w": learner.function.w,
            "b": learner.function.b,
            "training": {
                "recipe": json.loads(recipe.model_dump_json()),
                "seed": recipe.seed,
                **({} if recipe.start is None else {"start": read_config(start_directory(recipe.start)).training}),
                "commit": _commit(),
                "validation": dict(validation),
            },
        }
    )
    write_config(directory, config)


def _starts_packed(recipe: Recipe) -> bool:
    if recipe.start is None:
        return False
    config = read_config(start_directory(recipe.start))
    return any(isinstance(source, PackedTower) for source in (config.state, config.action))


def pack(checkpoint: Path, destination: Path) -> CheckpointConfig:
    """Copy a checkpoint with both towers in one byte a number: a quarter of the size, and nothing else is needed.

    Raises :class:`~index.errors.CheckpointError` if it cannot be read, :class:`~trainer.errors.RecipeError` if the
    destination holds something or the towers have different tokenizers.
    """
    encoder, config = _opened(checkpoint, destination)
    directories = [tower_directory(checkpoint, source) for source in (config.state, config.action)]
    if len({(directory / "tokenizer.json").read_bytes() for directory in directories}) > 1:
        raise RecipeError(f"{checkpoint} has towers with different tokenizers: these cannot be packed together.")
    towers = write_packed(
        destination,
        {
            "state": (encoder.state_tower.model, encoder.state_tower.projection),
            "action": (encoder.action_tower.model, encoder.action_tower.projection),
        },
        AutoTokenizer.from_pretrained(directories[0]),
    )
    return _finish_copy(checkpoint, destination, encoder, config.model_copy(update={**towers}))


def average(first: Path, second: Path, share: float, destination: Path) -> CheckpointConfig:
    """Write the checkpoint between two: ``share`` of the second, the rest of the first, both towers whole.

    Where one was trained on from the other, what lies between them often keeps most of what each does best (Wortsman
    et al. 2022, arXiv 2203.05482).

    Shares of the question in a state are averaged, too; all else is the second's. What the first has learned of when to
    stop is lost: calibrate the result. Raises :class:`~index.errors.CheckpointError` if one cannot be read,
    :class:`~trainer.errors.RecipeError` where they are of different kinds or the destination holds something.
    """
    if destination.exists() and any(destination.iterdir()):
        raise RecipeError(f"{destination} is not empty. Average into a new folder.")
    configs = [read_config(folder) for folder in (first, second)]
    for name in SHARED_FIELDS:
        if len({repr(getattr(config, name)) for config in configs}) > 1:
            raise RecipeError(f"{first} and {second} differ in {name}: their average would be neither.")
    earlier, later = (load_encoder(folder, device="cpu", dtype=torch.float32) for folder in (first, second))
    pairs = [
        (earlier.state_tower.model, later.state_tower.model),
        (earlier.action_tower.model, later.action_tower.model),
        (earlier.action_tower.projection, later.action_tower.projection),
        (earlier.heads, later.heads),
    ]
    for theirs, ours in pairs:
        if (theirs is None) != (ours is None):
            raise RecipeError(f"{first} and {second} have different parts: train them by the same recipe.")
        if theirs is not None and ours is not None:
            _blend(theirs, ours, share)
    towers = {
        name: write_tower(
            destination,
            name,
            tower.model,
            AutoTokenizer.from_pretrained(tower_directory(second, source)),
            pooling=configs[1].pooling,
            normalize=configs[1].normalize,
            max_tokens=limit,
            projection=tower.projection,
        )
        for name, source, tower, limit in (
            ("state", configs[1].state, later.state_tower, configs[1].state_tokens),
            ("action", configs[1].action, later.action_tower, configs[1].action_tokens),
        )
    }
    stops = [encoder.stopping.action for encoder in (earlier, later)]
    stopping = None
    if stops[0] is not None and stops[1] is not None:
        stopping = write_stopping(destination, Stopping((1 - share) * stops[0] + share * stops[1], head=None))
    averaged = configs[1].model_copy(
        update={
            **towers,
            "signals": write_signals(destination, later.heads),
            "stopping": stopping,
            **{
                name: (1 - share) * getattr(configs[0], name) + share * getattr(configs[1], name)
                for name in ("w", "b", "question_share", "first_share")
            },
            "training": {"average": [config.training for config in configs], "share": share},
        }
    )
    write_config(destination, averaged)
    return averaged


@torch.no_grad()
def _blend(earlier: torch.nn.Module, later: torch.nn.Module, share: float) -> None:
    """Move the parameters of the later module back towards the earlier's."""
    theirs, ours = (dict(module.named_parameters()) for module in (earlier, later))
    lost = [name for name in theirs if name not in ours and not name.startswith("pooler.")]  # which is not used
    for name in (*lost, *ours):
        if name in lost or name not in theirs or theirs[name].shape != ours[name].shape:
            raise RecipeError(f"The checkpoints differ in {name}: train them by the same recipe.")
        ours[name].copy_(theirs[name].lerp(ours[name], share))


def export(checkpoint: Path, destination: Path) -> CheckpointConfig:
    """Copy a checkpoint with both towers whole, as sentence-transformers loads them: ``state/`` and ``action/``.

    Raises :class:`~index.errors.CheckpointError` if it cannot be read, :class:`~trainer.errors.RecipeError` if the
    destination holds something.
    """
    encoder, config = _opened(checkpoint, destination)
    towers = {
        name: write_tower(
            destination,
            name,
            tower.model,
            AutoTokenizer.from_pretrained(tower_directory(checkpoint, source)),
            pooling=config.pooling,
            normalize=config.normalize,
            max_tokens=limit,
            projection=tower.projection,
        )
        for name, source, tower, limit in (
            ("state", config.state, encoder.state_tower, config.state_tokens),
            ("action", config.action, encoder.action_tower, config.action_tokens),
        )
    }
    return _finish_copy(checkpoint, destination, encoder, config.model_copy(update={**towers}))


def _opened(checkpoint: Path, destination: Path) -> tuple[Encoder, CheckpointConfig]:
    """What is to be copied, in single precision, and its description; the destination is a new folder."""
    if destination.exists() and any(destination.iterdir()):
        raise RecipeError(f"{destination} is not empty. Export into a new folder.")
    destination.mkdir(parents=True, exist_ok=True)
    return load_encoder(checkpoint, device="cpu", dtype=torch.float32), read_config(checkpoint)


def _finish_copy(checkpoint: Path, destination: Path, encoder: Encoder, config: CheckpointConfig) -> CheckpointConfig:
    """Write what stands beside the towers."""
    stopping = None
    if config.stopping is not None:
        learned = config.stopping
        stopping = write_stopping(
            destination, encoder.stopping, learned.calibration, fitted_action=learned.fitted_action
        )
    signals = write_signals(destination, encoder.heads)
    copied = config.model_copy(update={"signals": signals, "stopping": stopping})
    write_config(destination, copied)
    for card in checkpoint.glob("README.md"):
        (destination / card.name).write_text(card.read_text(encoding="utf-8"), encoding="utf-8")
    return copied


def _commit() -> str | None:
    """The commit of the code that trained, if it runs from a checkout."""
    spec = importlib.util.find_spec("trainer")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent.parent
    if not (root / ".git").exists():
        return None
    answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
