"""The table of readers: one for each media type that is not plain text already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from qrag.wire.media_types import MediaType
from service.intake.parsing import docx, html, markdown, pdf

Reader = Callable[[Path, str | None], Iterator[str]]
"""A function from a file, and the encoding that its sender declared, to the file's text in pieces.

It raises :class:`~service.errors.ServiceError` where it knows what is wrong with the file, :class:`OSError` where the
file cannot be read, and anything else where the file is damaged. It imports its parser when it is called: a worker
reads one document and needs one parser.
"""

READERS: Mapping[MediaType, Reader] = {
    MediaType.PDF: pdf.read,
    MediaType.DOCX: docx.read,
    MediaType.HTML: html.read,
    MediaType.MARKDOWN: markdown.read,
}
