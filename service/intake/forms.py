"""Multipart forms as clients really send them."""

from __future__ import annotations

from email.utils import decode_rfc2231
from re import IGNORECASE
from re import compile as compiled
from typing import Final
from urllib.parse import unquote_to_bytes

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartParser

from service.errors import InvalidRequest
from service.intake.encodings import codec_of

_NAME: Final = compiled(rb";\s*filename\s*=\s*(?:\"(?:[^\"\\]|\\.)*\"|[^;]*)", IGNORECASE)
_STARRED_NAME: Final = compiled(rb";\s*filename\*\s*=\s*\"?([^;\"]+)\"?", IGNORECASE)

_TRANSFER_ENCODINGS: Final = frozenset({"", "7bit", "8bit", "binary"})
"""Those in which the bytes of a part are the file's; RFC 7578 deprecates the others."""


class _Parser(MultiPartParser):
    """A parser that also reads ``filename*`` (RFC 5987), which goes before a plain name."""

    def on_headers_finished(self) -> None:
        disposition = self._current_part.content_disposition
        if disposition is not None and (starred := _STARRED_NAME.search(disposition)) is not None:
            name = _decoded(starred[1].decode("latin-1")).replace("\\", "\\\\").replace('"', '\\"')
            plain = _NAME.sub(b"", _STARRED_NAME.sub(b"", disposition))
            self._current_part.content_disposition = plain + b'; filename="' + name.encode() + b'"'
        super().on_headers_finished()


def _decoded(value: str) -> str:
    charset, _, text = decode_rfc2231(value)
    return unquote_to_bytes(text).decode(codec_of(charset or "") or "utf-8", "replace")


async def read_form(request: Request, *, max_files: int, max_fields: int) -> FormData:
    """The parts of a form; close it when its files are read.

    Raises :class:`~starlette.formparsers.MultiPartException` for a malformed one.
    """
    return await _Parser(request.headers, request.stream(), max_files=max_files, max_fields=max_fields).parse()


def is_unused(file: UploadFile) -> bool:
    """Whether it is a file input of a browser's form in which nothing was chosen."""
    return not file.filename and not file.size


def check_transfer(file: UploadFile) -> None:
    """Raises :class:`~service.errors.InvalidRequest` for a part whose bytes are not those of the file."""
    encoding = file.headers.get("content-transfer-encoding", "").strip().lower()
    if encoding not in _TRANSFER_ENCODINGS:
        raise InvalidRequest(
            f"The part {file.filename!r} is in the Content-Transfer-Encoding {encoding!r}. Send its bytes as they are."
        )
