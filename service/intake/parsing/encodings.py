"""The encoding of a file that is text: as it was declared, marked, or written in the file itself."""

from __future__ import annotations

import codecs
import re
from typing import Final

from service.errors import InvalidEncoding

_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_META_SEARCHED_BYTES: Final = 1024
"""How far into an HTML file its ``<meta>`` is looked for, as the HTML standard has it."""

_META_CHARSET: Final = re.compile(rb"""(?i)<meta\s[^>]*\bcharset\s*=\s*["']?\s*(?!utf-?16)([a-z0-9_.:-]+)""")
"""A charset in a ``<meta>``. A declaration of UTF-16 that can be read as ASCII is false; browsers ignore it as well."""

_USED_FOR: Final = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
"""Encodings that the WHATWG Encoding Standard reads as a superset which pages so labelled really use."""


def marked_encoding(content: bytes) -> str | None:
    """The encoding that a byte order mark names."""
    return next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)


def meta_encoding(content: bytes) -> str | None:
    """The encoding that a ``<meta>`` of an HTML file declares."""
    declared = _META_CHARSET.search(content, 0, _META_SEARCHED_BYTES)
    return declared[1].decode("ascii") if declared else None


def decoded(content: bytes, encoding: str | None) -> str:
    """The text of a file without its byte order mark; UTF-8 where no encoding is given.

    Raises :class:`~service.errors.InvalidEncoding` where the file is not in the encoding, or that is not known.
    """
    try:
        codec = codecs.lookup(encoding or "utf-8").name
        text = content.decode(_USED_FOR.get(codec, codec))
    except UnicodeDecodeError as error:
        raise InvalidEncoding(
            f"The text is not valid {error.encoding} at byte offset {error.start}. "
            "Convert it to UTF-8, or send the charset that it is in."
        ) from None
    except (LookupError, ValueError):
        raise InvalidEncoding(
            "The charset that the document is declared to be in is not known. Convert it to UTF-8."
        ) from None
    return text.removeprefix("\ufeff")
