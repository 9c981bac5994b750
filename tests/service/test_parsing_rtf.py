"""RTF: its tables, notes, margins, fields and characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from qrag.wire.media_types import MediaType
from service.errors import UnreadableDocument
from tests.service.files import Extract
from tests.service.outcomes import Outcome


def read(folder: Path, body: bytes) -> Outcome:
    return Outcome(folder, b"{\\rtf1\\ansi\\ansicpg1252 " + body + b"}", MediaType.RTF)


def test_rows_of_tables_have_their_heads(tmp_path: Path) -> None:
    def row(*cells: bytes) -> bytes:
        return b"\\trowd\\cellx1\\cellx2\\pard\\intbl " + b"".join(cell + b"\\cell " for cell in cells) + b"\\row "

    rows = row(b"{\\b Item}", b"{\\b Price}") + row(b"bread\\par rye", b"3")
    found = read(tmp_path, b"Before.\\par " + rows + b"\\pard After.\\par")
    assert found.paragraphs == ["Before.", "Item: bread, rye; Price: 3", "After."]
    marked = row(b"Item", b"Price").replace(b"\\trowd", b"\\trowd\\trhdr") + row(b"flour", b"12")
    assert read(tmp_path, marked).paragraphs == ["Item: flour; Price: 12"]


def test_margins_stand_once_and_notes_at_the_end(tmp_path: Path) -> None:
    body = (
        b"{\\header Mill\\par}{\\headerf Mill\\par}{\\footer Page}"
        b"\\pard\\outlinelevel0 Scope\\par\\pard Sold{\\super\\chftn{\\footnote\\chftn  In May.}} again.\\par"
    )
    found = read(tmp_path, body)
    assert found.text.split("\n") == ["Mill", "Page", "Scope", "Sold[1] again.", "1. In May."]
    assert found.location_of("Sold") == {"headings": ["Scope"]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb"caf\'e9 costs \u8364?5 \'80", "café costs €5 €"),
        (
            rb"{\fonttbl{\f0 A;}{\f1\fcharset204 B;}{\f2\fcharset128 C;}}{\f1 \'cc\'e8\'eb\'e0} {\f2 \'93\'fa\'96\'7b}",
            "Мила 日本",
        ),
        (rb"\uc2\u8364\'80x5", "€5"),
        (rb"\uc0\u-10179\u-8704  smile", "\N{GRINNING FACE} smile"),
        (rb"one\line two\tab three\~four\-five\_six", "one\ntwo three\u00a0fourfive\u2011six"),
        (rb"x{\super 2} and H{\sub 2}O", "x^2 and H2O"),
        (rb"shown{\v hidden}{\deleted gone} again", "shown again"),
        (rb"{\field{\*\fldinst HYPERLINK x}{\fldrslt here}} now", "here now"),
        (rb"{\pict 0a0b}{\*\unknown nothing}{\object{\*\objdata 00}{\result seen}} words", "words"),
        (rb"a{\shp{\*\shpinst{\shptxt boxed\par}}{\shprslt again}}", "a\nboxed"),
        (b"before{\\bin5 words}after", "beforeafter"),
        (b"cut off {\\b here", "cut off here"),
    ],
)
def test_characters_and_what_is_shown(tmp_path: Path, body: bytes, text: str) -> None:
    assert read(tmp_path, body).text == text


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    found = read(tmp_path, rb"{\info{\title Caf\'e9 \u8364?}{\author Ida}{\subject Rye}}Text.")
    assert found.text == "Text."
    assert (found.reading.title, found.reading.metadata) == ("Café €", {"author": "Ida", "subject": "Rye"})


def test_files_without_text_are_refused(convert_here: Extract) -> None:
    for content in (b"no rtf", b"{\\rtf1{\\pict 00}}"):
        with pytest.raises(UnreadableDocument):
            convert_here(content, MediaType.RTF)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb"Ida\u8217\rquote s\u160\~key", "Ida\u2019s\u00a0key"),
        (b"caf\\u233\n? \\u8364\r\n\\'80", "caf\u00e9 \u20ac"),
        (b"{\\fonttbl{\\f1\\fcharset128 M;}}\\f1\\'82\n\\'a0\\'82\r\n\\'a2", "\u3042\u3044"),
    ],
)
def test_what_stands_for_a_character_is_passed_over_and_ends_of_lines_mean_nothing(
    convert_here: Extract, body: bytes, text: str
) -> None:
    assert convert_here(rb"{\rtf1\ansi\ansicpg1252 " + body + b"}", MediaType.RTF) == text
