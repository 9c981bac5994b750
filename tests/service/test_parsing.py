"""Uploaded documents become plain text, whatever they hold."""

from __future__ import annotations

import errno
import hashlib
import html
import json
import re
import signal
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import (
    DocumentTooComplex,
    EncryptedDocument,
    InvalidEncoding,
    ServiceError,
    UnreadableDocument,
    UnsupportedMediaType,
)
from service.parsing import MediaType, ParseLimits, extract_text, media_type_of
from service.parsing_worker import convert

MEBIBYTE = 1 << 20
PARSED_TYPES = [media_type for media_type in MediaType if media_type is not MediaType.PLAIN_TEXT]

#: Enough for a worker to start, and for no more than a few megabytes of document.
SCANT_MEMORY = ParseLimits(memory_bytes=128 * MEBIBYTE)

Extract = Callable[..., str]


@pytest.fixture
def extract(tmp_path: Path) -> Extract:
    """Send a document through a worker process and return its text."""

    def run(
        content: bytes,
        media_type: MediaType,
        *,
        encoding: str | None = None,
        limits: ParseLimits | None = None,
    ) -> str:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(content)
        try:
            extract_text(source, target, media_type, encoding=encoding, limits=limits or ParseLimits())
        except ServiceError as error:
            assert not target.exists()
            assert_fit_for_remote_callers(error, tmp_path)
            raise
        return target.read_text(encoding="utf-8")

    return run


@pytest.fixture(scope="module")
def convert_here(tmp_path_factory: pytest.TempPathFactory) -> Extract:
    """Do in this process what the worker does, so that many examples cost little."""
    folder = tmp_path_factory.mktemp("in_process")

    def run(content: bytes, media_type: MediaType, *, encoding: str | None = None) -> str:
        source, target = folder / "source", folder / "target"
        source.write_bytes(content)
        try:
            convert(source, target, media_type, encoding=encoding, output_bytes=MEBIBYTE)
        except ServiceError as error:
            assert_fit_for_remote_callers(error, folder)
            raise
        return target.read_text(encoding="utf-8")

    return run


def assert_fit_for_remote_callers(error: ServiceError, folder: Path) -> None:
    assert str(folder) not in error.detail
    assert "Traceback" not in error.detail
    assert ".py" not in error.detail
    assert len(error.detail) > 40, "says what to do"


# --- Media types ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "filename", "expected"),
    [
        ("text/plain", None, MediaType.PLAIN_TEXT),
        ("text/html; charset=iso-8859-1", None, MediaType.HTML),
        (" Text/Markdown ;variant=GFM", "a.pdf", MediaType.MARKDOWN),
        ("APPLICATION/PDF", "a.txt", MediaType.PDF),
        (MediaType.DOCX.value, None, MediaType.DOCX),
        (None, "notes.txt", MediaType.PLAIN_TEXT),
        (None, "README.md", MediaType.MARKDOWN),
        ("", "a.b.markdown", MediaType.MARKDOWN),
        ("application/octet-stream", "PAGE.HTML", MediaType.HTML),
        ("application/octet-stream; x=y", "page.htm", MediaType.HTML),
        (None, "C:\\papers\\report.PDF", MediaType.PDF),
        (None, "letter.docx", MediaType.DOCX),
    ],
)
def test_media_type_comes_from_the_content_type_or_else_the_extension(
    content_type: str | None, filename: str | None, expected: MediaType
) -> None:
    assert media_type_of(content_type, filename) is expected


@pytest.mark.parametrize(
    ("content_type", "filename"),
    [
        ("image/png", "a.pdf"),
        ("text/html-sandboxed", None),
        ("application/msword", "a.docx"),
        (None, None),
        (None, "no extension"),
        (None, ".pdf"),
        ("application/octet-stream", "a.doc"),
    ],
)
def test_other_media_types_are_refused_with_the_accepted_ones(
    content_type: str | None,
    filename: str | None,
) -> None:
    with pytest.raises(UnsupportedMediaType) as refused:
        media_type_of(content_type, filename)
    assert all(media_type.value in refused.value.detail for media_type in MediaType)
    assert ".docx" in refused.value.detail


def test_plain_text_needs_no_parser(extract: Extract) -> None:
    with pytest.raises(ValueError, match="plain text"):
        extract(b"text", MediaType.PLAIN_TEXT)


# --- HTML -------------------------------------------------------------------------------------------


