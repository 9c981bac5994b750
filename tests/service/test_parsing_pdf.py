"""PDF becomes plain text: pages, words and characters, and what is damaged, locked or without text is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from qrag.wire.media_types import MediaType
from service.errors import DocumentTooComplex, EncryptedDocument, UnreadableDocument
from service.intake.parsing.process import ParseLimits
from tests.service.files import MEBIBYTE, SCANT_MEMORY, Extract, PdfEncryption, mapped_font, pdf, shown, stream
from tests.service.outcomes import Outcome


def test_pdf_pages_are_separated_by_a_blank_line(extract: Extract) -> None:
    content = pdf([shown(b"First page", b"second line"), b"", shown(b"caf\351")])
    assert extract(content, MediaType.PDF) == "First page\nsecond line\n\ncafé"


def test_pdf_words_split_at_line_ends_are_joined(extract: Extract) -> None:
    content = shown(b"An exam-", b"ple of Anglo-", b"Saxon F-", b"16, 2010-", b"2020 and a dash -", b"here.")
    text = extract(pdf([content]), MediaType.PDF)
    assert text == "An example of Anglo-Saxon F-16, 2010-\n2020 and a dash -\nhere."


def test_pdf_of_a_whole_book_is_read_within_the_default_limits(extract: Extract) -> None:
    lines = [b"All happy families are alike; each unhappy family is unhappy in its own way."] * 40
    text = extract(pdf([shown(b"page %d" % number, *lines) for number in range(2_000)]), MediaType.PDF)
    assert text.count("happy families") == 80_000
    assert text.count("\n\npage ") == 1_999


def test_pdf_characters_beyond_the_basic_plane_and_without_unicode(convert_here: Extract) -> None:
    meanings = {b"A": "😀".encode("utf-16-be"), b"B": b"\xd8\x00", b"C": b"\0\0", b"D": b"\0\1"}
    font, table = mapped_font(meanings, number=6)
    assert convert_here(pdf([shown(b"xAyBzCCwDv")], font, [table]), MediaType.PDF) == "x😀yzwv"


def test_pdf_with_a_user_password_is_refused(extract: Extract) -> None:
    content = pdf([shown(b"secret")], encrypt=PdfEncryption(b"user", b"owner"))
    with pytest.raises(EncryptedDocument, match="password"):
        extract(content, MediaType.PDF)


def test_pdf_that_opens_without_a_password_is_read(extract: Extract) -> None:
    content = pdf([shown(b"not so secret")], encrypt=PdfEncryption(b"", b"owner"))
    assert b"not so secret" not in content
    assert extract(content, MediaType.PDF) == "not so secret"


@pytest.mark.parametrize("pages", [[b"0 0 100 100 re f"], [b"", b""]], ids=["drawings only", "empty pages"])
def test_pdf_without_text_is_sent_to_ocr(extract: Extract, pages: Sequence[bytes]) -> None:
    with pytest.raises(UnreadableDocument, match=r"no text layer.*OCR"):
        extract(pdf(pages), MediaType.PDF)


def test_pdf_whose_glyphs_mean_nothing_has_no_text(convert_here: Extract) -> None:
    font, table = mapped_font({b"x": b"\0\0"}, number=6)
    with pytest.raises(UnreadableDocument, match="OCR"):
        convert_here(pdf([shown(b"xxxx")], font, [table]), MediaType.PDF)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"%PDF-1.7\nnothing follows",
        pdf([]),
        pdf([shown(b"text")])[:60],
        pdf([shown(b"text")]).replace(b"/Kids[4 0 R]", b"/Kids[9 0 R]"),
    ],
    ids=["empty", "header only", "no page", "truncated", "page missing"],
)
def test_corrupt_pdf(extract: Extract, content: bytes) -> None:
    with pytest.raises(UnreadableDocument, match=MediaType.PDF.value) as refused:
        extract(content, MediaType.PDF)
    assert type(refused.value) is UnreadableDocument


def test_pdf_bomb_of_a_page_that_unpacks_to_gigabytes_is_refused(extract: Extract) -> None:
    page = b"BT /F 12 Tf 50 750 Td " + b"(aaaaaaaa) Tj " * (16 * MEBIBYTE) + b" ET"
    content = pdf([page], deflated=2)
    assert len(content) < 10_000
    with pytest.raises(DocumentTooComplex):
        extract(content, MediaType.PDF, limits=SCANT_MEMORY)


def test_pdf_bomb_of_forms_that_draw_forms_is_refused(extract: Extract) -> None:
    depth, times = 12, 10
    forms = [
        stream(
            b"/X Do " * times if level + 1 < depth else shown(b"ha"),
            b"/Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>/XObject<</X %d 0 R>>>>"
            % (7 + level),
        )
        for level in range(depth)
    ]
    content = pdf([b"/X Do"], more=forms, resources=b"/XObject<</X 6 0 R>>")
    with pytest.raises(DocumentTooComplex):
        extract(content, MediaType.PDF, limits=ParseLimits(seconds=2))


def test_pdf_pages_that_are_not_there_cost_no_others(tmp_path: Path) -> None:
    content = pdf([shown(b"First."), shown(b"Second."), shown(b"Third.")]).replace(b"6 0 R 8 0 R]", b"3 0 R 8 0 R]")
    found = Outcome(tmp_path, content, MediaType.PDF)
    assert found.paragraphs == ["First.", "Third."]
    assert found.location_of("Third.") == {"page": 3}
    assert found.reading.warnings[0].startswith("Pages without text: 2.")


@pytest.mark.parametrize("cut", [b"<FEFFD8000041>", b"<FEFF0041D83D>"])
def test_a_title_cut_within_a_character_costs_no_text(tmp_path: Path, cut: bytes) -> None:
    content = pdf([shown(b"Text.")], more=[b"<</Title %s/Author(Ida)>>" % cut])
    found = Outcome(tmp_path, content.replace(b"/Root 1 0 R", b"/Root 1 0 R/Info 6 0 R"), MediaType.PDF)
    assert (found.text, found.reading.title, found.reading.metadata) == ("Text.", None, {"author": "Ida"})
