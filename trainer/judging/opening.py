"""The judge that a recipe names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from trainer.judging.judge import Judge
from trainer.readers.opening import open_reader
from trainer.recipe import Recipe

KEPT = "reader.sqlite"
"""File in which a run keeps what its reader said."""


@contextmanager
def opened_judge(recipe: Recipe, device: torch.device, folder: Path) -> Iterator[Judge | None]:
    """The judge for the length of a block; none where the recipe has no reader. What it says is kept in ``folder``."""
    if recipe.reader is None:
        yield None
        return
    with open_reader(recipe.reader, device, folder / KEPT) as reader:
        yield Judge(reader, recipe.reader_form)
