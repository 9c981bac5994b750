"""How text is encoded, by one rule for files and bodies of all types.

A byte order mark decides; then the charset of the header; then what the file itself declares; then UTF-8, where all of
it is that; then what its bytes look like. Labels mean what they mean to browsers (the WHATWG Encoding Standard).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Final

from service.errors import InvalidEncoding, UnsupportedMediaType

_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
)

LONGEST_MARK: Final = 4
"""Bytes in which a byte order mark shows."""

_DECLARED_WITHIN: Final = 65_536
"""How far into an HTML file its ``<meta>`` is looked for: browsers go on looking behind the first kilobyte."""

_META_CHARSET: Final = re.compile(rb"""(?i)<meta\s[^>]*\bcharset\s*=\s*["']?\s*(?!utf-?16)([a-z0-9_.:-]+)""")
"""A charset in a ``<meta>``. A declaration of UTF-16 that can be read as ASCII is false; browsers ignore it as well."""

_XML_ENCODING: Final = re.compile(rb"""\s*<\?xml[^>]*\bencoding\s*=\s*["'](?!(?i:utf-?16))([A-Za-z0-9_.:-]+)["']""")

_CODECS: Final = {
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "replacement": None,
}
"""Python's codecs for encodings of the standard that it has under other names, or without characters in use."""

_CODE_PAGE: Final = re.compile(r"(?:cp|dos|ibm|windows)[-_]?([0-9]{3,5})")
_MORE: Final = frozenset(
    {"utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "mac-roman", "mac-latin2", "hz", "johab"}
)
"""Encodings that the standard leaves out, beside the code pages."""

_DETECTED_IN: Final = 16_384
"""Bytes whose look decides."""

_CUT_OFF: Final = "unexpected end of data"
"""Why text is no UTF-8 whose last character is not all there."""

_ENOUGH: Final = 4_096
"""Bytes that are waited for before it is decided what they look like."""

_LIKELY: Final = (
    "cp1252 cp1250 cp1251 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 cp874 "
    "iso8859_2 koi8_r cp866 shift_jis cp932 euc_jp euc_kr cp949 gb18030 big5 mac_roman"
).split()
"""Encodings that text without a declaration may be in."""


def marked_encoding(content: bytes) -> str | None:
    """The codec that a byte order mark names."""
    return next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)


def html_encoding(content: bytes) -> str | None:
    """The charset that an HTML file declares, in its XML declaration or a ``<meta>``."""
    declared = _XML_ENCODING.match(content) or _META_CHARSET.search(content, 0, _DECLARED_WITHIN)
    return declared[1].decode("ascii") if declared else None


def codec_of(label: str) -> str | None:
    """Python's codec for a charset by one of its labels; none where it is not known."""
    import webencodings

    encoding = webencodings.lookup(label)
    if encoding is None:
        page = _CODE_PAGE.fullmatch(label.strip().lower())
        try:
            name = codecs.lookup(f"cp{page[1]}" if page else label).name
        except (LookupError, ValueError):
            return None
        if page or name in _MORE:
            return "utf-32-le" if name == "utf-32" else name  # what has no mark is in the usual order of bytes
        encoding = webencodings.lookup(name)  # another spelling, such as latin-1
        if encoding is None:
            return None
    if encoding.name == "x-user-defined":
        return "latin-1"  # a byte beyond ASCII means nothing in particular
    return _CODECS.get(encoding.name, encoding.codec_info.name)


def detected_codec(content: bytes) -> str | None:
    """The codec that bytes which are not UTF-8 are most likely in; none where they look like no text."""
    sample = content[:_DETECTED_IN]
    for codec, place in (("utf-16-le", 1), ("utf-16-be", 0)):
        if len(sample) >= 4 and sample[place::2].count(0) > len(sample) // 4 and sample[1 - place :: 2].count(0) == 0:
            return codec
    if 0 in sample:
        return None
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=_LIKELY, enable_fallback=False).best()
    return None if best is None else best.encoding


