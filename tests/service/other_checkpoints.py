"""Checkpoints that a server can change to, and documents to tell them apart by."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx

from index.encoders.checkpoint import read_config
from index.encoders.writing import write_config
from tests.random_checkpoints import write_random_checkpoint
from tests.service.helpers import add

TEXTS = {
    f"d{number}": " ".join(f"Person {number} took thing {at} to place {at * number % 17}." for at in range(40))
    for number in range(6)
}
QUESTION = "Where is thing 7?"


def write_other_checkpoints(folder: Path, tiny_checkpoint: Path) -> None:
    """Write ``wide``, ``same-actions`` with the action tower of the tiny one, ``damaged``, and ``short``."""
    write_random_checkpoint(folder / "wide", dimension=64, seed=7)
    # Another state tower behind the same action tower: nothing has to be embedded.
    shutil.copytree(tiny_checkpoint, folder / "same-actions")
    config = read_config(folder / "same-actions")
    write_config(folder / "same-actions", config.model_copy(update={"w": 3.0, "name": "same actions"}))
    shutil.copytree(tiny_checkpoint, folder / "damaged")
    (folder / "damaged" / "action" / "model.safetensors").write_bytes(b"nothing")
    write_random_checkpoint(folder / "short", dimension=16, seed=8)
    short = read_config(folder / "short")
    write_config(folder / "short", short.model_copy(update={"action_tokens": 12}))


def fill(client: httpx.Client) -> None:
    """Index the documents."""
    for id, text in TEXTS.items():
        add(client, text, id=id)
