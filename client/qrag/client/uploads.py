"""Files as bodies of requests: read block by block, and again from the beginning where a request is repeated."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from qrag.client.errors import FileChanged, UnknownFileType
from qrag.client.options import UploadProgress
from qrag.wire.media_types import MEDIA_TYPE_OF_EXTENSION

BLOCK = 1 << 16
"""Bytes read and sent at once."""

File = str | os.PathLike[str] | BinaryIO


@dataclass(frozen=True, slots=True)
class FileBody:
    """A file on its way to the service."""

    name: str
    media_type: str
    length: int | None
    """Bytes; none where it cannot be known."""
    repeatable: bool
    """Whether it can be read again."""
    open: Callable[[], AbstractContextManager[BinaryIO]]
    progress: UploadProgress

    def blocks(self) -> Iterator[bytes]:
        """Its content from the beginning, as long as it was when it was opened.

        Raises :class:`OSError`, and :class:`~qrag.client.errors.FileChanged` if it got shorter.
        """
        left = self.length
        with self.open() as file:
            while block := file.read(BLOCK if left is None else min(BLOCK, left)):
                left = None if left is None else left - len(block)
                yield block
        if left:
            raise FileChanged(f"{self.name} got shorter while it was sent. Send it again.")


def file_body(file: File, media_type: str | None, progress: UploadProgress | None) -> FileBody:
    """The body that a path or an open file makes.

    An open file is sent from where it stands. Raises :class:`OSError` for a path that cannot be read,
    :class:`TypeError` for a file that was opened as text, and :class:`~qrag.client.errors.UnknownFileType`.
    """
    progress = progress or (lambda _sent, _length: None)
    if isinstance(file, str | os.PathLike):
        path = Path(file)
        status = path.stat()
        length = status.st_size if stat.S_ISREG(status.st_mode) else None
        name = readable(path.name)
        media_type = media_type or _type_of(name)
        return FileBody(name, media_type, length, length is not None, lambda: path.open("rb"), progress)
    if isinstance(file, io.TextIOBase):
        raise TypeError('open the file in binary mode: open(path, "rb")')
    name = readable(PurePath(str(getattr(file, "name", "the file"))).name)
    media_type = media_type or _type_of(name)
    if not file.seekable():
        return FileBody(name, media_type, None, False, lambda: nullcontext(file), progress)
    start = file.tell()
    length = file.seek(0, io.SEEK_END) - start

    def rewound() -> AbstractContextManager[BinaryIO]:
        file.seek(start)
        return nullcontext(file)

    return FileBody(name, media_type, length, True, rewound, progress)


def readable(name: str) -> str:
    """With question marks in the place of bytes that are no text, which a name may have."""
    return name.encode("utf-8", "replace").decode()


def _type_of(name: str) -> str:
    found = MEDIA_TYPE_OF_EXTENSION.get(PurePath(name).suffix.lower())
    if found is None:
        known = ", ".join(MEDIA_TYPE_OF_EXTENSION)
        raise UnknownFileType(f"The name {name!r} does not say what it is. Known are {known}; or give its media type.")
    return found.value
