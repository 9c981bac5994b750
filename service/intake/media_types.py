"""What an upload is: by its content type, else by its name, else by how it begins."""

from __future__ import annotations

import re
from email.message import Message
from pathlib import PurePath
from typing import Final

from qrag.wire.media_types import MEDIA_TYPE_OF_EXTENSION, MediaType
from service.errors import UnsupportedMediaType

_SAYS_NOTHING: Final = frozenset(
    {
        *("", "application/octet-stream", "binary/octet-stream", "application/x-octet-stream", "application/unknown"),
        *("application/x-unknown-content-type", "application/force-download", "application/x-force-download"),
        *("application/download", "application/x-download", "application/save", "application/binary", "*/*"),
        # Archives are many things, and Office's old types are sent for its new files.
        *("application/zip", "application/x-zip", "application/x-zip-compressed", "multipart/x-zip"),
        *("application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint", "application/vnd.ms-word"),
    }
)
"""Content types that clients, browsers and object stores send for files of any kind."""

_ALIASES: Final = {
    **dict.fromkeys(("application/pdf", "application/x-pdf", "text/pdf"), MediaType.PDF),
    **dict.fromkeys(("text/x-markdown", "text/x-web-markdown", "application/markdown"), MediaType.MARKDOWN),
    **dict.fromkeys(("application/json", "application/x-json", "application/ld+json", "text/x-json"), MediaType.JSON),
    **dict.fromkeys(
        ("application/x-ndjson", "application/ndjson", "application/x-jsonlines", "application/json-lines"),
        MediaType.JSON_LINES,
    ),
    **dict.fromkeys(("text/rtf", "application/x-rtf", "text/richtext"), MediaType.RTF),
    **dict.fromkeys(("application/csv", "text/x-csv", "text/comma-separated-values"), MediaType.CSV),
    **dict.fromkeys(("text/tsv", "text/x-tsv"), MediaType.TSV),
    **dict.fromkeys(
        ("application/xml", "application/yaml", "application/x-yaml", "application/toml", "application/javascript"),
        MediaType.PLAIN_TEXT,
    ),
    **dict.fromkeys(("application/x-sh", "application/sql", "application/x-python-code"), MediaType.PLAIN_TEXT),
}
"""Other names of the types that are read here."""

_BEGINNINGS: Final = (
    (re.compile(rb"(?s).{0,1024}%PDF-"), MediaType.PDF),
    (re.compile(rb"\s*\{\\rtf"), MediaType.RTF),
    (re.compile(rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<!doctype html|<html)"), MediaType.HTML),
    (re.compile(rb"(?s)PK\x03\x04.{26}mimetypeapplication/epub\+zip"), MediaType.EPUB),
    (re.compile(rb"(?s)PK\x03\x04.{26}mimetypeapplication/vnd\.oasis\.opendocument\.text"), MediaType.ODT),
)
"""How files of some types begin."""

BEGINNING_BYTES: Final = 2048
"""What of a file tells its type."""


def media_type_of(content_type: str | None, filename: str | None, beginning: bytes = b"") -> MediaType:
    """The media type of an upload.

    The content type decides, its parameters ignored. Where it is absent or says nothing (``application/octet-stream``),
    the extension of ``filename`` decides, and where that is not known, the ``beginning`` of the file. Other types of
    text are plain text.

    Raises :class:`~service.errors.UnsupportedMediaType` where the one that decides is not a type that is read here.
    """
    essence = (content_type or "").partition(";")[0].strip().lower()
    by_name = MEDIA_TYPE_OF_EXTENSION.get(PurePath(filename or "").suffix.lower())
    media_type = next((known for known in MediaType if known == essence), _ALIASES.get(essence))
    if media_type is None and (essence in _SAYS_NOTHING or essence.startswith("text/")):
        media_type = by_name or next((known for form, known in _BEGINNINGS if form.match(beginning)), None)
        if media_type is None and essence.startswith("text/"):
            media_type = MediaType.PLAIN_TEXT
    if media_type is None:
        named = [ending for ending, known in MEDIA_TYPE_OF_EXTENSION.items() if known is not MediaType.PLAIN_TEXT]
        raise UnsupportedMediaType(
            f"Send one of the media types {', '.join(MediaType)}; or no media type "
            f"and a file name that ends in .txt, {', '.join(named)} or as source code does."
        )
    return media_type


def charset_of(content_type: str | None) -> str | None:
    """The charset parameter of a content type.

    Raises :class:`~service.errors.UnsupportedMediaType` where its parameters are malformed.
    """
    message = Message()
    message["Content-Type"] = content_type or ""
    try:
        return message.get_content_charset()
    except (TypeError, ValueError):  # what the standard library makes of parts of a parameter that do not fit together
        raise UnsupportedMediaType(
            "The charset of the content type cannot be read. Send it as in text/plain; charset=utf-8, or convert the "
            "text to UTF-8 and leave it out."
        ) from None
