"""RTF: what a word processor shows of it, with tables, notes, headers and text boxes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from service.errors import UnreadableDocument
from service.intake.encodings import codec_of
from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.markup.blocks import BREAK, Block, Writer, collapsed, placed
from service.intake.parsing.markup.mathematics import lowered, raised
from service.intake.parsing.markup.tables import Cell, Row, rows_of, spread
from service.intake.parsing.reading import Passages, Reading

_TOKEN: Final = re.compile(
    rb"\\'([0-9A-Fa-f]{2})|\\([A-Za-z]+)(-?[0-9]{1,10})? ?|\\(.)|([{}])|[\r\n\0]+|([^\\{}\r\n\0]+)|\\", re.DOTALL
)

_SILENT: Final = frozenset(
    "fonttbl colortbl filetbl stylesheet listtable listoverridetable revtbl rsidtbl pict object objdata shprslt "
    "fldinst bkmkstart bkmkend nonesttables template private xe tc tcn rxe info".split()
)
"""Destinations that show nothing, or again what another one shows."""

_SHOWN: Final = frozenset({"shpinst", "shptxt", "footnote"})
"""Destinations with text among those that programs may skip."""

_MARGINS: Final = frozenset("header headerl headerr headerf footer footerl footerr footerf".split())
_PROPERTIES: Final = {"title": "title", "author": "author", "subject": "subject", "keywords": "keywords"}

_CHARACTERS: Final = {
    **{"tab": " ", "emspace": " ", "enspace": " ", "qmspace": " ", "line": BREAK, "lbr": BREAK, "nestcell": BREAK},
    **{"emdash": "—", "endash": "–", "bullet": "•", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”"},
}
_SYMBOLS: Final = {b"~": "\u00a0", b"_": "\u2011", b"\\": "\\", b"{": "{", b"}": "}", b"\t": " "}

_CODEC_OF_CHARSET: Final = {
    **{77: "mac_roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gb18030", 136: "big5hkscs", 161: "cp1253"},
    **{162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874"},
    **{238: "cp1250", 254: "cp437", 255: "cp850"},
}


def read(source: Path, reading: Reading) -> Passages:
    """The text of an RTF file: headers and footers once, the body, then notes."""
    content = source.read_bytes()
    if not content.lstrip().startswith(b"{\\rtf"):
        raise UnreadableDocument("The file is no RTF. Open it in a word processor, save it as .rtf and send that.")
    blocks = _Document(reading).blocks(content)
    if not blocks:
        raise UnreadableDocument("The RTF file holds no text: it is empty, or its pages are pictures.")
    yield from placed(blocks)


class _Flow:
    """One flow of paragraphs: the body, a header, a note."""

    def __init__(self, row_characters: int) -> None:
        self.writer = Writer()
        self.in_table, self.heading = False, 0
        self.is_head, self.is_bold = False, True
        """Whether the row that is open is marked as one of heads, and whether all of it is bold."""
        self._row_characters = row_characters
        self._inline: list[str] = []
        self._paragraphs: list[str] = []
        """Those of the cell that is open."""
        self._cells: list[Cell] = []
        self._rows: list[tuple[Row, bool]] = []
        """The rows of the table that is open, each with whether it is bold."""

    def write(self, text: str) -> None:
        """Add characters to the paragraph that is open."""
        self._inline.append(text)

    @property
    def last(self) -> str:
        """The last character of the paragraph, "" at its beginning."""
        return self._inline[-1][-1:] if self._inline else ""

    def end_paragraph(self) -> None:
        """End a paragraph; one outside tables ends the table above it."""
        text = self._taken()
        if self.in_table:
            self._paragraphs.append(text)
            return
        self._end_table()
        if text:
            self.writer.add(text, heading=self.heading)

    def end_cell(self) -> None:
        """End a cell."""
        texts = (*self._paragraphs, self._taken())
        self._cells.append(Cell(tuple(text for text in texts if text)))
        self._paragraphs.clear()

    def end_row(self) -> None:
        """End a row."""
        is_bold = self.is_bold and any(cell.blocks for cell in self._cells)
        self._rows.append((Row(tuple(self._cells), self.is_head), is_bold))
        self._cells.clear()
        self.is_head, self.is_bold = False, True

    def end(self) -> None:
        """End the flow, whatever is open."""
        if self.in_table or self._cells or self._paragraphs:
            self.end_cell()
            self.end_row()
        self.in_table = False
        self.end_paragraph()

    def _taken(self) -> str:
        text = collapsed("".join(self._inline))
        self._inline.clear()
        return text

    def _end_table(self) -> None:
        rows = [row for row, _ in self._rows]
        if len(rows) > 1 and [is_bold for _, is_bold in self._rows[:2]] == [True, False]:
            rows[0] = rows[0]._replace(in_head=True)
        self._rows.clear()
        for line in rows_of(spread(rows), self._row_characters):
            self.writer.end_line(apart=True)
            self.writer.add(line)
            self.writer.end_line(apart=True)


@dataclass(slots=True)
class _Look:
    """What holds until the end of a group."""

    flow: _Flow
    silent: bool = False
    noted: str = ""
    """The field of metadata that the group gives; "" for text."""
    codec: str = ""
    """That of the font; "" for the one of the file."""
    fallback: int = 1
    """Characters behind a Unicode character that stand for it in programs which do not know it."""
    hidden: bool = False
    bold: bool = False
    script: str = ""
    in_fonts: bool = False


@dataclass(slots=True)
class _Document:
    """One file as it is read."""

    reading: Reading
    codec: str = "cp1252"
    codecs: dict[int, str] = field(default_factory=dict)
    """Those of the fonts."""
    font: int = 0
    """The font that is being defined."""
    encoded: bytearray = field(default_factory=bytearray)
    """Characters that have not been decoded yet: one may have several bytes."""
    half: int = 0
    """The first half of a character, until its second is there."""
    skipped: int = 0
    """Characters that are still to be passed over."""
    property: str = ""
    """What the file says of itself, as far as it has been read."""
    margins: dict[tuple[str, ...], list[Block]] = field(default_factory=dict)
    notes: list[_Flow] = field(default_factory=list)

    def blocks(self, content: bytes) -> list[Block]:
        """The blocks of the whole file."""
        look = _Look(_Flow(self.reading.row_characters))
        outer: list[_Look] = []
        place, starred = 0, False
        while (token := _TOKEN.match(content, place)) is not None:
            place = token.end()
            if token.lastindex is None:
                continue  # ends of lines mean nothing, even between the bytes of a character
            code, word, number, symbol, brace, characters = token.groups()
            if code is not None or characters is not None:
                self._characters(characters if code is None else bytes([int(code, 16)]))
                continue
            self._decode(look)
            if brace == b"{":
                outer.append(look)
                look = replace(look)
            elif brace == b"}" and outer:
                look = self._closed(look, outer.pop())
            elif word == b"bin":
                place += max(int(number or 0), 0)
            elif self.skipped and (symbol in _SYMBOLS or (word or b"").decode() in _CHARACTERS):
                self.skipped -= 1
                continue
            elif word is not None:
                self._word(look, word.decode(), int(number or 1), starred)
            elif symbol in _SYMBOLS:
                self._write(look, _SYMBOLS[symbol])
            elif symbol in {b"\r", b"\n"}:
                look.flow.end_paragraph()
            self.skipped = self.skipped if word == b"u" else 0
            starred = symbol == b"*"
        self._decode(look)
        while outer:  # a file that is cut off
            look = self._closed(look, outer.pop())
        look.flow.end()
        margins = [block for blocks in self.margins.values() for block in blocks]
        notes = [block for flow in self.notes for block in flow.writer.blocks]
        return [*margins, *look.flow.writer.blocks, *notes]

    def _closed(self, look: _Look, outer: _Look) -> _Look:
        if look.noted and not outer.noted:
            text, self.property = self.property, ""
            if look.noted == "title":
                self.reading.name(text)
            else:
                self.reading.note(look.noted, text)
        if look.flow is not outer.flow:
            look.flow.end()
            if look.flow not in self.notes:
                blocks = look.flow.writer.blocks
                self.margins.setdefault(tuple(block.text for block in blocks), blocks)
        return outer

    def _characters(self, characters: bytes) -> None:
        passed = min(self.skipped, len(characters))
        self.skipped -= passed
        self.encoded += characters[passed:]

    def _decode(self, look: _Look) -> None:
        if self.encoded:
            text = self.encoded.decode(look.codec or self.codec, "replace")
            self.encoded.clear()
            self._write(look, text)

    def _write(self, look: _Look, text: str) -> None:
        text = text if text == BREAK else text.translate(CLEANED)
        if look.noted:
            self.property += text
        elif not look.silent and not look.hidden:
            form = {"super": raised, "sub": lowered}.get(look.script)
            look.flow.write(text if form is None or not text.strip() else form(text, look.flow.last))
            if look.flow.in_table and not look.bold and text.strip():
                look.flow.is_bold = False

    def _word(self, look: _Look, name: str, value: int, starred: bool) -> None:
        if name == "u":
            self._unicode(look, value % 0x10000)
            self.skipped = look.fallback
        elif name in _CHARACTERS:
            self._write(look, _CHARACTERS[name])
        elif (starred and name not in _SHOWN) or name in _SILENT:
            look.silent, look.in_fonts = True, name == "fonttbl"
            if name == "annotation":
                self.reading.warn("Comments were left out.")
        elif name in _PROPERTIES:
            look.noted = _PROPERTIES[name]
        elif name in _MARGINS:
            look.flow = _Flow(self.reading.row_characters)
        elif name == "footnote" and not look.silent:
            self._note(look)
        elif name in _WORDS:
            _WORDS[name](self, look, value)
        elif name in _PARAGRAPH_WORDS and not look.silent:
            _PARAGRAPH_WORDS[name](look.flow, value)

    def _unicode(self, look: _Look, code: int) -> None:
        """Write a character; those beyond the first 65,536 come in two halves."""
        half, self.half = self.half, 0
        if 0xD800 <= code < 0xDC00:
            self.half = code
        elif 0xDC00 <= code < 0xE000:
            self._write(look, chr(0x10000 + ((half - 0xD800) << 10) + code - 0xDC00) if half else "\ufffd")
        else:
            self._write(look, chr(code))

    def _note(self, look: _Look) -> None:
        flow = _Flow(self.reading.row_characters)
        self.notes.append(flow)
        look.flow.write(f"[{len(self.notes)}]")
        flow.writer.mark(f"{len(self.notes)}. ")
        look.flow = flow

    def set_codec(self, _look: _Look, value: int) -> None:
        """Take the code page of the file."""
        self.codec = codec_of(f"cp{value}") or self.codec

    def set_font(self, look: _Look, value: int) -> None:
        """Begin the definition of a font, or characters in it."""
        self.font = value
        if not look.in_fonts:
            look.codec = self.codecs.get(value, "")

    def set_charset(self, _look: _Look, value: int) -> None:
        """Take the charset of the font that is being defined."""
        if value in _CODEC_OF_CHARSET:
            self.codecs[self.font] = _CODEC_OF_CHARSET[value]


def _set_plain(_document: _Document, look: _Look, _value: int) -> None:
    look.hidden, look.bold, look.script = False, False, ""


def _set_script(script: str) -> Callable[[_Document, _Look, int], None]:
    def change(_document: _Document, look: _Look, value: int) -> None:
        look.script = script if value else ""

    return change


def _set_hidden(_document: _Document, look: _Look, value: int) -> None:
    look.hidden = bool(value)


def _set_bold(_document: _Document, look: _Look, value: int) -> None:
    look.bold = bool(value)


def _set_fallback(_document: _Document, look: _Look, value: int) -> None:
    look.fallback = max(value, 0)


_WORDS: Final[Mapping[str, Callable[[_Document, _Look, int], None]]] = {
    "ansicpg": _Document.set_codec,
    "f": _Document.set_font,
    "fcharset": _Document.set_charset,
    "plain": _set_plain,
    "super": _set_script("super"),
    "sub": _set_script("sub"),
    "nosupersub": _set_script(""),
    "v": _set_hidden,
    "deleted": _set_hidden,
    "b": _set_bold,
    "uc": _set_fallback,
}
"""Words that change the look of what follows."""


def _end_paragraph(flow: _Flow, _value: int) -> None:
    flow.end_paragraph()


def _reset(flow: _Flow, _value: int) -> None:
    flow.in_table, flow.heading = False, 0


def _enter_table(flow: _Flow, _value: int) -> None:
    flow.in_table = True


def _set_head(flow: _Flow, _value: int) -> None:
    flow.is_head = True


def _set_heading(flow: _Flow, value: int) -> None:
    flow.heading = value + 1 if 0 <= value < 9 else 0


_PARAGRAPH_WORDS: Final[Mapping[str, Callable[[_Flow, int], None]]] = {
    **dict.fromkeys(("par", "sect", "page", "column", "shptxt"), _end_paragraph),
    "cell": lambda flow, _: flow.end_cell(),
    "row": lambda flow, _: flow.end_row(),
    "pard": _reset,
    "intbl": _enter_table,
    "trhdr": _set_head,
    "outlinelevel": _set_heading,
}
"""Words that end or describe paragraphs, cells and rows."""
