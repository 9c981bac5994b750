"""An HTML tree laid out as blocks, as a browser would show them: nothing shown is lost, nothing hidden comes along."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from service.intake.parsing.markup.blocks import BREAK, Block, Writer
from service.intake.parsing.markup.mathematics import lowered, mathml, raised
from service.intake.parsing.markup.numerals import numeral
from service.intake.parsing.markup.tables import Cell, Row, rows_of, spread

_SKIPPED: Final = frozenset({"head", "script", "style", "template", "iframe", "rp", "datalist", "colgroup"})
"""Elements that show nothing, or nothing of their own."""

_BLOCKS: Final = frozenset(
    "address article aside body center details dd dialog dir div dl dt fieldset figcaption figure footer form header "
    "hgroup html legend main menu nav optgroup option search section select summary".split()
)
"""Elements that stand in lines of their own."""

_APART: Final = frozenset("blockquote dl fieldset figure ol p table ul".split())
"""Those with a blank line before and after."""

_OTHER_FORMS: Final = frozenset({"annotation", "annotation-xml"})
"""Elements that say in another form what a formula says."""

_TABLE_PARTS: Final = frozenset({"thead", "tbody", "tfoot", "tr", "form"})
"""Elements that rows and cells stand in; a form around some of them is nothing that is shown."""

_WITHIN_WORDS: Final = frozenset(
    "a abbr acronym b bdi bdo big cite code del dfn em font i ins kbd mark nobr s samp small span strike strong tt u "
    "var wbr".split()
)
"""Elements that words may go on through."""

_HEADING: Final = re.compile(r"h([1-6])")
_HIDDEN: Final = re.compile(r"(?i)(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse))\b")
_PRESERVED: Final = re.compile(r"(?i)(?:^|;)\s*white-space\s*:\s*(?:pre|break-spaces)\b")


def blocks_of(tree: Any, row_characters: int) -> Iterator[Block]:
    """The blocks of an lxml tree; rows of tables longer than ``row_characters`` are split between cells."""
    layout = _Layout(row_characters)
    layout.walk(tree)
    layout.writer.end_line()
    yield from layout.writer.blocks


def shown_texts(tree: Any) -> Iterator[str]:
    """The characters of an lxml tree that are shown, element by element."""
    from lxml import etree  # type: ignore[import-untyped, unused-ignore]

    line = ""
    walk = etree.iterwalk(tree, events=("start", "end"))
    for event, element in walk:
        if element.tag not in _WITHIN_WORDS:
            yield line
            line = ""
        if event == "end":
            line += element.tail or ""
        elif element.tag in _SKIPPED or element.tag in _OTHER_FORMS or _is_hidden(element):
            walk.skip_subtree()
        else:
            line += element.text or ""
    yield line


class _Layout:
    """One walk through a tree, or through the content of a cell."""

    def __init__(self, row_characters: int) -> None:
        self.writer = Writer()
        self._row_characters = row_characters
        self._lists = 0

    def walk(self, element: Any) -> None:
        """Lay out an element, without what follows it."""
        tag = element.tag
        if not isinstance(tag, str) or tag in _SKIPPED or _is_hidden(element):
            return
        special = _ELEMENTS.get(tag)
        if special is not None:
            special(self, element)
        elif (heading := _HEADING.fullmatch(tag)) is not None:
            self._block(element, apart=True, heading=int(heading[1]))
        elif tag in _BLOCKS or tag in _APART:
            self._block(element, apart=tag in _APART)
        else:
            self.content(element)

    def content(self, element: Any) -> None:
        """Lay out what is inside an element."""
        if element.text:
            self.writer.write(element.text)
        for child in element:
            self.walk(child)
            if child.tail:
                self.writer.write(child.tail)

    def _block(self, element: Any, *, apart: bool = False, heading: int = 0) -> None:
        self.writer.end_line(apart=apart)
        first = len(self.writer.blocks)
        if _PRESERVED.search(element.get("style", "")):
            self.preformatted(element)
        else:
            self.content(element)
        self.writer.end_line(apart=apart)
        if heading and len(self.writer.blocks) > first:
            # Blocks may stand in a heading; one that is not closed holds all that follows, so it is its first line.
            self.writer.blocks[first] = self.writer.blocks[first]._replace(heading=heading)

    def preformatted(self, element: Any) -> None:
        """A passage whose lines are kept."""
        self.writer.end_line(apart=True)
        text = "".join(_raw(element)).strip("\n")
        if text.strip():
            self.writer.add("\n".join(line.rstrip() for line in text.split("\n")))
        self.writer.end_line(apart=True)

    def listed(self, element: Any) -> None:
        """A list, whose items have their bullets or numbers."""
        self.writer.end_line(apart=self._lists == 0)
        self._lists += 1
        numbered = element.tag == "ol"
        items = [child for child in element if child.tag == "li"]
        step = -1 if element.get("reversed") is not None else 1
        number = _integer(element.get("start"), len(items) if step < 0 else 1)
        for child in element:
            if child.tag == "li":
                number = _integer(child.get("value"), number)
                marker = f"{numeral(number, element.get('type', '1'))}. " if numbered else "- "
                self._item(child, "  " * (self._lists - 1) + marker)
                number += step
            else:
                self.walk(child)
            if child.tail and child.tail.strip():
                self.writer.write(child.tail)
        self._lists -= 1
        self.writer.end_line(apart=self._lists == 0)

    def _item(self, element: Any, marker: str) -> None:
        self.writer.end_line()
        if _is_hidden(element):
            return
        self.writer.mark(marker)
        self.content(element)
        self.writer.end_item()

    def stray_item(self, element: Any) -> None:
        """A list item without a list."""
        self._item(element, "- ")

    def table(self, element: Any) -> None:
        """A table: its caption, then a line for each row, or cell after cell where it only lays out a page."""
        self.writer.end_line(apart=True)
        self._strays(element)
        rows = list(_rows(element))
        for caption in element.iterchildren("caption"):
            self.walk(caption)
            self.writer.end_line()
        if _is_layout(element, rows):
            for row in rows:
                for cell in row:
                    self._block(cell)
        else:
            for line in rows_of(spread(self._row(row) for row in rows), self._row_characters):
                self.writer.add(line)
                self.writer.end_line(apart=True)
        self.writer.end_line(apart=True)

    def _strays(self, part: Any) -> None:
        """What stands in a table outside its cells, which browsers show before it."""
        if part.text and part.text.strip():
            self.writer.write(part.text)
        for inner in part:
            if inner.tag in _TABLE_PARTS:
                self._strays(inner)
            elif inner.tag not in {"caption", "td", "th"}:
                self.walk(inner)
            if inner.tail and inner.tail.strip():
                self.writer.write(inner.tail)
        self.writer.end_line()

    def _row(self, cells: list[Any]) -> Row:
        in_head = any(
            ancestor.tag == "thead" for cell in cells[:1] for ancestor in cell.iterancestors("thead", "table")
        )
        return Row(tuple(self._cell(cell) for cell in cells), in_head)

    def _cell(self, element: Any) -> Cell:
        inner = _Layout(self._row_characters)
        inner.content(element)
        inner.writer.end_line()
        return Cell(
            tuple(block.text for block in inner.writer.blocks),
            element.tag == "th",
            _integer(element.get("colspan"), 1),
            _integer(element.get("rowspan"), 1),
            next(element.iterdescendants("table"), None) is not None,
        )

    def line_break(self, _element: Any) -> None:
        """A forced end of the line."""
        self.writer.write(BREAK)

    def rule(self, _element: Any) -> None:
        """A line between two passages."""
        self.writer.end_line(apart=True)

    def picture(self, element: Any) -> None:
        """What a picture says in its alternative text."""
        if alternative := element.get("alt", "").strip():
            self.writer.write(f" {alternative} ")

    def quotation(self, element: Any) -> None:
        """An inline quotation, with its quotation marks."""
        self.writer.write("“")
        self.content(element)
        self.writer.write("”")

    def reading(self, element: Any) -> None:
        """How to read the characters before it."""
        self.writer.write(f"({''.join(_raw(element)).strip()})")

    def superscript(self, element: Any) -> None:
        """An exponent, the number of a note, or raised letters."""
        self.writer.write(raised(_inline(element), self.writer.last))

    def subscript(self, element: Any) -> None:
        """An index."""
        self.writer.write(lowered(_inline(element), self.writer.last))

    def formula(self, element: Any) -> None:
        """A formula."""
        self.writer.write(mathml(element) or element.get("alttext", ""))

    def field(self, element: Any) -> None:
        """What stands in a field of a form."""
        kind = element.get("type", "text").lower()
        if kind in {"checkbox", "radio"}:
            self.writer.write("☒ " if element.get("checked") is not None else "☐ ")
        elif kind == "image":
            self.picture(element)
        elif kind not in {"hidden", "password", "file"} and element.get("value"):
            self.writer.write(f" {element.get('value')} ")


_ELEMENTS: Final[Mapping[str, Callable[[_Layout, Any], None]]] = {
    "pre": _Layout.preformatted,
    "textarea": _Layout.preformatted,
    "listing": _Layout.preformatted,
    "xmp": _Layout.preformatted,
    "ul": _Layout.listed,
    "ol": _Layout.listed,
    "menu": _Layout.listed,
    "li": _Layout.stray_item,
    "table": _Layout.table,
    "br": _Layout.line_break,
    "hr": _Layout.rule,
    "img": _Layout.picture,
    "area": _Layout.picture,
    "q": _Layout.quotation,
    "rt": _Layout.reading,
    "sup": _Layout.superscript,
    "sub": _Layout.subscript,
    "math": _Layout.formula,
    "input": _Layout.field,
}
"""The elements that are more than a line or a part of one."""


def _is_hidden(element: Any) -> bool:
    return element.get("hidden") is not None or bool(_HIDDEN.search(element.get("style", "")))


def _raw(element: Any) -> Iterator[str]:
    """The text inside an element as it is, line breaks included."""
    if element.text:
        yield element.text
    for child in element:
        if isinstance(child.tag, str) and child.tag not in _SKIPPED and not _is_hidden(child):
            if child.tag == "br":
                yield "\n"
            elif child.tag == "img":
                yield child.get("alt", "")
            yield from _raw(child)
        if child.tail:
            yield child.tail


def _inline(element: Any) -> str:
    return re.sub(r"\s+", " ", "".join(_raw(element))).strip()


def _rows(table: Any) -> Iterator[list[Any]]:
    """The cells of each row of a table, not of those inside it; the head first and the foot last, as they are shown."""
    parts = sorted(
        _shown(table),
        key=lambda part: {"thead": 0, "tfoot": 2}.get(part.tag, 1),
    )
    yield from _rows_among(parts)


def _rows_among(parts: Iterable[Any]) -> Iterator[list[Any]]:
    """The cells of each row among the parts of a table; cells outside a row make one, as in browsers."""
    for are_cells, group in groupby(_shown(parts), key=lambda part: part.tag in {"td", "th"}):
        if are_cells:
            yield list(group)
        else:
            for part in group:
                if part.tag == "tr" and (cells := list(_cells_of(part))):
                    yield cells
                elif part.tag in _TABLE_PARTS - {"tr"}:
                    yield from _rows_among(part)


def _cells_of(part: Any) -> Iterator[Any]:
    """The cells of a row, also those in a form."""
    for inner in _shown(part):
        if inner.tag in {"td", "th"}:
            yield inner
        elif inner.tag == "form":
            yield from _cells_of(inner)


def _shown(parts: Iterable[Any]) -> Iterator[Any]:
    return (part for part in parts if isinstance(part.tag, str) and not _is_hidden(part))


def _is_layout(table: Any, rows: list[list[Any]]) -> bool:
    """Whether a table only puts parts of a page beside each other."""
    if table.get("role") in {"presentation", "none"}:
        return True
    cells = [cell for row in rows for cell in row]
    if any(cell.tag == "th" for cell in cells) or table.find("caption") is not None or table.find("thead") is not None:
        return False
    if all(len(row) == 1 for row in rows):
        return True
    passages = sum(len(cell.xpath(".//p | .//h1 | .//h2 | .//h3 | .//ul | .//div | .//article")) > 1 for cell in cells)
    return passages > 0 and len(rows) <= 2


def _integer(text: str | None, default: int) -> int:
    """The number that an attribute begins with, as browsers read it."""
    found = re.match(r"\s*(-?[0-9]{1,6})", text or "")
    return int(found[1]) if found else default
