"""PDF, of which PDFium reads the text layer, with what was typed into it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from service.errors import UnreadableDocument
from service.intake.parsing.cleaning import CLEANED, encrypted, trimmed
from service.intake.parsing.markup.blocks import joined
from service.intake.parsing.pdf.page_layout import Piece, blocks_of, turned
from service.intake.parsing.reading import Location, Passages, Reading

_LINE_END_HYPHEN: Final = re.compile(r"(?<=\w)(?:\ufffe|[\u00ad\u2010-]\r?\n)(?=(\w))")
"""Where a hyphen has split a word between two lines; PDFium joins some of these with U+FFFE.

Elsewhere that character stands for a glyph without Unicode.
"""

_HYPHENS: Final = frozenset("-\ufffe\u00ad\u2010")
_RIGHT_TO_LEFT: Final = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_HARDLY_TEXT: Final = 100
"""Characters of a page which is a picture otherwise."""

_PICTURE_SHARE: Final = 0.5
"""The share of a page's area that a picture covers where the page is nothing else."""

_BETWEEN_PIECES: Final = 8
"""Characters that may stand between two pieces: blanks, the end of a line."""

_MOST_PIECES: Final = 3_000
"""Pieces of a page that are put in order; a page with more is a drawing."""


def read(source: Path, reading: Reading) -> Passages:
    """The text of a PDF file, page by page; pages without text are left out, which a warning says."""
    import pypdfium2

    source.stat()  # pypdfium2 also reports a missing file, but without its errno
    try:
        document = pypdfium2.PdfDocument(source)
    except pypdfium2.PdfiumError as error:
        if error.err_code in {pypdfium2.raw.FPDF_ERR_PASSWORD, pypdfium2.raw.FPDF_ERR_SECURITY}:
            raise encrypted("PDF") from None
        raise
    has_text = False
    without: list[int] = []
    with document:
        document.init_forms()  # draws what fields hold where the file itself does not
        _note(document, reading)
        for number in range(len(document)):
            try:
                text, is_picture = _page(document, number, reading)
            except pypdfium2.PdfiumError:
                if len(without) + 1 == len(document):
                    raise  # none of the pages could be read
                text, is_picture = "", False
            if not text or is_picture:
                without.append(number + 1)
            if text:
                if has_text:
                    yield "\n\n"
                label = _unicode(document.get_page_label, number)
                yield Location(page=number + 1, label=label if label != str(number + 1) else None)
                yield text
                has_text = True
    if not has_text:
        raise UnreadableDocument(
            "The PDF file holds no text layer: it is a scan, or its letters are drawn as pictures. "
            "Run OCR (text recognition) on it first, then send the result."
        )
    if without:
        reading.warn(
            f"Pages without text: {_ranges(without)}. They are blank, damaged or pictures; "
            "for pictures of text, run OCR (text recognition) and send the result."
        )


def _note(document: Any, reading: Reading) -> None:
    reading.name(_unicode(document.get_metadata_value, "Title"))
    for name, noted in (("Author", "author"), ("Subject", "subject"), ("Keywords", "keywords")):
        reading.note(noted, _unicode(document.get_metadata_value, name))
    date = re.match(r"D:(\d{4})(\d{2})?(\d{2})?", _unicode(document.get_metadata_value, "CreationDate"))
    if date:
        reading.note("date", "-".join(part for part in date.groups() if part))


def _unicode(function: Callable[[Any], str], argument: int | str) -> str:
    """What the file says of itself; "" where that is no Unicode: programs cut titles within a character."""
    try:
        return function(argument)
    except UnicodeDecodeError:
        return ""


def _page(document: Any, number: int, reading: Reading) -> tuple[str, bool]:
    """The text of a page, and whether the page is a picture that has hardly any."""
    from pypdfium2 import raw

    page = document[number]
    is_picture = _is_picture(page)
    if raw.FPDFPage_GetAnnotCount(page.raw) > 0:
        # What was typed into forms and over the page is text then; it shows when the page is opened again.
        raw.FPDFPage_Flatten(page.raw, raw.FLAT_PRINT)
        page.close()
        page = document[number]
    text_page = page.get_textpage()
    # Not get_text_bounded: it joins lines of rotated text without a space.
    text = text_page.get_text_range()
    ordered = None if _RIGHT_TO_LEFT.search(text) else _ordered(text_page, text, reading.row_characters)
    text_page.close()
    page.close()
    text = _cleaned_page(text if ordered is None else ordered)
    return text, is_picture and len(text) < _HARDLY_TEXT


def _is_picture(page: Any) -> bool:
    from pypdfium2 import raw

    width, height = page.get_size()
    for found in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=2):
        left, bottom, right, top = found.get_bounds()
        if (right - left) * (top - bottom) > _PICTURE_SHARE * width * height:
            return True
    return False


def _ordered(text_page: Any, text: str, row_characters: int) -> str | None:
    """The text in reading order; none where the pieces are not all of it."""
    count = text_page.count_rects()
    if count > _MOST_PIECES:
        return None
    pieces = []
    place = 0
    for number in range(count):
        left, bottom, right, top = text_page.get_rect(number)
        words = text_page.get_text_bounded(left, bottom, right, top)
        start = text.find(words, place, place + len(words) + _BETWEEN_PIECES)
        goes_on = start == place > 0 and not text[place - 1].isspace()
        place = max(place, start + len(words)) if start >= 0 else place
        pieces.append(Piece(words, left, bottom, right, top, goes_on))
    if _letters(piece.text for piece in pieces) != _letters([text]):
        return None
    upright = [piece for piece in pieces if not _is_sideways(piece)]
    sideways = [piece for piece in pieces if _is_sideways(piece)]
    if len(sideways) > len(upright):
        return None
    blocks = [*blocks_of(upright, row_characters), *blocks_of([turned(piece, 1) for piece in sideways], row_characters)]
    return "".join(joined(blocks))


def _is_sideways(piece: Piece) -> bool:
    return len(piece.text.strip()) > 1 and piece.top - piece.bottom > 1.5 * (piece.right - piece.left)


def _letters(texts: Any) -> Counter[str]:
    """How often each character stands there; hyphens at line ends come in several forms."""
    return Counter(
        character for text in texts for character in text if not (character.isspace() or character in _HYPHENS)
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in a few words: 2, 5-7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join(shown[:20]) + (f" and {sum(map(len, runs[20:]))} more" if len(runs) > 20 else "")


def _cleaned_page(text: str) -> str:
    # Before a small letter the hyphen split a word; otherwise it is part of one: Anglo-Saxon, F-16.
    def rejoined(hyphen: re.Match[str]) -> str:
        if hyphen[1].islower():
            return ""
        return "-" if hyphen[0] == "\ufffe" or hyphen[1].isalpha() else hyphen[0]

    text = _LINE_END_HYPHEN.sub(rejoined, text)
    text = text.replace("\ufffe", "").replace("\r\n", "\n").replace("\r", "\n").translate(CLEANED)
    return trimmed(text)