def test_html_keeps_text_and_drops_machinery(extract: Extract) -> None:
    page = b"""<!DOCTYPE html><html><head><title>T</title><style>p { color: red }</style>
    <script>var secret = 1;</script></head><body><h1>Head&shy;line</h1>
    <p>Fish &amp; chips cost &lt; &#8364;5 &mdash; or <a href="https://example.org/x">follow
    this</a>.<!-- remark --></p><template>unused</template><script>more()</script>
    <p>before <?php echo ?> after</p></body></html>"""
    text = extract(page, MediaType.HTML)
    assert text == "Head\u00adline\n\nFish & chips cost < €5 — or follow this.\n\nbefore after"


def test_html_lists_tables_and_definitions_keep_their_structure(extract: Extract) -> None:
    page = b"""<ul><li>one<ol><li>first</li><li value="&sup2;">second</li></ol></li><li>two</li></ul>
    <table><caption>Costs</caption><tr><th>Item</th><th>Price</th></tr><tr><td>Bread</td><td>3</td></tr></table>
    <dl><dt>term</dt><dd>meaning</dd><dd>other</dd></dl><section>a</section><section>b</section>"""
    assert extract(page, MediaType.HTML).split("\n") == [
        "  * one",
        "     1. first",
        "     2. second",
        "  * two",
        "Costs",
        "Item   Price",
        "Bread  3",
        "",
        "term",
        "meaning",
        "other",
        "a",
        "b",
    ]


def test_html_preformatted_text_keeps_its_lines_through_inline_elements(extract: Extract) -> None:
    page = b"<p>a  <b> b</b></p><pre><code>if x:\r\n    <span>return  <b>1</b></span>\rfi\n</code></pre>"
    assert extract(page, MediaType.HTML) == "a b\n\nif x:\n    return  1\nfi"


def test_html_that_is_not_displayed_is_left_out(extract: Extract) -> None:
    page = b"<p>seen</p><div style='display: none'><p>un<!-- remark -->seen</p></div>"
    assert extract(page, MediaType.HTML) == "seen"


def test_html_character_references_are_decoded_exactly_once(extract: Extract) -> None:
    page = b"&amp;lt;<table><tr><td>&amp;lt;<table><tr><td>&amp;amp;lt;</table></table>"
    assert extract(page, MediaType.HTML).split() == ["&lt;", "&lt;", "&amp;lt;"]


LETTERS = st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zs", "Zl", "Zp"])
WORDS = st.text(LETTERS | st.sampled_from("&<>;#"), min_size=1)


@settings(deadline=None)
@given(words=st.lists(WORDS, min_size=1), tag=st.sampled_from(["p", "td", "li", "code", "span"]))
def test_html_escaped_words_come_back_as_they_were(
    convert_here: Extract,
    words: Sequence[str],
    tag: str,
) -> None:
    before, after = {"td": ("<table><tr>", "</tr></table>"), "li": ("<ul>", "</ul>")}.get(tag, ("", ""))
    page = f"{before}<{tag}>{html.escape(' '.join(words))}</{tag}>{after}"
    found = convert_here(page.encode(), MediaType.HTML).split()
    assert found[1:] == words if tag == "li" else found == words


