"""One rule says how text is encoded, for files and for bodies that arrive block by block."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidEncoding, UnsupportedMediaType
from service.intake.encodings import TextDecoder, codec_of, decoded, detected_codec

GREEK = "Ο μύλος πουλήθηκε τον Μάιο. Ο μύλος ήταν παλιός και μεγάλος."
RUSSIAN = "Мельница была продана в мае. Покупателя звали Ида Хольм."
JAPANESE = "水車小屋は五月に売られた。買い手はイーダ・ホルムだ。"


def by_blocks(content: bytes, charset: str | None, size: int) -> str:
    decoder = TextDecoder(charset)
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    return "".join(map(decoder.decode, blocks)) + decoder.decode(b"", final=True)


@pytest.mark.parametrize(
    ("content", "charset", "expected"),
    [
        (b"", None, ""),
        (b"a", None, "a"),
        ("naïve €".encode(), None, "naïve €"),
        ("naïve €".encode("utf-8-sig"), None, "naïve €"),
        ("naïve €".encode("utf-8-sig"), "utf-8", "naïve €"),
        # A byte order mark is stronger than the header.
        ("naïve €".encode("utf-8-sig"), "windows-1252", "naïve €"),
        ("a 𝄞 b".encode("utf-16"), None, "a 𝄞 b"),
        ("a 𝄞 b".encode("utf-16"), "utf-16", "a 𝄞 b"),
        (codecs.BOM_UTF16_BE + "ab".encode("utf-16-be"), "utf-8", "ab"),
        ("a 𝄞 b".encode("utf-32"), None, "a 𝄞 b"),
        ("a 𝄞 b".encode("utf-32-le"), "utf-32", "a 𝄞 b"),
        ("plain words".encode("utf-16-le"), None, "plain words"),
        ("plain words".encode("utf-16-be"), None, "plain words"),
        (b"He said \x93no\x94 for 5 \x80.", "iso-8859-1", "He said “no” for 5 €."),
        (b"\x87@\x94\xd4", "shift_jis", "①番"),
        ("中文镕".encode("gbk"), "gb2312", "中文镕"),
        ("Привет".encode("cp866"), "dos-866", "Привет"),
        (b"caf\xe9 \x80", "latin-1", "café €"),
        (GREEK.encode("cp1253"), "windows-1253", GREEK),
        (GREEK.encode("cp1253"), None, GREEK),
        (("Plain words first. " * 10 + RUSSIAN).encode("cp1251"), None, "Plain words first. " * 10 + RUSSIAN),
        (JAPANESE.encode("shift_jis"), None, JAPANESE),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_text_is_read_as_it_is_marked_declared_or_looks(
    content: bytes, charset: str | None, expected: str, size: int
) -> None:
    assert decoded(content, charset) == expected
    if size > 3 or charset is not None or expected not in {GREEK, JAPANESE}:  # a few bytes do not look like anything
        assert by_blocks(content, charset, size) == expected


@given(text=st.text(), size=st.integers(1, 9), codec=st.sampled_from(["utf-8", "utf-16-le", "gb18030"]))
def test_blocks_make_no_difference(text: str, size: int, codec: str) -> None:
    content = text.encode(codec, "ignore")
    assert by_blocks(content, codec, size) == decoded(content, codec)


@pytest.mark.parametrize("content", ["né".encode() + b"x\xff", b"abc\x00\x01\xff\xfe\x00"])
def test_what_is_damaged_is_refused_with_its_place(content: bytes) -> None:
    place = next(place for place in range(len(content), 0, -1) if _is_utf8(content[:place]))
    with pytest.raises(InvalidEncoding, match=rf"byte offset {place}\b"):
        decoded(content, None)
    with pytest.raises(InvalidEncoding, match=rf"byte {place} cannot"):
        by_blocks(content, None, 4)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("label", ["klingon", "utf-7", "rot13", "idna", "unicode-escape", "", "cp99999", "x" * 500])
def test_labels_that_nobody_knows(label: str) -> None:
    assert codec_of(label) is None
    with pytest.raises(UnsupportedMediaType):
        TextDecoder(label)
    with pytest.raises(InvalidEncoding):
        decoded(b"abc", label or "?")


def test_pictures_look_like_no_text() -> None:
    assert detected_codec(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR") is None
