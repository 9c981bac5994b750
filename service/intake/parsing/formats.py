"""The table of readers: one for each media type that is not plain text already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from qrag.wire.media_types import MediaType
from service.intake.parsing import epub, rtf
from service.intake.parsing.markup import html, markdown
from service.intake.parsing.office import docx, odt, pptx
from service.intake.parsing.pdf import reader as pdf
from service.intake.parsing.reading import Passages, Reading
from service.intake.parsing.records import json_values, mail, separated, workbook

Reader = Callable[[Path, Reading], Iterator[str] | Passages]
"""A function from a file, and what is known of it, to the file's text in pieces, with its places.

It raises :class:`~service.errors.ServiceError` where it knows what is wrong with the file, :class:`OSError` where the
file cannot be read, and anything else where the file is damaged. It imports its parser when it is called: a worker
reads one document and needs one parser.
"""

READERS: Mapping[MediaType, Reader] = {
    MediaType.PDF: pdf.read,
    MediaType.DOCX: docx.read,
    MediaType.DOCM: docx.read,
    MediaType.PPTX: pptx.read,
    MediaType.XLSX: workbook.read,
    MediaType.ODT: odt.read,
    MediaType.RTF: rtf.read,
    MediaType.EPUB: epub.read,
    MediaType.HTML: html.read,
    MediaType.XHTML: html.read,
    MediaType.MARKDOWN: markdown.read,
    MediaType.CSV: separated.read,
    MediaType.TSV: separated.read_tabs,
    MediaType.JSON: json_values.read,
    MediaType.JSON_LINES: json_values.read_lines,
    MediaType.MAIL: mail.read,
}
