"""Pages of PDF files come in reading order, with what was typed into them, and it is said which have no text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qrag.wire.media_types import MediaType
from service.intake.parsing.pdf.page_layout import Piece, blocks_of, turned
from service.intake.parsing.reading import Reading
from service.intake.parsing.worker import convert
from tests.service.files import MEBIBYTE, Extract, pdf, stream

LEFT = ("The committee reviewed the annual", "report and the auditors of the firm", "found it in good order for once.")
RIGHT = ("A lighthouse stands on the rock", "above the bay and warns the ships", "of shallow water every night.")

ACROSS = (
    "A heading that goes across both of the columns of the page",
    "A line below them that goes across both columns again",
)


def at(x: float, y: float, text: str, size: int = 10) -> bytes:
    return f"BT /F {size} Tf {x} {y} Td ({text}) Tj ET ".encode("latin-1")


def rows(lines: tuple[tuple[str, ...], ...], y: float = 700, step: float = 14) -> bytes:
    """Lines whose parts begin at 50, 200 and 350."""
    return b"".join(
        at(50 + 150 * column, y - step * number, text)
        for number, line in enumerate(lines)
        for column, text in enumerate(line)
    )


def read(tmp_path: Path, content: bytes) -> tuple[str, Reading, list[tuple[int, dict[str, object]]]]:
    source, target, reading = tmp_path / "source", tmp_path / "target", Reading()
    source.write_bytes(content)
    places = convert(source, target, MediaType.PDF, reading=reading, output_bytes=MEBIBYTE)
    return target.read_text(), reading, places


@pytest.mark.parametrize("offset", [0, 5])
@pytest.mark.parametrize("by_row", [True, False])
def test_columns_are_read_one_after_the_other(convert_here: Extract, offset: int, by_row: bool) -> None:
    left = [at(50, 700 - 14 * number, line) for number, line in enumerate(LEFT)]
    right = [at(320, 700 + offset - 14 * number, line) for number, line in enumerate(RIGHT)]
    drawn = [part for pair in zip(left, right, strict=True) for part in pair] if by_row else left + right
    page = at(50, 760, ACROSS[0], 14) + b"".join(drawn)
    text = convert_here(pdf([page + at(50, 600, ACROSS[1], 14)]), MediaType.PDF)
    assert " ".join(text.split()) == " ".join((ACROSS[0], *LEFT, *RIGHT, ACROSS[1]))


def test_tables_keep_their_rows_and_heads(convert_here: Extract) -> None:
    table = (("Qty", "Article", "Price"), ("2", "Bread", "3"), ("1", "Milk", "4"))
    text = convert_here(pdf([at(50, 750, "Invoice of May") + rows(table) + at(50, 600, "Please pay.")]), MediaType.PDF)
    assert [line for line in text.split("\n") if line] == [
        "Invoice of May",
        "Qty: 2; Article: Bread; Price: 3",
        "Qty: 1; Article: Milk; Price: 4",
        "Please pay.",
    ]


def test_contents_with_leaders_and_tables_without_heads_keep_their_rows(convert_here: Extract) -> None:
    text = convert_here(pdf([rows((("Chapter One", "12"), ("Chapter Two", "31")))]), MediaType.PDF)
    assert text.split("\n\n") == ["Chapter One; 12", "Chapter Two; 31"]


def test_exponents_stay_exponents(convert_here: Extract) -> None:
    page = at(50, 700, "It is 10", 12) + at(85.5, 706, "6", 7) + at(93, 700, "metres.", 12)
    assert convert_here(pdf([page]), MediaType.PDF) == "It is 10^6 metres."


def test_a_turned_page_keeps_the_order_of_its_lines(convert_here: Extract) -> None:
    page = at(50, 700, "First line on a turned page.") + at(50, 680, "Second line.")
    content = pdf([page]).replace(b"/MediaBox[0 0 600 800]", b"/Rotate 90/MediaBox[0 0 600 800]")
    assert convert_here(content, MediaType.PDF) == "First line on a turned page.\nSecond line."


def test_what_was_typed_into_a_form_and_over_the_page_is_text(convert_here: Extract) -> None:
    look = stream(at(2, 10, "Lindqvist"), b"/Type/XObject/Subtype/Form/BBox[0 0 200 20]/Resources<</Font<</F 3 0 R>>>>")
    field = b"<</Type/Annot/Subtype/Widget/FT/Tx/T(s)/V(Lindqvist)/Rect[150 690 350 710]/F 4/AP<</N 6 0 R>>>>"
    content = pdf([at(50, 700, "Surname:")], more=[look, field])
    content = content.replace(b"/Type/Page/Parent", b"/Annots[7 0 R]/Type/Page/Parent")
    assert convert_here(content, MediaType.PDF) == "Surname:  Lindqvist"


PICTURE = stream(
    b"\x80" * 100, b"/Type/XObject/Subtype/Image/Width 10/Height 10/ColorSpace/DeviceGray/BitsPerComponent 8"
)
SCAN = b"q 600 0 0 800 0 0 cm /P Do Q "


def test_pages_without_text_are_said(tmp_path: Path) -> None:
    pages = [at(50, 700, "One."), b"", SCAN, SCAN + at(50, 20, "Page 4 of 5"), at(50, 700, "Five.")]
    number = 4 + 2 * len(pages)
    content = pdf(pages, more=[PICTURE], resources=b"/XObject<</P %d 0 R>>" % number)
    text, reading, places = read(tmp_path, content)
    assert text == "One.\n\nPage 4 of 5\n\nFive."
    assert len(reading.warnings) == 1
    assert "Pages without text: 2-4." in reading.warnings[0]
    assert places == [(0, {"page": 1}), (6, {"page": 4}), (19, {"page": 5})]


def test_a_page_of_text_over_its_scan_is_quiet(tmp_path: Path) -> None:
    words = "Recognised words of a whole page. " * 5
    content = pdf([SCAN + at(50, 700, words)], more=[PICTURE], resources=b"/XObject<</P 6 0 R>>")
    _, reading, _ = read(tmp_path, content)
    assert reading.warnings == []


def test_labels_of_pages_and_what_the_file_says_of_itself(tmp_path: Path) -> None:
    content = pdf(
        [at(50, 700, "Preface"), at(50, 700, "Text")],
        more=[b"<</Title(The Mill)/Author(Ida)/CreationDate(D:20310314)>>"],
    )
    content = content.replace(b"/Type/Catalog", b"/PageLabels<</Nums[0<</S/r>>1<</S/D>>]>>/Type/Catalog")
    content = content.replace(b"/Root 1 0 R", b"/Info 8 0 R/Root 1 0 R")
    _, reading, places = read(tmp_path, content)
    assert [location for _, location in places] == [{"page": 1, "label": "i"}, {"page": 2, "label": "1"}]
    assert (reading.title, reading.metadata) == ("The Mill", {"author": "Ida", "date": "2031-03-14"})


PIECES = st.lists(
    st.tuples(st.text("abc ", min_size=1, max_size=12), st.integers(0, 500), st.integers(0, 700), st.integers(5, 14)),
    max_size=25,
)


@settings(deadline=None)
@given(drawn=PIECES, quarters=st.integers(0, 3))
def test_no_letter_of_a_page_is_lost_or_doubled_wherever_it_stands(
    drawn: list[tuple[str, int, int, int]], quarters: int
) -> None:
    pieces = [Piece(text, x, y, x + 5 * len(text), y + height) for text, x, y, height in drawn]
    blocks = blocks_of([turned(piece, quarters) for piece in pieces], 200)
    found = "".join(block.text for block in blocks)
    assert sorted(filter(str.isalpha, found)) == sorted(filter(str.isalpha, "".join(text for text, *_ in drawn)))
