"""ODT, OpenDocument text: what a word processor shows of it, notes and headers included."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from service.errors import UnreadableDocument
from service.intake.parsing.cleaning import CLEANED, encrypted
from service.intake.parsing.markup.blocks import BREAK, Block, Writer, placed
from service.intake.parsing.markup.mathematics import lowered, mathml, raised
from service.intake.parsing.markup.numerals import numeral
from service.intake.parsing.markup.tables import Cell, Row, rows_of, spread
from service.intake.parsing.office.package import Package, attribute, child, count_of, name_of
from service.intake.parsing.reading import Passages, Reading

_RECURSION_LIMIT: Final = 10_000
_MOST_REPEATED: Final = 100
"""Empty cells and rows are stored once with how often they stand there: to the end of the sheet, as often as not."""

_REPEATED_CHARACTERS: Final = 200_000
"""What all repetitions of a document may come to."""

_LEFT_OUT: Final = frozenset(
    "tracked-changes annotation annotation-end sequence-decls forms table-of-content-source title desc "
    "bookmark bookmark-start bookmark-end reference-mark soft-page-break".split()
)
_PROPERTIES: Final = {"creator": "author", "initial-creator": "author", "date": "modified", "creation-date": "date"}


def read(source: Path, reading: Reading) -> Passages:
    """The text of an ODT file: headers, the body, footers, then notes."""
    package = Package(source, "ODT")
    if "content.xml" not in package:
        raise UnreadableDocument("The file is a ZIP archive without an OpenDocument text in it. Save it as .odt anew.")
    if "META-INF/manifest.xml" in package and b"encryption-data" in package.bytes_of("META-INF/manifest.xml"):
        raise encrypted("ODT")
    recursion_limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(recursion_limit, _RECURSION_LIMIT))
    try:
        blocks = _blocks(package, reading)
    finally:
        sys.setrecursionlimit(recursion_limit)
    if not blocks:
        raise UnreadableDocument("The ODT file holds no text: it is empty, or its pages are pictures.")
    yield from placed(blocks)


def _blocks(package: Package, reading: Reading) -> list[Block]:
    if "meta.xml" in package:
        for element in package.tree("meta.xml").iter():
            name = name_of(element)
            if name == "title":
                reading.name(element.text)
            elif name == "language":
                reading.note("language", element.text)
            elif name in _PROPERTIES:
                reading.note(_PROPERTIES[name], element.text)
    tree = package.tree("content.xml")
    body = child(tree, "body", "text")
    if body is None:
        raise UnreadableDocument("The file is no OpenDocument text. Save it as .odt and send that.")
    styles = package.tree("styles.xml") if "styles.xml" in package else None
    looks = _Looks([part for part in (styles, tree) if part is not None])
    notes: list[Any] = []
    blocks: dict[str, list[Block]] = {"header": [], "footer": []}
    for element in () if styles is None else styles.iter():
        name = name_of(element).removesuffix("-left").removesuffix("-first")
        if name in blocks:
            for block in _told(element, looks, notes, reading):
                if block not in blocks[name]:
                    blocks[name].append(block)
    content = [*blocks["header"], *_told(body, looks, notes, reading), *blocks["footer"]]
    number = 0
    while number < len(notes):
        number += 1
        content += _told(notes[number - 1], looks, notes, reading, f"{number}. ")
    return content


def _told(element: Any, looks: _Looks, notes: list[Any], reading: Reading, marker: str = "") -> list[Block]:
    """The blocks of a flow, compared with what stands in it."""
    blocks = _flow(element, looks, notes, reading, marker)
    reading.compare(lambda: _shown_texts(element, looks), (block.text for block in blocks))
    return blocks


def _flow(element: Any, looks: _Looks, notes: list[Any], reading: Reading, marker: str = "") -> list[Block]:
    flow = _Flow(looks, notes, reading)
    flow.writer.mark(marker)
    flow.walk(element)
    flow.writer.end_line()
    flow.end_paragraph()  # boxes that stand on a page and in no paragraph
    return flow.writer.blocks


class _Looks:
    """What the styles of a document say of the text that has them."""

    def __init__(self, trees: list[Any]) -> None:
        self.scripts: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.lists: dict[str, dict[int, tuple[str, str, int]]] = {}
        self._repeatable = _REPEATED_CHARACTERS
        for tree in trees:
            for style in tree.iter():
                if name_of(style) == "style":
                    properties = child(style, "text-properties")
                    if properties is not None:
                        place = attribute(properties, "text-position").split(" ")[0]
                        if place in {"super", "sub"} or (place.strip("-%").isdecimal() and place.strip("-%") != "0"):
                            low = place == "sub" or place.startswith("-")
                            self.scripts[attribute(style, "name")] = "sub" if low else "super"
                        if attribute(properties, "display") == "none":
                            self.hidden.add(attribute(style, "name"))
                elif name_of(style) == "list-style":
                    self.lists[attribute(style, "name")] = {
                        int(attribute(level, "level", "1")): (
                            attribute(level, "num-format") if name_of(level) == "list-level-style-number" else "-",
                            attribute(level, "num-suffix", "."),
                            int(attribute(level, "start-value", "1")),
                        )
                        for level in style
                        if name_of(level).startswith("list-level-style")
                    }

    def repeated(self, count: str, cells: Sequence[Cell]) -> int:
        """How often cells stand there that say so themselves, as long as that is not beyond all measure."""
        size = sum(1 + sum(map(len, cell.blocks)) for cell in cells)
        times = max(1, min(count_of(count), _MOST_REPEATED, self._repeatable // max(size, 1)))
        self._repeatable -= times * size
        return times

    def leave_out(self, element: Any) -> bool:
        """Whether an element is not shown."""
        name = name_of(element)
        hidden = attribute(element, "style-name") in self.hidden or attribute(element, "display") == "none"
        return not name or name in _LEFT_OUT or hidden


def _shown_texts(flow: Any, looks: _Looks) -> Iterator[str]:
    """The characters of a flow that are shown, paragraph by paragraph."""
    from lxml import etree  # type: ignore[import-untyped, unused-ignore]

    line = ""
    walk = etree.iterwalk(flow, events=("start", "end"))
    for event, element in walk:
        name = name_of(element)
        if name not in _WITHIN_WORDS or attribute(element, "style-name") in looks.scripts:
            yield line
            line = ""
        if event == "end":
            line += element.tail or ""
        elif looks.leave_out(element) or name in {"note", "annotation-xml"}:
            walk.skip_subtree()
        else:
            line += element.text or ""
    yield line


_WITHIN_WORDS: Final = frozenset({"span", "a", "bookmark", "bookmark-start", "bookmark-end", "soft-page-break"})
"""Elements that words may go on through."""


class _Flow:
    """One flow of paragraphs."""

    def __init__(self, looks: _Looks, notes: list[Any], reading: Reading) -> None:
        self.writer = Writer()
        self._looks, self._notes, self._reading = looks, notes, reading
        self._frames: list[Any] = []

    def walk(self, element: Any) -> None:
        """Read what is inside an element; characters between paragraphs are none."""
        for part in element:
            self._element(part)

    def _inline(self, element: Any) -> None:
        self.writer.write((element.text or "").translate(CLEANED))
        for part in element:
            self._element(part)
            self.writer.write((part.tail or "").translate(CLEANED))

    def _element(self, element: Any) -> None:
        name = name_of(element)
        style = attribute(element, "style-name")
        if name == "annotation":
            self._reading.warn("Comments were left out.")
        if self._looks.leave_out(element):
            return
        match name:
            case "p" | "h":
                self._paragraph(element, _heading(element))
            case "span" if style in self._looks.scripts:
                form = raised if self._looks.scripts[style] == "super" else lowered
                inner = _Flow(self._looks, self._notes, self._reading)
                inner._inline(element)
                self._frames += inner._frames
                self.writer.write(form(inner.writer.take(), self.writer.last))
            case "s" | "tab":
                self.writer.write(" ")
            case "line-break":
                self.writer.write(BREAK)
            case "list":
                self._list(element, 1, "")
            case "table":
                self._table(element)
            case "note":
                body = child(element, "note-body")
                if body is not None:
                    self._notes.append(body)
                    self.writer.write(f"[{len(self._notes)}]")
            case "ruby":
                base, reading = child(element, "ruby-base"), child(element, "ruby-text")
                self._inline(base if base is not None else element)
                self.writer.write(f"({''.join(reading.itertext())})" if reading is not None else "")
            case "frame" | "custom-shape":
                self._frame(element)
            case "math":
                self.writer.write(mathml(element))
            case "span" | "a" | "bookmark-ref" | "reference-ref" | "sequence" | "page-number" | "date" | "time":
                self._inline(element)
            case _ if element.text and element.text.strip():
                self._inline(element)
            case _:
                self.walk(element)

    def _paragraph(self, element: Any, heading: int) -> None:
        self.writer.end_line(apart=True)
        self._inline(element)
        self.writer.end_line(heading=heading)
        self.writer.end_line(apart=True)
        self.end_paragraph()

    def end_paragraph(self) -> None:
        """Read the boxes that are anchored in what came before."""
        frames, self._frames = self._frames, []
        for frame in frames:
            self.walk(frame)

    def _frame(self, element: Any) -> None:
        boxes = [part for part in element if name_of(part) == "text-box"] or (
            [element] if name_of(element) == "custom-shape" else []
        )
        if boxes:
            self._frames += boxes
            return
        described = next(("".join(part.itertext()) for part in element if name_of(part) in {"desc", "title"}), "")
        if described.strip():
            self.writer.write(f" {described.strip()} ")
        else:
            self._reading.warn("Pictures and objects without an alternative text were left out.")

    def _list(self, element: Any, level: int, style: str) -> None:
        style = attribute(element, "style-name") or style
        form, suffix, number = self._looks.lists.get(style, {}).get(level, ("-", "", 1))
        for item in element:
            if name_of(item) not in {"list-item", "list-header"}:
                continue
            number = int(attribute(item, "start-value", str(number)))
            marker = "- " if form == "-" else f"{numeral(number, form)}{suffix} " if form else ""
            if name_of(item) == "list-item":
                self.writer.end_line()
                self.writer.mark("  " * (level - 1) + marker)
                number += 1
            for part in item:
                if name_of(part) == "list":
                    self.writer.mark("")
                    self._list(part, level + 1, style)
                elif name_of(part) in {"p", "h"}:
                    self._inline(part)
                    self.writer.end_line(heading=_heading(part))
                    self.end_paragraph()
                else:
                    self._element(part)
        self.writer.end_line(apart=level == 1)

    def _table(self, element: Any) -> None:
        self.writer.end_line(apart=True)
        for line in rows_of(spread(self._rows(element, in_head=False)), self._reading.row_characters):
            self.writer.add(line)
            self.writer.end_line(apart=True)

    def _rows(self, element: Any, *, in_head: bool) -> Iterator[Row]:
        for part in element:
            name = name_of(part)
            if name == "table-row":
                cells = tuple(self._cells(part))
                for _ in range(self._looks.repeated(attribute(part, "number-rows-repeated", "1"), cells)):
                    yield Row(cells, in_head)
            elif name in {"table-header-rows", "table-rows", "table-row-group"}:
                yield from self._rows(part, in_head=in_head or name == "table-header-rows")

    def _cells(self, row: Any) -> Iterator[Cell]:
        for part in row:
            if name_of(part) == "table-cell":
                blocks = _flow(part, self._looks, self._notes, self._reading)
                columns = count_of(attribute(part, "number-columns-spanned", "1"))
                rows = count_of(attribute(part, "number-rows-spanned", "1"))
                has_rows = any(name_of(inner) == "table" for inner in part.iter())
                cell = Cell(tuple(block.text for block in blocks), False, columns, rows, has_rows)
                for _ in range(self._looks.repeated(attribute(part, "number-columns-repeated", "1"), [cell])):
                    yield cell


def _heading(paragraph: Any) -> int:
    """The level of a heading; 0 for other paragraphs."""
    level = attribute(paragraph, "outline-level", "1")
    return int(level) if name_of(paragraph) == "h" and level.isdecimal() else 0
