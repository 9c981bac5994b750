"""Handing a checkpoint over to a running service."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx

from qrag.client.blocking import Client
from qrag.client.proxies import proxy_settings
from qrag.wire.operations import CheckpointsOut
from trainer.bases.models import start_directory
from trainer.errors import RecipeError

CONFIGURED = "configured"
"""What a service calls the checkpoint that its settings name."""


PATIENCE = 600.0
"""Seconds that a change may take to begin: the checkpoint is loaded first."""


def present_checkpoint(client: Client, folder: Path, start: Path | None) -> Path:
    """Where the checkpoint that the service uses lies: ``start`` if given, else the one of its name in ``folder``.

    Raises :class:`~trainer.errors.RecipeError` where it is not there.
    """
    if start is not None:
        return start_directory(str(start))
    name = client.model().checkpoint
    if name == CONFIGURED or not (folder / name).is_dir():
        raise RecipeError(f"The service uses the checkpoint {name}, which is not in {folder}. Name it with --start.")
    return folder / name


def free(folder: Path, name: str) -> Path:
    """Where the checkpoint of this name will be; raises :class:`~trainer.errors.RecipeError` where one is there."""
    target = folder / name
    if target.exists():
        raise RecipeError(f"{target} exists already: choose another --name.")
    return target


def install(checkpoint: Path, folder: Path, name: str) -> Path:
    """Copy the checkpoint to where services find it, whole or not at all.

    Raises :class:`~trainer.errors.RecipeError` where one of this name is there.
    """
    target = free(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{name}.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(checkpoint, unfinished)
    unfinished.rename(target)
    return target


def handed_over(checkpoint: Path, folder: Path, name: str, url: str, key: str | None) -> str:
    """Install the checkpoint and let the service change to it; what came of it, with what is left to do.

    Raises :class:`~trainer.errors.RecipeError` as :func:`install` does.
    """
    target = install(checkpoint, folder, name)
    address = f"{url.rstrip('/')}/admin/checkpoints"
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        with httpx.Client(headers=headers, timeout=PATIENCE, **proxy_settings(httpx.URL(address))) as service:
            answer = service.post(address, json={"checkpoint": name})
    except httpx.HTTPError as error:
        said = str(error) or type(error).__name__
    else:
        if answer.is_success:
            change = CheckpointsOut.model_validate_json(answer.content).change
            return f"The service serves {name}." if change is None else f"The service changes to {name}: GET {address}"
        said = f"{answer.status_code} {answer.text[:300]}"
    body = json.dumps({"checkpoint": name})
    return (
        f"The service could not change to {name} ({said}). Where it does not see {folder}, copy {target} into its "
        f"QRAG_CHECKPOINTS_DIR, then:\ncurl -X POST {address} -H 'Content-Type: application/json' -d '{body}'"
    )
