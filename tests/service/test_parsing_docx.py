"""DOCX becomes plain text: what is kept of it, and damaged, locked and hostile packages are refused."""

from __future__ import annotations

import struct
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from qrag.wire.media_types import MediaType
from service.errors import DocumentTooComplex, EncryptedDocument, UnreadableDocument
from tests.service.files import MEBIBYTE, SCANT_MEMORY, WORD, Extract, docx, packed, paragraph, relationships


def test_docx_keeps_headings_lists_tables_and_notes(extract: Extract) -> None:
    item = '<w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>'
    cells = "".join(f"<w:tc>{paragraph(text)}</w:tc>" for text in ("Bread", "3"))
    reference = '<w:p><w:r><w:t>Fish &amp; chips</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
    content = docx(
        paragraph("Title", '<w:pStyle w:val="Heading1"/>')
        + reference
        + paragraph("one", item)
        + paragraph("two", item)
        + f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>",
        {
            "word/numbering.xml": f'<w:numbering xmlns:w="{WORD}"><w:abstractNum w:abstractNumId="0">'
            '<w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/></w:lvl></w:abstractNum>'
            '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num></w:numbering>',
            "word/footnotes.xml": f'<w:footnotes xmlns:w="{WORD}">'
            f'<w:footnote w:id="2">{paragraph("Since 1863.")}</w:footnote></w:footnotes>',
        },
    )
    text = extract(content, MediaType.DOCX)
    assert [line.strip() for line in text.split("\n") if line] == [
        "Title",
        "Fish & chips[1]",
        "1. one",
        "2. two",
        "Bread; 3",
        "1. Since 1863.",
    ]


def test_docx_images_are_not_even_opened(extract: Extract) -> None:
    drawing = "http://schemas.openxmlformats.org/drawingml/2006"
    image = (
        f'<w:p><w:r><w:drawing><wp:inline xmlns:wp="{drawing}/wordprocessingDrawing">'
        f'<a:graphic xmlns:a="{drawing}/main"><a:graphicData><pic:pic xmlns:pic="{drawing}/picture">'
        '<pic:blipFill><a:blip r:embed="i1"/></pic:blipFill></pic:pic></a:graphicData></a:graphic>'
        "</wp:inline></w:drawing></w:r></w:p>"
    )
    content = docx(
        paragraph("before") + image + paragraph("after"),
        {"word/_rels/document.xml.rels": relationships(("i1", "image", "media/missing.png"))},
    )
    assert extract(content, MediaType.DOCX) == "before\n\nafter"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{\\rtf1 not a zip}",
        docx(paragraph("cut"))[:-30],
        packed({"xl/workbook.xml": "<workbook/>"}),
        packed({"word/document.xml": "<w:document"}),
        docx("&undefined;"),
    ],
    ids=["empty", "not a zip", "truncated", "another package", "bad XML", "bad entity"],
)
def test_unreadable_docx(convert_here: Extract, content: bytes) -> None:
    with pytest.raises(UnreadableDocument) as refused:
        convert_here(content, MediaType.DOCX)
    assert type(refused.value) is UnreadableDocument


def test_docx_cannot_read_files_of_the_server(convert_here: Extract, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    content = packed(
        {
            "word/document.xml": f'<!DOCTYPE d [<!ENTITY e SYSTEM "{secret.as_uri()}">]>'
            f'<w:document xmlns:w="{WORD}"><w:body>{paragraph("a&e;b")}</w:body></w:document>'
        }
    )
    assert convert_here(content, MediaType.DOCX) == "ab"


def test_docx_entities_do_not_multiply(convert_here: Extract) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    content = packed(
        {
            "word/document.xml": f'<!DOCTYPE d [<!ENTITY e0 "lol">{entities}]>'
            f'<w:document xmlns:w="{WORD}"><w:body>{paragraph("&e9;")}</w:body></w:document>'
        }
    )
    with pytest.raises(UnreadableDocument):
        convert_here(content, MediaType.DOCX)


def test_encrypted_docx_is_a_compound_file(extract: Extract) -> None:
    content = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(1000) + "EncryptedPackage".encode("utf-16-le")
    with pytest.raises(EncryptedDocument, match="password"):
        extract(content, MediaType.DOCX)


def test_old_word_file_is_not_taken_for_an_encrypted_one(convert_here: Extract) -> None:
    content = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(1000) + "WordDocument".encode("utf-16-le")
    with pytest.raises(UnreadableDocument, match=r"\.doc format") as refused:
        convert_here(content, MediaType.DOCX)
    assert not isinstance(refused.value, EncryptedDocument)


def test_docx_in_an_encrypted_zip(convert_here: Extract) -> None:
    content = bytearray(docx(paragraph("secret")))
    central = content.index(b"PK\x01\x02")
    content[central + 8] |= 1  # the general purpose bit "encrypted"
    with pytest.raises(EncryptedDocument):
        convert_here(bytes(content), MediaType.DOCX)


MEMORY_EATER = docx("<w:p/>" * MEBIBYTE)


def test_zip_bomb_is_refused_before_it_unpacks(extract: Extract) -> None:
    content = docx("", {"word/document.xml": bytes(100 * MEBIBYTE)})
    with pytest.raises(DocumentTooComplex, match="unpack"):
        extract(content, MediaType.DOCX)


def test_zip_bomb_of_many_entries_is_refused(convert_here: Extract) -> None:
    content = docx("", {f"word/{number}.xml": "" for number in range(10_001)})
    with pytest.raises(DocumentTooComplex, match="unpack"):
        convert_here(content, MediaType.DOCX)


def test_zip_bomb_that_lies_about_its_size_does_no_harm(extract: Extract) -> None:
    with zipfile.ZipFile(BytesIO(MEMORY_EATER)) as archive:
        size = struct.pack("<I", archive.getinfo("word/document.xml").file_size)
    assert MEMORY_EATER.count(size) == 2, "in the local header and in the central directory"
    lying = MEMORY_EATER.replace(size, struct.pack("<I", 1_000))
    # Were the part unpacked whole, the memory limit would be reached instead.
    with pytest.raises(UnreadableDocument, match="damaged"):
        extract(lying, MediaType.DOCX, limits=SCANT_MEMORY)


def test_docx_that_passes_the_archive_check_is_stopped_by_the_memory_limit(extract: Extract) -> None:
    with pytest.raises(DocumentTooComplex, match="memory"):
        extract(MEMORY_EATER, MediaType.DOCX, limits=SCANT_MEMORY)


def test_deeply_nested_docx_is_refused(extract: Extract) -> None:
    content = docx("<w:sdt><w:sdtContent>" * 20_000 + "</w:sdtContent></w:sdt>" * 20_000)
    with pytest.raises(DocumentTooComplex, match="nested"):
        extract(content, MediaType.DOCX)
