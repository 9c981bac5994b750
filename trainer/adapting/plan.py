"""What an adaptation does, and the folder that is for this and nothing else."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from index.encoders.checkpoint import read_config, weights_sha256
from trainer.adapting.own import read_pairs
from trainer.bases.models import reranker_directory
from trainer.errors import RecipeError
from trainer.readers.protocol import Reader
from trainer.recipe import NAME

FILE = "plan.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an adaptation does."""

    name: str
    """The new checkpoint's name."""
    start: Path
    """The present checkpoint."""
    singles: int = 800
    """Chunks that the reader is asked about."""
    pairs: int = 200
    """Pairs of chunks that the reader is asked about."""
    transitions: int = 6_000
    held_out: float = 0.25
    episodes: int = 300
    """Episodes that tell when to stop."""
    seed: int = 0
    questions: Path | None = None
    """Users' own pairs in place of drafts."""
    feedback: bool = False
    """Whether the service's feedback takes the place of drafts."""
    reranker: str | None = None
    """A cross-encoder, from which the order of the best chunks is learned too, as a recipe names it."""

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME, self.name):
            raise RecipeError(f"{self.name!r} names no checkpoint: --name takes letters, digits, dots, - and _.")


@contextmanager
def held(run: Path) -> Iterator[None]:
    """The run's folder, made where it is not there, for this process alone.

    Raises :class:`~trainer.errors.RecipeError` where another one has it.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecipeError(f"Another process adapts in {run}. Let it end, or name another folder.") from None
        yield


def keep_to(plan: Plan, collection: str | None, reader: Reader, run: Path) -> None:
    """Note in the run's folder what it is for.

    Raises :class:`~trainer.errors.RecipeError` where it is for something else: its questions and weights would be taken
    for those of this plan.
    """
    file = run / FILE
    content = _content(plan, collection, reader)
    if not file.exists():
        unfinished = file.with_name(f"{FILE}.new")
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(file)
        return
    before = json.loads(file.read_bytes())
    if differing := [name for name in content if before.get(name) != content[name]]:
        changes = ", ".join(f"{name} {before.get(name)!r} instead of {content[name]!r}" for name in differing)
        raise RecipeError(f"{run} holds an adaptation with {changes}. Repeat that command, or name another folder.")


def _content(plan: Plan, collection: str | None, reader: Reader) -> Mapping[str, Any]:
    """All that decides the result; the name does not."""
    pairs = None if plan.questions is None else repr(read_pairs(plan.questions))
    return {
        **{name: value for name, value in asdict(plan).items() if name != "name"},
        "start": read_config(plan.start).fingerprint,
        "questions": None if pairs is None else hashlib.sha256(pairs.encode()).hexdigest(),
        "collection": collection,
        "reader": reader.identity,
        "reranker": None if plan.reranker is None else weights_sha256(reranker_directory(plan.reranker)),
    }
