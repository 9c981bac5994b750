"""DOCX, which Mammoth turns into HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Final
from zipfile import BadZipFile, ZipFile

from service.errors import DocumentTooComplex, UnreadableDocument
from service.intake.parsing.cleaning import encrypted
from service.intake.parsing.html import html_text

_COMPOUND_FILE_SIGNATURE: Final = bytes.fromhex("d0cf11e0a1b11ae1")
"""The first bytes of the container of Office's old formats."""

_OLD_WORD_STREAM: Final = "WordDocument".encode("utf-16-le")
_ZIP_ENTRY_ENCRYPTED: Final = 0x1

_MAX_ENTRIES: Final = 10_000
_MAX_UNPACKED_BYTES: Final = 512 << 20

_MAX_UNPACKED_RATIO: Final = 100
"""How many times its size a file may unpack to: XML shrinks to a tenth as a rule."""

_UNSUSPICIOUS_BYTES: Final = 64 << 20
"""What any file may unpack to: small ones may shrink far more without being a threat."""

_NOTE_BACK_LINK: Final = re.compile(r'<a href="#(?:foot|end)note-ref-[^"]*">↑</a>')


def read(source: Path, _encoding: str | None) -> Iterator[str]:
    """The text of a DOCX file, in which pictures are left out."""
    yield html_text(_docx_html(source.read_bytes()))


def _docx_html(content: bytes) -> str:
    import mammoth

    _check_archive(content)
    try:
        result = mammoth.convert_to_html(
            BytesIO(content), convert_image=lambda _image: [], include_embedded_style_map=False
        )
    except OSError:
        raise UnreadableDocument(
            "The file is a ZIP archive without a Word document in it. "
            "Open it in a word processor, save it as .docx and send that."
        ) from None
    html: str = result.value
    return _NOTE_BACK_LINK.sub("", html)


def _check_archive(content: bytes) -> None:
    """Refuse what is no DOCX, is encrypted, or unpacks to a size meant to do harm."""
    if content.startswith(_COMPOUND_FILE_SIGNATURE):
        # Office wraps what it encrypts into the container of its old formats.
        if _OLD_WORD_STREAM in content:
            raise UnreadableDocument("The file is in the old .doc format; save it as .docx and send that.")
        raise encrypted("DOCX")
    try:
        with ZipFile(BytesIO(content)) as archive:
            entries = archive.infolist()
    except BadZipFile:
        raise UnreadableDocument(
            "The file is not a DOCX file, or its end is missing. "
            "Open it in a word processor, save it as .docx and send that."
        ) from None
    if any(entry.flag_bits & _ZIP_ENTRY_ENCRYPTED for entry in entries):
        raise encrypted("DOCX")
    # An entry that unpacks to more than it declares is cut off there by zipfile, which then reports it.
    unpacked = sum(entry.file_size for entry in entries)
    if (
        len(entries) > _MAX_ENTRIES
        or unpacked > _MAX_UNPACKED_BYTES
        or unpacked > max(_UNSUSPICIOUS_BYTES, _MAX_UNPACKED_RATIO * len(content))
    ):
        raise DocumentTooComplex(
            f"The DOCX file holds {len(entries):,} parts that unpack to {unpacked:,} bytes, more than is "
            "accepted from a file of its size. Remove embedded files, or split it up."
        )
