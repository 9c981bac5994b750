"""XLSX workbooks: the sheets in order, each row with the heads of its columns and its comments, then what is drawn."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from service.errors import UnreadableDocument
from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.markup.tables import MOST_COLUMNS, are_heads, record_lines, unused_heads
from service.intake.parsing.office.comments import Comment, sheet_comments
from service.intake.parsing.office.graphics import graphic_lines
from service.intake.parsing.office.package import Package, attribute, elements, name_of
from service.intake.parsing.reading import Location, Passages, Reading
from service.intake.parsing.records.cells import Cells

_REFERENCE: Final = re.compile(r"\$?([A-Z]{1,3})\$?([0-9]{1,7})")
_MERGED: Final = re.compile(rb"<(?:\w+:)?mergeCell\s[^>]*?ref\s*=\s*[\"']([A-Z0-9$]+):([A-Z0-9$]+)[\"']")
_MOST_MERGED: Final = 10_000

_MOST_COLUMN: Final = 16_384
"""Columns of a sheet."""


class Sheet(NamedTuple):
    """A sheet as the workbook lists it."""

    name: str
    part: str
    is_shown: bool


def read(source: Path, reading: Reading) -> Passages:
    """The rows of all sheets that are shown, each sheet under its name. Formulas are their last results."""
    package = Package(source, "XLSX")
    sheets = list({sheet.part: sheet for sheet in _sheets(package)}.values())
    if not sheets:
        raise UnreadableDocument("The file holds no worksheet. Save it as .xlsx and send that.")
    package.note_properties(reading)
    cells = Cells(package, reading)
    gap = ""
    for sheet in sheets:
        if not sheet.is_shown:
            reading.warn(f"The hidden sheet {sheet.name} was left out.")
            continue
        begun = False
        lines = _lines(package.bytes_of(sheet.part), cells, reading)
        for number, line in _with_comments(lines, sheet_comments(package, sheet.part)):
            yield gap
            yield Location(sheet=sheet.name, row=number)
            yield line if begun else f"{sheet.name}\n\n{line}"
            gap, begun = "\n\n", True
        for line in _drawn_lines(package, sheet.part):
            yield gap
            yield Location(sheet=sheet.name)
            yield line if begun else f"{sheet.name}\n\n{line}"
            gap, begun = "\n\n", True
    if not gap:
        raise UnreadableDocument("The workbook holds no text: all of its sheets are empty or hidden.")


def _sheets(package: Package) -> Iterator[Sheet]:
    targets = package.relationships(package.main)
    for element in package.tree(package.main).iter():
        if name_of(element) == "sheet":
            identifiers = [value for key, value in element.attrib.items() if key.endswith("}id")]
            _, part = targets.get(identifiers[0] if identifiers else "", ("", ""))
            if part in package:
                is_shown = attribute(element, "state", "visible") == "visible"
                yield Sheet(attribute(element, "name").translate(CLEANED), part, is_shown)


def _with_comments(lines: Iterable[tuple[int, str]], comments: Iterable[Comment]) -> Iterator[tuple[int, str]]:
    """The lines of a sheet, with the comments on each row behind it."""
    waiting = deque(sorted(((_row(comment.cell), comment.line) for comment in comments), key=lambda line: line[0]))
    last = 0
    for number, line in lines:
        while waiting and waiting[0][0] < (number if number == last else max(number, last + 1)):
            yield waiting.popleft()
        yield number, line
        last = number
    yield from waiting


def _row(reference: str) -> int:
    """The row of a cell; 0 for what is no cell."""
    place = _REFERENCE.fullmatch(reference)
    return int(place[2]) if place else 0


def _drawn_lines(package: Package, part: str) -> Iterator[str]:
    """What text boxes and charts say that lie over a sheet."""
    for kind, drawing in package.relationships(part).values():
        if kind == "drawing" and drawing in package:
            tree = package.tree(drawing)
            for box in tree.iter():
                if name_of(box) == "txBody":
                    lines = ("".join(text.text or "" for text in line.iter() if name_of(text) == "t") for line in box)
                    yield from (line.translate(CLEANED).strip() for line in lines if line.strip())
            yield from graphic_lines(package, drawing, tree)


# -- rows -------------------------------------------------------------------------------------------------------------


def _lines(content: bytes, cells: Cells, reading: Reading) -> Iterator[tuple[int, str]]:
    """The lines of a sheet with the numbers of their rows."""
    heads: list[str] = []
    first = 0
    used: set[int] = set()
    begun = False
    spans = _Spans(content)
    for number, row in _rows(content, cells):
        values = spans.filled(number, row)
        if not begun and len(row) > 1:
            begun = True  # what stands alone above is a title
            named = spans.across(number, values)
            if are_heads([value for value in values if value]) and all(named):
                heads, first = named, number
                continue
        used.update(column for column, value in enumerate(values) if value)
        yield from ((number, line) for line in record_lines(heads, values, reading.row_characters))
    yield from ((first, line) for line in unused_heads(dict(enumerate(heads)), used))


def _rows(content: bytes, cells: Cells) -> Iterator[tuple[int, dict[int, str]]]:
    """The rows that hold anything, by their numbers, with the values of their columns."""
    number = 0
    for element in elements(content, "row"):
        given = attribute(element, "r")
        number = int(given) if given.isdecimal() and len(given) < 10 else number + 1
        row: dict[int, str] = {}
        column = -1
        for cell in element:
            if name_of(cell) == "c":
                place = _REFERENCE.fullmatch(attribute(cell, "r"))
                column = _column(place[1]) if place else column + 1
                value = cells.shown(cell)
                if value and column < _MOST_COLUMN:
                    row[column] = value
        if row:
            yield number, row


def _column(letters: str) -> int:
    """The number of a column from 0."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


class _Spans:
    """The cells of a sheet that span several rows or columns."""

    def __init__(self, content: bytes) -> None:
        self._below: dict[int, list[tuple[int, int]]] = {}
        """For each row in which some begin, their columns and last rows."""
        self._across: dict[tuple[int, int], int] = {}
        """For each that begins somewhere, its last column."""
        self._hanging: dict[int, tuple[int, str]] = {}
        for number, merged in enumerate(_MERGED.finditer(content)):
            first, last = (_REFERENCE.fullmatch(corner.decode()) for corner in merged.groups())
            if number < _MOST_MERGED and first and last:
                row, column = int(first[2]), _column(first[1])
                self._across[row, column] = min(_column(last[1]), column + MOST_COLUMNS)
                if int(last[2]) > row:
                    self._below.setdefault(row, []).append((column, int(last[2])))

    def filled(self, number: int, row: dict[int, str]) -> list[str]:
        """The values of a row, with those that span it from above."""
        for column, (last, value) in list(self._hanging.items()):
            if last < number:
                del self._hanging[column]
            else:
                row.setdefault(column, value)
        for column, last in self._below.get(number, ()):
            if column in row:
                self._hanging[column] = last, row[column]
        values = [""] * (max(row) + 1)
        for column, value in row.items():
            values[column] = value
        return values

    def across(self, number: int, values: list[str]) -> list[str]:
        """The values of a row of heads, each in all columns that it spans."""
        spread = list(values)
        for column, value in enumerate(values):
            last = self._across.get((number, column), column) if value else column
            spread += [""] * (last + 1 - len(spread))
            for covered in range(column + 1, last + 1):
                spread[covered] = spread[covered] or value
        return spread
