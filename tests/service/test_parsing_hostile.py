"""Files that mean harm end in a refusal with words, or are read: within limits, and never with what is not theirs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from zipfile import ZipFile

import pytest

from qrag.wire.media_types import MediaType
from service.errors import DocumentTooComplex, EncryptedDocument, InvalidEncoding, ServiceError, UnreadableDocument
from tests.service.files import (
    MEBIBYTE,
    OFFICE,
    WORD,
    Extract,
    changed,
    docx,
    packed,
    paragraph,
    pdf,
    relationships,
    shown,
)
from tests.service.packages import SHEETS, SLIDES, epub, odt, pptx, shape, slide_table, xlsx

PACKAGES: Mapping[MediaType, tuple[bytes, str]] = {
    MediaType.DOCX: (docx(paragraph("word")), "word/document.xml"),
    MediaType.DOCM: (docx(paragraph("word")), "word/document.xml"),
    MediaType.PPTX: (pptx([shape("word")]), "ppt/slides/slide1.xml"),
    MediaType.XLSX: (xlsx({"s": [["word"]]}), "xl/worksheets/sheet1.xml"),
    MediaType.ODT: (odt("<text:p>word</text:p>"), "content.xml"),
    MediaType.EPUB: (epub(["<p>word</p>"]), "OEBPS/text/c1.xhtml"),
}
"""For each format that is an archive a small file, and the part in which its text stands."""

_ENTITIES = "".join(
    f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
BILLIONS = f"<!DOCTYPE x [<!ENTITY a 'lol'>{_ENTITIES}]>"
"""A declaration by which ``&j;`` would be a billion times ``lol``."""

FOREIGN = "<!DOCTYPE x [<!ENTITY j SYSTEM 'file:///etc/passwd'>]>"
"""A declaration by which ``&j;`` would be a file of the server."""


def with_part(media_type: MediaType, content: bytes | str) -> bytes:
    package, part = PACKAGES[media_type]
    return changed(package, {part: content})


def part_of(media_type: MediaType) -> str:
    package, part = PACKAGES[media_type]
    with ZipFile(BytesIO(package)) as archive:
        return archive.read(part).decode().rpartition("?>")[2]


def listed(package: bytes, offset: int, form: str, value: int) -> bytes:
    """The archive with another value in its list of entries."""
    content = bytearray(package)
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into(form, content, at + offset, value)
        at = content.find(b"PK\x01\x02", at + 4)
    return bytes(content)


# -- archives ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", PACKAGES)
@pytest.mark.parametrize("declared", ["", BILLIONS, FOREIGN])
def test_entities_are_not_resolved(convert_here: Extract, media_type: MediaType, declared: str) -> None:
    content = declared + part_of(media_type).replace("word<", "word &j; <", 1)
    with suppress(UnreadableDocument):
        text = convert_here(with_part(media_type, content), media_type)
        assert "word" in text
        assert not any(words in text for words in ("lol", "root:"))


@pytest.mark.parametrize("media_type", PACKAGES)
def test_archives_that_unpack_to_more_than_any_document(convert_here: Extract, media_type: MediaType) -> None:
    one = with_part(media_type, bytes(65 * MEBIBYTE))
    many = changed(PACKAGES[media_type][0], {f"{number}": b"" for number in range(10_001)})
    for package in (one, many):
        with pytest.raises(DocumentTooComplex, match="parts that unpack"):
            convert_here(package, media_type)


@pytest.mark.parametrize("media_type", PACKAGES)
def test_archives_whose_list_lies(convert_here: Extract, media_type: MediaType) -> None:
    package, _ = PACKAGES[media_type]
    for offset, form, value in (
        (24, "<I", 10),
        (16, "<I", 123),
        (10, "<H", 99),
        (42, "<I", 1 << 30),
    ):  # size, CRC, method
        with pytest.raises(UnreadableDocument):
            convert_here(listed(package, offset, form, value), media_type)
    with pytest.raises(EncryptedDocument, match="password"):
        convert_here(listed(package, 8, "<H", 1), media_type)
    # Each name leads to the same bytes, so that a small file unpacks to a large one.
    overlapping = listed(packed({**{f"{number}": b"" for number in range(300)}, "big": b""}), 24, "<I", 4 * MEBIBYTE)
    with pytest.raises(DocumentTooComplex, match="parts that unpack"):
        convert_here(overlapping, media_type)


@pytest.mark.parametrize("media_type", PACKAGES)
def test_archives_that_are_cut_off_or_name_paths_outside(convert_here: Extract, media_type: MediaType) -> None:
    package, _ = PACKAGES[media_type]
    for end in (10, len(package) // 2, -25):
        with pytest.raises(UnreadableDocument):
            convert_here(package[:end], media_type)
    assert "word" in convert_here(changed(package, {"../../../tmp/q-rag-evil": b"x"}), media_type)


@pytest.mark.parametrize("media_type", PACKAGES)
def test_parts_whose_elements_are_nested_beyond_all_measure(convert_here: Extract, media_type: MediaType) -> None:
    with pytest.raises(UnreadableDocument):
        convert_here(with_part(media_type, "<a>" * 50_000 + "</a>" * 50_000), media_type)


# -- cycles and absurd sizes ------------------------------------------------------------------------------------------

CELL = f"<w:tc>{paragraph('word')}</w:tc>"
TABLE_CELL = "<table:table-cell {}><text:p>word</text:p></table:table-cell>"
HUGE = 1_000_000_000
REPEATED = f'table:number-columns-repeated="{HUGE}"'
SPANNED = f'table:number-columns-spanned="{HUGE}" table:number-rows-spanned="{HUGE}"'
SLIDE_IDS = '<p:sldId r:id="r1"/>' * 50_000
NOTE_MARK = '<w:p><w:r><w:footnoteReference w:id="1"/></w:r></w:p>'
STYLE_LOOP = '<w:style w:styleId="a"><w:basedOn w:val="a"/></w:style>'


def word_table(properties: str) -> bytes:
    return docx(f"<w:tbl><w:tr>{properties}{CELL}</w:tr></w:tbl>")


def document_with(kind: str, part: str, body: str = paragraph("word"), content: str = "") -> bytes:
    parts = {"word/_rels/document.xml.rels": relationships(("x", kind, part))}
    return docx(body, {**parts, f"word/{part}": content} if content else parts)


def sheet_with(content: str) -> bytes:
    return with_part(MediaType.XLSX, f'<worksheet xmlns="{SHEETS}">{content}</worksheet>')


def text_table(rows: str) -> bytes:
    return odt(f"<text:p>word</text:p><table:table>{rows}</table:table>")


WORD_CELL = '<c r="XFD1048576" t="inlineStr"><is><t>word</t></is></c>'
NOTE = (
    f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:id="1"><w:p><w:r><w:t>n</w:t>'
    '<w:footnoteReference w:id="1"/></w:r></w:p></w:footnote>'
    "</w:footnotes>"
)
STYLES = f'<w:styles xmlns:w="{WORD}">%s</w:styles>'
CHAIN = "".join(f'<w:style w:styleId="{n}"><w:basedOn w:val="{n + 1}"/></w:style>' for n in range(3_000))
SPINE = (
    '<package><manifest><item id="a" href="book.opf" media-type="application/xhtml+xml"/><item id="b" '
    'href="text/c1.xhtml" media-type="application/xhtml+xml"/><item id="c" href="../../../../etc/passwd" '
    'media-type="application/xhtml+xml"/></manifest><spine>%s</spine></package>'
)

READ = {
    "docx-span": (MediaType.DOCX, word_table(f'<w:tc><w:tcPr><w:gridSpan w:val="{HUGE}"/></w:tcPr></w:tc>')),
    "docx-gap": (MediaType.DOCX, word_table(f'<w:trPr><w:gridBefore w:val="{HUGE}"/></w:trPr>')),
    "docx-nested": (
        MediaType.DOCX,
        docx("<w:tbl><w:tr><w:tc>" * 50 + paragraph("word") + "</w:tc></w:tr></w:tbl>" * 50),
    ),
    "docx-chunk-itself": (
        MediaType.DOCX,
        document_with("aFChunk", "document.xml", paragraph("word") + '<w:altChunk r:id="x"/>'),
    ),
    "docx-header-itself": (MediaType.DOCX, document_with("header", "document.xml")),
    "docx-note-itself": (
        MediaType.DOCX,
        document_with(
            "footnotes",
            "footnotes.xml",
            paragraph("word") + NOTE_MARK,
            NOTE,
        ),
    ),
    "docx-style-chain": (MediaType.DOCX, document_with("styles", "styles.xml", content=STYLES % CHAIN)),
    "docx-style-cycle": (
        MediaType.DOCX,
        document_with("styles", "styles.xml", content=STYLES % STYLE_LOOP),
    ),
    "pptx-span": (
        MediaType.PPTX,
        pptx([slide_table(["word", "b"]).replace("<a:tc>", f'<a:tc gridSpan="{HUGE}" rowSpan="{HUGE}">')]),
    ),
    "pptx-notes-itself": (
        MediaType.PPTX,
        pptx([shape("word")], {"ppt/slides/_rels/slide1.xml.rels": relationships(("n", "notesSlide", "slide1.xml"))}),
    ),
    "pptx-listed-often": (
        MediaType.PPTX,
        changed(
            pptx([shape("word")]),
            {
                "ppt/presentation.xml": f'<p:presentation xmlns:p="{SLIDES}" xmlns:r="{OFFICE}"><p:sldIdLst>'
                f"{SLIDE_IDS}</p:sldIdLst></p:presentation>"
            },
        ),
    ),
    "xlsx-dimension": (
        MediaType.XLSX,
        sheet_with(f'<dimension ref="A1:XFD1048576"/><sheetData><row r="1048576">{WORD_CELL}</row></sheetData>'),
    ),
    "xlsx-merged": (
        MediaType.XLSX,
        sheet_with(
            f'<sheetData><row r="1"><c><v>1</v></c><c><v>2</v></c></row><row>{WORD_CELL}</row></sheetData>'
            '<mergeCells><mergeCell ref="A1:XFD1048576"/></mergeCells>'
        ),
    ),
    "xlsx-numbers": (
        MediaType.XLSX,
        sheet_with(
            f'<sheetData><row r="{"9" * 30}"><c r="ZZZ9"><v>1e999</v></c><c t="s"><v>{HUGE}</v></c><c s="{HUGE}"><v>'
            'nan</v></c><c r="A1" t="str"><v>word</v></c></row></sheetData>'
        ),
    ),
    "odt-cells": (
        MediaType.ODT,
        text_table(f"<table:table-row>{TABLE_CELL.format(REPEATED)}</table:table-row>"),
    ),
    "odt-rows": (
        MediaType.ODT,
        text_table(
            f'<table:table-row table:number-rows-repeated="{HUGE}">'
            f"{TABLE_CELL.format(REPEATED)}</table:table-row>" * 200
        ),
    ),
    "odt-spans": (
        MediaType.ODT,
        text_table(f"<table:table-row>{TABLE_CELL.format(SPANNED)}</table:table-row>"),
    ),
    "odt-nested-rows": (
        MediaType.ODT,
        odt(
            '<table:table><table:table-row table:number-rows-repeated="100"><table:table-cell><text:p>word</text:p>' * 6
            + "</table:table-cell></table:table-row></table:table>" * 6
        ),
    ),
    "epub-spine": (
        MediaType.EPUB,
        changed(
            epub(["<p>word</p>"]),
            {"OEBPS/book.opf": SPINE % ('<itemref idref="b"/><itemref idref="a"/>' * 20_000 + '<itemref idref="c"/>')},
        ),
    ),
    "html-spans": (
        MediaType.HTML,
        b"<table>" + b"<tr><td colspan=1000000000 rowspan=1000000000>word<td>y" * 8 + b"</table>",
    ),
    "html-nested": (MediaType.HTML, b"<table><tr><td>word" * 100),
    "csv-wide": (MediaType.CSV, b"word," * 100_000),
    "csv-field": (MediaType.CSV, b'a,"word' + b" x" * 500_000),
    "json-deep": (MediaType.JSON, b'{"word":' * 400 + b"1" + b"}" * 400),
    "jsonl-number": (MediaType.JSON_LINES, b'{"word": ' + b"9" * 10_000 + b"}"),
    "mail-parts": (
        MediaType.MAIL,
        b"Subject: word\nContent-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nhi\n" * 300 + b"--b--\n",
    ),
    "rtf-groups": (MediaType.RTF, b"{\\rtf1 " + b"{" * 50_000 + b"word"),
    "rtf-binary": (MediaType.RTF, b"{\\rtf1 word{\\bin9999999999 }hidden}"),
    "rtf-fallback": (MediaType.RTF, b"{\\rtf1 word\\uc999999999\\u8364 hidden}"),
}
"""What is absurd about it is left out or cut, and its word is read."""


@pytest.mark.parametrize("name", READ)
def test_absurd_sizes_and_cycles_are_read(convert_here: Extract, name: str) -> None:
    media_type, content = READ[name]
    text = convert_here(content, media_type)
    assert "word" in text
    assert not any(words in text for words in ("hidden", "root:"))


REFUSED = {
    "docx-nested": (MediaType.DOCX, docx("<w:tbl><w:tr><w:tc>" * 10_000 + "</w:tc></w:tr></w:tbl>" * 10_000)),
    "pptx-groups": (MediaType.PPTX, pptx(["<p:grpSp>" * 10_000 + "</p:grpSp>" * 10_000])),
    "odt-lists": (
        MediaType.ODT,
        odt("<text:list><text:list-item>" * 10_000 + "</text:list-item></text:list>" * 10_000),
    ),
    "epub-itself": (
        MediaType.EPUB,
        changed(epub([""]), {"META-INF/container.xml": '<c><rootfile full-path="META-INF/container.xml"/></c>'}),
    ),
    "html-nested": (MediaType.HTML, b"<table><tr><td>x" * 10_000),
    "json-deep": (MediaType.JSON, b"[" * 100_000 + b"]" * 100_000),
    "json-cut": (MediaType.JSON, b'{"a": [1, 2'),
    "jsonl-deep": (MediaType.JSON_LINES, b'{"a": 1}\n' + b"[" * 100_000),
    "mail-deep": (
        MediaType.MAIL,
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (depth, depth) for depth in range(3_000)),
    ),
    "pdf-cycle": (
        MediaType.PDF,
        pdf([shown(b"x")]).replace(b"/Kids[4 0 R]", b"/Kids[2 0 R]"),
    ),
    "pdf-cut": (MediaType.PDF, pdf([shown(b"x")])[:100]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused(convert_here: Extract, name: str) -> None:
    media_type, content = REFUSED[name]
    with pytest.raises((UnreadableDocument, InvalidEncoding)):
        convert_here(content, media_type)


@pytest.mark.parametrize(
    "content",
    [
        pdf([shown(b"word")]).replace(b"/Count 1/", b"/Count 9999999/"),
        pdf([shown(b"word")]).replace(b"trailer\n<<", b"trailer\n<</Prev 9 "),
        pdf([shown(b"word")]).replace(b"/Contents 5 0 R", b"/Contents[5 0 R 4 0 R]"),
        pdf([b"/X Do " + shown(b"word")], resources=b"/XObject<</X 4 0 R>>"),
    ],
)
def test_pages_that_lead_in_circles_give_text_or_a_refusal(extract: Extract, content: bytes) -> None:
    with suppress(ServiceError):
        assert "word" in extract(content, MediaType.PDF)
