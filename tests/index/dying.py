"""Processes that move a storage and are killed, as ``kill -9`` does it, at a moment that they count out."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from index.arrays import TokenIds
from index.storage.documents import StoredChunk
from index.storage.moving.importing import import_export
from tests.index.moves import exported, terms
from tests.index.storages import open_local


def killed(work: Callable[..., None], *arguments: Any) -> bool:
    """Run a function in another process; returns whether it was killed, and fails where it ended otherwise."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=work, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def export_and_die(source: Path, folder: Path, fatal: int) -> None:
    """Export, and die at the block of chunks, or behind the part, of this number."""
    moments = count(1)

    def pass_moment(*_: object) -> None:
        if next(moments) == fatal:
            die()

    def dying_terms(chunks: Sequence[StoredChunk]) -> Sequence[TokenIds]:
        pass_moment()
        return terms(chunks)

    with closing(open_local(source)) as storage:
        exported(storage, folder, terms=dying_terms, progress=pass_moment)


def import_and_die(folder: Path, target: Path, fatal: int) -> None:
    """Import, and die behind the step of this number after the check: a part that was stored, or was compared."""
    moments = count(1)

    def pass_moment(what: str, _done: int, _all: int) -> None:
        if what != "check" and next(moments) == fatal:
            die()

    with closing(open_local(target)) as storage:
        import_export(storage, folder, progress=pass_moment)