def decoded(
    content: bytes,
    charset: str | None,
    declared: Callable[[bytes], str | None] = lambda _: None,
    last: str | None = None,
) -> str:
    """The text of a file without its byte order mark.

    ``charset`` is the header's; ``declared`` finds what the file says itself; ``last`` is the codec of what is neither
    declared nor UTF-8, instead of the likeliest. Raises :class:`~service.errors.InvalidEncoding` where the file is not
    in the encoding, or that is not known.
    """
    codec = marked_encoding(content)
    if codec is None and charset is not None:
        codec = codec_of(charset)
        if codec is None:
            raise InvalidEncoding(
                "The charset that the document is declared to be in is not known. Convert it to UTF-8."
            )
    if codec is None and (label := declared(content)) is not None:
        codec = codec_of(label)  # a label that nobody knows says nothing, as to browsers
    if codec is None and 0 in content[:_DETECTED_IN]:
        codec = detected_codec(content)  # no text in one byte a character
    try:
        return content.decode(codec or "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        # What begins as UTF-8 is no other encoding, but damaged.
        likely = None
        if codec is None and content[: error.start].isascii() and error.reason != _CUT_OFF:
            likely = last or detected_codec(content[error.start :])
        if likely is None:
            raise InvalidEncoding(
                f"The text is not valid {error.encoding} at byte offset {error.start}. "
                "Convert it to UTF-8, or send the charset that it is in."
            ) from None
    return content.decode(likely, "replace")


class TextDecoder:
    """Plain text, decoded block by block as it arrives, by the same rule."""

    def __init__(self, charset: str | None) -> None:
        """Raises :class:`~service.errors.UnsupportedMediaType` for a charset that is not known."""
        self._codec = None if charset is None else codec_of(charset)
        if charset is not None and self._codec is None:
            raise UnsupportedMediaType(f"The charset {charset!r} is not known here. Convert the text to UTF-8.")
        self._decoder: codecs.IncrementalDecoder | None = None
        self._held = b""
        """Bytes that say too little by themselves: where a mark may stand, and from the first that is no UTF-8 on."""
        self._guessing = False
        """Whether nothing names the encoding, and all that was read means the same in any that contains ASCII."""
        self._read = 0

    def decode(self, block: bytes, *, final: bool = False) -> str:
        """The characters that a block completes.

        Raises :class:`~service.errors.InvalidEncoding` with the offset of a byte that cannot be decoded.
        """
        block, self._held = self._held + block, b""
        if self._decoder is None:
            if len(block) < LONGEST_MARK and not final:
                self._held = block
                return ""
            return self._begun(block, final)
        waiting = self._decoder.getstate()[0]  # bytes of a character that the last block had cut
        try:
            text = self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            whole = waiting + block
            if not self._guessing or error.reason == _CUT_OFF or not whole[: error.start].isascii():
                raise self._refusal(error.start - len(waiting)) from None
            text = whole[: error.start].decode("ascii")
            self._decoder.reset()
            self._read -= len(waiting)
            self._read += error.start
            return text + self._guessed(whole[error.start :], final)
        self._read += len(block)
        self._guessing = self._guessing and text.isascii()
        return text

    def _begun(self, block: bytes, final: bool) -> str:
        """The first characters, once it is known what they are in."""
        marked = marked_encoding(block)
        self._codec = marked or self._codec or (detected_codec(block) if 0 in block[:_DETECTED_IN] else None)
        self._guessing = self._codec is None
        self._codec = self._codec or "utf-8"
        self._decoder = codecs.getincrementaldecoder(self._codec)("strict")
        return self.decode(block, final=final).removeprefix("\ufeff")

    def _guessed(self, block: bytes, final: bool) -> str:
        """What is no UTF-8, in what it looks like, once there is enough of it."""
        if len(block) < _ENOUGH and not final:
            self._held = block
            return ""
        likely = detected_codec(block)
        if likely is None:
            raise self._refusal(0)
        self._codec, self._guessing = likely, False
        self._decoder = codecs.getincrementaldecoder(likely)("replace")
        self._read += len(block)
        return self._decoder.decode(block, final)

    def _refusal(self, place: int) -> InvalidEncoding:
        return InvalidEncoding(
            f"The text is not valid {self._codec}: byte {self._read + place} cannot be decoded. Convert the file, or "
            "name its encoding: Content-Type: text/plain; charset=..."
        )
