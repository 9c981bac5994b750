"""What a run needs to go on bit for bit: weights, optimiser, averages, chunk embeddings, random numbers.

Tensors are kept as safetensors and everything else as JSON; a state is replaced as a whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from trainer.errors import ResumeError
from trainer.learning.learner import Learner

FOLDER = "state"


def save_state(run: Path, learner: Learner, extra: dict[str, Any]) -> None:
    """Write ``run/state``; ``extra`` is whatever else the caller must find again (JSON)."""
    temporary = run / f"{FOLDER}.new"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors: dict[str, torch.Tensor] = {}
    for name, master in learner.masters.values.items():
        tensors[f"master.{name}"] = master.detach()
        tensors[f"average.{name}"] = learner.average[name]
        for key, value in learner.optimizer.state.get(master, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value
    tensors["torch"] = torch.get_rng_state()
    tensors["chunks"] = learner.table.vectors
    save_file(
        {name: value.cpu().contiguous().clone() for name, value in tensors.items()}, temporary / "state.safetensors"
    )
    with (temporary / "state.safetensors").open("rb") as file:
        os.fsync(file.fileno())
    content = {
        "seen": learner.seen,
        "updates": learner.updates,
        "generator": learner.generator.bit_generator.state,
        "chunks": list(learner.table.row),
        "extra": extra,
    }
    with (temporary / "state.json").open("w", encoding="utf-8", errors="surrogatepass") as written:
        json.dump(content, written)
        written.flush()
        os.fsync(written.fileno())
    old = run / f"{FOLDER}.old"
    if (run / FOLDER).exists():  # if not, an interrupted call has left the last whole state in `old`
        shutil.rmtree(old, ignore_errors=True)
        (run / FOLDER).rename(old)
    temporary.rename(run / FOLDER)
    shutil.rmtree(old, ignore_errors=True)


def stored_state(run: Path) -> Path | None:
    """The folder with the last state that was written whole, if there is one."""
    return next((run / name for name in (FOLDER, f"{FOLDER}.old") if (run / name / "state.json").exists()), None)


def load_state(run: Path, learner: Learner) -> dict[str, Any]:
    """Put a learner where :func:`save_state` left it; returns ``extra``.

    Raises :class:`~trainer.errors.ResumeError` if there is no state or it belongs to another recipe.
    """
    folder = stored_state(run)
    if folder is None:
        raise ResumeError(f"{run} has no state to resume from. Start it without --resume.")
    content = json.loads((folder / "state.json").read_text(encoding="utf-8", errors="surrogatepass"))
    tensors = load_file(folder / "state.safetensors")
    names = {name.removeprefix("master.") for name in tensors if name.startswith("master.")}
    if names != set(learner.masters.values):
        raise ResumeError(
            f"{run} was trained with other parameters than the recipe names. Use the recipe it began with."
        )
    with torch.no_grad():
        for name, master in learner.masters.values.items():
            master.copy_(tensors[f"master.{name}"])
            learner.average[name].copy_(tensors[f"average.{name}"])
            learner.optimizer.state[master] = {
                key.split(".")[1]: value.to(master.device) if key.split(".")[1] != "step" else value
                for key, value in tensors.items()
                if key.startswith("optimizer.") and key.split(".", 2)[2] == name
            }
    learner.masters.publish()
    learner.publish_target()
    learner.table.restore(content["chunks"], tensors["chunks"])
    learner.generator.bit_generator.state = content["generator"]
    learner.seen, learner.updates = content["seen"], content["updates"]
    torch.set_rng_state(tensors["torch"])
    extra: dict[str, Any] = content["extra"]
    return extra
