"""Files as bodies of requests: read block by block, and from the beginning again where a request is repeated."""

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
"""Bytes that are read and sent at a time."""

File = str | os.PathLike[str] | BinaryIO


@dataclass(frozen=True, slots=True)
class FileBody:
    """A file as the body of a request."""

    name: str
    media_type: str
    length: int | None
    """Bytes; None where the length cannot be known."""
    repeatable: bool
    """Whether the file can be read again."""
    open: Callable[[], AbstractContextManager[BinaryIO]]
    progress: UploadProgress

    def blocks(self) -> Iterator[bytes]:
        """Yield the content from the beginning, ``length`` bytes of it where the length is known.

        Raises :class:`OSError`, and :class:`~qrag.client.errors.FileChanged` if the file got shorter.
        """
        remaining = self.length
        with self.open() as file:
            while block := file.read(BLOCK if remaining is None else min(BLOCK, remaining)):
                remaining = None if remaining is None else remaining - len(block)
                yield block
        if remaining:
            raise FileChanged(f"{self.name} got shorter while it was sent. Send it again.")


def file_body(file: File, media_type: str | None, progress: UploadProgress | None) -> FileBody:
    """The body for a path or an open file.

    An open file is sent from its current position. Raises :class:`OSError` for a path that cannot be read,
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
    """A file name with question marks in place of bytes that cannot be decoded."""
    return name.encode("utf-8", "replace").decode()


def _type_of(name: str) -> str:
    media_type = MEDIA_TYPE_OF_EXTENSION.get(PurePath(name).suffix.lower())
    if media_type is None:
        known = ", ".join(MEDIA_TYPE_OF_EXTENSION)
        raise UnknownFileType(
            f"The name {name!r} does not say what the file is. Known extensions are {known}; or give its media type."
        )
    return media_type.value
