"""Files sent and waited for, with progress bars: what ``qrag index`` and ``qrag sync`` share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from pydantic import JsonValue
from tqdm import tqdm

from qrag import (
    Client,
    DocumentOptions,
    DocumentOut,
    IndexingFailed,
    QRagClientError,
    Unauthorized,
    UnknownFileType,
    Unreachable,
)
from qrag.cli.terminal import complain
from qrag.client.errors import not_searchable
from qrag.client.uploads import File
from qrag.wire.chunking import Mode
from qrag.wire.media_types import MEDIA_TYPE_OF_EXTENSION

STDIN = "-"
"""The file name that means standard input."""

STDIN_TITLE = "standard input"
"""The title of what came from there, where none is given."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to send, and what describes its document."""

    path: str
    title: str | None
    """None: the file's name."""
    id: str | None = None
    """None: derived from the content."""
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    replaces: bool = False
    """Whether a document that has the id already may be replaced."""

    @property
    def bytes(self) -> int:
        """The file's length, 0 where it is unknown or the file does not exist."""
        try:
            return 0 if self.path == STDIN else os.stat(self.path).st_size
        except OSError:
            return 0


def files_in(folder: Path, glob: str | None, unreadable: Callable[[OSError], object]) -> Iterator[Path]:
    """The files of a folder and its subfolders whose kind is known and whose name matches, without hidden ones.

    ``unreadable`` is called with the error, which has a ``filename``, for each folder that cannot be listed, and for
    each file in one that can be listed but not entered.
    """
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    for path in sorted(found):
        known = path.suffix.lower() in MEDIA_TYPE_OF_EXTENSION
        if known and (glob is None or fnmatch(path.name, glob)):
            try:
                is_file = path.is_file()
            except OSError as error:
                unreadable(error)
            else:
                if is_file:
                    yield path


def complain_of(error: OSError) -> None:
    """Say that a file or folder cannot be read, and why."""
    complain(f"{os.fsdecode(error.filename)}: {error.strerror or error}")


def known_endings() -> str:
    """The endings of file names whose kind is known, in words."""
    return ", ".join(MEDIA_TYPE_OF_EXTENSION)


def send(
    client: Client,
    sources: Sequence[Source],
    *,
    collection: str | None,
    chunking: Mode | None,
    file_fields: bool = False,
) -> tuple[list[DocumentOut], list[QRagClientError | OSError]]:
    """Send files; returns the documents that were stored, and an error for each other file, which is complained about.

    Raises :class:`~qrag.Unreachable` and :class:`~qrag.Unauthorized`, since every file would fail alike.
    """
    sent: dict[str, DocumentOut] = {}
    errors: list[QRagClientError | OSError] = []
    total = sum(source.bytes for source in sources)
    with tqdm(total=total, desc="sending", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for source in sources:
            before = bar.n

            def progress(count: int, _length: int | None, before: float = before) -> None:
                bar.update(before + count - bar.n)

            options = DocumentOptions(
                id=source.id,
                title=source.title,
                collection=collection,
                metadata=source.metadata or None,
                chunking=chunking,
            )
            file: File = sys.stdin.buffer if source.path == STDIN else source.path
            media_type = "text/plain" if source.path == STDIN else None
            try:
                document = client.index_file(
                    file,
                    media_type=media_type,
                    progress=progress,
                    replace=source.replaces,
                    file_fields=file_fields,
                    **options,
                )
            except (Unreachable, Unauthorized):
                raise
            except (QRagClientError, OSError) as error:
                errors.append(error)
                with bar.external_write_mode(file=sys.stderr):
                    complain(f"{source.path}: {_reason(error)}")
            else:
                sent[document.id] = document
    return list(sent.values()), errors


def _reason(error: QRagClientError | OSError) -> str:
    if isinstance(error, UnknownFileType):
        return f"its name ends in none of {known_endings()}. If it is text: qrag index - < FILE"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def wait(client: Client, sent: Sequence[DocumentOut]) -> tuple[list[DocumentOut], list[DocumentOut]]:
    """Wait for documents; returns their last state, and those that, or whose new content, cannot be searched."""
    seen = {document.id: document for document in sent}
    counted = dict.fromkeys(seen, 0.0)
    total = sum(document.characters for document in sent)
    bar_format = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    # mininterval=0: updates are rare, and tqdm would drop the last if it came soon after the one before.
    with tqdm(total=total, desc="indexing", bar_format=bar_format, leave=False, disable=None, mininterval=0) as bar:

        def progress(document: DocumentOut) -> None:
            characters = seen[document.id].characters
            seen[document.id] = document
            done = (document.replacement or document).progress * characters
            bar.update(done - counted[document.id])
            counted[document.id] = done

        try:
            client.wait_until_ready(seen, progress)
        except IndexingFailed as error:
            failed = error.documents
        else:
            failed = []
    for document in failed:
        complain(f"{document.title}: {not_searchable(document)}")
    return list(seen.values()), failed


def show_warnings(documents: Sequence[DocumentOut]) -> None:
    """Say what was left out of documents."""
    for document in documents:
        for warning in document.warnings:
            complain(f"{document.title or document.id}: {warning}")
