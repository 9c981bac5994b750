"""Models of a hub, at a pinned revision: what is downloaded is always the same."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from trainer.errors import RecipeError

_PINNED = re.compile(r"^(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})$")

FILES = ("*.json", "*.jinja", "*.safetensors", "*.txt", "*.model")
"""What a model is loaded from; pickles are never fetched."""


def is_pinned(base: str) -> bool:
    """Whether this is a hub's id with a revision, as in ``BAAI/bge-small-en-v1.5@<40 hexadecimal digits>``."""
    return _PINNED.match(base) is not None


def fetch(base: str) -> Path:
    """Where the files of a pinned model are; they are downloaded once.

    Raises :class:`~trainer.errors.RecipeError` where the hub cannot be reached or does not have them.
    """
    found = _PINNED.match(base)
    assert found is not None
    try:
        return Path(snapshot_download(found["repository"], revision=found["revision"], allow_patterns=list(FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise RecipeError(f"base: {base} cannot be downloaded: {error}") from error
