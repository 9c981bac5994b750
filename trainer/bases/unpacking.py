"""The base model that a packed checkpoint holds, as transformers loads it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoTokenizer

from index.encoders.checkpoint import PackedTower, read_config, tower_directory
from index.encoders.loading import load_encoder
from trainer.bases.placing import place


def unpack_base(checkpoint: Path, folder: Path) -> Path:
    """Write the model of the action tower below ``folder``, without what was trained behind it; returns where.

    Nothing is done where it is there already. Raises :class:`~index.errors.CheckpointError` if the checkpoint cannot be
    read.
    """
    config = read_config(checkpoint)
    assert isinstance(config.action, PackedTower)
    directory = folder / f"unpacked-{config.action.sha256[:16]}"
    if directory.is_dir():
        return directory
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:  # whole or not at all
        new = Path(temporary) / "model"
        load_encoder(checkpoint, device="cpu", dtype=torch.float32).action_tower.model.save_pretrained(new)
        AutoTokenizer.from_pretrained(tower_directory(checkpoint, config.action)).save_pretrained(new)
        for weights in new.glob("*.safetensors"):
            shutil.copymode(new / "config.json", weights)  # safetensors lets its owner alone read it
        place(new, directory)
    return directory
