"""XLSX workbooks: the sheets in order, each row with the heads of its columns."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from service.errors import UnreadableDocument
from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.markup.tables import are_heads, record_lines
from service.intake.parsing.office.package import Package
from service.intake.parsing.reading import Location, Passages, Reading


def read(source: Path, reading: Reading) -> Passages:
    """The rows of all sheets that are shown, each sheet under its name. Formulas are their last results."""
    import openpyxl

    package = Package(source, "XLSX")
    if not any(package.related(package.main, "worksheet")):
        raise UnreadableDocument("The file holds no worksheet. Save it as .xlsx and send that.")
    package.note_properties(reading)
    gap = ""
    with BytesIO(source.read_bytes()) as file:  # a path must end in .xlsx
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of extensions that it does not know
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        for sheet in book.worksheets:
            if sheet.sheet_state != "visible":
                reading.warn(f"The hidden sheet {sheet.title} was left out.")
                continue
            for first, (number, line) in enumerate(_lines(sheet, reading)):
                yield gap
                gap = "\n\n"
                yield Location(sheet=sheet.title, row=number)
                yield line if first else f"{sheet.title}\n\n{line}"
    if not gap:
        raise UnreadableDocument("The workbook holds no text: all of its sheets are empty or hidden.")


def _lines(sheet: Any, reading: Reading) -> Iterator[tuple[int, str]]:
    """The lines of a sheet with the numbers of their rows."""
    heads: list[str] = []
    waiting: tuple[int, list[str]] | None = None
    begun = False
    sheet.reset_dimensions()  # what a file says of its size may be wrong
    for number, row in enumerate(sheet.iter_rows(), start=1):
        values = [_shown(cell) for cell in row]
        if not any(values):
            continue
        if not begun and sum(map(bool, values)) > 1:
            begun = True  # what stands alone above is a title
            if are_heads(values):
                heads, waiting = values, (number, values)
                continue
        waiting = None
        yield from ((number, line) for line in record_lines(heads, values, reading.row_characters))
    if waiting is not None:
        yield from ((waiting[0], line) for line in record_lines([], waiting[1], reading.row_characters))


def _shown(cell: Any) -> str:
    """A cell's value about as its format shows it."""
    value, form = cell.value, getattr(cell, "number_format", "") or ""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat(" ") if isinstance(value, datetime.datetime) else value.isoformat()
    if isinstance(value, int | float):
        if "%" in form:
            return f"{round(value * 100, 6):g}%"
        return f"{value:.15g}"
    return str(value).translate(CLEANED).strip()
