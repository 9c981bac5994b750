"""Where a model's folder is put: whole, also where several processes make it at once, as torchrun's do."""

from __future__ import annotations

from pathlib import Path


def place(new: Path, directory: Path) -> None:
    """Rename the folder ``new``, on the same file system, to ``directory``.

    Where another process has put the same there meanwhile, that one stays: it may be read already.
    """
    try:
        new.rename(directory)
    except OSError:
        if not directory.is_dir():
            raise
