"""The media types of uploads, and the file extensions that stand for them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class MediaType(StrEnum):
    """A media type that the service turns into text."""

    PLAIN_TEXT = "text/plain"
    MARKDOWN = "text/markdown"
    HTML = "text/html"
    PDF = "application/pdf"
    DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


MEDIA_TYPE_OF_EXTENSION: Final = {
    ".txt": MediaType.PLAIN_TEXT,
    ".md": MediaType.MARKDOWN,
    ".markdown": MediaType.MARKDOWN,
    ".html": MediaType.HTML,
    ".htm": MediaType.HTML,
    ".pdf": MediaType.PDF,
    ".docx": MediaType.DOCX,
}
"""The media type of each file extension, in lower case."""
