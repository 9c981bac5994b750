"""PPTX: slides in order, each with its tables, the text of its diagrams and charts, the notes and the comments."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from service.errors import UnreadableDocument
from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.markup.blocks import BREAK, Block, Writer, placed
from service.intake.parsing.markup.mathematics import lowered, raised
from service.intake.parsing.markup.tables import Cell, Row, are_heads, rows_of, spread
from service.intake.parsing.office.comments import slide_comments
from service.intake.parsing.office.formulas import formula
from service.intake.parsing.office.graphics import graphic_lines
from service.intake.parsing.office.package import Package, attribute, child, count_of, name_of
from service.intake.parsing.reading import Location, Passages, Reading

_RECURSION_LIMIT: Final = 10_000
_NO_TEXT_OF_ITS_OWN: Final = frozenset({"sldNum", "sldImg"})
"""Placeholders for numbers and the picture of a slide."""

_SAME_ON_MOST: Final = frozenset({"dt", "ftr", "hdr"})
"""Placeholders for dates, footers and headers."""


def read(source: Path, reading: Reading) -> Passages:
    """The text of a presentation; hidden slides are left out, which a warning says."""
    package = Package(source, "PPTX")
    package.note_properties(reading)
    recursion_limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(recursion_limit, _RECURSION_LIMIT))
    try:
        known: set[str] = set()
        slides = [_slide(package, part, reading, known) for part in dict.fromkeys(_slides(package))]
    finally:
        sys.setrecursionlimit(recursion_limit)
    gap = ""
    for number, blocks in enumerate(slides, start=1):
        if blocks:
            yield gap
            yield Location(page=number)
            yield from placed(blocks, Location(page=number))
            gap = "\n\n"
    if not gap:
        raise UnreadableDocument(
            "The presentation holds no text: it is empty, or its slides are pictures. "
            "Run OCR (text recognition) on those first, then send the result."
        )


def _slides(package: Package) -> Iterator[str]:
    tree = package.tree(package.main)
    relationships = package.relationships(package.main)
    if name_of(tree) != "presentation":
        raise UnreadableDocument("The file is no presentation. Save it as .pptx and send that.")
    for entry in child(tree, "sldIdLst") if child(tree, "sldIdLst") is not None else ():
        identifiers = [value for key, value in entry.attrib.items() if key.endswith("}id")]
        _, target = relationships.get(identifiers[0] if identifiers else "", ("", ""))
        if target in package:
            yield target


def _slide(package: Package, part: str, reading: Reading, known: set[str]) -> list[Block]:
    tree = package.tree(part)
    if attribute(tree, "show", "1") in {"0", "false"}:
        reading.warn("Hidden slides were left out.")
        return []
    canvas = _Canvas(package, part, reading, known)
    shapes = child(tree, "cSld", "spTree")
    trees = [shapes]
    if shapes is not None:
        titles = [shape for shape in shapes if _placeholder(shape) in {"title", "ctrTitle"}]
        for shape in [*titles, *(shape for shape in shapes if shape not in titles)]:
            canvas.shape(shape, heading=1 if shape in titles else 0)
    for notes in package.related(part, "notesSlide"):
        shapes = child(package.tree(notes), "cSld", "spTree")
        trees.append(shapes)
        canvas.writer.mark("Notes: ")
        for shape in shapes if shapes is not None else ():
            canvas.shape(shape)
        canvas.writer.mark("")
    blocks = canvas.writer.blocks
    reading.compare(
        lambda: (text for tree in trees if tree is not None for text in _shown_texts(tree)),
        (block.text for block in blocks),
    )
    return [*blocks, *(Block(comment.line) for comment in slide_comments(package, part))]


def _shown_texts(shapes: Any) -> Iterator[str]:
    """The characters of each paragraph of these shapes."""
    from lxml import etree  # type: ignore[import-untyped, unused-ignore]

    walk = etree.iterwalk(shapes, events=("start",))
    for _, element in walk:
        name = name_of(element)
        if name in {"Choice", "Fallback"}:
            forms = (form for form in element.getparent() if any(name_of(part) == "t" for part in form.iter()))
            skipped = next(forms, None) is not element
        else:
            skipped = _is_hidden(element) or _placeholder(element) in _NO_TEXT_OF_ITS_OWN | _SAME_ON_MOST
        if skipped:
            walk.skip_subtree()
        elif name == "p":
            parts = (part for part in element.iter() if name_of(part) in _INLINE)
            yield "".join((part.text or "") if name_of(part) == "t" else " " for part in parts)


_INLINE: Final = frozenset({"t", "br", "tab", "oMath"})


def _placeholder(shape: Any) -> str:
    for holder in shape:
        found = child(holder, "nvPr", "ph")
        if found is not None:
            return attribute(found, "type", "body")
    return ""


def _is_hidden(shape: Any) -> bool:
    return attribute(_properties(shape), "hidden", "0") in {"1", "true"}


def _properties(shape: Any) -> Any:
    """The name and description of a shape; the shape itself where it has neither."""
    found = next((child(part, "cNvPr") for part in shape if name_of(part).startswith("nv")), None)
    return shape if found is None else found


class _Canvas:
    """The shapes of one slide, as they are read."""

    def __init__(self, package: Package, part: str, reading: Reading, known: set[str]) -> None:
        """``known`` are the dates, headers and footers that stand in the text already."""
        self.writer = Writer()
        self._package, self._part, self._reading, self._known = package, part, reading, known

    def shape(self, element: Any, *, heading: int = 0) -> None:
        """A shape, with what stands inside it."""
        name = name_of(element)
        if _is_hidden(element):
            return
        if name == "AlternateContent":
            for form in element:
                before = len(self.writer.blocks)
                for shape in form:
                    self.shape(shape)
                if len(self.writer.blocks) > before:
                    return
        elif name == "sp" and _placeholder(element) in _SAME_ON_MOST:
            self._once(element)
        elif name == "sp" and _placeholder(element) not in _NO_TEXT_OF_ITS_OWN:
            body = child(element, "txBody")
            self._paragraphs(body if body is not None else (), heading)
        elif name == "grpSp":
            for shape in element:
                self.shape(shape)
        elif name == "graphicFrame":
            self._graphic(element)
        elif name == "pic":
            described = attribute(_properties(element), "descr").strip()
            if described:
                self._block(described)
            else:
                self._reading.warn("Pictures without an alternative text were left out.")

    def _once(self, element: Any) -> None:
        """What most slides repeat, where it was typed in."""
        runs = (run for run in element.iter() if name_of(run) == "r")
        text = "".join(part.text or "" for run in runs for part in run if name_of(part) == "t").strip()
        if text and text not in self._known:
            self._known.add(text)
            self._block(text)

    def _block(self, text: str) -> None:
        self.writer.end_line(apart=True)
        self.writer.write(text.translate(CLEANED))
        self.writer.end_line(apart=True)

    def _paragraphs(self, body: Any, heading: int = 0) -> None:
        self.writer.end_line(apart=True)
        for paragraph in body:
            if name_of(paragraph) == "p":
                self._runs(paragraph)
                self.writer.end_line(heading=heading)
        self.writer.end_line(apart=True)

    def _runs(self, paragraph: Any) -> None:
        for run in paragraph:
            match name_of(run):
                case "r" | "fld":
                    text = "".join(part.text or "" for part in run if name_of(part) == "t").translate(CLEANED)
                    properties = child(run, "rPr")
                    baseline = "0" if properties is None else attribute(properties, "baseline", "0")
                    if baseline.lstrip("-").isdecimal() and int(baseline) != 0:
                        text = (raised if int(baseline) > 0 else lowered)(text, self.writer.last)
                    self.writer.write(text)
                case "br":
                    self.writer.write(BREAK)
                case "m" | "AlternateContent":
                    for equation in run.iter():
                        if name_of(equation) == "oMath":
                            self.writer.write(formula(equation).translate(CLEANED))

    def _graphic(self, element: Any) -> None:
        table = next((part for part in element.iter() if name_of(part) == "tbl"), None)
        if table is not None:
            rows = [self._row(row) for row in table if name_of(row) == "tr"]
            properties = child(table, "tblPr")
            marked = properties is not None and attribute(properties, "firstRow", "0") in {"1", "true"}
            texts = [" ".join(cell.blocks) for cell in rows[0].cells] if rows else []
            if len(rows) > 1 and (marked or are_heads(texts)):
                rows[0] = rows[0]._replace(in_head=True)
            self.writer.end_line(apart=True)
            for line in rows_of(spread(rows), self._reading.row_characters):
                self.writer.add(line)
                self.writer.end_line(apart=True)
            return
        lines = graphic_lines(self._package, self._part, element)
        for line in lines:
            self._block(line)
        if not lines:
            self._reading.warn("Embedded objects were left out.")

    def _row(self, row: Any) -> Row:
        cells: list[Cell] = []
        for cell in row:
            if name_of(cell) == "tc" and attribute(cell, "hMerge", "0") != "1":
                inner = _Canvas(self._package, self._part, self._reading, self._known)
                body = child(cell, "txBody")
                inner._paragraphs(body if body is not None else ())
                merged = attribute(cell, "vMerge", "0") == "1"
                if not merged:
                    columns, rows = (count_of(attribute(cell, name)) for name in ("gridSpan", "rowSpan"))
                    cells.append(Cell(tuple(block.text for block in inner.writer.blocks), False, columns, rows))
        return Row(tuple(cells))
