"""PDF, of which PDFium reads the text layer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.errors import UnreadableDocument
from service.intake.parsing.cleaning import CLEANED, encrypted, trimmed

_LINE_END_HYPHEN: Final = re.compile(r"(?<=\w)\ufffe(?=(\w))")
"""Where PDFium has joined a word that a hyphen split between two lines.

Elsewhere the same character stands for a glyph without Unicode.
"""


def read(source: Path, _encoding: str | None) -> Iterator[str]:
    """The text of a PDF file, page by page; blank pages are left out."""
    import pypdfium2

    source.stat()  # pypdfium2 also reports a missing file, but without its errno
    try:
        document = pypdfium2.PdfDocument(source)
    except pypdfium2.PdfiumError as error:
        if error.err_code in {pypdfium2.raw.FPDF_ERR_PASSWORD, pypdfium2.raw.FPDF_ERR_SECURITY}:
            raise encrypted("PDF") from None
        raise
    has_text = False
    with document:
        for page in document:
            text_page = page.get_textpage()
            # Not get_text_bounded: it joins lines of rotated text without a space.
            text = _cleaned_page(text_page.get_text_range())
            text_page.close()
            page.close()
            if text:
                yield f"\n\n{text}" if has_text else text
                has_text = True
    if not has_text:
        raise UnreadableDocument(
            "The PDF file holds no text layer: it is a scan, or its letters are drawn as pictures. "
            "Run OCR (text recognition) on it first, then send the result."
        )


def _cleaned_page(text: str) -> str:
    # Before a small letter the hyphen split a word; otherwise it is part of one: Anglo-Saxon, F-16.
    text = _LINE_END_HYPHEN.sub(lambda hyphen: "" if hyphen[1].islower() else "-", text)
    text = text.replace("\ufffe", "").replace("\r\n", "\n").replace("\r", "\n").translate(CLEANED)
    return trimmed(text)
