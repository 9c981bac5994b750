"""Finding things inside the elements of a Word document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from service.intake.parsing.office.package import child, name_of
from service.intake.parsing.office.styles import is_on


def inside(element: Any, name: str) -> Iterator[Any]:
    """The rows of a table or the cells of a row, also inside content controls and tracked changes."""
    for part in element:
        if name_of(part) == name:
            yield part
        elif name_of(part) in {"sdt", "sdtContent", "ins", "customXml", "moveTo"}:
            yield from inside(part, name)


def boxes_of(element: Any) -> Iterator[Any]:
    """The outermost text boxes of a drawing; of a thing in several forms those of the first."""
    for part in element:
        name = name_of(part)
        if name == "txbxContent":
            yield part
        elif name == "AlternateContent":
            forms = [list(boxes_of(form)) for form in part]
            yield from next((boxes for boxes in forms if boxes), [])
        else:
            yield from boxes_of(part)


def shows_something(element: Any) -> bool:
    """Whether anything inside an element is shown."""
    return any(name_of(part) in {"t", "sym", "drawing", "pict", "oMath", "fldChar"} for part in element.iter())


def is_bold(row: Any) -> bool:
    """Whether all text of a row is bold."""
    runs = [run for run in row.iter() if name_of(run) == "r" and child(run, "t") is not None]
    return bool(runs) and all(is_on(child(run, "rPr", "b")) for run in runs)
