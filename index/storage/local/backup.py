"""Backup of a data directory while a service writes to it, and its restoration into an empty one.

SQLite copies its file as of one moment, by its online backup. Segments never change once written, so those that the
copy mentions are copied after it; where one was merged away in between, the copy is taken again. ``MANIFEST`` is
written last: a backup without one was interrupted. A running service need not be stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath

from index.errors import BackupError
from index.storage.local.directory import DATABASE, INCOMING, SEGMENTS, lock_directory
from index.storage.local.files.durable import sync
from index.storage.local.files.segments import derived_files

MANIFEST = "manifest.json"
"""The file with the checksums of all others."""

OTHER_ENTRIES = ("keys.json", "checkpoints")
"""Other entries of a data directory that are copied if they exist."""

IGNORED = {"lock", "lost+found"}
"""Entries that an empty directory may have: those of a volume, or of a start that was refused."""

ATTEMPTS = 20
"""Most copies of the database that are taken; copied segments are not copied again."""

BLOCK = 1 << 20
"""Bytes read at once for a checksum."""

Progress = Callable[[int, int], None]
"""A callback with the bytes copied so far and in all."""


def back_up(directory: Path, target: Path, progress: Progress = lambda _done, _all: None) -> int:
    """Copy a data directory into a new folder; returns its bytes.

    Raises :class:`~index.errors.BackupError` where there is no data directory, where it cannot be read or lacks a
    segment, or where the target is not empty.
    """
    if not (directory / DATABASE).exists():
        raise BackupError(f"{directory} is no data directory. Set QRAG_DATA_DIR to the service's.")
    if any(target.resolve().is_relative_to(folder.resolve()) for folder in _folders(directory)):
        raise BackupError(f"{target} is among what is copied, or swept away at the next start. Give another folder.")
    _require_empty(target)
    (target / SEGMENTS).mkdir(parents=True, exist_ok=True)
    missing: str | None = None
    for _ in range(ATTEMPTS):
        _copy_database(directory / DATABASE, target / DATABASE)
        try:
            _copy_segments(directory, target, progress)
            break
        except FileNotFoundError as error:
            # Merged meanwhile, unless a database copied since then still mentions it.
            if error.filename == missing:
                raise BackupError(
                    f"{missing} is missing: vectors are lost, texts are not. Stop the service and run `python -m "
                    "service reindex`, which computes all of them again."
                ) from error
            missing = error.filename
    else:
        raise BackupError("The service merges segments faster than they can be copied. Try again when it is less busy.")
    for name in OTHER_ENTRIES:
        if (directory / name).is_dir():
            shutil.copytree(directory / name, target / name, ignore_dangling_symlinks=True)
        elif (directory / name).exists():
            shutil.copy2(directory / name, target / name)
    files = {str(path.relative_to(target)): _sha256(path) for path in _files(target)}
    _write_durably(target / MANIFEST, json.dumps(files, indent=1))
    return sum(path.stat().st_size for path in _files(target))


def restore(source: Path, directory: Path) -> int:
    """Put a backup into an empty or new data directory; returns its bytes.

    Raises :class:`~index.errors.BackupError` where the backup is incomplete or names files outside of itself, or where
    the directory is not empty; nothing is left there then.
    """
    manifest = _read_manifest(source)
    directory.mkdir(parents=True, exist_ok=True)
    _require_empty(directory)
    with lock_directory(directory):  # no service may start meanwhile
        try:
            # The database is renamed into place last: until then the directory holds no documents.
            for name in sorted(manifest, key=lambda name: name == DATABASE):
                _restore_file(source, directory, name, manifest[name])
        except BaseException:
            for path in set(directory.iterdir()) - {directory / name for name in IGNORED}:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            raise
        sync(directory)
        return sum((directory / name).stat().st_size for name in manifest)


def _read_manifest(source: Path) -> dict[str, str]:
    try:
        manifest: dict[str, str] = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BackupError(f"{source} is no finished backup: it has no {MANIFEST}.") from None
    except (ValueError, RecursionError):
        manifest = {}
    if not isinstance(manifest, dict) or DATABASE not in manifest:
        raise BackupError(f"{MANIFEST} is damaged in the backup {source}. Use another one.")
    for name in manifest:
        # A backup may come from a stranger: only the entries of a data directory are written.
        parts = PurePosixPath(name).parts
        if not {*parts[:1]} & {DATABASE, SEGMENTS, *OTHER_ENTRIES} or ".." in parts or "\0" in name:
            raise BackupError(f"The backup {source} names the file {name!r}, which no backup has. Do not trust it.")
    return manifest


def _restore_file(source: Path, directory: Path, name: str, sha256: str) -> None:
    target = directory / name
    partial = target.with_name(f"{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (source / name).resolve().is_relative_to(source.resolve()):
        raise BackupError(f"{name} in the backup {source} is a link to a file elsewhere. Do not trust it.")
    try:
        shutil.copy2(source / name, partial)
    except FileNotFoundError:
        raise BackupError(f"{name} is missing in the backup {source}. Use another one.") from None
    if _sha256(partial) != sha256:
        raise BackupError(f"{name} is damaged in the backup {source}. Use another one.")
    sync(partial)
    partial.rename(target)
    sync(target.parent)


def _copy_database(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(source)) as running, closing(sqlite3.connect(target)) as copy:
            running.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    except sqlite3.Error as error:
        raise BackupError(f"{source} cannot be copied to {target}: {error}.") from error
    sync(target)


def _copy_segments(directory: Path, target: Path, progress: Progress) -> None:
    with closing(sqlite3.connect(target / DATABASE)) as connection:
        segments = dict(connection.execute("SELECT segment, bytes FROM segments ORDER BY segment"))
    sizes = {f"{segment:08d}.faiss": size for segment, size in segments.items()}
    for path in (target / SEGMENTS).iterdir():
        if path.with_suffix(".faiss").name not in sizes:
            path.unlink()
    done, total = 0, sum(sizes.values())
    for name, size in sizes.items():
        source, copy = directory / SEGMENTS / name, target / SEGMENTS / name
        if not copy.exists():
            shutil.copy2(source, copy)
            for derived, target_file in zip(derived_files(source), derived_files(copy), strict=True):
                if derived.exists():  # otherwise it is made again
                    shutil.copy2(derived, target_file)
            sync(copy)
        done += size
        progress(done, total)
    sync(target / SEGMENTS)


def _require_empty(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or {path.name for path in directory.iterdir()} - IGNORED):
        raise BackupError(f"There is something in {directory} already. Give an empty folder, or one that is not there.")


def _folders(directory: Path) -> list[Path]:
    """The folders of a data directory."""
    return [directory / name for name in (SEGMENTS, INCOMING, "checkpoints")]


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file() and path != directory / MANIFEST)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _write_durably(path: Path, content: str) -> None:
    path.write_text(content + "\n", encoding="utf-8")
    sync(path)
    sync(path.parent)
