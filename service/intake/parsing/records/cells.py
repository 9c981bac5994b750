"""What the cells of a workbook show."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.office.package import Package, attribute, child, elements, name_of
from service.intake.parsing.reading import Reading

_LITERAL: Final = re.compile(r'"[^"]*"|\\.')
"""What a number format shows as it is."""

_ESCAPED: Final = re.compile(r"_x([0-9A-Fa-f]{4})_")
"""A character that the XML of a cell cannot hold, such as the end of a line from Windows."""


class Cells:
    """The texts and formats that the cells of a workbook refer to."""

    def __init__(self, package: Package, reading: Reading) -> None:
        self._reading = reading
        self._texts = [_text(entry) for part in _parts(package, "sharedStrings") for entry in _entries(package, part)]
        self._formats = [form for part in _parts(package, "styles") for form in _formats(package.tree(part))]
        properties = child(package.tree(package.main), "workbookPr")
        self._since_1904 = properties is not None and attribute(properties, "date1904", "0") in {"1", "true"}

    def shown(self, cell: Any) -> str:
        """About what a cell shows; "" for nothing."""
        kind = attribute(cell, "t", "n")
        if kind == "inlineStr":
            inner = child(cell, "is")
            return "" if inner is None else _text(inner)
        element = child(cell, "v")
        value = "" if element is None else (element.text or "").strip()
        if not value:
            if child(cell, "f") is not None and element is None:
                self._reading.warn(
                    "Formulas without a stored result were left out. Open the workbook in a spreadsheet program, save "
                    "it and send that."
                )
            return ""
        if kind == "s":
            return self._texts[int(value)] if value.isdecimal() and int(value) < len(self._texts) else ""
        if kind == "b":
            return "FALSE" if value == "0" else "TRUE"
        if kind == "n":
            return self._number(value, attribute(cell, "s"))
        return value.translate(CLEANED)

    def _number(self, value: str, style: str) -> str:
        from openpyxl.styles.numbers import is_date_format, is_timedelta_format
        from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900, from_excel

        try:
            number = float(value)
        except ValueError:
            return value.translate(CLEANED)
        form = self._formats[int(style)] if style.isdecimal() and int(style) < len(self._formats) else ""
        if is_date_format(form):
            epoch = CALENDAR_MAC_1904 if self._since_1904 else CALENDAR_WINDOWS_1900
            with suppress(ValueError, OverflowError):  # what is no date shows as a number
                return _date(from_excel(number, epoch, timedelta=is_timedelta_format(form)))
        if "%" in _LITERAL.sub("", form):
            return f"{round(number * 100, 6):g}%"
        return f"{number:.15g}"


def _date(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ")
    return value.isoformat() if isinstance(value, datetime.time) else str(value)


def _parts(package: Package, kind: str) -> Iterator[str]:
    for found, part in package.relationships(package.main).values():
        if found == kind and part in package:
            yield part


def _entries(package: Package, part: str) -> Iterator[Any]:
    return elements(package.bytes_of(part), "si")


def _text(entry: Any) -> str:
    """The characters of a text, without how to read them."""
    runs = [run for run in entry if name_of(run) in {"t", "r"}]
    texts = (text for run in runs for text in ([run] if name_of(run) == "t" else run) if name_of(text) == "t")
    characters = "".join(text.text or "" for text in texts)
    return _ESCAPED.sub(lambda code: chr(int(code[1], 16)), characters).translate(CLEANED).strip()


def _formats(styles: Any) -> Iterator[str]:
    """The number format of each style."""
    from openpyxl.styles.numbers import BUILTIN_FORMATS

    custom, forms = (child(styles, name) for name in ("numFmts", "cellXfs"))
    own = {
        attribute(form, "numFmtId"): attribute(form, "formatCode") for form in (custom if custom is not None else ())
    }
    for form in forms if forms is not None else ():
        number = attribute(form, "numFmtId", "0")
        yield own.get(number) or (BUILTIN_FORMATS.get(int(number), "") if number.isdecimal() else "")