@pytest.mark.parametrize(
    ("content", "encoding", "expected"),
    [
        ("<p>naïve €".encode(), None, "naïve €"),
        ("<p>naïve €".encode(), "UTF-8", "naïve €"),
        ("<p>naïve €".encode("utf-8-sig"), None, "naïve €"),
        ("<meta charset=koi8-r><p>naïve €".encode("utf-8-sig"), None, "naïve €"),
        ("<p>naïve €".encode("utf-16"), None, "naïve €"),
        ("<p>naïve €".encode("utf-16-be"), "utf-16be", "naïve €"),
        ("<meta charset=windows-1251><p>Привет".encode("cp1251"), None, "Привет"),
        ("<meta charset='gb2312'><p>中文镕".encode("gbk"), None, "中文镕"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=koi8-r"><p>\xf0', None, "П"),
        ("<meta charset=utf-16><p>é".encode(), None, "é"),
        ("<meta charset=koi8-r><p>é".encode(), "utf-8", "é"),
        # What the web calls ISO-8859-1 is Windows-1252.
        (b"<p>\x93caf\xe9\x94", "ISO-8859-1", "“café”"),
        # Lone surrogates, which UTF-7 can spell and HTML can name.
        (b"<p>a+2AA-b", "utf-7", "a?b"),
        (b"<p>a&#xD800;b", None, "a\ufffdb"),
    ],
)
def test_html_encoding_is_the_declared_one(
    convert_here: Extract, content: bytes, encoding: str | None, expected: str
) -> None:
    assert convert_here(content, MediaType.HTML, encoding=encoding) == expected


@pytest.mark.parametrize("media_type", [MediaType.HTML, MediaType.MARKDOWN])
def test_broken_utf8_is_refused_with_its_offset(extract: Extract, media_type: MediaType) -> None:
    with pytest.raises(InvalidEncoding, match="byte offset 7"):
        extract("<p>né".encode() + b"x\xff</p>", media_type)


@pytest.mark.parametrize("encoding", ["no-such", "rot13", "zlib", "idna", "a\0b", "ünknown", "x" * 999])
def test_unknown_encodings_are_refused(extract: Extract, encoding: str) -> None:
    with pytest.raises(InvalidEncoding, match="UTF-8"):
        extract(b"<p>a..b\xff", MediaType.HTML, encoding=encoding)


@pytest.mark.parametrize("content", [b"", b"  \n", b"<!-- only -->", b"<script>x</script>"])
def test_html_without_text_is_empty(convert_here: Extract, content: bytes) -> None:
    assert convert_here(content, MediaType.HTML) == ""


def test_deeply_nested_html_is_read_up_to_a_depth(extract: Extract) -> None:
    depth = 2_000
    assert extract(b"<div>" * depth + b"in" + b"</div>" * depth + b"<p>out", MediaType.HTML) == "in\n\nout"


def test_absurdly_nested_html_is_refused_rather_than_cut_off(extract: Extract) -> None:
    with pytest.raises(DocumentTooComplex, match="nested"):
        extract(b"<p>before</p>" + b"<div>" * 100_000 + b"in", MediaType.HTML)


# --- Markdown ---------------------------------------------------------------------------------------


def test_markdown_becomes_text_with_tables_code_and_link_titles(extract: Extract) -> None:
    document = """# Title

Some *strong* text with a [link](https://example.org) and `a &lt; b`.

| Item  | Price |
|-------|-------|
| Bread | 3     |

```python
def f():
    return "<b>"
```

- one
  - two

<script>x()</script>
"""
    text = extract(document.encode(), MediaType.MARKDOWN)
    assert "example.org" not in text
    assert "x()" not in text
    assert [line for line in text.split("\n") if line] == [
        "Title",
        "Some strong text with a link and a &lt; b.",
        "Item   Price",
        "Bread  3",
        "def f():",
        '    return "<b>"',
        "  * one",
        "      + two",
    ]


def test_markdown_may_start_with_a_byte_order_mark(convert_here: Extract) -> None:
    assert convert_here("# Title".encode("utf-8-sig"), MediaType.MARKDOWN) == "Title"


# --- DOCX -------------------------------------------------------------------------------------------

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def docx(body: str, parts: Mapping[str, bytes | str] | None = None) -> bytes:
    """Return the smallest package that word processors open, with ``parts`` added to it."""
    document = f'<w:document xmlns:w="{WORD}" xmlns:r="{OFFICE}"><w:body>{body}</w:body></w:document>'
    return packed(
        {
            "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
            '<Default Extension="xml" ContentType="application/xml"/>'
            '<Default Extension="png" ContentType="image/png"/>'
            f'<Override PartName="/word/document.xml" ContentType="{MediaType.DOCX}.main+xml"/></Types>',
            "_rels/.rels": relationships(("r1", "officeDocument", "word/document.xml")),
            "word/document.xml": document,
            **(parts or {}),
        }
    )


def relationships(*targets: tuple[str, str, str]) -> str:
    listed = "".join(
        f'<Relationship Id="{name}" Type="{OFFICE}/{kind}" Target="{part}"/>' for name, kind, part in targets
    )
    return f'<Relationships xmlns="{PACKAGE}/relationships">{listed}</Relationships>'


def packed(parts: Mapping[str, bytes | str]) -> bytes:
    package = BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return package.getvalue()


def paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


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
        "Bread  3",
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


# --- PDF --------------------------------------------------------------------------------------------

HELVETICA = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"


def pdf(
    pages: Sequence[bytes],
    font: bytes = HELVETICA,
    more: Sequence[bytes] = (),
    encrypt: PdfEncryption | None = None,
) -> bytes:
    """Return a PDF of these page contents; ``more`` objects are numbered from ``4 + 2 * len(pages)``."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(pages), kids),
        font,
    ]
    for content in pages:
        number = len(objects) + 2
        objects += [
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>"
            b"/Contents %d 0 R>>" % number,
            stream(encrypt.encrypted(content, number) if encrypt else content),
        ]
    objects += more
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    trailer = b"/Size %d/Root 1 0 R%s" % (len(objects) + 1, encrypt.trailer if encrypt else b"")
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    out += b"trailer\n<<%s>>\nstartxref\n%d\n%%%%EOF\n" % (trailer, start)
    return bytes(out)


def stream(content: bytes) -> bytes:
    return b"<</Length %d>>\nstream\n%s\nendstream" % (len(content), content)


def shown(*lines: bytes) -> bytes:
    return b"BT /F 12 Tf 14 TL 50 750 Td " + b" ".join(b"(%s) Tj T*" % line for line in lines) + b" ET"


class PdfEncryption:
    """The standard security handler of PDF 1.1: RC4 with a key of 40 bits."""

    PADDING = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
    IDENTIFIER = b"0123456789abcdef"
    PERMISSIONS = -4

    def __init__(self, user_password: bytes, owner_password: bytes) -> None:
        user, owner = ((password + self.PADDING)[:32] for password in (user_password, owner_password))
        entry = rc4(hashlib.md5(owner).digest()[:5], user)
        permissions = struct.pack("<i", self.PERMISSIONS)
        self.key = hashlib.md5(user + entry + permissions + self.IDENTIFIER).digest()[:5]
        check = rc4(self.key, self.PADDING)
        identifier, entry, check = (value.hex().encode() for value in (self.IDENTIFIER, entry, check))
        self.trailer = b"/ID[<%s><%s>]/Encrypt<</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P %d>>" % (
            identifier,
            identifier,
            entry,
            check,
            self.PERMISSIONS,
        )

    def encrypted(self, content: bytes, number: int) -> bytes:
        return rc4(hashlib.md5(self.key + struct.pack("<I", number)[:3] + b"\0\0").digest()[:10], content)


def rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def mapped_font(codes: Mapping[bytes, bytes], number: int) -> tuple[bytes, bytes]:
    """Return a font whose codes mean other Unicode characters, and the object ``number`` that says so."""
    mapping = b" ".join(b"<%s> <%s>" % (a.hex().encode(), b.hex().encode()) for a, b in codes.items())
    table = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /T def /CMapType 2 def "
        b"1 begincodespacerange <00> <ff> endcodespacerange %d beginbfchar %s endbfchar endcmap end end"
        % (len(codes), mapping)
    )
    return HELVETICA[:-2] + b"/ToUnicode %d 0 R>>" % number, stream(table)


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


# --- Limits and the worker process ------------------------------------------------------------------


def test_time_limit_ends_the_worker(extract: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class RememberedProcess(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", RememberedProcess)
    with pytest.raises(DocumentTooComplex, match=r"longer than 0\.001 s"):
        extract(b"<p>text", MediaType.HTML, limits=ParseLimits(seconds=0.001))
    assert [worker.returncode for worker in started] == [-signal.SIGKILL]


@pytest.mark.parametrize(
    ("media_type", "content"),
    [(MediaType.HTML, b"<p>" + b"x" * 1_001), (MediaType.PDF, pdf([shown(b"x" * 60)] * 20))],
)
def test_output_limit(extract: Extract, media_type: MediaType, content: bytes) -> None:
    with pytest.raises(DocumentTooComplex, match="1,000 bytes"):
        extract(content, media_type, limits=ParseLimits(output_bytes=1_000))


def test_output_of_exactly_the_limit_is_kept(extract: Extract) -> None:
    text = "é" * 500
    assert extract(f"<p>{text}".encode(), MediaType.HTML, limits=ParseLimits(output_bytes=1_000)) == text


def test_memory_limit_for_html(extract: Extract) -> None:
    with pytest.raises(DocumentTooComplex, match="memory"):
        extract(b"<p>word" * 600_000, MediaType.HTML, limits=SCANT_MEMORY)


def test_full_disk(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"<p>text")
    target.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as full:
        extract_text(source, target, MediaType.HTML, limits=ParseLimits())
    assert full.value.errno == errno.ENOSPC
    assert not target.is_symlink()


def test_worker_stops_itself_when_nobody_watches_the_clock(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"<pre>" + b"<b>x</b>" * 1_000_000)
    request = {
        "source": str(source),
        "target": str(tmp_path / "target"),
        "media_type": MediaType.HTML,
        "encoding": None,
        "processor_seconds": 1,
        "memory_bytes": 1 << 30,
        "output_bytes": MEBIBYTE,
    }
    worker = [sys.executable, "-m", "service.parsing_worker"]
    ended = subprocess.run(worker, input=json.dumps(request).encode())
    assert ended.returncode == -signal.SIGXCPU


@pytest.mark.parametrize(
    ("death", "error", "message"),
    [
        ("kill -SEGV $$", DocumentTooComplex, "crash"),
        ("kill -ABRT $$", DocumentTooComplex, "crash"),
        ("kill -KILL $$", DocumentTooComplex, "memory"),
        ("kill -XCPU $$", DocumentTooComplex, "longer than 60 s"),
        ("exit 1", ServiceError, "operator"),
    ],
)
def test_worker_that_dies_is_reported(
    extract: Extract,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    death: str,
    error: type[ServiceError],
    message: str,
) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{death}\n")
    interpreter.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(ServiceError, match=message) as raised:
        extract(b"<p>text", MediaType.HTML)
    assert type(raised.value) is error


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("source").write_bytes(b"<p>text")
    extract_text(Path("source"), Path("target"), MediaType.HTML, limits=ParseLimits())
    assert (tmp_path / "target").read_text() == "text"


@pytest.mark.parametrize("media_type", PARSED_TYPES)
def test_missing_source_is_not_blamed_on_the_document(tmp_path: Path, media_type: MediaType) -> None:
    with pytest.raises(FileNotFoundError):
        extract_text(tmp_path / "missing", tmp_path / "target", media_type, limits=ParseLimits())


def test_worker_starts_without_the_rest_of_the_service() -> None:
    probe = "import sys, service.parsing_worker; print(*{name.partition('.')[0] for name in sys.modules})"
    found = set(subprocess.check_output([sys.executable, "-c", probe], text=True).split())
    assert "service" in found
    assert not {"torch", "numpy", "fastapi", "pydantic", "lxml", "mammoth", "pypdfium2"} & found


# --- Anything at all --------------------------------------------------------------------------------

VALID: dict[MediaType, bytes] = {
    MediaType.HTML: b"<table><tr><td>a<ul><li value=3>b</ul></table><pre style='padding:2em'>c &amp; d</pre>",
    MediaType.MARKDOWN: b"# a\n\n| a | b |\n|---|---|\n| c | d |\n\n> - `e` [f](g)\n",
    MediaType.PDF: pdf([shown(b"some text-", b"ual content"), shown(b"more")]),
    MediaType.DOCX: docx(paragraph("some text") + "<w:tbl><w:tr><w:tc/></w:tr></w:tbl>"),
}


WORD_DOCUMENT = f'<w:document xmlns:w="{WORD}"><w:body>{paragraph("text")}</w:body></w:document>'.encode()


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.integers(0, 12))
        content[start:end] = draw(st.binary(max_size=12))
    return bytes(content)


def uploads(media_type: MediaType) -> st.SearchStrategy[bytes]:
    return st.binary() | damaged(VALID[media_type])


@pytest.mark.parametrize("media_type", PARSED_TYPES)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_bytes_give_text_or_a_refusal(
    convert_here: Extract,
    media_type: MediaType,
    data: st.DataObject,
) -> None:
    with suppress(UnreadableDocument, InvalidEncoding):
        text = convert_here(data.draw(uploads(media_type)), media_type)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", text)


@settings(deadline=None, max_examples=150)
@given(content=damaged(VALID[MediaType.HTML]))
def test_no_html_is_unreadable(convert_here: Extract, content: bytes) -> None:
    convert_here(content.decode("utf-8", "replace").encode(), MediaType.HTML, encoding="utf-8")


@settings(deadline=None, max_examples=150)
@given(document=damaged(WORD_DOCUMENT))
def test_any_word_document_part_gives_text_or_a_refusal(convert_here: Extract, document: bytes) -> None:
    with suppress(UnreadableDocument):
        text = convert_here(docx("", {"word/document.xml": document}), MediaType.DOCX)
        assert len(text) < 200


@pytest.mark.parametrize("media_type", PARSED_TYPES)
@pytest.mark.parametrize("encoding", [None, "utf-8"])
@pytest.mark.parametrize("cut", [0, 3])
def test_uploads_survive_the_worker_process(
    extract: Extract, media_type: MediaType, encoding: str | None, cut: int
) -> None:
    content = VALID[media_type]
    try:
        text = extract(content[: len(content) // cut] if cut else content, media_type, encoding=encoding)
    except UnreadableDocument:
        assert cut
        assert media_type in {MediaType.PDF, MediaType.DOCX}
    else:
        assert text
