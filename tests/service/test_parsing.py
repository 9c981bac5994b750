"""Uploads become plain text: which media type they have, and what is kept of HTML and Markdown."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qrag.wire.media_types import MediaType
from service.errors import (
    DocumentTooComplex,
    EncryptedDocument,
    InvalidEncoding,
    UnreadableDocument,
    UnsupportedMediaType,
)
from service.intake.media_types import media_type_of
from service.intake.parsing.formats import READERS
from service.intake.parsing.reading import Reading
from service.intake.parsing.worker import convert
from tests.service.files import Extract
from tests.service.packages import epub, odt

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
        ("binary/octet-stream", "notes.txt", MediaType.PLAIN_TEXT),
        ("application/zip", "letter.docx", MediaType.DOCX),
        ("application/msword", "letter.docx", MediaType.DOCX),
        ("application/vnd.ms-excel", "prices.csv", MediaType.CSV),
        ("text/x-markdown", "a.txt", MediaType.MARKDOWN),
        ("text/x-python", "mill.py", MediaType.PLAIN_TEXT),
        ("text/x-unheard-of", None, MediaType.PLAIN_TEXT),
        ("application/json", "a.json", MediaType.JSON),
        ("application/x-ndjson", None, MediaType.JSON_LINES),
        (None, "server.log", MediaType.PLAIN_TEXT),
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
        ("application/msword", "a.doc"),
        ("application/x-tar", "a.docx"),
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


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        (b"junk\n%PDF-1.4\n", MediaType.PDF),
        (b"{\\rtf1 a}", MediaType.RTF),
        (b"\n<!DOCTYPE html><p>a", MediaType.HTML),
        (epub(["<p>a</p>"]), MediaType.EPUB),
        (odt("<text:p>a</text:p>"), MediaType.ODT),
    ],
)
def test_a_file_without_a_type_or_a_telling_name_is_what_it_begins_as(beginning: bytes, expected: MediaType) -> None:
    assert media_type_of("application/octet-stream", "download", beginning) is expected


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
        "- one",
        "  1. first",
        "  2. second",
        "- two",
        "",
        "Costs",
        "Item: Bread; Price: 3",
        "",
        "term",
        "meaning",
        "other",
        "",
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
        # What declares nothing and is no UTF-8 is Windows-1252, to any browser; so is what declares what nobody knows.
        (b"<p>\x93caf\xe9\x94", None, "“café”"),
        (b"<meta charset=klingon><p>\x93caf\xe9\x94", None, "“café”"),
        (b"<!--" + b"x" * 2000 + b"--><meta charset=koi8-r><p>\xf0", None, "П"),
        (b'<?xml version="1.0" encoding="koi8-r"?><html><body><p>\xf0</p></body></html>', None, "П"),
        ("<meta charset=dos-866><p>Привет".encode("cp866"), None, "Привет"),
        # A lone surrogate, which HTML can name.
        (b"<p>a&#xD800;b", None, "a\ufffdb"),
    ],
)
def test_html_encoding_is_the_declared_one(
    convert_here: Extract, content: bytes, encoding: str | None, expected: str
) -> None:
    assert convert_here(content, MediaType.HTML, charset=encoding) == expected


@pytest.mark.parametrize("media_type", [MediaType.HTML, MediaType.MARKDOWN])
def test_broken_utf8_is_refused_with_its_offset(extract: Extract, media_type: MediaType) -> None:
    with pytest.raises(InvalidEncoding, match="byte offset 7"):
        extract("<p>né".encode() + b"x\xff</p>", media_type)


@pytest.mark.parametrize("encoding", ["no-such", "utf-7", "rot13", "zlib", "idna", "a\0b", "ünknown", "x" * 999])
def test_unknown_encodings_are_refused(extract: Extract, encoding: str) -> None:
    with pytest.raises(InvalidEncoding, match="UTF-8"):
        extract(b"<p>a..b\xff", MediaType.HTML, charset=encoding)


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
        "Item: Bread; Price: 3",
        "def f():",
        '    return "<b>"',
        "- one",
        "  - two",
    ]


def test_markdown_may_start_with_a_byte_order_mark(convert_here: Extract) -> None:
    assert convert_here("# Title".encode("utf-8-sig"), MediaType.MARKDOWN) == "Title"


def test_every_media_type_but_plain_text_has_a_reader() -> None:
    assert READERS.keys() == set(MediaType) - {MediaType.PLAIN_TEXT}


def test_a_reader_is_all_that_a_format_needs(tmp_path: Path) -> None:
    def backwards(source: Path, reading: Reading) -> Iterator[str]:
        text = source.read_text(reading.charset or "utf-8")
        reading.name(f" A title \n of {len(text)} ")
        reading.name("another")
        if "?" in text:
            raise EncryptedDocument("The file needs a password; save it without one and send that.")
        yield from (text[::-1], "\n")
        int(text)  # whatever a damaged file makes a parser stumble over

    def read(text: str, charset: str | None = None) -> str:
        source.write_text(text, charset or "utf-8")
        reading = Reading(charset)
        convert(source, target, MediaType.PDF, reading=reading, output_bytes=100, readers={MediaType.PDF: backwards})
        assert reading.title == f"A title of {len(text)}"
        return target.read_text("utf-8")

    source, target = tmp_path / "source", tmp_path / "target"
    assert read("12") == "21\n"
    assert read("12", "utf-16") == "21\n"
    for text, error in (("ab", UnreadableDocument), ("?", EncryptedDocument), ("1" * 100, DocumentTooComplex)):
        with pytest.raises(error) as refusal:
            read(text)
        assert type(refusal.value) is error


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"<html><body><p>one</p></body></html><p>two</p>", "one\n\ntwo"),
        (b"<html><body>one</body></html>\n<html><head><title>t</title></head><body>two</body></html>", "one\ntwo"),
        (b"<p>one</p></html> two<!-- no --><script>no()</script> three", "one\n\ntwo three"),
    ],
)
def test_what_stands_behind_the_end_of_a_page_is_read(convert_here: Extract, content: bytes, expected: str) -> None:
    assert convert_here(content, MediaType.HTML) == expected
    assert convert_here(content, MediaType.MARKDOWN).split() == expected.split()
